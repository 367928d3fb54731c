"""Metrics of estimated numbers: Pearson's and Spearman's correlation, mean absolute and root mean squared error."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.metrics.base import MetricSpec, Statistics, metrics

Reals = npt.NDArray[np.float64]

_NAMES: Final = ("estimate", "truth")
_LITTLE_LEFT: Final = 1e-3
"""Share of a sum of squares below which the rest after a subtraction is computed anew: rounding would show."""
_CHUNK: Final = 128
"""Rows that are left out at once, one matrix row each."""


def _pairs(estimate: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Statistics:
    return {"estimate": estimate.astype(np.float64), "truth": truth.astype(np.float64)}


def _columns(rows: Statistics) -> tuple[Reals, Reals]:
    estimate, truth = (rows[name].astype(np.float64) for name in _NAMES)
    if not (np.isfinite(estimate).all() and np.isfinite(truth).all()):
        raise ValueError("An estimate or a right number is not finite; expected real numbers.")
    return estimate, truth


def correlation(x: Reals, y: Reals) -> float:
    """Return Pearson's correlation of two columns of shape (rows,); 0.0 where one of them is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    x, y = _centred(x), _centred(y)
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), -1, 1))


def _centred(x: Reals) -> Reals:
    """Return values less their mean, scaled to at most 1, so that no square overflows."""
    x = x - x.mean()
    scaled: Reals = x / np.abs(x).max()
    return scaled


def _ranks(x: Reals) -> Reals:
    """Return ranks from 1; equal values share the mean of theirs."""
    _, kind, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Reals = (last - (counts - 1) / 2)[kind]
    return ranks


def _pearson(rows: Statistics) -> float:
    return correlation(*_columns(rows))


def _pearson_without(rows: Statistics) -> Reals:
    x, y = _columns(rows)
    found = np.zeros(len(x))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return found
    dx, dy = _centred(x), _centred(y)
    share = len(x) / (len(x) - 1)  # a row moves the mean too
    left_x, left_y = dx @ dx - share * dx**2, dy @ dy - share * dy**2
    plain = (left_x > _LITTLE_LEFT * (dx @ dx)) & (left_y > _LITTLE_LEFT * (dy @ dy))
    found[plain] = (dx @ dy - share * dx * dy)[plain] / np.sqrt(left_x[plain] * left_y[plain])
    for row in np.flatnonzero(~plain):  # at most one row holds nearly all of the spread of a column
        found[row] = correlation(np.delete(x, row), np.delete(y, row))
    return np.clip(found, -1, 1)


def _spearman(rows: Statistics) -> float:
    x, y = _columns(rows)
    return correlation(_ranks(x), _ranks(y))


def _spearman_without(rows: Statistics) -> Reals:
    """Rank all rows anew without each one; ranks are multiples of a half, so that sums are exact."""
    x, y = _columns(rows)
    n = len(x)
    ranks_x, ranks_y = _ranks(x) - n / 2, _ranks(y) - n / 2  # n / 2 is the mean rank of n - 1 rows
    found = np.zeros(n)
    for start in range(0, n, _CHUNK):
        out = np.arange(start, min(n, start + _CHUNK))
        near_x, near_y = (_ranks_without(values, ranks, out) for values, ranks in ((x, ranks_x), (y, ranks_y)))
        products, squares_x, squares_y = (
            np.einsum("ij,ij->i", a, b) for a, b in ((near_x, near_y), (near_x, near_x), (near_y, near_y))
        )
        varies = (squares_x > 0) & (squares_y > 0)
        found[out[varies]] = products[varies] / np.sqrt(squares_x[varies] * squares_y[varies])
    return np.clip(found, -1, 1)


def _ranks_without(values: Reals, ranks: Reals, out: npt.NDArray[np.int64]) -> Reals:
    """Return the centred ranks of all rows without each row of `out`, shape (len(out), rows); 0 for the row itself."""
    given = values[out, None]
    left: Reals = ranks - (values > given) / 2 - (values >= given) / 2
    left[np.arange(len(out)), out] = 0.0
    return left


def _mae(rows: Statistics) -> float:
    estimate, truth = _columns(rows)
    return float(np.abs(estimate - truth).mean())


def _mae_without(rows: Statistics) -> Reals:
    estimate, truth = _columns(rows)
    return sums_without(np.abs(estimate - truth)) / (len(truth) - 1)


def _rmse(rows: Statistics) -> float:
    estimate, truth = _columns(rows)
    return float(np.sqrt(np.square(estimate - truth).mean()))


def _rmse_without(rows: Statistics) -> Reals:
    estimate, truth = _columns(rows)
    found: Reals = np.sqrt(sums_without(np.square(estimate - truth)) / (len(truth) - 1))
    return found


def sums_without(values: Reals) -> Reals:
    """Return the sum over rows without each row, shape (rows,).

    It adds the rows before and the rows after. To subtract from the whole sum would lose digits where one row
    outweighs the others.
    """
    before, after = np.zeros(len(values)), np.zeros(len(values))
    before[1:] = np.cumsum(values[:-1])
    after[:-1] = np.cumsum(values[:0:-1])[::-1]
    return before + after


_CONSTANT: Final = "0 where the estimates or the right numbers are constant."

metrics.add(
    "pearson",
    MetricSpec(
        name="pearson",
        scores=frozenset({"number"}),
        higher_is_better=True,
        low=-1.0,
        high=1.0,
        mean_over_rows=False,
        description=f"Pearson's correlation of estimates and right numbers; {_CONSTANT}",
        source="Pearson, 1895, doi:10.1098/rspl.1895.0041; as scipy.stats.pearsonr",
        inputs=("real", "real"),
        measure=_pairs,
        statistics=_NAMES,
        combine=_pearson,
        leave_one_out=_pearson_without,
    ),
)
metrics.add(
    "spearman",
    MetricSpec(
        name="spearman",
        scores=frozenset({"number"}),
        higher_is_better=True,
        low=-1.0,
        high=1.0,
        mean_over_rows=False,
        description="Spearman's correlation: Pearson's of the ranks, in which equal numbers share their mean rank; "
        + _CONSTANT,
        source="Spearman, 1904, doi:10.2307/1412159; as scipy.stats.spearmanr",
        inputs=("real", "real"),
        measure=_pairs,
        statistics=_NAMES,
        combine=_spearman,
        leave_one_out=_spearman_without,
    ),
)
metrics.add(
    "mae",
    MetricSpec(
        name="mae",
        scores=frozenset({"number"}),
        higher_is_better=False,
        low=0.0,
        high=None,
        mean_over_rows=True,
        description="Mean absolute error of the estimates, in the unit of the target.",
        source="Willmott and Matsuura, 2005, doi:10.3354/cr030079",
        inputs=("real", "real"),
        measure=_pairs,
        statistics=_NAMES,
        combine=_mae,
        leave_one_out=_mae_without,
    ),
)
metrics.add(
    "rmse",
    MetricSpec(
        name="rmse",
        scores=frozenset({"number"}),
        higher_is_better=False,
        low=0.0,
        high=None,
        mean_over_rows=False,
        description="Square root of the mean squared error of the estimates, in the unit of the target.",
        source="Hyndman and Koehler, 2006, doi:10.1016/j.ijforecast.2006.03.001",
        inputs=("real", "real"),
        measure=_pairs,
        statistics=_NAMES,
        combine=_rmse,
        leave_one_out=_rmse_without,
    ),
)
