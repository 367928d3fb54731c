"""The interval of a score over test rows, from predictions alone."""

from __future__ import annotations

import numpy as np

from harness.metrics import MetricSpec, pseudo_values
from harness.records import Predictions

_NORMAL_QUANTILE = 1.959964


def interval_of(spec: MetricSpec, predictions: Predictions, value: float) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a metric over test rows, within its range; (None, None) with fewer than two rows.

    The standard error is that of the mean of the rows' scores. A metric that is no mean over rows has jackknife
    pseudo-values in their place (Tukey, 1958).

    Args:
        spec: the metric.
        predictions: predictions with the metric's statistics.
        value: the metric of all rows.
    """
    each = predictions.row_scores(spec.name) if spec.mean_over_rows else None
    if each is None:
        each = pseudo_values(spec.name, predictions)
    if each is None or len(each) < 2:
        return None, None
    half = _NORMAL_QUANTILE * float(np.std(each, ddof=1)) / len(each) ** 0.5
    high = value + half
    return max(spec.low, value - half), high if spec.high is None else min(spec.high, high)
