"""Vector-based random matrix adaptation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness.methods._peft import LowRankMethod
from harness.methods.base import Choice, Range, SearchSpace, method
from harness.records import Budget

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings


@method
class Vera(LowRankMethod):
    """Train two scaling vectors per layer around two fixed random low-rank matrices that all layers share.

    A and B are random and frozen; the vectors d (length r) and b (length out) train:

        h = W x + b * (B (d * (A x)))

    b starts at 0 and d at 0.1. A and B follow from the cell's seed, so they are neither saved nor counted as trained.
    `alpha` has no effect here and must keep its default.

    Attributes:
        adapter_dropout: dropout rate at the input of the addition.
    """

    name = "vera"
    family = "auxiliary parameters"
    trains = "two scaling vectors per matrix, and the output layer"
    source = "Kopiczko et al., 2023, arXiv:2310.11454; peft"
    can: ClassVar[frozenset[str]] = frozenset({"merge", "convert-to-lora", "quantise"})
    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(3e-3, 1e-1, log=True),
        "epochs": Choice((4.0, 8.0, 16.0)),
        "rank": Choice((64, 256)),
    }

    rank: int = Field(default=256, ge=1)
    alpha: int = Field(default=16, ge=16, le=16)
    adapter_dropout: float = Field(default=0.0, ge=0, lt=1)
    learning_rate: float = Field(default=3e-2, gt=0)

    def n_added(self, width: int, n_blocks: int) -> float:
        """Return the length of the vectors that scale the shared matrices."""
        return self.workload(1, Budget(), n_blocks).additions * (width + self.rank) * n_blocks

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration of VeRA; the cell's seed restores its random matrices, which are not saved."""
        from peft import VeraConfig

        return VeraConfig(
            r=self.rank,
            target_modules=self.target_modules(),
            vera_dropout=self.adapter_dropout,
            projection_prng_key=bench.seeded("random projections") % 2**32,
            save_projection=False,
        )
