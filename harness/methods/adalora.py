"""LoRA with the rank distributed over matrices by importance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from harness.methods._peft import RATE_AND_EPOCHS, LowRankMethod
from harness.methods.base import Choice, SearchSpace, method
from harness.methods.bench import Bench

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.methods._fine_tuning import Surroundings
    from harness.training import AdaptedModel, Hooks

_TICKS = 1000
"""Steps given to peft. It counts steps, but a budget may not know them; each stands for a thousandth of the budget."""


@method
class AdaLora(LowRankMethod):
    """Learn additions in the form of a singular value decomposition, and prune the least important values.

    Every matrix gets singular vectors P and Q and a vector of values e, which starts at 0:

        h = W x + (alpha / initial_rank) P diag(e) Q x

    Every matrix starts with `initial_rank`; the average ends at `rank`. Values with the lowest importance (weight times
    gradient, smoothed over steps) are set to 0. A penalty keeps P and Q orthogonal. The schedule follows the spent
    share of the budget, since a budget of seconds has no known number of steps.

    Attributes:
        initial_rank: rank before pruning.
        pruning_starts: share of the budget after which pruning starts.
        pruning_ends: share of the budget after which ranks no longer change.
        orthogonality: weight of the penalty that keeps singular vectors orthogonal.
        alpha: scale of the addition, which is multiplied by `alpha / initial_rank`.
        adapter_dropout: dropout rate at the input of the addition.
    """

    name = "adalora"
    family = "auxiliary parameters"
    trains = "additions to weight matrices with pruned singular values, and the output layer"
    source = "Zhang et al., 2023, arXiv:2303.10512; peft"
    can: ClassVar[frozenset[str]] = frozenset({"merge", "quantise"})

    version: ClassVar[int] = 2
    search_space: ClassVar[SearchSpace] = {**RATE_AND_EPOCHS, "rank": Choice((4, 8))}

    learning_rate: float = Field(default=3e-2, gt=0)
    initial_rank: int = Field(default=12, ge=1)
    pruning_starts: float = Field(default=0.15, ge=0, lt=1)
    pruning_ends: float = Field(default=0.7, gt=0, lt=1)
    orthogonality: float = Field(default=0.5, ge=0)
    adapter_dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _has_something_to_prune(self) -> Self:
        if self.rank >= self.initial_rank:
            raise ValueError(f"rank={self.rank} must be below initial_rank={self.initial_rank}, or nothing is pruned")
        return self

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration of AdaLoRA, with a thousand steps for the whole budget."""
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            init_r=self.initial_rank,
            target_r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.adapter_dropout,
            target_modules=self.target_modules(),
            total_step=_TICKS,
            tinit=round(self.pruning_starts * _TICKS),
            tfinal=round((1 - self.pruning_ends) * _TICKS),
            deltaT=1,
            orth_reg_weight=self.orthogonality,
        )

    def default_targets(self, transformer: nn.Module, peft_type: str) -> list[str] | str | None:
        """Return the matrices that LoRA adapts; peft's own list for AdaLoRA is longer."""
        return self.lora_targets(transformer)

    def make_hooks(self, model: AdaptedModel, bench: Bench) -> Hooks:
        """Return hooks that prune after each step and keep the vectors orthogonal."""
        import torch

        from harness.training import Hooks

        adalora: Any = model.transformer.base_model
        prune_on_device(adalora)
        named = list(adalora.named_parameters())
        rows_are_vectors = [value for name, value in named if "lora_A" in name]
        columns_are_vectors = [value for name, value in named if "lora_B" in name]
        weight = self.orthogonality / max(1, len(rows_are_vectors) + len(columns_are_vectors))
        last_tick = _TICKS - round((1 - self.pruning_ends) * _TICKS)

        class Pruning(Hooks):
            is_final = False

            def penalty(self) -> torch.Tensor | None:
                """Return the mean Frobenius distance of the vectors' products from the identity (equation 4)."""
                if weight == 0:
                    return None
                products = [value @ value.T for value in rows_are_vectors]
                products += [value.T @ value for value in columns_are_vectors]
                distances = [torch.linalg.norm(p - torch.eye(len(p), device=p.device)) for p in products]
                return weight * torch.stack(distances).sum()

            def after_step(self, fraction: float) -> None:
                tick = min(_TICKS, int(fraction * _TICKS))
                if self.is_final:
                    tick = max(tick, last_tick + 1)
                elif tick >= last_tick:
                    tick, self.is_final = last_tick, True  # the tick that fixes the ranks must come exactly once
                    if not adalora.rankallocator.ipt:  # on the first tick, no importance has been computed yet
                        adalora.rankallocator.update_ipt(adalora.model)
                adalora.update_and_allocate(tick)

            def at_end(self) -> None:
                """Give the pattern of ranks the shape in which peft writes it to a file."""
                for config in adalora.peft_config.values():
                    kept = config.rank_pattern or {}
                    config.rank_pattern = {name: mask.view(-1).tolist() for name, mask in kept.items()}

        return Pruning()


def prune_on_device(adalora: Any) -> None:
    """Have peft's model of AdaLoRA choose the values to prune without a wait for the device.

    peft fetches the threshold and the pattern of ranks as numbers in each step. Here both stay tensors; which values
    are pruned is the same.

    Args:
        adalora: a `peft.AdaLoraModel`, changed in place.
    """
    import torch
    from peft.tuners.adalora.layer import RankAllocator

    allocating: Any = RankAllocator

    class OnDevice(allocating):  # type: ignore[misc]
        added: _Named
        kept: dict[str, torch.Tensor]

        def update_ipt(self, _: Any) -> None:
            super().update_ipt(self.added)

        @torch.no_grad()
        def mask_to_budget(self, _: Any, budget: int) -> dict[str, torch.Tensor]:
            """Set the values with the lowest scores to 0; return which are kept, by name."""
            values = {name: value for name, value in self.added.named_parameters() if "lora_E." in name}
            scores = {}
            for name in values:
                of_rows = self._element_score(name.replace("lora_E.", "lora_A.")).mean(dim=1, keepdim=True)
                of_columns = self._element_score(name.replace("lora_E.", "lora_B.")).mean(dim=0).view(-1, 1)
                both = torch.cat([of_rows, of_columns], dim=1)
                scores[name] = self._combine_ipt(self._element_score(name), both).view(-1, 1)
            k = self.init_bgt - budget
            threshold = torch.kthvalue(torch.cat([score.view(-1) for score in scores.values()]), k=k).values
            self.kept = {name: ~(score <= threshold) for name, score in scores.items()}
            self.mask_using_rank_pattern()
            return self.kept

        @torch.no_grad()
        def mask_using_rank_pattern(self, *_: Any) -> None:
            """Set the values to 0 that are not kept: what peft gives are lists, which would be copied to the device."""
            for name, value in self.added.named_parameters():
                if name in self.kept:
                    value.masked_fill_(~self.kept[name], 0.0)

    allocator = adalora.rankallocator
    named = [(name, value) for name, value in adalora.model.named_parameters() if "lora_" in name]
    allocator.added = _Named(named)
    allocator.__class__ = OnDevice


class _Named:
    """Named parameters as a model lists them, found once."""

    def __init__(self, named: list[tuple[str, Any]]) -> None:
        self._named = named

    def named_parameters(self) -> list[tuple[str, Any]]:
        return self._named
