"""Weights of classes, so that rare ones count as much as frequent ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def balanced_weights(labels: npt.NDArray[np.integer], n_classes: int) -> npt.NDArray[np.float64]:
    """Return the weight of each class: rows / (classes that occur * rows of the class), with a mean over rows of 1.

    They are those of scikit-learn's `class_weight="balanced"` (King and Zeng, 2001,
    doi:10.1093/oxfordjournals.pan.a004868).

    Args:
        labels: class indices, shape (rows,).
        n_classes: number of classes; one without rows gets the weight 1.
    """
    counts = np.bincount(labels, minlength=n_classes)
    occurs = counts > 0
    weights: npt.NDArray[np.float64] = np.where(occurs, len(labels) / (occurs.sum() * np.maximum(counts, 1)), 1.0)
    return weights
