"""Steps of low-rank pairs: gradients of A and B that are multiplied by the inverse of the other matrix's products."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import nn

from harness.training.loop import Hooks

_DAMPING: Final = {"lora-fa": 1e-8, "riemannian": 1e-2}
"""Number that is added to the diagonal before inverting; peft's defaults."""


@dataclass(frozen=True, eq=False)
class LowRankPair:
    """The two matrices of an addition.

    Attributes:
        a: shape (rank, inputs).
        b: shape (outputs, rank).
        scale: factor of their product.
    """

    a: nn.Parameter
    b: nn.Parameter
    scale: float


class LowRankSteps(Hooks):
    """Gradients of low-rank pairs, changed before each step.

    `riemannian` (Zhang and Pilanci, 2024, arXiv:2402.02347) scales both:

        g_A <- (B^T B + d I)^-1 g_A,    g_B <- g_B (A A^T + d I)^-1

    `lora-fa` (Zhang et al., 2023, arXiv:2308.03303, as peft has it) leaves A fixed, and gives B the gradient whose
    product with A is nearest to that of the whole matrix:

        g_B <- g_B (A A^T + d I)^-1 / scale^2

    Args:
        pairs: the pairs; parameters without a gradient stay.
        rule: one of the two.
    """

    def __init__(self, pairs: Sequence[LowRankPair], rule: Literal["lora-fa", "riemannian"]) -> None:
        self._rule = rule
        self._by_rank: dict[int, list[LowRankPair]] = defaultdict(list)
        for pair in pairs:
            self._by_rank[len(pair.a)].append(pair)

    @torch.no_grad()
    def before_update(self) -> None:
        """Multiply the gradients; small matrices of the same rank are inverted together."""
        for pairs in self._by_rank.values():
            of_a = self._inverses([pair.a @ pair.a.T for pair in pairs])
            is_riemannian = self._rule == "riemannian"
            of_b = self._inverses([pair.b.T @ pair.b for pair in pairs]) if is_riemannian else of_a
            for pair, for_b, for_a in zip(pairs, of_a, of_b, strict=True):
                if pair.b.grad is not None:
                    divisor = 1.0 if is_riemannian else pair.scale**2
                    pair.b.grad.copy_(pair.b.grad @ for_b / divisor)
                if is_riemannian and pair.a.grad is not None:
                    pair.a.grad.copy_(for_a @ pair.a.grad)

    def _inverses(self, products: list[torch.Tensor]) -> torch.Tensor:
        stacked = torch.stack(products)
        eye = torch.eye(stacked.shape[-1], dtype=stacked.dtype, device=stacked.device)
        inverses: torch.Tensor = torch.linalg.inv_ex(stacked + _DAMPING[self._rule] * eye).inverse
        return inverses
