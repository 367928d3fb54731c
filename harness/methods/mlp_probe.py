"""Multi-layer perceptron on frozen features, to measure the gain of one non-linear layer over a linear probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.methods._frozen_gradient import TrainedOnFeatures
from harness.methods.base import Choice, Range, SearchSpace, method
from harness.methods.bench import Bench

if TYPE_CHECKING:
    from torch import nn


@method
class MlpProbe(TrainedOnFeatures):
    """Train a network with one hidden layer (ReLU) by gradient on frozen pooled vectors.

    Each text is encoded once as a vector z, and only the small network runs in a step:

        p = softmax(W_2 relu(W_1 z + b_1) + b_2)

    Its distance to `linear-probe` shows the gain of one non-linear layer. `dropout` applies to the hidden layer.

    Attributes:
        hidden_size: number of units of the hidden layer.
    """

    name = "mlp-probe"
    family = "frozen features"
    trains = "a perceptron with one hidden layer on pooled features"
    source = "Hewitt and Liang, 2019, arXiv:1909.03368; Rumelhart et al., 1986, doi:10.1038/323533a0"
    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(3e-4, 1e-2, log=True),
        "hidden_size": Choice((64, 256, 1024)),
    }

    hidden_size: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    epochs: float = Field(default=20, gt=0)
    min_steps: int = Field(default=200, ge=1)

    def network(self, width: int, bench: Bench) -> nn.Module:
        """Return a linear layer, a ReLU, and the protocol's head on the hidden units."""
        from torch import nn

        head = bench.form.head(self.hidden_size, bench.n_outputs, self.dropout)
        return nn.Sequential(nn.Linear(width, self.hidden_size), nn.ReLU(), head)
