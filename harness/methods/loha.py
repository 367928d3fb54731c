"""Low-rank Hadamard products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from harness.methods._peft import LowRankMethod
from harness.methods.base import method

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings


@method
class LoHa(LowRankMethod):
    """Learn an addition to weight matrices: the elementwise product of two low-rank matrices, of rank `rank ** 2`.

    Each factor is a product of two small matrices, as in LoRA; `*` is elementwise:

        h = W x + (alpha / r) ((B_1 A_1) * (B_2 A_2)) x

    A_2 starts at 0. The rank of the addition is at most r^2, with twice LoRA's parameters.
    """

    name = "loha"
    family = "auxiliary parameters"
    trains = "Hadamard products of low-rank matrices, and the output layer"
    source = "Hyeon-Woo et al., 2021, arXiv:2108.06098; peft"
    can: ClassVar[frozenset[str]] = frozenset({"merge", "convert-to-lora"})

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration of LoHa."""
        from peft import LoHaConfig

        return LoHaConfig(r=self.rank, alpha=self.alpha, target_modules=self.target_modules())
