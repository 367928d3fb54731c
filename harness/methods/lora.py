"""Low-rank adaptation, by peft."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from harness.methods._fine_tuning import FineTuning
from harness.methods.base import method

if TYPE_CHECKING:
    from torch import nn


@method
class Lora(FineTuning):
    """Learn a low-rank addition to weight matrices of the transformer, which itself stays fixed.

    `targets` is which matrices: `attention` (peft's default for the architecture: queries and values) or `all-linear`.
    """

    name = "lora"
    family = "auxiliary parameters"
    trains = "low-rank additions to weight matrices, and the output layer"
    source = "Hu et al., 2021, arXiv:2106.09685; peft"

    rank: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)
    adapter_dropout: float = Field(default=0.1, ge=0, lt=1)
    targets: Literal["attention", "all-linear"] = "attention"
    learning_rate: float = Field(default=3e-3, gt=0)
    epochs: float = Field(default=6, gt=0)

    def warm_up(self) -> None:
        """Import peft too: that takes seconds."""
        super().warm_up()
        import peft  # noqa: F401

    def adapt(self, transformer: nn.Module) -> nn.Module:
        """The transformer wrapped by peft."""
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.adapter_dropout,
            target_modules="all-linear" if self.targets == "all-linear" else None,
        )
        with warnings.catch_warnings():  # peft asks transformers by a name that it is renaming
            warnings.simplefilter("ignore", FutureWarning)
            wrapped: nn.Module = get_peft_model(transformer, config)
        return wrapped

    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """What peft added and marked as trained."""
        for parameter in transformer.parameters():
            if parameter.requires_grad:
                yield parameter
