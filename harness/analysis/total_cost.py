"""Compare the cost of training with that of prompting: totals, and the number of predictions at which they meet.

The cost of N predictions is `fixed + N * each`. Two such lines cross at most once. The number of predictions at which
they do is the break-even. Its interval takes the spread over records into account: costs of one configuration are
taken as log-normal, and their centres as Student-t distributed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from harness.support import text

Outcome = Literal["from the first", "after", "until", "never"]
"""When training costs less than prompting.

- `from the first`: at any number of predictions.
- `after`: once more than `BreakEven.n` predictions are made.
- `until`: up to `BreakEven.n` predictions; each later one is dearer than by prompting.
- `never`: at no number of predictions.
"""

_DRAWS: Final = 20_000
"""Number of draws for an interval: its ends then vary by about 1 % of their distance."""


@dataclass(frozen=True)
class Expenses:
    """Costs of one configuration as its records measured them, in one unit: seconds, or a currency.

    Attributes:
        training: cost of training, one value for each record.
        each: cost of one prediction, one value for each record.
        labels: price of the labels, the same for all records.
    """

    training: tuple[float, ...]
    each: tuple[float, ...]
    labels: float = 0.0

    def __post_init__(self) -> None:
        values = np.array([*self.training, *self.each, self.labels], dtype=np.float64)
        if not self.training or len(self.training) != len(self.each):
            raise ValueError(
                f"{len(self.training)} costs of training and {len(self.each)} of a prediction were given; expected "
                "one of each for every record, and at least one record."
            )
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError("A cost is negative or not finite; expected numbers of at least 0.")

    @property
    def fixed(self) -> float:
        """Cost before the first prediction: the geometric mean of the cost of training, and the labels."""
        return centre(self.training) + self.labels

    @property
    def per_prediction(self) -> float:
        """Cost of one prediction: the geometric mean over records."""
        return centre(self.each)

    def total(self, n: float) -> float:
        """Return the cost of `n` predictions, with training and labels."""
        return self.fixed + n * self.per_prediction

    @property
    def has_spread(self) -> bool:
        """Whether there are records enough to tell how costs vary."""
        return len(self.training) > 1


def centre(values: Sequence[float]) -> float:
    """Return the geometric mean of costs, the median of a log-normal cost; the mean where one of them is 0."""
    found = np.asarray(values, dtype=np.float64)
    if (found <= 0).any():
        return float(found.mean())
    if np.ptp(found) == 0:  # without rounding
        return float(found[0])
    return float(np.exp(np.log(found).mean()))


@dataclass(frozen=True)
class BreakEven:
    """Number of predictions at which training begins, or ceases, to cost less than prompting.

    Attributes:
        outcome: when training costs less.
        n: number of predictions at which both cost the same; None where there is none above 0.
        low, high: ends of the 95 % interval of the number. `high` is None where the interval has no upper end. Both
            are None where one of the two has a single record.
        has_interval: whether there is an interval.
    """

    outcome: Outcome
    n: float | None = None
    low: float | None = None
    high: float | None = None
    has_interval: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "outcome": self.outcome,
            "predictions": self.n,
            "low": self.low,
            "high": self.high,
            "has_interval": self.has_interval,
        }


def crossing(fixed_trained: float, each_trained: float, fixed_prompted: float, each_prompted: float) -> BreakEven:
    """Return the break-even of four known costs, in closed form and without an interval.

    The two totals are equal at N = (fixed_trained - fixed_prompted) / (each_prompted - each_trained). Equal costs
    count for prompting, since it needs no further work.
    """
    more, saved = fixed_trained - fixed_prompted, each_prompted - each_trained
    if saved > 0:
        return BreakEven("after", more / saved) if more > 0 else BreakEven("from the first")
    if saved < 0 and more < 0:
        return BreakEven("until", more / saved)
    return BreakEven("from the first") if more < 0 else BreakEven("never")


def break_even(trained: Expenses, prompted: Expenses, *, level: float = 0.95, seed: int = 0) -> BreakEven:
    """Return the number of predictions after which training pays, with an interval from the spread over records.

    The interval is that of the number N of predictions after which training costs less: 0 for `from the first`, and
    without an end for `never`. For `until`, it is that of the number after which prompting costs less.

    Args:
        trained: costs of the method that trains.
        prompted: costs of the method that prompts, in the same unit.
        level: coverage of the interval.
        seed: seed of the draws.
    """
    found = crossing(trained.fixed, trained.per_prediction, prompted.fixed, prompted.per_prediction)
    if not (trained.has_spread and prompted.has_spread):
        return found
    generator = np.random.default_rng(seed)
    more = _Draws(trained, generator)
    less = _Draws(prompted, generator)
    if found.outcome == "until":
        more, less = less, more
    numbers = _after(more.fixed - less.fixed, less.each - more.each)
    low, high = np.quantile(numbers, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return BreakEven(
        found.outcome,
        found.n,
        None if math.isinf(low) else float(low),
        None if math.isinf(high) else float(high),
        has_interval=True,
    )


def _after(more: npt.NDArray[np.float64], saved: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return after how many predictions the dearer start pays: 0 is at once, infinity never."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        numbers = np.where(saved > 0, np.maximum(more, 0.0) / saved, np.inf)
    return np.where((saved == 0) & (more < 0), 0.0, numbers)


class _Draws:
    """Draws of the centres of the costs of one configuration, given its records.

    The logarithms of the two costs of a record vary together. Their means are drawn from the multivariate t
    distribution whose margins are Student's, with one degree of freedom less than there are records.
    """

    def __init__(self, expenses: Expenses, generator: np.random.Generator) -> None:
        values = np.array([expenses.training, expenses.each], dtype=np.float64)
        n = values.shape[1]
        positive: npt.NDArray[np.bool_] = np.asarray(
            (values > 0).all(axis=1)
        )  # a cost of 0 has no logarithm, and counts at its mean
        logs = np.log(np.where(positive[:, None], values, 1.0))
        logs = np.where(np.ptp(values, axis=1, keepdims=True) == 0, logs[:, :1], logs)
        residuals = logs - logs.mean(axis=1, keepdims=True)
        weights = generator.standard_normal((_DRAWS, n))
        scale = np.sqrt(generator.chisquare(n - 1, _DRAWS) / (n - 1))[:, None]
        drawn = logs.mean(axis=1) + weights @ residuals.T / math.sqrt(n * (n - 1)) / scale
        centres = np.where(positive, np.exp(np.minimum(drawn, 700.0)), values.mean(axis=1))
        self.fixed = centres[:, 0] + expenses.labels
        self.each = centres[:, 1]


# ---- words


def said_break_even(outcome: str | None, n: float | None) -> str:
    """Return a break-even for readers: `after 12,000`, `never`; less than one prediction is `from the first`."""
    if outcome is None:
        return text.ABSENT
    if n is None:
        return outcome
    return "from the first" if outcome == "after" and n < 1 else f"{outcome} {said_count(n)}"


_SUFFIXES: Final = ((1e6, "M"), (1e9, "B"), (1e12, "T"))


def said_count(value: float) -> str:
    """Format a number of predictions, whole, with three significant digits: `1`, `13`, `1,240`, `83,100`, `1.25M`."""
    if value <= 1:
        return "0" if value == 0 else "1"
    rounded = float(f"{value:.3g}")
    if rounded < 1e6:
        return f"{rounded:,.0f}" if rounded >= 100 else f"{math.ceil(rounded)}"
    size, suffix = [one for one in _SUFFIXES if rounded >= one[0]][-1]
    return f"{rounded / size:,.3g}{suffix}" if rounded < 1e15 else f"{rounded:.1e}"
