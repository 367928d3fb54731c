"""The setting of methods that hold a frozen backbone: how its weights are stored."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from harness.backbones import Weights
from harness.methods.base import Method


class FrozenWeights(Method):
    """A method whose backbone stays frozen, at least in part.

    Attributes:
        weights: storage of the frozen weights. `auto` stores matrices in bfloat16 where the forward pass is in
            bfloat16, which gives the same scores in half the memory. `float32` rounds nothing, with the same scores.
            `bfloat16` rounds the vocabulary of a float32 file too, which changes scores.
    """

    weights: Weights = "auto"

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the settings that came later with their defaults; `weights` is one."""
        return {**super().defaults(), "weights": "auto"}

    @property
    def storage(self) -> Weights:
        """The storage of the frozen weights that was asked for."""
        return self.weights

    @model_validator(mode="after")
    def _computes_in_bfloat16(self) -> Self:
        if self.weights == "bfloat16" and getattr(self, "precision", "auto") == "fp32":
            raise ValueError("weights=bfloat16 needs products in bfloat16. Use weights=auto, or precision=bf16")
        return self
