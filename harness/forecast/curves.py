"""Expected scores: learning curves of methods, straight on a scale of their own, pooled over tasks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import scipy.special

from harness.forecast.evidence import Point, by_method, measured_of
from harness.forecast.pooled import Doubles, Lift, Pooled, Spreads, Term, Where, adapted, kernel
from harness.forecast.scale import Scale
from harness.forecast.texts import TaskTexts

SCORE_SPREADS: Final = Spreads(
    (
        Term("whole", (), 0.5, "x"),
        Term("whole", (), 0.15, "z"),
        Term("whole", (), 0.12, "curve"),
        Term("task", ("task",), 0.7),
        Term("task", ("task",), 0.22, "x"),
        Term("method", ("group",), 0.25),
        Term("method", ("group",), 0.13, "x"),
        Term("method", ("group",), 0.07, "z"),
        Term("method", ("group",), 0.11, "curve"),
        Term("method", ("method",), 0.12),
        Term("method", ("method",), 0.07, "x"),
        Term("method", ("method",), 0.035, "z"),
        Term("both", ("task", "group"), 0.3),
        Term("both", ("task", "group"), 0.18, "x"),
        Term("both", ("task", "method"), 0.12),
        Term("both", ("task", "method"), 0.1, "x"),
        Term("both", ("task", "method"), 0.4, is_lone=True),
    ),
    noise=0.05,
)
"""Spreads of logits before any evidence. x is 1 for eight times the labels a class, z the doublings of classes above two.

They are the most likely ones of the reference results (docs/explanation/advice.md), rounded; the evidence at hand scales
them. The spread of lone methods is set by hand: who measures a method on one task chose it for that task.
"""


_LEVEL_80: Final = 1.281552

IMBALANCE: Final = 0.8
"""Rise of logits for each logit by which the most frequent class is more frequent than one of equal classes."""

_LIKE_NO_LABELS: Final = 4.0
"""Labels a class that methods without labels count as: the words of the classes are worth some."""

_NEAREST: Final = 40
"""Largest number of cells that tell how far seeds differ at a size."""

_FURTHER_FREEDOM: Final = 2.0
"""Degrees of freedom of the spread of tasks, beyond the number of tasks: what the prior counts."""


def place(
    n_train: float, classes: int | None, task: str | None, method: str, group: str, lift: Lift | None = None
) -> Where:
    """Return the place of a method's score on a task at a number of labels."""
    return Where(x_of(n_train, classes), z_of(classes), task, method, group, lift)


def x_of(n_train: float, classes: float | None) -> float:
    """Return the place of a number of labels: 0 for 32 a class, and 1 more for eight times as many."""
    each = n_train / (classes or 2) if n_train else _LIKE_NO_LABELS
    return (math.log2(each) - 5) / 3


def z_of(classes: float | None) -> float:
    """Return the doublings of classes above two; 0 where there are none."""
    return math.log2(classes) - 1 if classes else 0.0


def _mean_lift(lift: Lift | None) -> float:
    return 0.0 if lift is None else lift.mean


def _imbalance(majority: float | None, classes: float | None) -> float:
    """Return the rise of a task's logits by its most frequent class; 0 where its share is not known."""
    if majority is None or not classes or not 1 / classes < majority < 1:
        return 0.0
    return IMBALANCE * (math.log(majority / (1 - majority)) + math.log(classes - 1))


def _typical_seed_variance(points: Iterable[Point], scale: Scale, x: float) -> float | None:
    """Return the variance between seeds at about a size, on the scale; None where no cell has two.

    It is the mean over the cells with several seeds that are nearest in size: seeds differ more with few labels.
    """
    several = [point for point in points if point.n_seeds > 1]
    several.sort(key=lambda point: abs(x_of(point.n_train, point.classes) - x))
    nearest = several[:_NEAREST]
    return sum(scale.over_seeds(point) for point in nearest) / len(nearest) if nearest else None


_NONE: Final[Mapping[str, tuple[Sequence[Point], Lift]]] = {}


class Curves:
    """Learning curves of all methods, fitted once.

    Args:
        points: points of one metric; without any, the metric is an accuracy of which nothing is known.
        carried: methods on backbones that they were not measured on: their label, the points of the method on the
            backbone with the most measurements, and the change by the backbone.

    Attributes:
        by_method: the points of each method; of a carried one, those that it is carried from.
        carried: labels of the carried methods.
        scale: the scale of the curves.
        spreads: how far things differ, as the points say.
    """

    def __init__(self, points: Sequence[Point], carried: Mapping[str, tuple[Sequence[Point], Lift]] = _NONE) -> None:
        self.scale = Scale(points[0].higher_is_better, points[0].highest) if points else Scale(higher_is_better=True)
        self.by_method = by_method(points)
        self.carried = frozenset(carried)
        self._lifts = {label: lift for label, (_, lift) in carried.items()}
        self.by_method |= {label: list(own) for label, (own, _) in carried.items()}
        self._points = list(points)
        self._is_accuracy = not points or points[0].metric == "accuracy"
        self._tasks = {point.task: point for point in points}
        tasks_of: defaultdict[str, set[str]] = defaultdict(set)
        for point in points:
            tasks_of[point.on or point.method].add(point.task)
        self._lone = {name for name, tasks in tasks_of.items() if len(tasks) == 1 < len(self._tasks)}
        self.spreads, self._model = SCORE_SPREADS, None
        if points:
            where = [
                self._where(point, x_of(point.n_train, point.classes), z_of(point.classes), point.task)
                for point in points
            ]
            values = np.array([self.scale.there(p.score) - _mean_lift(p.lift) - self._of_classes(p) for p in points])
            variances = np.array([self.scale.variance(point) for point in points])
            self.spreads = adapted(where, values, variances, SCORE_SPREADS)
            self._model = Pooled(where, values, variances, self.spreads)

    def _where(self, point: Point, x: float, z: float, task: str | None) -> Where:
        name = point.on or point.method
        return Where(x, z, task, name, point.group, point.lift, is_lone=name in self._lone)

    def _of_classes(self, point: Point) -> float:
        return _imbalance(point.majority, point.classes) if self._is_accuracy else 0.0

    def predict(self, where: Sequence[Where]) -> tuple[Doubles, Doubles]:
        """Return mean, shape (m,), and covariance, shape (m, m), of scores on the scale."""
        if self._model is None:
            return np.zeros(len(where)), kernel(where, where, SCORE_SPREADS)
        return self._model.predict(where)

    def expected(self, asked: TaskTexts) -> tuple[Doubles, Doubles]:
        """Return mean, shape (m,), and covariance, shape (m, m), of the methods' scores on a task, on the scale.

        A curve never falls with more labels. A cell that was measured has the measured mean.
        """
        if self._model is None:
            return self.predict([])
        classes, rise = self._about(asked)
        z, x_asked = z_of(classes), x_of(asked.n_train, classes)
        options: list[list[Where]] = []
        for method, own in self.by_method.items():
            there = replace(self._where(own[0], 0.0, z, asked.task), lift=self._lifts.get(method, own[0].lift))
            xs = {x_of(point.n_train, point.classes) for point in own}
            x = x_of(0, classes) if all(point.n_train == 0 for point in own) else x_asked
            options.append([replace(there, x=at) for at in (x, *(at for at in xs if at < x))])
        means = iter(self._model.means([where for of_one in options for where in of_one]).tolist())
        best = [max(((next(means), where) for where in of_one), key=lambda pair: pair[0])[1] for of_one in options]
        mean, covariance = self._model.predict(best)
        mean = mean + rise + np.array([_mean_lift(where.lift) for where in best])
        typical = _typical_seed_variance(self._points, self.scale, x_asked)
        for i, (method, own) in enumerate(self.by_method.items()):
            cell = None if method in self.carried else measured_of(asked, own)
            if cell is not None:
                mean[i], covariance[i], covariance[:, i] = self.scale.there(cell.score), 0.0, 0.0
                covariance[i, i] = self.scale.of_measured(cell, typical)
        return mean, covariance

    def ranges(self, asked: TaskTexts, mean: Doubles, covariance: Doubles) -> list[tuple[float, float, float]]:
        """Return the expected score of each method and the ends of its 80 % interval: where one more fit would score.

        Few tasks do not tell well how far tasks differ, so Student's t gives the ends. No score is below chance.

        Args:
            asked: the task.
            mean, covariance: what is expected of the methods (`expected`), all of them or some.
        """
        freedom = len(self._tasks) - 1 + _FURTHER_FREEDOM
        variance = np.maximum(np.diag(covariance), 0.0)
        quantile = float(scipy.special.stdtrit(freedom, 0.9))
        if asked.task not in self._tasks:
            classes, _ = self._about(asked)
            of_seeds = _typical_seed_variance(self._points, self.scale, x_of(asked.n_train, classes)) or 0.0
            variance = variance + self.spreads.noise**2 + of_seeds
        else:
            quantile = _LEVEL_80
        half = quantile * np.sqrt(variance)
        chance = self.chance(asked)
        found = []
        for centre, width in zip(mean.tolist(), half.tolist(), strict=True):
            low, score, high = sorted(self.scale.back(value) for value in (centre - width, centre, centre + width))
            found.append((max(score, chance), max(low, chance), max(high, chance)))
        return found

    def chance(self, asked: TaskTexts) -> float:
        """Return the accuracy of guessing among equal classes; the lower end, 0, for other metrics."""
        classes, _ = self._about(asked)
        return 1 / classes if self._is_accuracy and classes and self.scale.higher_is_better else 0.0

    def _about(self, asked: TaskTexts) -> tuple[float | None, float]:
        """Return the classes of a task, and the rise of its logits by its most frequent class.

        Classes that are not known are those of the task's points, else the usual number of the tasks with points.
        """
        known = self._tasks.get(asked.task or "")
        classes: float | None = asked.classes or (None if known is None else known.classes)
        majority = asked.majority if asked.majority is not None or known is None else known.majority
        if classes is None:
            every = [math.log(point.classes) for point in self._tasks.values() if point.classes]
            classes = min(math.exp(sum(every) / len(every)), max(asked.n_train, 2)) if every else None
        return classes, _imbalance(majority, classes) if self._is_accuracy else 0.0
