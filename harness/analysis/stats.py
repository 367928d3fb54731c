"""Compute intervals, paired differences and the Pareto front from arrays.

A score is the mean over seeds of the mean over test rows. Both vary: another seed draws other training rows and
another initialisation, other test rows would have been as good. They are crossed (every seed answers the same rows),
so the model is the two-way crossed random-effects model without replication,

    y[s, r] = mean + seed[s] + row[r] + rest[s, r],

whose variance components follow from the mean squares by the method of moments (Searle, Casella & McCulloch, 1992).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.stats

MIN_TESTED_SEEDS = 3
"""Fewest seeds, above one, on which two methods are tested."""

_SEED_WEIGHT = 4.0
"""Weight of the mean square of seeds in the degrees of freedom of a test: the least that keeps its level."""

IntervalBasis = Literal["seeds and test rows", "test rows only", "seeds only", "none"]
"""Sources of variation that an interval covers; "none" stands for no interval."""


@dataclass(frozen=True)
class ScoreSummary:
    """The mean score over seeds with its interval.

    Attributes:
        mean: mean score, in the metric's own range.
        low, high: ends of the interval; None where the variation is unknown.
        n_seeds: number of seeds averaged over.
        basis: sources of variation that the interval covers.
    """

    mean: float
    low: float | None
    high: float | None
    n_seeds: int
    basis: IntervalBasis


@dataclass(frozen=True)
class Difference:
    """The mean difference between two methods on the same seeds and test rows.

    Attributes:
        mean: the first less the second.
        low, high: ends of its interval; None with `basis` "none", and with two seeds (see `paired_difference`).
        p_value: two-sided p-value of no difference; None where `low` is.
        n_seeds, n_rows: numbers of seeds and test rows compared.
        basis: sources of variation that the interval covers.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    n_seeds: int
    n_rows: int
    basis: IntervalBasis


def wilson_interval(correct: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion (Wilson, 1927).

    Args:
        correct: number of successes, from 0 to `n`; fractions are allowed.
        n: number of trials, at least 1.
        level: coverage, between 0 and 1.
    """
    _check_level(level)
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"{correct} right of {n} was given; expected 0 to n of n >= 1.")
    return _wilson(correct / n, n, float(scipy.stats.norm.ppf((1 + level) / 2)))


def summarise_scores(
    scores: npt.ArrayLike,
    correct: npt.ArrayLike | None = None,
    level: float = 0.95,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    is_mean: bool = True,
) -> ScoreSummary:
    """Return the mean score over seeds with an interval over seeds and test rows, as far as they are known.

    With a matrix and at least two seeds, the interval treats seeds and test rows as crossed. With one seed it covers
    test rows only and is too narrow, since another seed would differ too. Without a matrix it is Student's interval
    over seeds only, and there is none where all seeds have the same score. `basis` tells these apart.

    No interval leaves the range of the metric. Cutting it off there loses nothing: no true score lies outside.

    Args:
        scores: one score a seed, shape (n_seeds,).
        correct: score of each seed on each test row, the same rows in each, shape (n_seeds, n_rows), or None. Its row
            means are `scores`. Where `is_mean` is false, any contributions of rows to a metric whose mean varies as
            the metric does, such as jackknife pseudo-values (Tukey, 1958).
        level: coverage, between 0 and 1.
        bounds: range of the metric; infinite where it has no end.
        is_mean: whether the metric is the mean of `correct`. Between finite bounds, its interval is then Wilson's.

    Raises:
        ValueError: shapes do not match, or a score lies outside `bounds`.
    """
    _check_level(level)
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"Scores of shape {values.shape} were given; expected (n_seeds,) with n_seeds >= 1.")
    n_seeds, mean = values.size, float(values.mean())
    if correct is None:
        if n_seeds == 1:
            return ScoreSummary(mean, None, None, 1, "none")
        # Equal scores do not tell how others would vary. Their computed variance need not be 0: the mean is rounded.
        if np.ptp(values) == 0:
            return ScoreSummary(mean, None, None, n_seeds, "none")
        half = _half_width(float(values.var(ddof=1)) / n_seeds, n_seeds - 1, level)
        return ScoreSummary(mean, *_within(bounds, mean, half), n_seeds, "seeds only")
    matrix = _matrix(correct)
    if matrix.shape[0] != n_seeds:
        raise ValueError(f"{n_seeds} scores and a matrix of {matrix.shape[0]} seeds were given; expected as many.")
    if is_mean and (matrix.min() < bounds[0] or matrix.max() > bounds[1]):
        raise ValueError(f"Scores per row must lie between {bounds[0]:g} and {bounds[1]:g}.")
    if not (is_mean and math.isfinite(bounds[1] - bounds[0])):
        return _summarise_contributions(mean, matrix, level, bounds)
    low, high, basis = _interval_of_proportion((matrix - bounds[0]) / (bounds[1] - bounds[0]), level)
    start, width = bounds[0], bounds[1] - bounds[0]
    return ScoreSummary(float(matrix.mean()), start + width * low, start + width * high, n_seeds, basis)


def _interval_of_proportion(matrix: npt.NDArray[np.float64], level: float) -> tuple[float, float, IntervalBasis]:
    """Return Wilson's interval for the mean of values between 0 and 1, shape (n_seeds, n_rows)."""
    (n_seeds, n_rows), mean = matrix.shape, float(matrix.mean())
    if n_seeds == 1:
        return *wilson_interval(float(matrix.sum()), n_rows, level), "test rows only"
    variance, freedom = crossed_variance(matrix)
    if variance == 0:  # all right or all wrong tells no more of the rows than one seed would
        return *wilson_interval(mean * n_rows, n_rows, level), "seeds and test rows"
    # Wilson's interval on the effective number of independent rows: near 0 and 1, where the best methods lie,
    # mean +- t * error would be too short on one side and leave the range on the other.
    return *_wilson(mean, mean * (1 - mean) / variance, _quantile(freedom, level)), "seeds and test rows"


def _summarise_contributions(
    mean: float, matrix: npt.NDArray[np.float64], level: float, bounds: tuple[float, float]
) -> ScoreSummary:
    n_seeds, n_rows = matrix.shape
    if n_rows < 2 or np.ptp(matrix) == 0:  # equal contributions do not tell how those of other rows would vary
        return ScoreSummary(mean, None, None, n_seeds, "none")
    if n_seeds == 1:
        half = _half_width(float(matrix.var(ddof=1)) / n_rows, n_rows - 1, level)
        return ScoreSummary(mean, *_within(bounds, mean, half), 1, "test rows only")
    half = _half_width(*crossed_variance(matrix), level)
    return ScoreSummary(mean, *_within(bounds, mean, half), n_seeds, "seeds and test rows")


def _within(bounds: tuple[float, float], mean: float, half: float) -> tuple[float, float]:
    """Return the ends of mean +- half, cut off at `bounds`."""
    return max(bounds[0], mean - half), min(bounds[1], mean + half)


def paired_difference(
    correct_a: npt.ArrayLike, correct_b: npt.ArrayLike, level: float = 0.95, *, mean: float | None = None
) -> Difference:
    """Return the difference of `a` less `b`, with an interval over crossed seeds and test rows, and a p-value.

    With one seed both cover test rows only. Pairing removes the difficulty that a seed's draw or a row has for both.

    Two seeds give neither, unless all rows agree: the spread of two seeds is often small by chance. Satterthwaite's
    degrees of freedom then find up to 13 % false differences where 5 % are promised. The test that keeps its promise
    (Student's t with one degree of freedom) finds next to none of the differences of four standard errors. From three
    seeds on, the mean square of seeds enters the degrees of freedom with `_SEED_WEIGHT`. False differences at the 5 %
    level, at the least favourable ratio of the variances of seeds, rows and the rest (tests/test_coverage.py):

        seeds   Satterthwaite   here
            2          13.2 %   not tested
            3           8.1 %      5.2 %
            5           5.9 %      5.2 %
           10           5.3 %      5.2 %

    Args:
        correct_a: score of each seed on each test row, shape (n_seeds, n_rows).
        correct_b: the same of the other method, on the same seeds and rows in the same order.
        level: coverage, between 0 and 1.
        mean: mean difference of scores, where the matrices hold contributions to a metric that is not their mean.
    """
    _check_level(level)
    a, b = _matrix(correct_a), _matrix(correct_b)
    if a.shape != b.shape:
        raise ValueError(f"Matrices of shapes {a.shape} and {b.shape} were given; expected the same seeds and rows.")
    difference = a - b
    n_seeds, n_rows = difference.shape
    mean = float(difference.mean()) if mean is None else mean
    basis: IntervalBasis = "seeds and test rows"
    if n_seeds > 1 and n_rows > 1:
        if n_seeds < MIN_TESTED_SEEDS and np.ptp(difference) > 0:
            return Difference(mean, None, None, None, n_seeds, n_rows, basis)
        variance, freedom = crossed_variance(difference)[0], _cautious_freedom(difference)
    elif n_rows > 1:
        variance, freedom = float(difference.var(ddof=1)) / n_rows, float(n_rows - 1)
        basis = "test rows only"
    else:
        return Difference(mean, None, None, None, n_seeds, n_rows, "none")
    if mean != 0 and np.ptp(difference) == 0:
        # The same difference on every row leaves no variance to go by: the sign test over rows remains.
        return Difference(mean, None, None, min(1.0, 2 * 0.5**n_rows), n_seeds, n_rows, "test rows only")
    half = _half_width(variance, freedom, level)
    return Difference(mean, mean - half, mean + half, _p_value(mean, variance, freedom), n_seeds, n_rows, basis)


def unpaired_difference(
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    variances: tuple[float | None, float | None] = (None, None),
    level: float = 0.95,
) -> Difference:
    """Return the difference of `a` less `b` without shared test rows: Welch's t over seeds, or normal over test rows.

    Args:
        scores_a: one score per seed, shape (n_seeds,).
        scores_b: the same of the other method; seeds need not be the same.
        variances: variance of each score over test rows, for a single seed or equal seeds; None where unknown.
        level: coverage, between 0 and 1.
    """
    _check_level(level)
    a, b = (np.asarray(scores, dtype=np.float64) for scores in (scores_a, scores_b))
    mean = float(a.mean() - b.mean())
    n_seeds = min(a.size, b.size)
    if n_seeds >= 2 and (np.ptp(a) > 0 or np.ptp(b) > 0):
        parts = [(float(x.var(ddof=1)) / x.size, x.size - 1) for x in (a, b)]
        variance = sum(part for part, _ in parts)
        spread = sum(part**2 / freedom for part, freedom in parts)
        freedom = variance**2 / spread if spread > 0 else float(a.size + b.size - 2)
        basis: IntervalBasis = "seeds only"
    elif variances[0] is not None and variances[1] is not None:
        # As if each had its own test rows: with the same ones the truth is surer than this says.
        variance, freedom, basis = variances[0] + variances[1], math.inf, "test rows only"
    else:
        return Difference(mean, None, None, None, n_seeds, 0, "none")
    half = _half_width(variance, freedom, level)
    return Difference(mean, mean - half, mean + half, _p_value(mean, variance, freedom), n_seeds, 0, basis)


def _p_value(mean: float, variance: float, freedom: float) -> float:
    if variance > 0:
        return float(2 * scipy.stats.t.sf(abs(mean) / math.sqrt(variance), freedom))
    return 1.0 if mean == 0 else 0.0


def crossed_variance(matrix: npt.ArrayLike) -> tuple[float, float]:
    """Return the variance of the grand mean of seeds x rows, both random and crossed, and its degrees of freedom.

    Var(mean) = var_seed / S + var_row / N + var_rest / (S N), each component estimated from the mean squares and cut
    off at 0; degrees of freedom by Satterthwaite (1946).

    Args:
        matrix: shape (S, N), S >= 2 seeds by N >= 2 rows.
    """
    values = np.asarray(matrix, dtype=np.float64)
    n_seeds, n_rows = values.shape
    if n_seeds < 2 or n_rows < 2:
        raise ValueError(f"A matrix of {n_seeds} seeds and {n_rows} rows was given; expected at least 2 of each.")
    if np.ptp(values) == 0:  # rounding of the mean would leave a variance that is not quite 0
        return 0.0, float((n_seeds - 1) * (n_rows - 1))
    (ms_seed, ms_row, ms_rest), (freedom_seed, freedom_row, freedom_rest) = _mean_squares(values)
    # (weight, mean square, degrees of freedom): without cutting off, ms_seed + ms_row - ms_rest.
    keeps_seed, keeps_row = ms_seed > ms_rest, ms_row > ms_rest
    terms = [
        (float(keeps_seed), ms_seed, freedom_seed),
        (float(keeps_row), ms_row, freedom_row),
        (1.0 - keeps_seed - keeps_row, ms_rest, freedom_rest),
    ]
    total = sum(weight * square for weight, square, _ in terms)
    if total <= 0:
        return 0.0, float(freedom_rest)
    spread = sum((weight * square) ** 2 / freedom for weight, square, freedom in terms)
    return total / (n_seeds * n_rows), max(1.0, total**2 / spread)


def _mean_squares(values: npt.NDArray[np.float64]) -> tuple[tuple[float, float, float], tuple[int, int, int]]:
    """Return the mean squares of seeds, rows and the rest, and their degrees of freedom."""
    n_seeds, n_rows = values.shape
    grand = values.mean()
    seed_effect, row_effect = values.mean(axis=1) - grand, values.mean(axis=0) - grand
    rest = values - grand - seed_effect[:, None] - row_effect[None, :]
    freedom_seed, freedom_row = n_seeds - 1, n_rows - 1
    freedom_rest = freedom_seed * freedom_row
    ms_seed = n_rows * float(np.square(seed_effect).sum()) / freedom_seed
    ms_row = n_seeds * float(np.square(row_effect).sum()) / freedom_row
    ms_rest = float(np.square(rest).sum()) / freedom_rest
    return (ms_seed, ms_row, ms_rest), (freedom_seed, freedom_row, freedom_rest)


def _cautious_freedom(values: npt.NDArray[np.float64]) -> float:
    """Return degrees of freedom for a test of the grand mean of seeds x rows, shape (S, N), S >= 3 and N >= 2.

    They are Satterthwaite's with the mean square of seeds counted `_SEED_WEIGHT` times, and S - 1 at least: a spread of
    few seeds that is small by chance must not pass for a certain one.
    """
    (ms_seed, ms_row, ms_rest), (freedom_seed, freedom_row, freedom_rest) = _mean_squares(values)
    seed, row = _SEED_WEIGHT * max(ms_seed, ms_rest), max(ms_row, ms_rest)
    spread = seed**2 / freedom_seed + row**2 / freedom_row + ms_rest**2 / freedom_rest
    return max(float(freedom_seed), (seed + row - ms_rest) ** 2 / spread if spread > 0 else 0.0)


def pareto_front(cost: npt.ArrayLike, score: npt.ArrayLike, higher_is_better: bool = True) -> npt.NDArray[np.bool_]:
    """Return the points that no other dominates, being at most as costly, at least as good, and better in one of both.

    Copies of a point on the front are on it too. Points whose cost or score is null are not.

    Args:
        cost: shape (n,); null (None, NaN, pd.NA) where unknown.
        score: shape (n,).
        higher_is_better: direction of `score`.

    Returns:
        A mask, shape (n,).
    """
    costs, scores = _nullable(cost), _nullable(score)
    if costs.shape != scores.shape or costs.ndim != 1:
        raise ValueError(f"Costs {costs.shape} and scores {scores.shape} were given; expected one of each a point.")
    gains = scores if higher_is_better else -scores
    front = np.zeros(costs.shape, dtype=np.bool_)
    known = np.flatnonzero(~(np.isnan(costs) | np.isnan(gains)))
    best = -np.inf
    cheapest_first = known[np.lexsort((-gains[known], costs[known]))]
    previous: tuple[float, float] | None = None
    for i in cheapest_first:
        point = (float(costs[i]), float(gains[i]))
        front[i] = gains[i] > best or point == previous
        if gains[i] > best:
            best, previous = gains[i], point
    return front


def _matrix(correct: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(correct, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"A matrix of shape {values.shape} was given; expected (n_seeds, n_rows), neither of them 0.")
    return values


def _nullable(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    # A pandas series of a nullable type holds pd.NA, which numpy cannot read as a number.
    convert: Any = getattr(values, "to_numpy", None)
    if convert is not None:
        return np.asarray(convert(dtype="float64", na_value=np.nan), dtype=np.float64)
    return np.asarray(values, dtype=np.float64)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"The level {level} was given; expected one between 0 and 1, such as 0.95.")


def _quantile(freedom: float, level: float) -> float:
    return float(scipy.stats.t.ppf((1 + level) / 2, freedom))


def _half_width(variance: float, freedom: float, level: float) -> float:
    return _quantile(freedom, level) * math.sqrt(variance)


def _wilson(mean: float, n_effective: float, quantile: float) -> tuple[float, float]:
    squared = quantile**2
    centre = (mean + squared / (2 * n_effective)) / (1 + squared / n_effective)
    half = quantile * math.sqrt(mean * (1 - mean) / n_effective + squared / (4 * n_effective**2))
    half /= 1 + squared / n_effective
    low = 0.0 if mean == 0 else max(0.0, centre - half)  # exactly, not to rounding
    return low, 1.0 if mean == 1 else min(1.0, centre + half)
