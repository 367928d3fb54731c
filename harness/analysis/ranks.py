"""Correct many comparisons at once (Holm), and rank methods over tasks (Friedman, Nemenyi)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.stats

MIN_TESTED_TASKS = 5
"""Fewest tasks over which ranks are tested."""


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number, in the order given (Holm, 1979); None stays None and is not counted.

    The chance that any true hypothesis falls below a level is at most that level.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class Ranking:
    """Methods ranked on each of several tasks.

    Attributes:
        mean_ranks: mean rank of each method over the tasks, 1 is best; ties share the mean of their ranks.
        statistic: Friedman's chi-squared, corrected for ties; None for fewer than `MIN_TESTED_TASKS` tasks.
        p_value: p-value of no difference between any methods; None where `statistic` is.
        critical_difference: two methods whose mean ranks lie further apart differ (Nemenyi, at `level`); None where
            `statistic` is.
        n_tasks: number of tasks.
        level: level of the critical difference.
    """

    mean_ranks: tuple[float, ...]
    statistic: float | None
    p_value: float | None
    critical_difference: float | None
    n_tasks: int
    level: float = 0.05


def rank(scores: npt.ArrayLike, higher_is_better: Sequence[bool], level: float = 0.05) -> Ranking:
    """Rank methods over tasks, with Friedman's test and Nemenyi's critical difference.

    The method follows Demsar (2006, jmlr.org/papers/v7/demsar06a.html). Ranks over fewer than `MIN_TESTED_TASKS` tasks
    are not tested: the tests hold for many tasks, and over so few hardly any difference could be shown.

    Args:
        scores: shape (n_tasks, n_methods), without gaps; at least two of each.
        higher_is_better: direction of each task's metric.
        level: level of the critical difference.

    Raises:
        ValueError: for fewer tasks or methods, or gaps.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2 or np.isnan(values).any():
        raise ValueError(
            f"Scores of shape {values.shape} were given; expected at least 2 tasks by 2 methods without gaps."
        )
    if len(higher_is_better) != len(values):
        raise ValueError(f"{len(higher_is_better)} directions were given for {len(values)} tasks; expected one each.")
    signs = np.where(np.asarray(higher_is_better), -1.0, 1.0)
    ranks = scipy.stats.rankdata(values * signs[:, None], axis=1)
    n_tasks, n_methods = values.shape
    means = ranks.mean(axis=0)
    mean_ranks = tuple(float(mean) for mean in means)
    if n_tasks < MIN_TESTED_TASKS:
        return Ranking(mean_ranks, None, None, None, n_tasks, level)
    # Friedman's statistic with the usual correction for ties; scipy's own function wants three methods.
    spread = float(np.square(ranks - (n_methods + 1) / 2).sum()) / (n_tasks * (n_methods - 1))
    between = n_tasks * float(np.square(means - (n_methods + 1) / 2).sum())
    statistic = between / spread if spread > 0 else 0.0
    p_value = float(scipy.stats.chi2.sf(statistic, n_methods - 1)) if spread > 0 else 1.0
    quantile = float(scipy.stats.studentized_range.ppf(1 - level, n_methods, math.inf)) / math.sqrt(2)
    difference = quantile * math.sqrt(n_methods * (n_methods + 1) / (6 * n_tasks))
    return Ranking(mean_ranks, statistic, p_value, difference, n_tasks, level)


def cliques(mean_ranks: Sequence[float], critical_difference: float) -> list[tuple[int, int]]:
    """Return the longest runs of methods, in order of rank, whose ranks lie within the critical difference.

    Returns:
        (first, last) positions in the sorted order of each run of two or more that no other contains.
    """
    ordered = sorted(mean_ranks)
    found: list[tuple[int, int]] = []
    for first, low in enumerate(ordered):
        last = max(i for i, high in enumerate(ordered) if high - low <= critical_difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
