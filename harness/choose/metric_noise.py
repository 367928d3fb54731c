"""The number of rows that a metric's score is worth: fewer than there are where the metric is no mean over rows."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from harness.metrics import metrics, pseudo_values
from harness.records import Record

_N_DRAWS: Final = 100


def rows_worth(record: Record, worst: float, best: float) -> float:
    """Return how many rows a share of right ones would need for the standard error that a score has.

    An accuracy is such a share, so that its rows count as they are. The standard error of another metric of classes is
    that of draws of the rows with replacement (Efron, 1979). Where some classes are rare, a macro F1 is worth far fewer
    rows. Other metrics have the standard error of their rows' scores or jackknife pseudo-values (Tukey, 1958).

    Args:
        record: a record with a score; without predictions its rows count as they are.
        worst: worst value of the metric.
        best: best value of the metric.
    """
    score, found = record.score, record.predictions
    assert score is not None
    n = score.n_test
    if score.metric == "accuracy" or found is None or n < 2:
        return float(n)
    if found.predicted is not None and found.target is not None:
        variance = _variance_of_draws(score.metric, found.predicted, found.target) / (best - worst) ** 2
    else:
        each = found.row_scores(score.metric)
        each = pseudo_values(score.metric, found) if each is None else each
        if each is None:
            return float(n)
        variance = float(np.var(each, ddof=1)) / n / (best - worst) ** 2
    share = (min(1.0, max(0.0, (score.value - worst) / (best - worst))) * n + 1) / (n + 2)
    return float(n) if variance <= 0 else float(np.clip(share * (1 - share) / variance, 1.0, n))


def _variance_of_draws(metric: str, predicted: npt.NDArray[np.int64], target: npt.NDArray[np.int64]) -> float:
    absent = sorted(set(range(int(target.max()))) - set(target.tolist()))
    spec = metrics.get(metric).without_classes(absent)
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(_N_DRAWS):
        rows = generator.integers(0, len(target), len(target))
        drawn.append(spec.compute(predicted[rows], target[rows]))
    return float(np.var([value for value in drawn if np.isfinite(value)] or [0.0]))
