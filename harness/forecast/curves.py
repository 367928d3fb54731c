"""Expected scores: learning curves of methods, straight on a scale of their own, pooled over tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.forecast.evidence import Point, by_method, measured_of
from harness.forecast.pooled import Doubles, Lift, Pooled, Spreads, Where, kernel
from harness.forecast.texts import TaskTexts

SCORE_SPREADS: Final = Spreads(
    level=0.1, slope=0.7, covariate=0.12, task=0.85, task_slope=0.31, family=0.32, family_slope=0.12,
    family_covariate=0.045, family_task=0.23, method=0.096, method_slope=0.075, both=0.14, both_slope=0.11, noise=0.11,
)  # fmt: skip
"""Spreads of logits; x is 1 for eight times the labels, z the doublings of classes above two.

They are the most likely ones of the reference results (docs/explanation/advice.md), rounded. The likelihood says next
to nothing of `family_covariate`: it minimises the loss on tasks that are left out.
"""


@dataclass(frozen=True)
class Scale:
    """The scale on which learning curves are straight, and more is better.

    Attributes:
        higher_is_better: direction of the metric.
        highest: upper end of its range; None where there is none, as a perplexity has.
    """

    higher_is_better: bool
    highest: float | None = 1.0

    def there(self, score: float) -> float:
        """Return the value of a score on the scale."""
        if self.highest is None:
            return -math.log(max(score, 1.0))
        clipped = min(max(score / self.highest, _LEAST), 1 - _LEAST)
        return math.log(clipped / (1 - clipped)) * (1 if self.higher_is_better else -1)

    def back(self, value: float) -> float:
        """Return the score of a value on the scale."""
        if self.highest is None:
            return math.exp(-value)
        return self.highest / (1 + math.exp(-value if self.higher_is_better else value))

    @property
    def best(self) -> float:
        """Highest possible score; infinite where there is no upper end."""
        return math.inf if self.highest is None else self.highest

    def variance(self, point: Point) -> float:
        """Return the variance of a measured mean on the scale, from its test rows and its seeds."""
        if self.highest is None:
            return 0.01**2
        return self._of_rows(point) + self.over_seeds(point) / point.n_seeds + SEED_NOISE**2 / point.n_seeds

    def over_seeds(self, point: Point) -> float:
        """Return the variance between the seeds of a point, on the scale; 0 for one seed."""
        if self.highest is None:
            return 0.0
        return point.seed_variance * point.n_seeds / (self.best * self._chance(point)) ** 2

    def of_measured(self, point: Point, typical: float | None) -> float:
        """Return the variance of the mean of a cell that was measured itself, and is not pooled.

        Args:
            point: the cell.
            typical: variance between seeds of such cells, which few seeds do not tell; None where no cell has several.
        """
        if self.highest is None:
            return 0.01**2
        between = self.over_seeds(point)
        if typical is not None:
            own = point.n_seeds - 1
            between = (_TYPICAL_COUNTS * typical + own * between) / (_TYPICAL_COUNTS + own)
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
        """Return the places of points, their scores on the scale, and the variances of these."""
        kept = list(points)
        where = [place(p.n_train, p.classes, p.task, p.on or p.method, p.like, p.lift) for p in kept]
        values = [self.there(p.score) - _mean_lift(p.lift) for p in kept]
        return where, values, [self.variance(p) for p in kept]


def shrunk(share: float, n_rows: float) -> float:
    """Return a share of right rows drawn a little to one half: never 0 nor 1 (Agresti and Coull, 1998)."""
    return (share * n_rows + 2) / (n_rows + 4)


def logit_variance(share: float, n_rows: float) -> float:
    """Return the variance of the logit of an accuracy on so many rows; 0 and 1 count as values just inside."""
    return 1 / (n_rows * max(share * (1 - share), _LEAST_CHANCE))


_LEAST_CHANCE: Final = 1e-4

_LEAST: Final = 0.001

_TYPICAL_COUNTS: Final = 4
"""Number of a cell's own seeds that the typical variance between seeds counts as much as."""

SEED_NOISE: Final = 0.08
"""Least standard deviation between seeds, in logits: three that agree by luck know less than they seem to."""


def place(
    n_train: float, classes: int | None, task: str | None, method: str, family: str, lift: Lift | None = None
) -> Where:
    """Return the place of a method's score on a task at a number of labels."""
    return Where(x_of(n_train), _z_of(classes), task, method, family, lift)


def _mean_lift(lift: Lift | None) -> float:
    return 0.0 if lift is None else lift.mean


def x_of(n_train: float) -> float:
    """Return the place of a number of labels: 0 for 256, and 1 more for eight times as many."""
    return (math.log2(n_train or _LIKE_NO_LABELS) - 8) / 3


_LIKE_NO_LABELS: Final = 8
"""Number of labels that methods without labels count as: the words of the classes are worth some."""


def _z_of(classes: int | None) -> float:
    """Return the doublings of classes above two; 0 where they are not known."""
    return math.log2(classes) - 1 if classes else 0.0


def _typical_seed_variance(points: Iterable[Point], scale: Scale, n_train: int) -> float | None:
    """Return the variance between seeds at about so many labels, on the scale; None where no cell has two.

    It is the mean over the cells with several seeds that are nearest in size: seeds differ more with few labels.
    """
    several = [point for point in points if point.n_seeds > 1]
    several.sort(key=lambda point: abs(x_of(point.n_train) - x_of(n_train)))
    nearest = several[:_NEAREST]
    return sum(scale.over_seeds(point) for point in nearest) / len(nearest) if nearest else None


_NEAREST: Final = 40


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
    """

    def __init__(self, points: Sequence[Point], carried: Mapping[str, tuple[Sequence[Point], Lift]] = _NONE) -> None:
        self.scale = Scale(points[0].higher_is_better, points[0].highest) if points else Scale(higher_is_better=True)
        self.by_method = by_method(points)
        self.carried = frozenset(carried)
        self._lifts = {label: lift for label, (_, lift) in carried.items()}
        self.by_method |= {label: list(own) for label, (own, _) in carried.items()}
        self._points = list(points)
        where, values, variances = self.scale.measurements(points)
        self._model = Pooled(where, np.array(values), np.array(variances), SCORE_SPREADS) if where else None

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
        z = _z_of(asked.classes)
        if asked.task is not None and asked.classes is None:
            z = next((_z_of(point.classes) for point in self._points if point.task == asked.task), 0.0)
        ends, middle = [], []
        for method, own in self.by_method.items():
            x = x_of(0 if all(point.n_train == 0 for point in own) else asked.n_train)
            centre = float(np.mean([x_of(point.n_train) for point in own]))
            lift, bare = self._lifts.get(method, own[0].lift), own[0].on or method
            ends.append(Where(x, z, asked.task, bare, own[0].like, lift))
            middle.append(Where(min(x, centre), z, asked.task, bare, own[0].like, lift))
        pairs = zip(ends, middle, self._model.means(ends), self._model.means(middle), strict=True)
        mean, covariance = self._model.predict([late if a >= m else early for late, early, a, m in pairs])
        mean = mean + np.array([_mean_lift(end.lift) for end in ends])
        typical = _typical_seed_variance(self._points, self.scale, asked.n_train)
        for i, (method, own) in enumerate(self.by_method.items()):
            cell = None if method in self.carried else measured_of(asked, own)
            if cell is not None:
                mean[i], covariance[i], covariance[:, i] = self.scale.there(cell.score), 0.0, 0.0
                covariance[i, i] = self.scale.of_measured(cell, typical)
        return mean, covariance
