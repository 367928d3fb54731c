"""Expected slopes of learning curves where measurements end, from the curves of other tasks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from harness.forecast.evidence import Point
from harness.forecast.own_curve import OWN_CURVES, Constants, Scores, SlopeBelief, fit_curve
from harness.forecast.pooled import Doubles

_VAGUE: Final = SlopeBelief(0.25, 0.3)
"""Belief with which the curves of other tasks are fitted, before they say what to expect."""

_METHOD_SD: Final = 0.08
"""Standard deviation of a method's slopes around those of all methods, before its curves are known."""

_TERM_SD: Final = (0.5, 0.3, 0.1)
"""Standard deviations of the constant, the effect of eight times the labels, and that of a doubling of classes."""

_LEAST_SIZES: Final = 3
"""Fewest sizes of a curve that says something about its slope."""

_MOST_SIZES: Final = 4
"""Most sizes that a slope rests on: those before say little about where the curve ends."""

_LEAST_SLOPE: Final = 0.02

_N_DRAWS: Final = 400


class Slopes:
    """Expected slopes by method, number of labels and number of classes.

    Args:
        points: points of other tasks; curves with fewer than three sizes are left out.
        constants: spreads of curves.

    Attributes:
        n_curves: number of curves that it rests on.
    """

    def __init__(self, points: Iterable[Point], constants: Constants = OWN_CURVES) -> None:
        self._constants = constants
        curves = [curve for curve in _curves(points) if len(curve) >= _LEAST_SIZES]
        self.n_curves = len(curves)
        found = [_slope(curve[:n], constants) for curve in curves for n in range(_LEAST_SIZES, len(curve) + 1)]
        repeats = [float(len(curve) - _LEAST_SIZES + 1) for curve in curves for _ in range(_LEAST_SIZES, len(curve) + 1)]
        self._methods = sorted({point.name for point, _, _ in found})
        prior = np.array([*_TERM_SD, *(_METHOD_SD for _ in self._methods)])
        precision = np.diag(prior**-2)
        self._mean = np.zeros(len(prior))
        self._mean[0] = _VAGUE.mean
        if found:
            design = np.stack([self._terms(p.n_train, p.classes, p.name) for p, _, _ in found])
            # Slopes of one curve at several sizes count as one.
            spread = np.array(repeats) * (np.array([v for _, _, v in found]) + constants.slope**2)
            precision = precision + design.T @ (design / spread[:, None])
            off = np.array([mean for _, mean, _ in found]) - design @ self._mean
            self._mean = self._mean + np.linalg.solve(precision, design.T @ (off / spread))
        self._covariance = np.linalg.inv(precision)

    def expect(self, n_train: float, classes: int | None, method: str) -> SlopeBelief:
        """Return the belief about the slope of a method on a new task, at so many labels."""
        terms = self._terms(n_train, classes, method)
        variance = self._constants.slope**2 + float(terms @ self._covariance @ terms)
        variance += 0.0 if method in self._methods else _METHOD_SD**2
        return SlopeBelief(max(float(terms @ self._mean), _LEAST_SLOPE), math.sqrt(variance))

    def _terms(self, n_train: float, classes: int | None, method: str) -> Doubles:
        doublings = math.log2(classes) - 1 if classes else 0.0
        own = [float(method == name) for name in self._methods]
        return np.array([1.0, (math.log2(n_train) - 8) / 3, doublings, *own])


def as_scores(point: Point) -> Scores:
    """Return a point as the scores of a curve."""
    best = point.highest or 1.0
    share = min(1.0, max(0.0, point.score / best))
    share = share if point.higher_is_better else 1 - share
    return Scores(float(point.n_train), (share,), float(point.n_test), float(point.n_seeds))


def _curves(points: Iterable[Point]) -> list[list[Point]]:
    """Return the points of each configuration on each task, the fewest labels first."""
    found: defaultdict[tuple[Any, ...], list[Point]] = defaultdict(list)
    for point in points:
        if point.n_train and point.highest is not None and not point.is_cut:
            found[point.task, point.backbone, point.method, point.metric].append(point)
    return [sorted(curve, key=lambda point: point.n_train) for curve in found.values()]


def _slope(curve: Sequence[Point], constants: Constants) -> tuple[Point, float, float]:
    """Return the last point of a curve, and mean and variance of its slope there."""
    fitted = fit_curve([as_scores(point) for point in curve[-_MOST_SIZES:]], _VAGUE, constants, _N_DRAWS)
    return curve[-1], float(fitted.slope.mean()), float(fitted.slope.var())
