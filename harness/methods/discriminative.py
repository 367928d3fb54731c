"""Full fine-tuning with learning rates that decrease from the top block down."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.methods._by_depth import ByDepth
from harness.methods.base import Range, SearchSpace, method
from harness.methods.full import FULL_SEARCH_SPACE, Full

if TYPE_CHECKING:
    from harness.training import AdaptedModel, ParameterGroup


@method
class Discriminative(ByDepth, Full):
    """Full fine-tuning in which each block learns more slowly than the one above it.

    Block l of L has its own peak learning rate; the embeddings are block 0:

        rate_l = learning_rate * layer_decay ^ (L - l)

    Lower blocks hold more general features and should change less. ALBERT's blocks share their weights, so it is not
    supported.

    Attributes:
        layer_decay: ratio of a block's learning rate to that of the block above; the embeddings count as a block.
    """

    name = "discriminative"
    trains = "everything, lower blocks more slowly"
    source = "Howard and Ruder, 2018, arXiv:1801.06146; Sun et al., 2019, arXiv:1905.05583"
    search_space: ClassVar[SearchSpace] = {**FULL_SEARCH_SPACE, "layer_decay": Range(0.3, 0.95)}

    learning_rate: float = Field(default=3e-4, gt=0)
    layer_decay: float = Field(default=0.8, gt=0, le=1)

    def parameter_groups(self, model: AdaptedModel) -> list[ParameterGroup]:
        """Return one group per block, from the embeddings up, and the head's group."""
        from harness.training import ParameterGroup, Stack

        depths = Stack(model.transformer).parameters_by_depth()
        top = len(depths) - 1
        body = [
            ParameterGroup(parameters, self.learning_rate * self.layer_decay ** (top - depth), self.weight_decay)
            for depth, parameters in enumerate(depths)
        ]
        return [*body, *self.groups([], list(model.head.parameters()))[1:]]
