"""Orthogonal fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.methods._peft import RATE_AND_EPOCHS, PeftMethod
from harness.methods.base import Choice, SearchSpace, method

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings


@method
class Oft(PeftMethod):
    """Learn a block-diagonal orthogonal rotation of weight matrices, which preserves angles between neurons.

    The rotation R of a matrix's input has blocks R_i; each follows from a skew-symmetric matrix Q_i that trains:

        h = W R x + b,    R = diag(R_1, ..., R_n),    R_i = (I + Q_i) (I - Q_i)^-1

    Q_i starts at 0, so R starts as the identity. The Cayley transform is solved exactly, not by peft's truncated
    series.

    Attributes:
        block_size: rows of a block of the rotation; peft takes the nearest size that divides the matrices' width.
        targets: matrices to adapt: `attention` (peft's default for the architecture) or `all-linear`.
    """

    name = "oft"
    version: ClassVar[int] = 2
    family = "auxiliary parameters"
    trains = "block-diagonal rotations of weight matrices, and the output layer"
    source = "Qiu et al., 2023, arXiv:2306.07280; peft"
    can: ClassVar[frozenset[str]] = frozenset({"merge", "quantise"})
    search_space: ClassVar[SearchSpace] = {**RATE_AND_EPOCHS, "block_size": Choice((16, 32))}

    block_size: int = Field(default=32, ge=2)
    targets: Literal["attention", "all-linear"] = "attention"

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration of OFT."""
        from peft import OFTConfig

        targets = "all-linear" if self.targets == "all-linear" else None
        # peft's default is a truncated series, which is no longer a rotation at large angles.
        return OFTConfig(r=0, oft_block_size=self.block_size, target_modules=targets, use_cayley_neumann=False)

    def adapt(self, transformer: nn.Module, bench: Surroundings) -> nn.Module:
        """Return the transformer wrapped by peft; the Cayley transform does not wait for the solver's verdict."""
        import torch
        from peft.tuners.oft.layer import OFTRotationModule

        def solve(matrix: torch.Tensor) -> torch.Tensor:
            # I + Q has an inverse for each skew-symmetric Q, so that there is nothing to check.
            unit = torch.eye(matrix.shape[-1], device=matrix.device).expand_as(matrix)
            found: torch.Tensor = torch.linalg.solve_ex(unit + matrix, unit - matrix, left=False).result
            return found

        adapted = super().adapt(transformer, bench)
        rotations: list[Any] = [module for module in adapted.modules() if isinstance(module, OFTRotationModule)]
        for module in rotations:
            skew = module._pytorch_skew_symmetric
            module._cayley_batch = lambda vector, size, *_, skew=skew: solve(skew(vector, size))
        return adapted
