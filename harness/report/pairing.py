"""Compare two groups of cells on the seeds and test rows that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.analysis import Difference, paired_difference, unpaired_difference
from harness.records import Record
from harness.report.observations import Observations, matrix

_NORMAL = 1.959964
"""Half the width of a 95 % interval in standard errors."""


@dataclass
class Group:
    """The scored cells of one configuration at one size.

    Attributes:
        n_train: labels; 0 for methods that need none, whose one cell counts for every seed and size.
        keys: (id, device) of each seed's cell.
        scores: score of each seed.
        variances: variance of each score over test rows, from its interval; None where it has none.
    """

    n_train: int
    keys: dict[int, tuple[str, str]] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    variances: dict[int, float | None] = field(default_factory=dict)

    def add(self, seed: int, key: tuple[str, str], score: float, low: float | None, high: float | None) -> None:
        """Add a cell with its score and the ends of the 95 % interval over test rows, where there is one."""
        self.keys[seed], self.scores[seed] = key, score
        self.variances[seed] = None if low is None or high is None else ((high - low) / (2 * _NORMAL)) ** 2


def group_of(records: Sequence[Record]) -> Group:
    """Return scored records of one configuration and size as a group."""
    group = Group(records[0].cell.n_train)
    for record in records:
        assert record.score is not None
        group.add(record.cell.seed, (record.id, record.device), record.score.value, record.score.low, record.score.high)
    return group


def mean_score(records: Sequence[Record]) -> float:
    """Return the mean score of scored records."""
    return float(np.mean([record.score.value for record in records if record.score is not None]))


def contrast(a: Group, b: Group, of_a: Observations, of_b: Observations | None = None) -> Difference:
    """Return the difference of `a` less `b`: paired where they share seeds and test rows, else unpaired.

    Args:
        a: the first group.
        b: the second group.
        of_a: observations that hold the cells of `a`.
        of_b: observations that hold the cells of `b`; None where they are the same.
    """
    of_b = of_b or of_a
    seeds_a, seeds_b = _shared(a, b)
    if seeds_a:
        scores_a = [a.scores[seed] for seed in seeds_a]
        scores_b = [b.scores[seed] for seed in seeds_b]
        rows_a = matrix(of_a, [a.keys[seed] for seed in seeds_a], scores_a)
        rows_b = matrix(of_b, [b.keys[seed] for seed in seeds_b], scores_b)
        if rows_a is not None and rows_b is not None and rows_a.are_on_rows_of(rows_b):
            mean = None if rows_a.is_mean else float(np.mean(scores_a) - np.mean(scores_b))
            return paired_difference(rows_a.values, rows_b.values, mean=mean)
    variances = tuple(_variance(group) for group in (a, b))
    return unpaired_difference(list(a.scores.values()), list(b.scores.values()), variances)  # type: ignore[arg-type]


def _shared(a: Group, b: Group) -> tuple[list[int], list[int]]:
    """Return the seeds of each to pair: shared seeds, or every seed with the one cell of a method without labels."""
    if a.n_train == 0 and b.n_train > 0 and a.keys:
        return [min(a.keys)] * len(b.keys), sorted(b.keys)
    if b.n_train == 0 and a.n_train > 0 and b.keys:
        return sorted(a.keys), [min(b.keys)] * len(a.keys)
    both = sorted(a.keys.keys() & b.keys.keys())
    return both, both


def _variance(group: Group) -> float | None:
    known = [variance for variance in group.variances.values() if variance is not None]
    return float(np.mean(known)) if known else None
