"""Expected scores: learning curves of methods, straight on a scale of their own, pooled over tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.advice.evidence import Point
from harness.advice.pooled import Floats, Pooled, Spreads, Where
from harness.advice.question import Question

SCORES: Final = Spreads(
    level=0.1, slope=0.7, covariate=0.12, task=0.85, task_slope=0.31, family=0.32, family_slope=0.12,
    family_covariate=0.015, family_task=0.23, method=0.096, method_slope=0.075, both=0.14, both_slope=0.11, noise=0.11,
)  # fmt: skip
"""On the scale of logits; x is 1 for eight times the labels, z the doublings of classes above two.

The most likely ones of the reference results (docs/advice.md), rounded.
"""


@dataclass(frozen=True)
class Scale:
    """Scores on a scale that curves are straight on, where more is better."""

    metric: str
    higher_is_better: bool

    def there(self, score: float) -> float:
        """From a score to the scale."""
        if self.metric == "perplexity":
            return -math.log(max(score, 1.0))
        clipped = min(max(score, _LEAST), 1 - _LEAST)
        return math.log(clipped / (1 - clipped)) * (1 if self.higher_is_better else -1)

    def back(self, value: float) -> float:
        """From the scale to a score."""
        if self.metric == "perplexity":
            return math.exp(-value)
        return 1 / (1 + math.exp(-value if self.higher_is_better else value))

    def variance(self, point: Point, seed_noise: float | None = None) -> float:
        """Of a measured mean, on the scale: by its test rows, and by its seeds."""
        if self.metric == "perplexity":
            return 0.01**2
        noise = SEED_NOISE if seed_noise is None else seed_noise
        right = (point.score * point.n_test + 2) / (point.n_test + 4)  # never 0 nor 1 (Agresti and Coull, 1998)
        chance = right * (1 - right)
        return 1 / (point.n_test * chance) + point.seed_variance / chance**2 + noise**2 / point.n_seeds

    def measurements(self, points: Iterable[Point]) -> tuple[list[Where], list[float], list[float]]:
        """Where each was measured, its score on the scale, and the variance of that."""
        kept = list(points)
        where = [Where(x_of(p.n_train), z_of(p.classes), p.task, p.method, p.family) for p in kept]
        return where, [self.there(p.score) for p in kept], [self.variance(p) for p in kept]


_LEAST: Final = 0.001

SEED_NOISE: Final = 0.08
"""Logits that a seed differs by at the least: three that agree by luck know less than they seem to."""


def x_of(n_train: float) -> float:
    """Where a number of labels lies: 0 at 256, and 1 more for eight times as many."""
    return (math.log2(n_train or LIKE_NO_LABELS) - 8) / 3


LIKE_NO_LABELS: Final = 8
"""What the words of the classes are worth in labels, as far as methods that need none are like others."""


def z_of(classes: int | None) -> float:
    """Doublings of classes above two; 0 where they are not known."""
    return math.log2(classes) - 1 if classes else 0.0


def expected_scores(
    question: Question, points: list[Point], by_method: dict[str, list[Point]]
) -> tuple[Floats, Floats]:
    """Mean and covariance over methods of what the task's scores would be; a curve never falls with more labels."""
    scale = Scale(points[0].metric, points[0].higher_is_better)
    where, values, variances = scale.measurements(points)
    model = Pooled(where, np.array(values), np.array(variances), SCORES)
    z = z_of(question.classes)
    if question.task is not None and question.classes is None:
        z = next((z_of(point.classes) for point in points if point.task == question.task), 0.0)
    asked, middle = [], []
    for method, own in by_method.items():
        x = x_of(0 if all(point.n_train == 0 for point in own) else question.n_train)
        centre = float(np.mean([x_of(point.n_train) for point in own]))
        asked.append(Where(x, z, question.task, method, own[0].family))
        middle.append(Where(min(x, centre), z, question.task, method, own[0].family))
    at_size, _ = model.predict(asked)
    at_middle, _ = model.predict(middle)
    chosen = [late if a >= m else early for late, early, a, m in zip(asked, middle, at_size, at_middle, strict=True)]
    return model.predict(chosen)
