"""One method in an answer, and what is believed about the scores of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from harness.forecast import Doubles, Scale
from harness.records import Role

LEVEL_80: Final = 1.281552
LEVEL_95: Final = 1.959964

_STEPS: Final = 201
"""Number of equally likely values of each of two scores, of which the interval of their difference is made."""

_KNOTS: Final = 801
"""Number of places at which the scale is taken back to scores; between them it is a line."""


@dataclass(frozen=True)
class AdvisedMethod:
    """One method in an answer: its expected score and costs.

    Attributes:
        method: label of the configuration; with "cut at" a budget that ended its fits.
        score, low, high: expected score and its 80 % interval. Where chance is known, none is below it.
        train_seconds, peak_memory_bytes, predict_milliseconds: expected on the device; None where nothing was measured.
        trainable_parameters, stored_bytes: as measured.
        fits: whether it is within all limits.
        why_not: reasons why it does not fit.
        is_tied: whether it cannot be told from the best that fits (at 95 %).
        basis: `measured` (this task and size), `interpolated`, `extrapolated`, `seen at one size`, or `carried over`
            from the backbone with the most measurements.
        n_records, n_tasks: number of records of the method, and of tasks of this kind with them; of a method that is
            carried to another backbone, those on the backbone that it is carried from.
        backbone: the backbone, where the answer is about several.
        default_points_behind: points by which other settings beat these defaults in an audit; None where none flags
            them.
        default_better: those settings; None where none flags the defaults.
        unknown: costs that are not known, of those that decide: the limited ones, and the training time.
        labels: number of labels that it learns from; 0 where it needs none.
        role: role of the transformer in the method.
        is_prompted: whether it prompts a language model.
        chance_to_reach: probability that it reaches the score that was asked for; None where none was.
        is_timed_elsewhere: whether its seconds come from another device than the answer's.
        has_few_tasks: whether it was measured on one or two tasks, and another on twice as many at least. Such a method
            must be clearly better to come ahead.
    """

    method: str
    family: str
    score: float
    low: float
    high: float
    train_seconds: float | None
    peak_memory_bytes: float | None
    predict_milliseconds: float | None
    trainable_parameters: float | None
    stored_bytes: float | None
    fits: bool
    why_not: tuple[str, ...]
    is_tied: bool
    basis: str
    n_records: int
    n_tasks: int
    backbone: str | None = None
    default_points_behind: float | None = None
    default_better: str | None = None
    unknown: tuple[str, ...] = ()
    labels: int = 0
    role: Role | None = None
    is_prompted: bool = False
    chance_to_reach: float | None = None
    is_timed_elsewhere: bool = False
    has_few_tasks: bool = False


@dataclass(frozen=True)
class Gain:
    """What one method's score is expected to be above another's. Positive is better, for every metric.

    Attributes:
        expected: difference of the expected scores, in the metric's own numbers.
        low, high: its 80 % interval.
        probability: probability that the score is better at all.
    """

    expected: float
    low: float
    high: float
    probability: float


@dataclass(frozen=True)
class Beliefs:
    """Expected scores of methods, which differ together from task to task.

    Attributes:
        methods: labels of the methods.
        mean: means on the scale, shape (m,).
        covariance: their covariance, shape (m, m).
        scale: the scale, on which more is better.
        chance: score of an answer that ignores the text; None where it is not known.
        measured: labels of methods whose scores are those of this very task and size.
    """

    methods: tuple[str, ...]
    mean: Doubles
    covariance: Doubles
    scale: Scale
    chance: float | None = None
    measured: frozenset[str] = frozenset()

    def of(self, method: str) -> tuple[float, float]:
        """Return the mean and the standard deviation of a method's score on the scale."""
        i = self.methods.index(method)
        return float(self.mean[i]), math.sqrt(max(float(self.covariance[i, i]), 0.0))

    def ends(self, method: str) -> tuple[float, float]:
        """Return the 80 % interval of a method's score."""
        mean, spread = self.of(method)
        low, high = sorted(self.scale.back(mean + sign * LEVEL_80 * spread) for sign in (-1, 1))
        return self._above_chance(method, low), self._above_chance(method, high)

    def score(self, method: str) -> float:
        """Return a method's expected score: the median, and the mean on the scale."""
        return self._above_chance(method, self.scale.back(self.of(method)[0]))

    def _above_chance(self, method: str, score: float) -> float:
        """Return the score, or that of chance where it is better; a measured score is what it is."""
        if self.chance is None or method in self.measured:
            return score
        return max(score, self.chance) if self.scale.higher_is_better else min(score, self.chance)

    def spread(self, one: str, other: str) -> float:
        """Return the standard deviation of the difference of two methods on the scale; what both share cancels."""
        i, k = self.methods.index(one), self.methods.index(other)
        return math.sqrt(max(float(self.covariance[i, i] + self.covariance[k, k] - 2 * self.covariance[i, k]), 0.0))

    def is_better(self, one: str, other: str) -> float:
        """Return the probability that the first method scores better than the second; one half for equal ones."""
        return _above(self.of(one)[0] - self.of(other)[0], self.spread(one, other))

    def reaches(self, method: str, score: float) -> float:
        """Return the probability that a method reaches a score."""
        mean, spread = self.of(method)
        return _above(mean - self.scale.there(score), spread)

    def gain(self, one: str, other: str) -> Gain:
        """Return what the first method is expected to gain over the second.

        The interval is that of the difference of two normal values that are taken back to scores: the quantiles of
        equally likely pairs.
        """
        sign = 1.0 if self.scale.higher_is_better else -1.0
        steps = np.array([NormalDist().inv_cdf((i + 0.5) / _STEPS) for i in range(_STEPS)])
        (mean, _), (base, base_spread) = self.of(one), self.of(other)
        i, k = self.methods.index(one), self.methods.index(other)
        slope = float(self.covariance[i, k]) / base_spread**2 if base_spread else 0.0
        rest = math.sqrt(max(float(self.covariance[i, i]) - slope**2 * base_spread**2, 0.0))
        of_base = base + base_spread * steps
        of_one = mean + slope * (of_base - base)[:, None] + rest * steps[None, :]
        found = sign * (self._back(of_one) - self._back(of_base)[:, None])
        low, high = np.quantile(found, [0.1, 0.9])
        expected = sign * (self.score(one) - self.score(other))
        return Gain(expected, float(low), float(high), self.is_better(one, other))

    def _back(self, values: Doubles) -> Doubles:
        knots = np.linspace(float(values.min()), float(values.max()), _KNOTS)
        scores = [self.scale.back(float(value)) for value in knots]
        return np.interp(values, knots, scores) if knots[0] < knots[-1] else np.full(values.shape, scores[0])


def _above(mean: float, spread: float) -> float:
    """Return the probability that a normal value is above 0; one half for a certain 0."""
    if spread <= 0:
        return 0.5 if mean == 0 else float(mean > 0)
    return 0.5 * math.erfc(-mean / spread / math.sqrt(2))


def have_few_tasks(choices: Sequence[AdvisedMethod]) -> set[str]:
    """Return the labels of methods that were measured on one or two tasks, and another on twice as many at least.

    A method that was measured on the very task at this size has direct evidence, and is not among them.
    """
    most = max((choice.n_tasks for choice in choices), default=0)
    return {
        choice.method
        for choice in choices
        if choice.n_tasks <= _FEW_TASKS and most >= 2 * choice.n_tasks and choice.basis != "measured"
    }


_FEW_TASKS: Final = 2
