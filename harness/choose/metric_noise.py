"""The number of rows that a metric's score is worth: fewer than there are where the metric is no mean over rows."""

from __future__ import annotations

from typing import Final

import numpy as np

from harness.metrics import metrics
from harness.records import Record

_N_DRAWS: Final = 100


def rows_worth(record: Record, low: float, high: float) -> float:
    """Return how many rows a share of right ones would need for the standard error that a score has.

    An accuracy is such a share, so that its rows count as they are. The standard error of another metric is that of
    draws of the rows with replacement (Efron, 1979). Where some classes are rare, a macro F1 is worth far fewer rows.

    Args:
        record: a record with a score; without predictions its rows count as they are.
        low: worst value of the metric.
        high: best value of the metric.
    """
    score, found = record.score, record.predictions
    assert score is not None
    n = score.n_test
    if score.metric == "accuracy" or found is None or found.predicted is None or found.target is None or n < 2:
        return float(n)
    absent = sorted(set(range(int(found.target.max()))) - set(found.target.tolist()))
    spec = metrics.get(score.metric).without_classes(absent)
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(_N_DRAWS):
        rows = generator.integers(0, n, n)
        drawn.append((spec.compute(found.predicted[rows], found.target[rows]) - low) / (high - low))
    variance = float(np.var([value for value in drawn if np.isfinite(value)] or [0.0]))
    share = ((score.value - low) / (high - low) * n + 1) / (n + 2)
    return float(n) if variance <= 0 else float(np.clip(share * (1 - share) / variance, 1.0, n))
