"""A score to reach: the chance of it with the labels at hand, and the labels that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.advice.choices import Beliefs
from harness.support import text

_SIZES: Final = 14
"""Number of sizes at which the chance is looked up; between them, it goes by the logarithm of the size."""

BEYOND: Final = 10
"""Largest ratio of a number of labels to the largest measured one, up to which the labels needed are told."""


@dataclass(frozen=True)
class Reach:
    """The chance of a score that was asked for, and the labels needed.

    Attributes:
        score: the score.
        method: the best method within the other limits.
        probability: probability that it reaches the score with the labels at hand.
        labels: number of labels at which the best method reaches the score with even chances; None where it cannot be
            told, or where it does so now.
        labels_low, labels_high: numbers of labels with a chance of 10 and of 90 %; None where it cannot be told.
        up_to: largest number of labels that was looked at.
    """

    score: float
    method: str
    probability: float
    labels: int | None
    labels_low: int | None
    labels_high: int | None
    up_to: int

    @property
    def sentences(self) -> tuple[str, ...]:
        """The chance and the labels in words."""
        first = f"{self.method} reaches {text.score(self.score)} with a probability of {_percent(self.probability)}."
        if self.labels is None:
            beyond = f"{self.up_to:,} are not expected to be enough, and the records say nothing of more"
            return first, f"The labels needed for {text.score(self.score)} cannot be told: {beyond}."
        low = "fewer than now" if self.labels_low is None else f"{self.labels_low:,}"
        high = f"more than {self.up_to:,}" if self.labels_high is None else f"{self.labels_high:,}"
        return first, f"For even chances it takes about {self.labels:,} labels (80 %: {low} to {high})."


def _percent(share: float) -> str:
    return "below 1 %" if share < 0.01 else "above 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def find_reach(
    score: float,
    n_train: int,
    best: str,
    methods: Sequence[str],
    beliefs: Beliefs,
    beliefs_at: Callable[[int], Beliefs],
    largest: int,
) -> Reach:
    """Return the chance of a score and the labels needed.

    Args:
        score: the score.
        n_train: number of labels at hand.
        best: label of the best method within the other limits.
        methods: labels of all methods within them.
        beliefs: expected scores with these labels.
        beliefs_at: returns those at another number of labels.
        largest: largest measured number of labels.
    """
    start = max(n_train, 1)
    up_to = max(BEYOND * largest, start)
    sizes = sorted({round(start * (up_to / start) ** (i / (_SIZES - 1))) for i in range(_SIZES)})
    chances = []
    for size in sizes:
        there = beliefs_at(size)
        top = max({best, *methods} & {*there.methods}, key=lambda method: there.worth(method))
        chances.append(there.reaches(top, score))
    low, middle, high = (_size_at(share, sizes, chances) for share in (0.1, 0.5, 0.9))
    return Reach(
        score,
        best,
        beliefs.reaches(best, score),
        _rounded(middle),
        None if low is None or low <= start else _rounded(low),
        _rounded(high),
        _rounded(sizes[-1]) or sizes[-1],
    )


def _size_at(share: float, sizes: Sequence[int], chances: Sequence[float]) -> float | None:
    """Return the size from which on a chance is reached; None where it is not."""
    at = next((i for i, chance in enumerate(chances) if chance >= share), None)
    if at is None or at == 0:
        return None if at is None else float(sizes[0])
    (a, b), (below, above) = (math.log(sizes[i]) for i in (at - 1, at)), chances[at - 1 : at + 1]
    return math.exp(a + (b - a) * (share - below) / (above - below))


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(float(f"{value:.2g}"))
