"""Trained parameters that a method has with so many labels and classes, from fits to other numbers of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from harness.forecast import Point

_EXACT: Final = 0.005
"""Largest relative error of a straight line in the classes that counts as the number of parameters itself."""

_LEAST_POINTS: Final = 8
"""Least fits for a power law of labels and classes."""


def trained_parameters(points: Sequence[Point], n_train: float, classes: int | None) -> float | None:
    """Return the expected number of trained parameters; None where none is known.

    A layer of classes on a backbone has as many parameters for each class, so that the number is a straight line in
    the classes. Methods on words have more parameters with more labels, too: they follow a power law of both. Where
    neither holds, or the classes are not known, it is the median of the fits.

    Args:
        points: fits of one method.
        n_train: number of labels that is asked about.
        classes: number of classes that is asked about.
    """
    known = [point for point in points if point.trainable is not None]
    if not known:
        return None
    usual = median(point.trainable or 0.0 for point in known)
    varied = [point for point in known if point.classes]
    if not classes or len({point.classes for point in varied}) < 2:
        return usual
    counts = np.array([float(point.classes or 0) for point in varied])
    parameters = np.array([point.trainable or 0.0 for point in varied])
    slope, start = np.polyfit(counts, parameters, 1)
    if (np.abs(start + slope * counts - parameters) <= _EXACT * np.maximum(parameters, 1)).all():
        return float(max(0, round(start + slope * classes)))
    labels = np.array([point.n_train for point in varied], dtype=float)
    if any(point.backbone is not None for point in varied) or len(varied) < _LEAST_POINTS or not n_train:
        return usual
    if parameters.min() <= 0 or labels.min() <= 0 or len(set(labels)) < 2:
        return usual
    rows = np.where(counts == 2, 1.0, counts)  # two classes share one row of coefficients
    terms = np.stack([np.ones_like(labels), np.log(labels), np.log(rows)], axis=1)
    of_one, of_labels, of_rows = np.linalg.lstsq(terms, np.log(parameters), rcond=None)[0]
    asked = math.log(1 if classes == 2 else classes)
    return float(math.exp(of_one + of_labels * math.log(n_train) + of_rows * asked))
