"""Train only the biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.backbones import BackboneFiles
from harness.methods._fine_tuning import FineTuning
from harness.methods._weights import FrozenWeights
from harness.methods.base import Choice, Range, SearchSpace, method

if TYPE_CHECKING:
    from torch import nn


@method
class BitFit(FrozenWeights, FineTuning):
    """Train only the bias terms of the transformer, including those of its norms, and the new output layer.

    In every layer the matrix W is fixed and the bias b trains:

        h = W x + b

    Backbones without biases (Llama, T5) are not supported.
    """

    name = "bitfit"
    family = "partial fine-tuning"
    trains = "bias terms, and the output layer"
    source = "Ben Zaken et al., 2022, arXiv:2106.10199"
    can: ClassVar[frozenset[str]] = frozenset({"vllm"})
    needs = "biases"
    # Version 1 mistook the bias of the language-modelling head for one of the transformer's, and trained nothing.
    mended: ClassVar[Mapping[str, int]] = {"modernbert": 2, "modernbert-decoder": 2}
    share_trained: ClassVar[float] = 0.0
    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(3e-4, 1e-2, log=True),
        "epochs": Choice((4.0, 8.0, 16.0)),
    }

    learning_rate: float = Field(default=3e-3, gt=0)
    epochs: float = Field(default=6, gt=0)

    def why_unsupported(self, kind: str, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also a backbone without biases."""
        reason = super().why_unsupported(kind, files, device)
        if (
            reason is None
            and files is not None
            and files.has_weights
            and not any(name.endswith(".bias") for name in files.tensor_names())
        ):
            return f"'{self.name}' trains biases; backbone '{files.name}' has none. Use layer-norm or lora."
        return reason

    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """Yield every parameter named a bias."""
        for name, parameter in transformer.named_parameters():
            if name.endswith("bias"):
                yield parameter
