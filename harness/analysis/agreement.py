"""Compare two sources that measured the same methods, by the order in which they put them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.stats

MIN_COMPARED: Final = 4
"""Fewest methods that both sources must have."""

_PERMUTATIONS: Final = 9_999


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation of one figure over the methods that two sources have.

    Attributes:
        names: methods that both have, the largest disagreement first.
        ours, theirs: their figures.
        our_ranks, their_ranks: their ranks, 1 is the least; ties share the mean of their ranks.
        correlation: Spearman's rank correlation; None where one source has the same figure for all methods.
        low, high: its interval; None where `correlation` is, and at -1 and 1, whose spread is unknown.
        p_value: two-sided p-value of no correlation, by permutations; None where `correlation` is.
    """

    names: tuple[str, ...]
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    our_ranks: tuple[float, ...]
    their_ranks: tuple[float, ...]
    correlation: float | None
    low: float | None
    high: float | None
    p_value: float | None


def rank_agreement(
    ours: Mapping[str, float], theirs: Mapping[str, float], level: float = 0.95, seed: int = 0
) -> Agreement:
    """Return how far two sources order the methods alike that both have.

    The interval is Fisher's, with the standard error of Bonett and Wright (2000) for Spearman's correlation:
    sqrt((1 + r^2 / 2) / (n - 3)). It treats the methods as a sample of methods.

    Args:
        ours: figure of each method.
        theirs: the same of the other source; the units need not be the same.
        level: coverage of the interval.
        seed: seed of the permutations.

    Raises:
        ValueError: both have fewer than `MIN_COMPARED` methods in common, or a figure is not finite.
    """
    shared = sorted(ours.keys() & theirs.keys())
    values = np.array([[float(of[name]) for name in shared] for of in (ours, theirs)])
    if len(shared) < MIN_COMPARED or not np.isfinite(values).all():
        raise ValueError(f"{len(shared)} methods are in both sources; expected at least {MIN_COMPARED}, and no NaN.")
    ranks = scipy.stats.rankdata(values, axis=1)
    order = sorted(range(len(shared)), key=lambda i: (-abs(ranks[0, i] - ranks[1, i]), shared[i]))
    correlation, low, high, p_value = _correlation(ranks, level, seed)
    our_figures, their_figures, our_ranks, their_ranks = (
        tuple(float(row[i]) for i in order) for row in (*values, *ranks)
    )
    names = tuple(shared[i] for i in order)
    return Agreement(names, our_figures, their_figures, our_ranks, their_ranks, correlation, low, high, p_value)


_Correlation = tuple[float | None, float | None, float | None, float | None]


def _correlation(ranks: npt.NDArray[np.float64], level: float, seed: int) -> _Correlation:
    """Return the correlation, the ends of its interval and its p-value."""
    if (np.ptp(ranks, axis=1) == 0).any():
        return None, None, None, None
    first, second = ranks - ranks.mean(axis=1, keepdims=True)
    scale = math.sqrt(float(np.square(first).sum() * np.square(second).sum()))

    def statistic(permuted: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
        return np.asarray((permuted * second).sum(axis=axis) / scale)

    found = scipy.stats.permutation_test(
        (first,),
        statistic,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        rng=np.random.default_rng(seed),
    )
    correlation = float(found.statistic)
    if abs(correlation) > 1 - 1e-12:
        return math.copysign(1.0, correlation), None, None, float(found.pvalue)
    half = float(scipy.stats.norm.ppf((1 + level) / 2)) * math.sqrt((1 + correlation**2 / 2) / (len(first) - 3))
    ends = [math.tanh(math.atanh(correlation) + sign * half) for sign in (-1, 1)]
    return correlation, ends[0], ends[1], float(found.pvalue)
