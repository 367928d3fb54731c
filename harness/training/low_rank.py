"""GaLore and APOLLO: AdamW's moments for matrices, kept of gradients that are projected to a few dimensions.

Both keep moments of R, a matrix G of gradients (or its transpose) whose smaller side is projected to `rank` dimensions:

    R = P' G,    N = AdamW's direction for R

GaLore (Zhao et al., 2024, arXiv:2403.03507) takes the leading singular vectors of G as P, and steps by P N. APOLLO
(Zhu et al., 2024, arXiv:2412.05270) draws P at random, and steps by G with each column j multiplied by |N_j| / |R_j|.
P is renewed every few steps. The packages of the authors are not used: galore-torch has had one version, and needs
bitsandbytes; apollo-torch allows no commercial use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Literal

import torch
from torch import nn

BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8

RENEWED_EVERY: Final = 50
"""Steps with the same projection. Both papers take 200, in fits of 10,000 steps and more; fits here take hundreds."""

SCALE_OF_GALORE: Final = (8, 2.0)
"""Rank and scale of the update; the authors fine-tune with a scale of 4 at rank 4. At other ranks, the scale is such
that the update is as large."""

GROWTH: Final = 1.01
"""Largest ratio of the norms of two updates of a matrix in APOLLO, which takes it from Fira (arXiv:2410.01623)."""


class LowRankAdamW(torch.optim.Optimizer):
    """GaLore or APOLLO with AdamW. All parameters are matrices in float32.

    Args:
        groups: torch's parameter groups, with a `weight_decay` each.
        kind: which of the two.
        rank: dimensions that gradients are projected to; fewer where a side is smaller.
        seed: of APOLLO's projections.
        lr: learning rate of groups that state none.
        scale: factor of the update; None takes the kind's own.
        renewed_every: steps with the same projection.
    """

    def __init__(
        self,
        groups: Any,
        kind: Literal["galore", "apollo"],
        rank: int,
        seed: int = 0,
        *,
        lr: float,
        scale: float | None = None,
        renewed_every: int = RENEWED_EVERY,
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self._kind, self._rank, self._seed, self._scale, self._every = kind, rank, seed, scale, renewed_every
        self._generator = torch.Generator(self.param_groups[0]["params"][0].device)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        number = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                number += 1
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - float(group["lr"]) * float(group["weight_decay"]))
                update, scale = self._update(parameter, number)
                parameter.add_(update, alpha=-float(group["lr"]) * scale)

    def _update(self, parameter: nn.Parameter, number: int) -> tuple[torch.Tensor, float]:
        """Return the direction of a matrix, and the factor that belongs to it."""
        state: dict[str, Any] = self.state[parameter]
        assert parameter.grad is not None
        is_wide = parameter.shape[0] < parameter.shape[1]
        gradient = parameter.grad if is_wide else parameter.grad.T  # the smaller side first
        smaller, rank = len(gradient), min(self._rank, len(gradient))
        if not state:
            state["step"] = 0
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros((rank, gradient.shape[1]), device=gradient.device)
        if self._kind == "apollo":
            projection = self._drawn(smaller, rank, number, state["step"] // self._every)
        else:
            if state["step"] % self._every == 0:
                state["projection"] = leading_directions(gradient, rank)
            projection = state["projection"]
        projected = projection.T @ gradient
        state["step"] += 1
        direction = self._direction(projected, state)
        if self._kind == "galore":
            update = projection @ direction
            known_rank, known_scale = SCALE_OF_GALORE
            scale = known_scale * math.sqrt(known_rank / rank)
        else:
            update = gradient * (direction.norm(dim=0) / projected.norm(dim=0).clamp_(min=1e-30))
            scale = math.sqrt(smaller / rank)  # |N_j| / |R_j| is too small by this factor on average
            norm = update.norm()
            if "norm" in state:
                allowed = torch.where(state["norm"] > 0, GROWTH * state["norm"], norm)
                shorter = (allowed / norm.clamp(min=1e-30)).clamp_(max=1.0)
                update, norm = update * shorter, norm * shorter
            state["norm"] = norm
        return (update if is_wide else update.T), scale if self._scale is None else self._scale

    def _direction(self, values: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
        """Return AdamW's direction for a projected gradient, and update its moments."""
        average, squares, step = state["exp_avg"], state["exp_avg_sq"], state["step"]
        average.lerp_(values, 1 - BETAS[0])
        squares.mul_(BETAS[1]).addcmul_(values, values, value=1 - BETAS[1])
        spread = squares.sqrt().div_(math.sqrt(1 - BETAS[1] ** step)).add_(EPSILON)
        direction: torch.Tensor = (average / spread).div_(1 - BETAS[0] ** step)
        return direction

    def _drawn(self, n: int, rank: int, number: int, period: int) -> torch.Tensor:
        """Return the random projection of a matrix in a period of steps; it is the same whenever it is drawn."""
        self._generator.manual_seed((self._seed + 1_000_003 * number + 7_919 * period) % 2**63)
        drawn = torch.randn((n, rank), generator=self._generator, device=self._generator.device)
        return drawn.div_(math.sqrt(rank))


def leading_directions(matrix: torch.Tensor, n: int) -> torch.Tensor:
    """Return the `n` leading left singular vectors of a matrix as columns, by the eigenvectors of its Gram matrix.

    Raises:
        FloatingPointError: the matrix is not finite.
    """
    scaled = matrix / matrix.norm().clamp(min=1e-30)
    if not bool(torch.isfinite(scaled).all()):
        raise FloatingPointError("A gradient is no longer finite: the fit has diverged; try a lower learning rate.")
    vectors: torch.Tensor = torch.linalg.eigh(scaled @ scaled.T).eigenvectors
    return vectors[:, -n:].flip(1).contiguous()
