"""Base class of methods that train weights of the transformer itself: how these and the optimiser's state are kept."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Final, Self

from pydantic import Field, model_validator

from harness.backbones import BackboneFiles
from harness.methods._fine_tuning import FineTuning
from harness.methods.bench import Bench
from harness.records import OF_MATRICES, RANKED, TRAINED_BYTES, Budget, Masters, Optimiser, Workload
from harness.support import UnsupportedError
from harness.tasks import Rows

if TYPE_CHECKING:
    from torch import nn

    from harness.measure import FlopsModel
    from harness.methods.base import Fitted
    from harness.training import AdaptedModel, Hooks, ParameterGroup

_RANK: Final = 8
_BLOCKS: Final = 2


class OwnWeights(FineTuning):
    """Train weights of the transformer itself.

    Attributes:
        masters: how trained matrices of the transformer, gradients and moments are kept. `float32` takes 16 bytes for
            each weight, `bfloat16-stochastic` 8 (stochastic rounding) and `bfloat16-kahan` 10 (Kahan summation). The
            last two need products in bfloat16. Vectors and the output layer stay float32.
        optimiser: `adamw` keeps two float32 moments for each trained number, `adamw-8bit` keeps them in 8 bits
            (bitsandbytes). For the matrices of blocks, `adafactor` keeps a second moment by rows and columns, `muon`
            one moment, and `galore` and `apollo` moments of projected gradients. `lisa` is AdamW on a few blocks at a
            time.
        optimiser_rank: dimensions that `galore` and `apollo` project gradients to.
        optimiser_blocks: blocks that `lisa` trains at a time.
    """

    newer_settings: ClassVar[frozenset[str]] = FineTuning.newer_settings | {
        "masters",
        "optimiser_rank",
        "optimiser_blocks",
    }
    optimisers: ClassVar[frozenset[Optimiser]] = FineTuning.optimisers | OF_MATRICES

    masters: Masters = "float32"
    optimiser_rank: int = Field(default=_RANK, ge=1)
    optimiser_blocks: int = Field(default=_BLOCKS, ge=1)

    @model_validator(mode="after")
    def _masters_fit(self) -> Self:
        if self.masters == "float32":
            return self
        if (self.optimiser, self.masters) not in TRAINED_BYTES:
            raise ValueError(
                f"optimiser={self.optimiser} needs masters=float32; masters={self.masters} goes with AdamW, whose "
                "moments it keeps in bfloat16. Leave one of the two out"
            )
        if self.precision == "fp32":
            raise ValueError(f"masters={self.masters} needs products in bfloat16. Use precision=auto or bf16")
        return self

    @model_validator(mode="after")
    def _optimiser_fits(self) -> Self:
        if self.optimiser_rank != _RANK and self.optimiser not in RANKED:
            raise ValueError(f"optimiser_rank is for optimiser={' or '.join(sorted(RANKED))}; leave it out")
        if self.optimiser_blocks != _BLOCKS and self.optimiser != "lisa":
            raise ValueError("optimiser_blocks is for optimiser=lisa; leave it out")
        if self.optimiser == "lisa" and self.compile:
            raise ValueError("compile=false: every draw of blocks would compile them again")
        return self

    def why_unsupported(self, kind: str, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also a backbone with fewer blocks than are to train at a time."""
        reason = super().why_unsupported(kind, files, device)
        known = files.n_blocks if files is not None else None
        if reason is None and files is not None and self.optimiser == "lisa" and (known or 0) < self.optimiser_blocks:
            return (
                f"optimiser=lisa trains {self.optimiser_blocks} blocks at a time here; backbone '{files.name}' has "
                f"{known or 'none that are known'}. Use fewer optimiser_blocks, or another optimiser."
            )
        return reason

    def needs_modules(self) -> str:
        """Return the optimiser where it needs blocks or matrices."""
        return self.optimiser if self.optimiser == "lisa" or self.optimiser in OF_MATRICES else ""

    def check(self, transformer: nn.Module) -> None:
        """Refuse a transformer without the blocks that are to be drawn, or the matrices that are to be updated."""
        from harness.training import Stack, check_matrices

        super().check(transformer)
        if self.optimiser == "lisa":
            _ = Stack(transformer).all_blocks
        if self.optimiser in OF_MATRICES:
            check_matrices(transformer)

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload: blocks that rest need no gradients of their weights."""
        whole = super().workload(n_train, budget, n_blocks)
        if self.optimiser != "lisa" or n_blocks == 0:
            return whole
        resting = max(0.0, 1.0 - self.optimiser_blocks / n_blocks)
        return dataclasses.replace(whole, passes_per_text=whole.passes_per_text - resting * self.share_trained)

    def rated_groups(self, model: AdaptedModel, bench: Bench) -> list[ParameterGroup]:
        """Return the parameter groups; those of matrices are apart if an optimiser for matrices updates them."""
        if self.optimiser not in OF_MATRICES:
            return super().rated_groups(model, bench)
        from harness.training import RATES, WIDTH_EXPONENTS, set_matrices_apart

        groups = set_matrices_apart(self.parameter_groups(model), model.transformer)
        groups = self.at_width(groups, bench, WIDTH_EXPONENTS.get(self.optimiser, 1.0))
        found = [group for group in groups if group.is_of_matrices]
        matrices = [parameter for group in found for parameter in group.parameters]
        numbers = sum(matrix.numel() for matrix in matrices)
        rate = max(group.learning_rate for group in found) * RATES.get(self.optimiser, 1.0)
        bench.ledger.remarks["optimiser"] = (
            f"{self.optimiser} for the {numbers:,} numbers of {len(matrices)} matrices, "
            f"with a rate of {rate:.3g}; AdamW for the rest"
        )
        return groups

    def make_hooks(self, model: AdaptedModel, bench: Bench) -> Hooks | None:
        """Return hooks that draw the blocks that train."""
        if self.optimiser != "lisa":
            return super().make_hooks(model, bench)
        from harness.training import SampledBlocks, Stack

        device, base = bench.device.torch_device(), self.flops_key(bench)

        def count(key: str) -> FlopsModel:
            return bench.flops_model(f"{base}/lisa/{key}", lambda: model.count_flops(device))

        return SampledBlocks(
            Stack(model.transformer).all_blocks, self.optimiser_blocks, bench.seeded("sampled blocks"), count
        )

    def flops_key(self, bench: Bench) -> str:
        """Return another key where some blocks rest."""
        resting = f"/lisa/{self.optimiser_blocks}" if self.optimiser == "lisa" else ""
        return f"{super().flops_key(bench)}{resting}"

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Train on the rows until the budget is spent.

        Raises:
            UnsupportedError: matrices are to be kept in bfloat16, and this device computes in float32.
        """
        if self.masters != "float32" and bench.precision(self.precision) == "fp32":
            raise UnsupportedError(
                f"'{self.name}' with masters={self.masters} needs products in bfloat16; this device computes in "
                "float32. Use masters=float32, or precision=bf16 where slow products will do."
            )
        return super().fit(rows, bench)

    def prepare(self, model: AdaptedModel) -> None:
        """Round the trained matrices to bfloat16 if they are kept so."""
        if self.masters != "float32":
            from harness.training import narrow_trained

            narrow_trained(model.transformer)
