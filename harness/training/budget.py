"""Progress of a fit: the largest fraction spent of the caps that its budget names.

Training stops at the first cap that is spent. The learning-rate schedule follows the fraction, so that a fit that is
cut by seconds still ends at the schedule's floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from harness.records import Budget

Schedule = Literal["linear", "cosine", "constant", "slanted-triangular", "inverse-sqrt"]


@dataclass
class BudgetProgress:
    """The spending of one fit, compared with its budget.

    Args:
        budget: the cell's budget.
        default_steps: optimiser steps where the budget names neither epochs nor steps; the method's own default.
        steps_per_epoch: optimiser steps of one pass over the training rows.
        train_seconds: returns the counted seconds so far, encoding and tuning included.
        flops: operations already spent when fitting starts (encoding).
        step: optimiser steps taken.
    """

    budget: Budget
    default_steps: int
    steps_per_epoch: int
    train_seconds: Callable[[], float]
    flops: float = 0.0
    step: int = 0

    @property
    def step_limit(self) -> int:
        """Maximum number of optimiser steps; another cap may end the fit earlier."""
        limits = []
        if self.budget.steps is not None:
            limits.append(self.budget.steps)
        if self.budget.epochs is not None:
            limits.append(max(1, math.ceil(self.budget.epochs * self.steps_per_epoch - 1e-9)))
        return min(limits) if limits else self.default_steps

    def fractions(self) -> dict[str, float]:
        """Return the fraction spent of each cap, by its name; `epochs` stands for the method's default too."""
        spent: dict[str, float] = {}
        if self.budget.steps is not None:
            spent["steps"] = self.step / self.budget.steps
        if self.budget.epochs is not None:
            spent["epochs"] = self.step / max(1, math.ceil(self.budget.epochs * self.steps_per_epoch - 1e-9))
        if not spent:
            spent["epochs"] = self.step / self.default_steps
        if self.budget.train_seconds is not None:
            spent["train_seconds"] = self.train_seconds() / self.budget.train_seconds
        if self.budget.train_flops is not None:
            spent["train_flops"] = self.flops / self.budget.train_flops
        return spent

    def fraction(self) -> float:
        """Return the largest fraction spent, at most 1."""
        return min(1.0, max(self.fractions().values()))

    def stopped_by(self) -> str | None:
        """Return the cap that is spent, if any."""
        name, fraction = max(self.fractions().items(), key=lambda item: item[1])
        return name if fraction >= 1.0 - 1e-9 else None


_SLANTED_RATIO = 32.0
"""Ratio of the slanted triangular learning rate's peak to its start and end (Howard and Ruder, 2018)."""

_LEAST_WARMUP = 0.01
"""Fraction at which an inverse square root without warm-up starts to fall: at 0 it would be infinite."""


def learning_rate_factor(schedule: Schedule, fraction: float, warmup: float) -> float:
    """Return the factor of the learning rate at `fraction` of the budget.

    It rises linearly over the first `warmup` of the budget. Then `schedule` decides:

    - `linear`, `cosine`: falls to 0 at its end;
    - `constant`: stays;
    - `slanted-triangular`: starts at 1/32 and falls linearly to 1/32 (Howard and Ruder, 2018, arXiv:1801.06146);
    - `inverse-sqrt`: falls with the square root of the fraction, to sqrt(warmup) (Vaswani et al., 2017,
      arXiv:1706.03762).
    """
    rising = warmup > 0 and fraction < warmup
    rest = min(1.0, max(0.0, (fraction - warmup) / max(1e-12, 1.0 - warmup)))
    if schedule == "slanted-triangular":
        height = fraction / warmup if rising else 1.0 - rest
        return (1.0 + height * (_SLANTED_RATIO - 1.0)) / _SLANTED_RATIO
    if rising:
        return fraction / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "inverse-sqrt":
        start = max(warmup, _LEAST_WARMUP)
        return math.sqrt(start / max(start, fraction))
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * rest))
    return 1.0 - rest
