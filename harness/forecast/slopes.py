"""Expected slopes and bends of learning curves where measurements end, from the curves of other tasks."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harness.forecast.evidence import Point
from harness.forecast.own_curve import (
    OWN_CURVES,
    Conditional,
    Constants,
    CurveBelief,
    Scores,
    fit_curve,
    usual_bends,
)
from harness.forecast.pooled import Doubles

_VAGUE_SLOPE: Final = (0.25, 0.3)
"""Mean and standard deviation of a slope, with which curves of other tasks are fitted before they say what to expect.
"""

_TERM_SD: Final = (0.5, 0.3, 0.1)
"""Standard deviations of the constant, the effect of eight times the labels, and that of a doubling of classes."""

LEAST_SIZES: Final = 3
"""Fewest sizes of a curve that says something about its slope."""

MOST_SIZES: Final = 4
"""Most sizes that a slope rests on: those before say little about where the curve ends."""

_SIZES_OF_BEND: Final = 6
"""Most sizes that a bend rests on."""

LEAST_SLOPE: Final = 0.03
"""Least expected slope: more labels of the same sort always help a little."""

_N_DRAWS: Final = 400

_ROUNDS_OF_BENDS: Final = 50
"""Rounds of expectation and maximisation that fit the bends of a method."""


@dataclass(frozen=True)
class KnownCurve:
    """Scores of one configuration on one task.

    Attributes:
        task: name of the task.
        method: name of the method, without its settings.
        classes: number of classes; None where the task has none.
        scores: the scores, the fewest labels first.
    """

    task: str
    method: str
    classes: int | None
    scores: tuple[Scores, ...]


class Slopes:
    """Expected slopes by method, number of labels and number of classes, and expected bends by method.

    Args:
        curves: curves of other tasks; those with fewer than three sizes are left out.
        constants: spreads of curves.

    Attributes:
        n_curves: number of curves that it rests on.
    """

    def __init__(self, curves: Iterable[KnownCurve], constants: Constants = OWN_CURVES) -> None:
        self._constants = constants
        kept = [curve for curve in curves if len(curve.scores) >= LEAST_SIZES]
        self.n_curves = len(kept)
        self._methods = sorted({curve.method for curve in kept})
        prior = np.array([*_TERM_SD, *(constants.method for _ in self._methods)])
        rows, found, counts = [], [], []
        for curve in kept:
            windows = range(LEAST_SIZES, len(curve.scores) + 1)
            for n in windows:
                rows.append(self._terms(curve.scores[n - 1].n_train, curve.classes, curve.method))
                found.append(_slope(curve.scores[:n], constants))
                counts.append(len(windows))  # slopes of one curve at several sizes count as one
        self._mean, self._covariance = np.zeros(len(prior)), np.diag(prior**2)
        self._mean[0] = _VAGUE_SLOPE[0]
        if rows:
            design, (slopes, variances) = np.stack(rows), np.array(found).T
            spread = np.array(counts) * (variances + constants.slope**2)
            self._covariance = np.linalg.inv(np.diag(prior**-2) + design.T @ (design / spread[:, None]))
            off = slopes - design @ self._mean
            self._mean = self._mean + self._covariance @ (design.T @ (off / spread))
        self._bends = _bends(kept, constants)

    def expect(self, n_train: float, classes: int | None, method: str) -> CurveBelief:
        """Return the belief about the curve of a method on a new task, at so many labels."""
        terms = self._terms(n_train, classes, method)
        slope = max(float(terms @ self._mean), LEAST_SLOPE)
        variance = self._constants.slope**2 + float(terms @ self._covariance @ terms)
        variance += 0.0 if method in self._methods else self._constants.method**2
        bends = self._bends.get(method, self._bends[""])
        return CurveBelief(slope, math.sqrt(variance), tuple(bends.tolist()))

    def _terms(self, n_train: float, classes: int | None, method: str) -> Doubles:
        doublings = math.log2(classes) - 1 if classes else 0.0
        own = [float(method == name) for name in self._methods]
        return np.array([1.0, (math.log2(n_train) - 8) / 3, doublings, *own])


def _bends(curves: Sequence[KnownCurve], constants: Constants) -> dict[str, Doubles]:
    """Return the probabilities of bends by method, and of an unknown method as that of no name.

    Bends of a method have a Dirichlet prior around those of all methods, and these one around the usual ones.
    """
    by_method: defaultdict[str, list[Doubles]] = defaultdict(list)
    for curve in curves:
        by_method[curve.method].append(_bend_evidence(curve.scores[-_SIZES_OF_BEND:], constants))
    usual = usual_bends(constants)
    everything = _mixed([one for found in by_method.values() for one in found], usual, constants.bend_counts)
    return {"": everything} | {
        method: _mixed(found, everything, constants.bend_counts) for method, found in by_method.items()
    }


def _mixed(evidence: Sequence[Doubles], around: Doubles, counts: float) -> Doubles:
    """Return the expected shares of a mixture, given the likelihood of each member under each component."""
    shares = around
    if not evidence:
        return shares
    likelihood = np.stack(evidence)
    for _ in range(_ROUNDS_OF_BENDS):
        each = shares * likelihood
        each /= each.sum(axis=1, keepdims=True)
        shares = (counts * around + each.sum(axis=0)) / (counts + len(likelihood))
    return np.asarray(shares, dtype=np.float64)


def known_curves(points: Iterable[Point]) -> list[KnownCurve]:
    """Return the learning curves of full runs; metrics without an upper end have none."""
    found: defaultdict[tuple[Any, ...], list[Point]] = defaultdict(list)
    for point in points:
        if point.n_train and point.highest is not None and not point.is_cut:
            found[point.task, point.backbone, point.method, point.metric].append(point)
    return [
        KnownCurve(curve[0].task, curve[0].name, curve[0].classes, tuple(_scores(point) for point in curve))
        for curve in (sorted(one, key=lambda point: point.n_train) for one in found.values())
    ]


def _scores(point: Point) -> Scores:
    best = point.highest or 1.0
    share = min(1.0, max(0.0, point.score / best))
    share = share if point.higher_is_better else 1 - share
    return Scores(float(point.n_train), (share,), float(point.n_test), float(point.n_seeds))


def _vague(constants: Constants) -> CurveBelief:
    return CurveBelief(*_VAGUE_SLOPE, tuple(usual_bends(constants).tolist()))


@functools.lru_cache(maxsize=10_000)
def _slope(scores: tuple[Scores, ...], constants: Constants) -> tuple[float, float]:
    """Return mean and variance of the slope at the end of a curve."""
    fitted = fit_curve(scores[-MOST_SIZES:], _vague(constants), constants, _N_DRAWS)
    return float(fitted.slope.mean()), float(fitted.slope.var())


@functools.lru_cache(maxsize=10_000)
def _bend_evidence(scores: tuple[Scores, ...], constants: Constants) -> Doubles:
    """Return the likelihood of a curve under each bend, up to a factor."""
    found = Conditional(scores, _vague(constants), constants).log_evidence
    return np.asarray(np.exp(found - found.max()), dtype=np.float64)
