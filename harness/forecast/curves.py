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
from harness.forecast.scale import SEED_NOISE, Scale
from harness.forecast.texts import TaskTexts

SCORE_SPREADS: Final = Spreads(
    (
        Term("whole", (), 0.5, "x"),
        Term("whole", (), 0.15, "z"),
        Term("whole", (), 0.12, "curve"),
        Term("task", ("task",), 0.65),
        Term("slope", ("task",), 0.22, "x"),
        Term("task", ("task",), 0.12, "z"),
        Term("method", ("group",), 0.25),
        Term("method", ("group",), 0.13, "x"),
        Term("method", ("group",), 0.07, "z"),
        Term("method", ("group",), 0.11, "curve"),
        Term("method", ("method",), 0.12),
        Term("method", ("method",), 0.07, "x"),
        Term("method", ("method",), 0.035, "z"),
        Term("both", ("task", "group"), 0.3),
        Term("slope", ("task", "group"), 0.18, "x"),
        Term("both", ("task", "method"), 0.12),
        Term("slope", ("task", "method"), 0.1, "x"),
        Term("both", ("task", "method"), 0.4, is_lone=True),
    ),
    noise=0.05,
)
"""Spreads of logits before any evidence; x is 1 for eight times the labels a class, z the doublings of classes above 2.

They are the most likely ones of the reference results (docs/explanation/advice.md), rounded; the evidence at hand
scales them. The spread of lone methods is set by hand: who measures a method on one task chose it for that task.
"""


_LEVEL_80: Final = 1.281552

_LIKE_NO_LABELS: Final = 4.0
"""Labels a class that methods without labels count as: the words of the classes are worth some."""

_FEWEST_WORDS: Final = 8
_ONE_EACH: Final = 0.05
"""Largest relative difference of the numbers of terms and texts at which each text has one word of its own."""

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


def _is_blind(point: Point, texts: TaskTexts) -> bool:
    """Return whether a method counts words in texts of one word each, none of which comes twice: proteins, say.

    Such a method can only guess. What it scored there says nothing of its scores on other texts.
    """
    facts = point.facts
    if facts.n_terms is None or not facts.counts_words or texts.terms is None or texts.n_train < _FEWEST_WORDS:
        return False
    # A word that all texts share makes a pair with each: two terms a text.
    return any(abs(texts.terms / texts.n_train - each) <= _ONE_EACH for each in (1, 2))


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
        told = [p for p in points if not _is_blind(p, TaskTexts(p.task, p.n_train, terms=p.facts.n_terms))]
        if told:
            where = [self._where(p, x_of(p.n_train, p.classes), z_of(p.classes), p.task) for p in told]
            values = np.array([self.scale.there(p.score) - _mean_lift(p.lift) for p in told])
            variances = np.array([self.scale.variance(point) for point in told])
            self.spreads = adapted(where, values, variances, SCORE_SPREADS)
            self._model = Pooled(where, values, variances, self.spreads)

    def _where(self, point: Point, x: float, z: float, task: str | None) -> Where:
        name = point.on or point.method
        return Where(x, z, task, name, point.group, point.lift, is_lone=name in self._lone)

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
        classes = self._classes(asked)
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
        mean = mean + np.array([_mean_lift(where.lift) for where in best])
        typical = _typical_seed_variance(self._points, self.scale, x_asked)
        for i, (method, own) in enumerate(self.by_method.items()):
            cell = None if method in self.carried else measured_of(asked, own)
            if cell is not None:
                mean[i], covariance[i], covariance[:, i] = self.scale.there(cell.score), 0.0, 0.0
                covariance[i, i] = self.scale.of_measured(cell, typical)
            elif _is_blind(own[0], asked) and self._is_accuracy:
                mean[i], covariance[i], covariance[:, i] = self.scale.there(self.chance(asked)), 0.0, 0.0
                covariance[i, i] = SEED_NOISE**2
        return mean, covariance

    def ranges(self, asked: TaskTexts, mean: Doubles, covariance: Doubles) -> list[tuple[float, float, float]]:
        """Return the expected score of each method and the ends of its 80 % interval: where one more fit would score.

        Few tasks do not tell well how far tasks differ, so Student's t gives the ends. No score is below chance.

        Args:
            asked: the task.
            mean: expected scores on the scale (`expected`), shape (m,).
            covariance: their covariance, shape (m, m).
        """
        variance, quantile = np.maximum(np.diag(covariance), 0.0), _LEVEL_80
        is_new = asked.task not in self._tasks
        if is_new:
            quantile = float(scipy.special.stdtrit(len(self._tasks) - 1 + _FURTHER_FREEDOM, 0.9))
            x = x_of(asked.n_train, self._classes(asked))
            of_seeds = _typical_seed_variance(self._points, self.scale, x) or 0.0
            variance = variance + self.spreads.noise**2 + of_seeds
        half = quantile * np.sqrt(variance)
        chance = self.chance(asked)
        found = []
        # The mean score of what is uncertain lies nearer to one half of the highest than the score of the mean.
        shrink = 1 / np.sqrt(1 + math.pi / 8 * variance) if is_new and self.scale.highest is not None else 1.0
        for low, centre, high in np.transpose([mean - half, mean * shrink, mean + half]).tolist():
            ends = [max(self.scale.back(value), chance) for value in (low, centre, high)]
            if is_new and self._is_accuracy:
                ends = [_with_majority(share, chance, asked) for share in ends]
            low, score, high = sorted(ends)
            found.append((score, low, high))
        return found

    def chance(self, asked: TaskTexts) -> float:
        """Return the accuracy of guessing among equal classes; the lower end, 0, for other metrics."""
        classes = self._classes(asked)
        return 1 / classes if self._is_accuracy and classes and self.scale.higher_is_better else 0.0

    def _classes(self, asked: TaskTexts) -> float | None:
        """Return the classes of a task: those asked for, else its points', else the usual number of tasks."""
        known = self._tasks.get(asked.task or "")
        if asked.classes is not None or (known is not None and known.classes is not None):
            return asked.classes or (None if known is None else known.classes)
        every = [math.log(point.classes) for point in self._tasks.values() if point.classes]
        return min(math.exp(sum(every) / len(every)), max(asked.n_train, 2)) if every else None


def _with_majority(share: float, chance: float, asked: TaskTexts) -> float:
    """Return the accuracy on two unequal classes that stands for an accuracy on equal ones.

    It is as far from what guessing reaches to 1. With more classes, the share of the most frequent one says little.
    """
    if asked.majority is None or asked.classes != 2 or asked.majority <= chance:
        return share
    return asked.majority + (1 - asked.majority) * (share - chance) / (1 - chance)
