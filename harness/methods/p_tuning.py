"""P-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness.methods._peft import SoftPrompt
from harness.methods.base import method

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings


@method
class PTuning(SoftPrompt):
    """Learn a small network that produces the embeddings of virtual tokens before the text.

    Virtual token i has a trained vector v_i, which a perceptron with two hidden layers (ReLU) maps to an embedding:

        input = [MLP(v_1), ..., MLP(v_n), e(x_1), ..., e(x_m)]

    Only real tokens are pooled.

    Attributes:
        encoder_width: width of the network's hidden layers.
    """

    name = "p-tuning"
    family = "auxiliary parameters"
    trains = "a network that produces virtual tokens, and the output layer"
    source = "Liu et al., 2021, arXiv:2103.10385; peft"
    can: ClassVar[frozenset[str]] = frozenset({"quantise"})

    encoder_width: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=1e-2, gt=0)

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration of P-tuning with its default encoder, a multi-layer perceptron."""
        from peft import PromptEncoderConfig

        return PromptEncoderConfig(
            task_type="FEATURE_EXTRACTION",
            num_virtual_tokens=self.n_virtual_tokens,
            num_transformer_submodules=1,
            encoder_hidden_size=self.encoder_width,
            **self.sizes(transformer),
        )
