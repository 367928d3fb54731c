"""Full fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.methods._fine_tuning import FineTuning
from harness.methods.base import method

if TYPE_CHECKING:
    from torch import nn


@method
class Full(FineTuning):
    """Train every parameter of the transformer, and the new output layer."""

    name = "full"
    family = "full fine-tuning"
    trains = "everything"
    source = "Devlin et al., 2019, arXiv:1810.04805"

    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """All of them."""
        yield from transformer.parameters()
