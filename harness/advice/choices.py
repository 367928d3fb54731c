"""One method in an answer, and what is believed about the scores of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from harness.forecast import Doubles
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
        trainable_parameters: expected for so many labels and classes, from what was measured.
        stored_bytes: as measured.
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
    """Expected gain of one method's score over another's. Positive is better, for every metric.

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
        ranges: expected score of each method, and the ends of its 80 % interval.
        back: function from values on the scale to scores of the task; more is better on the scale.
        higher_is_better: direction of the metric.
        highest: best possible score; None where there is none.
        chance: score of guessing; None where it is not known.
    """

    methods: tuple[str, ...]
    mean: Doubles
    covariance: Doubles
    ranges: tuple[tuple[float, float, float], ...]
    back: Callable[[Doubles], Doubles]
    higher_is_better: bool = True
    highest: float | None = 1.0
    chance: float | None = None

    def of(self, method: str) -> float:
        """Return the mean of a method's score on the scale."""
        return float(self.mean[self.methods.index(method)])

    def worth(self, method: str) -> float:
        """Return a method's expected score, negative where lower ones are better: the greatest is the best."""
        return self.score(method) if self.higher_is_better else -self.score(method)

    def score(self, method: str) -> float:
        """Return a method's expected score."""
        return self.ranges[self.methods.index(method)][0]

    def ends(self, method: str) -> tuple[float, float]:
        """Return the 80 % interval of a method's score."""
        _, low, high = self.ranges[self.methods.index(method)]
        return low, high

    def spread(self, one: str, other: str) -> float:
        """Return the standard deviation of the difference of two methods on the scale; what both share cancels."""
        i, k = self.methods.index(one), self.methods.index(other)
        return math.sqrt(max(float(self.covariance[i, i] + self.covariance[k, k] - 2 * self.covariance[i, k]), 0.0))

    def is_better(self, one: str, other: str) -> float:
        """Return the probability that the first method scores better than the second; one half for equal ones."""
        return _above(self.of(one) - self.of(other), self.spread(one, other))

    def reaches(self, method: str, score: float) -> float:
        """Return the probability that a fit of a method reaches a score.

        It is normal on the scale, and as wide as the half of the 80 % interval on that side.
        """
        low, high = self.ends(method)
        better = high if self.higher_is_better else low
        worse = low if self.higher_is_better else high
        wanted, start, end = (self._there(value) for value in (score, worse, better))
        middle = self.of(method)
        return _above(middle - wanted, ((end - middle) if wanted > middle else (middle - start)) / LEVEL_80)

    def gain(self, one: str, other: str) -> Gain:
        """Return what the first method is expected to gain over the second.

        The interval is that of the difference of two normal values that are taken back to scores: the quantiles of
        equally likely pairs.
        """
        sign = 1.0 if self.higher_is_better else -1.0
        steps = np.array([NormalDist().inv_cdf((i + 0.5) / _STEPS) for i in range(_STEPS)])
        i, k = self.methods.index(one), self.methods.index(other)
        spread = math.sqrt(max(float(self.covariance[k, k]), 0.0))
        slope = float(self.covariance[i, k]) / spread**2 if spread else 0.0
        rest = math.sqrt(max(float(self.covariance[i, i]) - slope**2 * spread**2, 0.0))
        of_other = self.of(other) + spread * steps
        of_one = self.of(one) + slope * (of_other - self.of(other))[:, None] + rest * steps[None, :]
        found = sign * (self._back(of_one) - self._back(of_other)[:, None])
        low, high = np.quantile(found, [0.1, 0.9])
        expected = sign * (self.score(one) - self.score(other))
        return Gain(expected, float(low), float(high), self.is_better(one, other))

    def _back(self, values: Doubles) -> Doubles:
        knots = np.linspace(float(values.min()) - 1e-9, float(values.max()) + 1e-9, _KNOTS)
        return np.interp(values, knots, self.back(knots))

    def _there(self, score: float) -> float:
        """Return the value on the scale that a score stands for."""
        knots = np.linspace(-_FAR, _FAR, _KNOTS)
        scores = self.back(knots)
        rising = scores if self.higher_is_better else -scores
        return float(np.interp(score if self.higher_is_better else -score, rising, knots))


_FAR: Final = 12.0
"""Largest value on the scale, in logits or in logarithms of a perplexity."""


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
