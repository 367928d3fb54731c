"""Full fine-tuning that unfreezes blocks one by one during training, from the last down."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from harness.methods._by_depth import ByDepth
from harness.methods.base import Choice, SearchSpace, method
from harness.methods.bench import Bench
from harness.methods.full import FULL_SEARCH_SPACE, Full
from harness.records import Optimiser

if TYPE_CHECKING:
    from harness.measure import FlopsModel
    from harness.training import AdaptedModel, Hooks


@method
class GradualUnfreezing(ByDepth, Full):
    """Train the head alone at first, then unfreeze one block after another from the last down, the embeddings last.

    After the share s of the budget, the top n(s) groups train; the groups are the L blocks and the embeddings:

        n(s) = min(L + 1, floor(s / unfrozen_by * (L + 1)))

    Where answers are texts there is no new head, and the last block trains from the start. The paper counts epochs;
    this schedule follows the share of the budget instead. ALBERT's blocks share their weights, so it is not supported.

    Attributes:
        unfrozen_by: share of the budget after which everything trains; the stages before it are equally long.
    """

    name = "gradual-unfreezing"
    trains = "everything, from the last block down on a schedule"
    source = "Howard and Ruder, 2018, arXiv:1801.06146"
    search_space: ClassVar[SearchSpace] = {**FULL_SEARCH_SPACE, "unfrozen_by": Choice((0.3, 0.5, 0.8))}

    compacts_embedding: ClassVar[bool] = False
    optimisers: ClassVar[frozenset[Optimiser]] = Full.optimisers - {"lisa"}  # both choose which blocks train

    learning_rate: float = Field(default=3e-4, gt=0)
    unfrozen_by: float = Field(default=0.5, gt=0, lt=1)

    @model_validator(mode="after")
    def _compiles_too_often(self) -> Self:
        if self.compile:
            raise ValueError("compile=false: every change of the trained parameters would compile the blocks again")
        return self

    def select_saved(self, model: AdaptedModel, names: Collection[str]) -> None:
        """Freeze the groups that a short fit never unfroze: those below the lowest one with a saved tensor."""
        from harness.training import Stack

        name_of = {id(parameter): name for name, parameter in model.named_parameters()}
        for parameters in Stack(model.transformer).parameters_by_depth():
            group = list(parameters)
            if any(name_of.get(id(parameter)) in names for parameter in group):
                return
            for parameter in group:
                parameter.requires_grad_(False)

    def make_hooks(self, model: AdaptedModel, bench: Bench) -> Hooks:
        """Return a hook that unfreezes blocks on the schedule."""
        from harness.training import Hooks, Stack

        depths = Stack(model.transformer).parameters_by_depth()
        n_stages = len(depths)  # the head alone, then one stage per block; the embeddings end the last one
        at_least = 0 if list(model.head.parameters()) else 1  # a language model has no new head to start with
        unfrozen_by = self.unfrozen_by
        base = self.flops_key(bench)

        def unfreeze(n_groups: int) -> FlopsModel:
            """Unfreeze the top `n_groups` groups; return the operations of a batch."""
            for depth, parameters in enumerate(depths):
                for parameter in parameters:
                    parameter.requires_grad_(depth >= n_stages - n_groups)
            device = bench.device.torch_device()
            return bench.flops_model(f"{base}/{n_groups}", lambda: model.count_flops(device))

        class Unfreezing(Hooks):
            n_unfrozen = -1

            def before_step(self, fraction: float) -> Any:
                wanted = max(at_least, min(n_stages, int(fraction / unfrozen_by * n_stages)))
                if wanted == self.n_unfrozen:
                    return None
                self.n_unfrozen = wanted
                return unfreeze(wanted)

        return Unfreezing()
