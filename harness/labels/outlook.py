"""From measured scores to the answer: curves, gains, crossings and labels needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from harness.choose import value_at
from harness.forecast import Doubles, OwnCurve, Slopes, fit_curve
from harness.labels.answer import Crossing, Interval, LabelsNeeded, MethodCurve, Needed
from harness.labels.measuring import MeasuredCurve
from harness.metrics import IN_UNITS, metrics
from harness.tasks import Task

TIMES: Final = (2, 4)
"""Multiples of the labels whose gain is stated."""

FURTHEST: Final = 16
"""Multiple of the labels up to which a curve is read: beyond, nothing supports its shape."""

_TOO_WIDE: Final = 0.05
"""Width of an 80 % interval of a gain, as a share of the metric's range, above which it must be below the gain."""

_WIDEST_RATIO: Final = 8.0
"""Ratio of the ends of an 80 % interval of a number of labels above which the number cannot be told."""

_ENDS: Final = (0.1, 0.9)
_N_STEPS: Final = 120


def answer_labels(
    task: Task,
    n_labels: int,
    measured: Sequence[MeasuredCurve],
    slopes: Slopes,
    *,
    min_score: float | None = None,
    skipped: Mapping[str, str] | None = None,
    seconds: float = 0.0,
) -> LabelsNeeded:
    """Return what more labels would buy, by method.

    Args:
        task: the user's data.
        n_labels: number of labels there are.
        measured: scores of each method.
        slopes: expected slopes, from other tasks.
        min_score: score to reach.
        skipped: why methods were left out.
        seconds: duration so far.
    """
    spec = metrics.get(task.metric)
    classes = len(task.label_names) if task.has_classes else None
    curves = {
        one.method: fit_curve(one.scores, slopes.expect(one.scores[-1].n_train, classes, one.name), seed=at)
        for at, one in enumerate(measured)
    }
    best = {k: _best(curves, k * n_labels) for k in (1, *TIMES)}

    def outlook(one: MeasuredCurve) -> MethodCurve:
        curve = curves[one.method]

        def score(share: float) -> float:
            return value_at(task.metric, share, one.facts)

        return MethodCurve(
            method=one.method,
            measured={round(s.n_train): score(s.mean) for s in one.scores},
            scores={k: _score(curve.on_new_rows(k * n_labels), score) for k in (1, *TIMES)},
            gains={k: _gain(curve, n_labels, k, abs(score(1.0) - score(0.0)), task.metric) for k in TIMES},
            best={k: best[k][one.method] for k in (1, *TIMES)},
            needed=None if min_score is None else _needed(curve, n_labels, min_score, score),
            seconds=one.seconds,
            n_scored=one.n_scored,
            curve=curve,
        )

    found = sorted((outlook(one) for one in measured), key=lambda m: -float(np.median(m.curve.at(n_labels))))
    return LabelsNeeded(
        task=task.name,
        metric=task.metric,
        higher_is_better=spec.higher_is_better,
        in_points=task.metric not in IN_UNITS,
        n_labels=n_labels,
        n_scored=max((one.n_scored for one in measured), default=0),
        methods=tuple(found),
        crossings=tuple(crossings(curves, n_labels)),
        min_score=min_score,
        skipped=skipped or {},
        n_prior=slopes.n_curves,
        seconds=seconds,
    )


def _score(shares: Doubles, score: Callable[[float], float]) -> Interval:
    low, middle, high = (score(float(q)) for q in np.quantile(shares, (_ENDS[0], 0.5, _ENDS[1])))
    return Interval(middle, min(low, high), max(low, high))


def _gain(curve: OwnCurve, n_labels: int, times: int, width: float, metric: str) -> Interval:
    """Return the gain of so many times the labels; scores of the same rows are compared, so that their noise cancels.

    Args:
        curve: the curve.
        n_labels: number of labels there are.
        times: multiple of them.
        width: difference between the metric's best and worst value.
        metric: name of the metric.
    """
    shares = curve.at(times * n_labels) - curve.at(n_labels)
    low, middle, high = (float(q) for q in np.quantile(shares, (_ENDS[0], 0.5, _ENDS[1])))
    is_told = high - low <= max(_TOO_WIDE, middle)
    unit = width if metric in IN_UNITS else 100 * width
    return Interval(middle * unit, low * unit, high * unit, is_told)


def _best(curves: Mapping[str, OwnCurve], n_train: float) -> dict[str, float]:
    """Return the probability of each method that no other does better."""
    if not curves:
        return {}
    shares = np.stack([curve.at(n_train) for curve in curves.values()])
    counts = np.bincount(shares.argmax(axis=0), minlength=len(curves))
    return {method: float(count) / shares.shape[1] for method, count in zip(curves, counts, strict=True)}


def _needed(curve: OwnCurve, n_labels: int, min_score: float, score: Callable[[float], float]) -> Needed:
    """Return the labels that the method needs to reach a score on new rows."""
    numbers = np.geomspace(max(2.0, n_labels / 2 ** (3 + 1)), FURTHEST * n_labels, _N_STEPS)
    ends = score(0.0), score(1.0)
    share = (min_score - ends[0]) / (ends[1] - ends[0])
    reached = np.stack([curve.on_new_rows(float(n)) >= share for n in numbers])
    first = np.where(reached.any(axis=0), numbers[reached.argmax(axis=0)], math.inf)
    return Needed(_labels(first), float(numbers[-1]), float(np.isfinite(first).mean()))


def crossings(curves: Mapping[str, OwnCurve], n_labels: int) -> list[Crossing]:
    """Return where the expected leader changes, from the fewest measured labels on to twice `TIMES`' last multiple."""
    if len(curves) < 2:
        return []
    least = max(curve.smallest for curve in curves.values())
    numbers = np.geomspace(least, 2 * TIMES[-1] * n_labels, _N_STEPS)
    shares = {method: np.stack([curve.at(float(n)) for n in numbers]) for method, curve in curves.items()}
    methods = list(curves)
    middle = np.stack([np.median(shares[method], axis=1) for method in methods])
    found, leader = [], int(middle[:, 0].argmax())
    for at in range(1, len(numbers)):
        follower = int(middle[:, at].argmax())
        if follower == leader:
            continue
        ahead = shares[methods[follower]] > shares[methods[leader]]
        behind = ~ahead
        last_behind = len(numbers) - 1 - behind[::-1].argmax(axis=0)
        begins = np.where(behind.any(axis=0), np.minimum(last_behind + 1, len(numbers) - 1), 0)
        first = np.where(ahead[-1], numbers[begins], math.inf)
        found.append(Crossing(methods[leader], methods[follower], _labels(first), float(ahead[-1].mean())))
        leader = follower
    return found


def _labels(numbers: Doubles) -> Interval:
    """Return the median and the 80 % interval of numbers of labels, some of them infinite."""
    low, middle, high = (float(q) for q in np.quantile(numbers, (_ENDS[0], 0.5, _ENDS[1]), method="nearest"))
    return Interval(middle, low, high, math.isfinite(high) and high <= _WIDEST_RATIO * low)
