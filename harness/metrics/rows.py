"""Jackknife pseudo-values: the contribution of each test row to a metric that is not a mean over rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.metrics.base import MetricSpec, metrics
from harness.records import Predictions


def pseudo_values(
    metric: str, predictions: Predictions, *, has_unscored: bool = False
) -> npt.NDArray[np.float64] | None:
    """Return N times the metric less N - 1 times the metric without the row, for each of N rows (Tukey, 1958).

    Their mean is the metric but for a bias of the order of 1 / N, and their variance over N estimates the metric's over
    test rows: with them BLEU or Matthews' correlation can be treated as a mean over rows.

    Args:
        metric: name of the metric; None is returned for an unknown one.
        predictions: predictions with the metric's statistics; None is returned if these are missing.
        has_unscored: whether the task has classes that no test row has; averages over classes then leave them out.

    Returns:
        Shape (n_test,).
    """
    if metric not in metrics:
        return None
    spec = metrics.get(metric).without_classes() if has_unscored else metrics.get(metric)
    given = {**predictions.statistics, "predicted": predictions.predicted, "target": predictions.target}
    arrays = {name: np.asarray(given[name]) for name in spec.statistics if given.get(name) is not None}
    if len(arrays) < len(spec.statistics):
        return None
    n_rows = len(next(iter(arrays.values())))
    if n_rows < 2:
        return None
    try:
        return _pseudo_values(spec, arrays, n_rows)
    except ValueError:  # an imported record with a metric of this name but other statistics
        return None


def _pseudo_values(
    spec: MetricSpec, arrays: dict[str, npt.NDArray[np.generic]], n_rows: int
) -> npt.NDArray[np.float64]:
    whole = spec.from_statistics(arrays)
    if spec.leave_one_out is not None:
        return n_rows * whole - (n_rows - 1) * spec.leave_one_out(arrays)
    # Equal rows have equal values, and classes give few distinct rows.
    table = np.column_stack([array.reshape(n_rows, -1) for array in arrays.values()])
    _, first, kind = np.unique(table, axis=0, return_index=True, return_inverse=True)
    without = np.array([_without(spec, arrays, row) for row in first])
    values: npt.NDArray[np.float64] = n_rows * whole - (n_rows - 1) * without[kind.reshape(-1)]
    return values


def _without(spec: MetricSpec, arrays: dict[str, npt.NDArray[np.generic]], row: int) -> float:
    return spec.from_statistics({name: np.delete(array, row, axis=0) for name, array in arrays.items()})
