"""Full fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from harness.methods._masters import OwnWeights
from harness.methods.base import Choice, Range, SearchSpace, method
from harness.records import Optimiser

if TYPE_CHECKING:
    from torch import nn

FULL_SEARCH_SPACE: SearchSpace = {
    "learning_rate": Range(1e-5, 5e-4, log=True),
    "weight_decay": Choice((0.0, 0.01, 0.1)),
    "epochs": Choice((3.0, 6.0, 10.0)),
}
"""Search space for training a whole pretrained transformer."""


@method
class Full(OwnWeights):
    """Train every parameter of the transformer, and the new output layer.

    The weights w of the transformer start from pretraining, those of the head from random values. AdamW minimises the
    cross-entropy over both:

        minimise  mean of -log p(y | head(f_w(x)))
    """

    name = "full"
    family = "full fine-tuning"
    share_trained = 1.0
    trains_everything = True
    trains = "everything"
    source = "Devlin et al., 2019, arXiv:1810.04805"
    can: ClassVar[frozenset[str]] = frozenset({"vllm"})
    search_space: ClassVar[SearchSpace] = FULL_SEARCH_SPACE
    optimisers: ClassVar[frozenset[Optimiser]] = OwnWeights.optimisers | {"lisa"}

    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """Yield all parameters."""
        yield from transformer.parameters()
