"""Low-rank adaptation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness.methods._lora_settings import LoraSettings
from harness.methods.base import method

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings


@method
class Lora(LoraSettings):
    """Learn a low-rank addition to weight matrices of the transformer, which itself stays fixed.

    An adapted matrix W gets two small matrices, A of shape (r, in) and B of shape (out, r):

        h = W x + (alpha / r) B A x

    B starts at 0, so training starts from the pretrained function; r is `rank`. `init` names other initial values.

    Attributes:
        adapter_dropout: dropout rate at the input of the addition.
    """

    name = "lora"
    family = "auxiliary parameters"
    trains = "low-rank additions to weight matrices, and the output layer"
    source = "Hu et al., 2021, arXiv:2106.09685; peft"
    can: ClassVar[frozenset[str]] = frozenset({"merge", "convert-to-lora", "quantise", "vllm"})

    adapter_dropout: float = Field(default=0.1, ge=0, lt=1)

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration of LoRA."""
        return self.lora_config(transformer, lora_dropout=self.adapter_dropout, **self.variant())

    def variant(self) -> dict[str, Any]:
        """Return further arguments of peft's configuration for a variant of LoRA."""
        return {}
