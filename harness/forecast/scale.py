"""The scale on which learning curves are straight, and variances of measured scores on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from harness.forecast.evidence import Point


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
            return math.log(max(score, _LEAST_UNBOUNDED)) * (1 if self.higher_is_better else -1)
        clipped = min(max(score / self.highest, _LEAST), 1 - _LEAST)
        return math.log(clipped / (1 - clipped)) * (1 if self.higher_is_better else -1)

    def back(self, value: float) -> float:
        """Return the score of a value on the scale."""
        if self.highest is None:
            return math.exp(value if self.higher_is_better else -value)
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


def shrunk(share: float, n_rows: float) -> float:
    """Return a share of right rows drawn a little to one half: never 0 nor 1 (Agresti and Coull, 1998)."""
    return (share * n_rows + 2) / (n_rows + 4)


def logit_variance(share: float, n_rows: float) -> float:
    """Return the variance of the logit of an accuracy on so many rows; 0 and 1 count as values just inside."""
    return 1 / (n_rows * max(share * (1 - share), _LEAST_CHANCE))


_LEAST_CHANCE: Final = 1e-4

_LEAST: Final = 0.001

_LEAST_UNBOUNDED: Final = 1e-6
"""Least score of a metric without an upper end, such as a perplexity or an error rate: logarithms need one above 0."""

_TYPICAL_COUNTS: Final = 4
"""Number of a cell's own seeds that the typical variance between seeds counts as much as."""

SEED_NOISE: Final = 0.08
"""Least standard deviation between seeds, in logits: three that agree by luck know less than they seem to."""
