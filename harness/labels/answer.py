"""The answer to "How many labels do I need?": gains, crossings and labels needed, with 80 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.forecast import OwnCurve


@dataclass(frozen=True)
class Interval:
    """A figure with its 80 % interval.

    Attributes:
        value: median.
        low, high: ends; infinite where the draws have none.
        is_told: whether the interval is narrow enough to act on.
    """

    value: float
    low: float
    high: float
    is_told: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values; an infinite end is None."""
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in asdict(self).items()}


@dataclass(frozen=True)
class Needed:
    """Labels that a method needs to reach a score.

    Attributes:
        labels: number of labels; an end beyond the labels that a curve is read up to is infinite.
        most: most labels that the curve is read up to.
        chance: probability that so many labels reach the score.
    """

    labels: Interval
    most: float
    chance: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return {"labels": self.labels.to_dict(), "up_to": self.most, "chance": self.chance}


@dataclass(frozen=True)
class MethodCurve:
    """Outlook of one method.

    Attributes:
        method: its label.
        measured: mean score by number of labels.
        scores: expected score on new rows, by multiple of the labels there are: 1, 2 and 4.
        gains: points above the score of the labels there are, by multiple: 2 and 4. Positive is better. For metrics in
            units of the target, gains are in these units.
        best: probability that no other method does better, by multiple: 1, 2 and 4.
        needed: labels for the least score that was asked for; None where none was.
        seconds: duration of its fits.
        n_scored: number of rows that its scores rest on; fewer than of other methods where the time was short.
        curve: the curve itself, for other numbers of labels.
    """

    method: str
    measured: Mapping[int, float]
    scores: Mapping[int, Interval]
    gains: Mapping[int, Interval]
    best: Mapping[int, float]
    needed: Needed | None
    seconds: float
    n_scored: int
    curve: OwnCurve = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return {
            "method": self.method,
            "measured": [{"n_labels": n, "score": score} for n, score in self.measured.items()],
            "expected": [{"times_labels": k, "score": one.to_dict()} for k, one in self.scores.items()],
            "gains": [{"times_labels": k, "points": one.to_dict()} for k, one in self.gains.items()],
            "chance_to_be_best": [{"times_labels": k, "chance": chance} for k, chance in self.best.items()],
            "needed": None if self.needed is None else self.needed.to_dict(),
            "seconds": self.seconds,
            "n_scored": self.n_scored,
        }


@dataclass(frozen=True)
class Crossing:
    """Number of labels from which one method is expected to be ahead of the one that led before.

    Attributes:
        leader: the method that leads with fewer labels.
        follower: the method that leads from there on.
        labels: number of labels; an end beyond the labels that curves are read up to is infinite.
        chance: probability that it is ahead with the most labels that curves are read up to.
    """

    leader: str
    follower: str
    labels: Interval
    chance: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return {
            "leader": self.leader,
            "follower": self.follower,
            "labels": self.labels.to_dict(),
            "chance": self.chance,
        }


@dataclass(frozen=True)
class LabelsNeeded:
    """Outlook of more labels.

    Attributes:
        task: name of the task.
        metric: its metric.
        higher_is_better: direction of the metric.
        in_points: whether gains are in points, hundredths of the metric; False for metrics in units of the target.
        n_labels: number of labels there are.
        n_scored: number of rows that the scores of a method rest on at most.
        methods: outlook of each method, the best with the labels there are first.
        crossings: where the expected leader changes.
        min_score: least score that was asked for.
        skipped: why methods were left out.
        n_prior: number of learning curves of other tasks that were used.
        seconds: duration.
    """

    task: str
    metric: str
    higher_is_better: bool
    in_points: bool
    n_labels: int
    n_scored: int
    methods: tuple[MethodCurve, ...]
    crossings: tuple[Crossing, ...]
    min_score: float | None
    skipped: Mapping[str, str]
    n_prior: int
    seconds: float

    def __getitem__(self, method: str) -> MethodCurve:
        """Return the outlook of a method by its label."""
        return next(one for one in self.methods if one.method == method)

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain values. Ends of intervals that cannot be told are None."""
        return {
            "task": self.task,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "gains_in": "points" if self.in_points else "units of the metric",
            "n_labels": self.n_labels,
            "n_scored": self.n_scored,
            "methods": [one.to_dict() for one in self.methods],
            "crossings": [one.to_dict() for one in self.crossings],
            "min_score": self.min_score,
            "skipped": dict(self.skipped),
            "n_prior_curves": self.n_prior,
            "seconds": self.seconds,
        }
