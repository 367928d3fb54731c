"""The score of test rows and its interval, from the statistics in predictions alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from harness.metrics import MetricSpec, metrics, pseudo_values
from harness.records import Predictions, Score
from harness.tasks.base import Task

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


def score_of(task: Task, predictions: Predictions, also: Iterable[str]) -> Score:
    """Return the main metric of a task with its interval over test rows, and further metrics.

    Args:
        task: the task.
        predictions: predictions with the statistics of all these metrics.
        also: names of the further metrics; the main one among them counts once.
    """
    spec, found = metrics.get(task.metric), predictions.statistics
    value = spec.from_statistics(found)
    low, high = interval_of(spec, predictions, value)
    return Score(
        metric=spec.name,
        value=value,
        low=low,
        high=high,
        higher_is_better=spec.higher_is_better,
        n_test=task.n_test,
        n_test_available=task.n_test_available,
        others={name: metrics.get(name).from_statistics(found) for name in also if name != spec.name},
        highest=spec.high,
    )
