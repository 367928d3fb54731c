"""The threshold above which a label is given, chosen on validation rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from harness.tasks import Floats, Labels

MOST_TRIED: Final = 99
"""Maximum number of thresholds to try: quantiles of the scores."""


def choose_threshold(scores: Floats, labels: Labels, measure: Callable[[Any, Labels], float]) -> float:
    """Return the threshold, the same for all labels, with the best metric on these rows; 0.5 where none is better.

    One threshold is shared by all labels: a label of a few validation rows says too little about one of its own. Where
    several are equally good, the middle one is taken.

    Args:
        scores: probability of each label, shape (rows, labels).
        labels: 0 or 1 for each label, shape (rows, labels).
        measure: function of scores, in which a label is given from 0.5 on, and labels; higher is better.
    """
    if len(scores) == 0:
        return 0.5
    # Scores above the threshold give labels: values between two neighbouring scores are one threshold.
    distinct = np.unique(scores.astype(np.float64))
    between = (distinct[1:] + distinct[:-1]) / 2
    if len(between) > MOST_TRIED:
        # Most scores are near 0: steps in the logarithm of how many labels are given.
        given = np.geomspace(1, len(between), MOST_TRIED).round().astype(np.int64)
        between = between[len(between) - np.unique(given)]
    tried = np.unique(np.append(between[(between > 0) & (between < 1)], 0.5))
    found = np.array([measure(scores_at(scores, float(threshold)), labels) for threshold in tried])
    best = found.max()
    if found[tried == 0.5][0] >= best:
        return 0.5
    equal = tried[found >= best]
    return float(equal[len(equal) // 2])


def scores_at(scores: Floats, threshold: float) -> Floats:
    """Return scores whose order is the same and in which a threshold has become 0.5; all stay from 0 to 1."""
    values = scores.astype(np.float64)
    is_below = values < threshold
    moved = np.where(is_below, 0.5 * values / threshold, 0.5 + 0.5 * (values - threshold) / (1 - threshold))
    found = np.asarray(values if threshold == 0.5 else moved, dtype=np.float32)
    # Rounding must not lift a score that is below the threshold to it.
    return np.where(is_below & (found >= 0.5), np.nextafter(np.float32(0.5), np.float32(0.0)), found)
