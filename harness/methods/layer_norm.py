"""Train only the norms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.methods._fine_tuning import FineTuning
from harness.methods._weights import FrozenWeights
from harness.methods.base import Choice, Range, SearchSpace, method

if TYPE_CHECKING:
    from torch import nn


@method
class LayerNorm(FrozenWeights, FineTuning):
    """Train only the gains and biases of the transformer's norms (LayerNorm, RMSNorm), and the new output layer.

    A norm rescales each hidden vector h, here LayerNorm; its gain g and bias b train:

        y = g * (h - mean(h)) / sd(h) + b

    The norms of the embeddings train too.
    """

    name = "layer-norm"
    family = "partial fine-tuning"
    trains = "gains and biases of the norms, and the output layer"
    source = "Qi et al., 2022, arXiv:2211.08682; Houlsby et al., 2019, arXiv:1902.00751 (section 3.4)"
    can: ClassVar[frozenset[str]] = frozenset({"vllm"})
    share_trained: ClassVar[float] = 0.0
    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "epochs": Choice((4.0, 8.0, 16.0)),
    }

    learning_rate: float = Field(default=1e-2, gt=0)
    epochs: float = Field(default=6, gt=0)

    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """Yield the parameters of every module whose class name ends in Norm: architectures define their own."""
        for module in transformer.modules():
            if type(module).__name__.endswith("Norm"):
                yield from module.parameters(recurse=False)
