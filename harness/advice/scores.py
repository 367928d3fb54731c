"""Expected scores: learning curves of methods, straight on a scale of their own, pooled over tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.advice.evidence import Point
from harness.advice.pooled import Floats, Pooled, Spreads, Where
from harness.advice.question import Question

SCORE_SPREADS: Final = Spreads(
    level=0.1, slope=0.7, covariate=0.12, task=0.85, task_slope=0.31, family=0.32, family_slope=0.12,
    family_covariate=0.045, family_task=0.23, method=0.096, method_slope=0.075, both=0.14, both_slope=0.11, noise=0.11,
)  # fmt: skip
"""On the scale of logits; x is 1 for eight times the labels, z the doublings of classes above two.

The most likely ones of the reference results (docs/advice.md), rounded; `family_covariate`, of which the likelihood
says next to nothing, by what is lost on tasks that are left out.
"""


@dataclass(frozen=True)
class Scale:
    """Scores on a scale that curves are straight on, where more is better.

    Attributes:
        higher_is_better: direction of the metric.
        highest: upper end of its range; None where there is none, as a perplexity has.
    """

    higher_is_better: bool
    highest: float | None = 1.0

    def there(self, score: float) -> float:
        """From a score to the scale."""
        if self.highest is None:
            return -math.log(max(score, 1.0))
        clipped = min(max(score / self.highest, _LEAST), 1 - _LEAST)
        return math.log(clipped / (1 - clipped)) * (1 if self.higher_is_better else -1)

    def back(self, value: float) -> float:
        """From the scale to a score."""
        if self.highest is None:
            return math.exp(-value)
        return self.highest / (1 + math.exp(-value if self.higher_is_better else value))

    @property
    def best(self) -> float:
        """The highest score there is; infinite where there is no upper end."""
        return math.inf if self.highest is None else self.highest

    def variance(self, point: Point) -> float:
        """Return the variance of a measured mean on the scale: by its test rows, and by its seeds."""
        if self.highest is None:
            return 0.01**2
        return self._of_rows(point) + self.over_seeds(point) / point.n_seeds + SEED_NOISE**2 / point.n_seeds

    def over_seeds(self, point: Point) -> float:
        """Between the seeds of a point, on the scale; 0 for one seed."""
        if self.highest is None:
            return 0.0
        return point.seed_variance * point.n_seeds / (self.best * self._chance(point)) ** 2

    def of_measured(self, point: Point, typical: float | None) -> float:
        """Return the variance of the mean of a cell that was measured itself, which nothing is pooled with.

        Args:
            point: the cell.
            typical: what seeds of such cells differ by (`typical_seed_variance`), which few seeds do not say
                themselves; None where none has several.
        """
        if self.highest is None:
            return 0.01**2
        between = self.over_seeds(point)
        if typical is not None:
            own = point.n_seeds - 1
            between = (TYPICAL_COUNTS * typical + own * between) / (TYPICAL_COUNTS + own)
        return self._of_rows(point) + between / point.n_seeds

    def _chance(self, point: Point) -> float:
        """Return the derivative of the score, as a share of the highest, along the scale."""
        right = self._share(point)
        return right * (1 - right)

    def _of_rows(self, point: Point) -> float:
        return logit_variance(self._share(point), point.n_test)

    def _share(self, point: Point) -> float:
        return shrunk(point.score / self.best, point.n_test)

    def measurements(self, points: Iterable[Point]) -> tuple[list[Where], list[float], list[float]]:
        """Where each was measured, its score on the scale, and the variance of that."""
        kept = list(points)
        where = [Where(x_of(p.n_train), z_of(p.classes), p.task, p.method, p.like) for p in kept]
        return where, [self.there(p.score) for p in kept], [self.variance(p) for p in kept]


def shrunk(share: float, n_rows: float) -> float:
    """Draw a share of rows that are right a little to one half: never 0 nor 1 (Agresti and Coull, 1998)."""
    return (share * n_rows + 2) / (n_rows + 4)


def logit_variance(share: float, n_rows: float) -> float:
    """Variance of the logit of an accuracy on so many rows; of an accuracy of 0 or 1, of one just inside."""
    return 1 / (n_rows * max(share * (1 - share), _LEAST_CHANCE))


_LEAST_CHANCE: Final = 1e-4

_LEAST: Final = 0.001

TYPICAL_COUNTS: Final = 4
"""So many seeds' worth what seeds of other cells differ by counts, beside a cell's own."""

SEED_NOISE: Final = 0.08
"""Logits that a seed differs by at the least: three that agree by luck know less than they seem to."""


def x_of(n_train: float) -> float:
    """Where a number of labels lies: 0 at 256, and 1 more for eight times as many."""
    return (math.log2(n_train or LIKE_NO_LABELS) - 8) / 3


LIKE_NO_LABELS: Final = 8
"""Number of labels that the words of the classes are worth, as far as methods without labels are like others."""


def z_of(classes: int | None) -> float:
    """Doublings of classes above two; 0 where they are not known."""
    return math.log2(classes) - 1 if classes else 0.0


def typical_seed_variance(points: Iterable[Point], scale: Scale, n_train: int) -> float | None:
    """Return the variance over seeds at about so many labels, on the scale; None where no cell has two.

    The mean of the cells with several seeds that are nearest in size: few labels differ more by which they are.
    """
    several = [point for point in points if point.n_seeds > 1]
    several.sort(key=lambda point: abs(x_of(point.n_train) - x_of(n_train)))
    nearest = several[:_NEAREST]
    return sum(scale.over_seeds(point) for point in nearest) / len(nearest) if nearest else None


_NEAREST: Final = 40


class Curves:
    """Learning curves of all methods, fitted once.

    Args:
        points: one point or more, of one metric.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self.scale = Scale(points[0].higher_is_better, points[0].highest)
        self._points = list(points)
        self._by_method = by_method(points)
        where, values, variances = self.scale.measurements(points)
        self._model = Pooled(where, np.array(values), np.array(variances), SCORE_SPREADS)

    def expected(self, question: Question) -> tuple[Floats, Floats]:
        """Mean and covariance over methods of what the task's scores would be; a curve never falls with more labels.

        What was measured of this very task and size is no matter of expectation.
        """
        z = z_of(question.classes)
        if question.task is not None and question.classes is None:
            z = next((z_of(point.classes) for point in self._points if point.task == question.task), 0.0)
        asked, middle = [], []
        for method, own in self._by_method.items():
            x = x_of(0 if all(point.n_train == 0 for point in own) else question.n_train)
            centre = float(np.mean([x_of(point.n_train) for point in own]))
            asked.append(Where(x, z, question.task, method, own[0].like))
            middle.append(Where(min(x, centre), z, question.task, method, own[0].like))
        pairs = zip(asked, middle, self._model.means(asked), self._model.means(middle), strict=True)
        mean, covariance = self._model.predict([late if a >= m else early for late, early, a, m in pairs])
        typical = typical_seed_variance(self._points, self.scale, question.n_train)
        for i, own in enumerate(self._by_method.values()):
            cell = measured_of(question, own)
            if cell is not None:
                mean[i], covariance[i], covariance[:, i] = self.scale.there(cell.score), 0.0, 0.0
                covariance[i, i] = self.scale.of_measured(cell, typical)
        return mean, covariance


def by_method(points: Iterable[Point]) -> dict[str, list[Point]]:
    """Points of each label, in the order in which they first come."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.method, []).append(point)
    return found


def measured_of(question: Question, own: Iterable[Point]) -> Point | None:
    """Return the point of this very task and size that most records speak for; None where there is none."""
    found = [point for point in own if (point.task, point.n_train) == (question.task, question.n_train)]
    return max(found, key=lambda point: point.n_records, default=None)
