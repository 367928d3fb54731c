"""Weight-decomposed low-rank adaptation."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import model_validator

from harness.methods.base import method
from harness.methods.lora import Lora


@method
class Dora(Lora):
    """LoRA for the direction of each column of a weight matrix, and a trained scalar for its length.

    A column is the weights of one output unit (a row, as torch stores the matrix). The vector m holds the lengths:

        h = m * (V x) / |V|,    V = W + (alpha / r) B A

    |V| is the length per output unit, and counts as a constant in the gradient. m starts at |W| and B at 0. So `init`
    may be one whose first product is 0 and that trains both A and B.
    """

    name = "dora"
    rounds_nothing: ClassVar[bool] = True  # it adds to the matrices and takes their norms
    trains = "low-rank additions and column lengths of weight matrices, and the output layer"
    source = "Liu et al., 2024, arXiv:2402.09353; peft"
    can: ClassVar[frozenset[str]] = frozenset({"merge", "quantise"})
    inits: ClassVar[frozenset[str]] = frozenset({"default", "gaussian", "orthogonal", "eva"})

    @model_validator(mode="after")
    def _trains_both(self) -> Self:
        if self.update == "lora-fa":
            raise ValueError("update=lora-fa takes the scale of A B to be fixed; dora learns it. Use lora or rslora")
        return self

    def variant(self) -> dict[str, Any]:
        """Turn on the decomposition into direction and length."""
        return {"use_dora": True}
