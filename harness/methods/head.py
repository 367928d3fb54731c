"""Train only the new output layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.methods._frozen_gradient import TrainedOnFeatures
from harness.methods.base import Range, SearchSpace, method
from harness.methods.bench import Bench

if TYPE_CHECKING:
    from torch import nn


@method
class Head(TrainedOnFeatures):
    """Train the output layer by gradient on the pooled vectors of the frozen backbone, in evaluation mode.

    The layer is the one that every method that trains by gradient puts on the pooled vector z:

        p = softmax(W dropout(z) + b)

    The backbone's vectors never change, so each text is encoded once and only the linear layer runs in a step.
    """

    name = "head"
    family = "partial fine-tuning"
    trains = "the output layer"
    source = "Howard and Ruder, 2018, arXiv:1801.06146 (first stage); Peters et al., 2019, arXiv:1903.05987"
    search_space: ClassVar[SearchSpace] = {"learning_rate": Range(3e-4, 3e-2, log=True)}

    epochs: float = Field(default=20, gt=0)
    min_steps: int = Field(default=200, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)

    def network(self, width: int, bench: Bench) -> nn.Module:
        """Return the protocol's head: dropout and one linear layer."""
        return bench.form.head(width, bench.n_outputs, self.dropout)
