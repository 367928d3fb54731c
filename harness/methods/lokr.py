"""Low-rank Kronecker products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness.methods._peft import LowRankMethod
from harness.methods.base import method

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings


@method
class LoKr(LowRankMethod):
    """Learn an addition to weight matrices: the Kronecker product of a small and a low-rank matrix.

    C is a small full matrix, and B A has rank r; kron puts a scaled copy of B A in the place of each entry of C:

        h = W x + (alpha / r) kron(C, B A) x

    C starts at 0. peft chooses the shapes: both sides of W are split into two factors of similar size. Where B A would
    be no smaller than a full matrix, one full matrix takes its place.
    """

    name = "lokr"
    family = "auxiliary parameters"
    trains = "Kronecker products of small matrices, and the output layer"
    source = "Yeh et al., 2023, arXiv:2309.14859; Edalati et al., 2022, arXiv:2212.10650; peft"
    can: ClassVar[frozenset[str]] = frozenset({"merge", "convert-to-lora"})

    learning_rate: float = Field(default=1e-2, gt=0)

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration of LoKr."""
        from peft import LoKrConfig

        return LoKrConfig(r=self.rank, alpha=self.alpha, target_modules=self.target_modules())
