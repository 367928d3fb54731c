"""Probabilities of classes from log-likelihoods, and their calibration without labels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.support import UnsupportedError
from harness.tasks import Floats

Calibration = Literal["none", "content-free", "batch"]

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Texts without content (Zhao et al., 2021, section 5)."""


def log_softmax(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return normalised log-probabilities, shape (rows, classes)."""
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float64)


def normalised(scores: npt.NDArray[Any]) -> Floats:
    """Return probabilities of the classes from log-likelihoods, shape (rows, classes)."""
    return np.exp(log_softmax(scores)).astype(np.float32)


def log_mean(scores: npt.NDArray[Any]) -> Floats:
    """Return the log of each class's mean probability over rows, shape (classes,)."""
    mean = normalised(scores).mean(axis=0, dtype=np.float64)
    return np.asarray(np.log(np.maximum(mean, np.finfo(np.float32).tiny)), dtype=np.float32)


def batch_prior(scores: npt.NDArray[Any]) -> Floats:
    """Return the log of each class's mean probability over a batch of rows (Zhou et al., 2024).

    Raises:
        UnsupportedError: there is a single row, whose calibrated probabilities would all be equal.
    """
    if len(scores) < 2:
        raise UnsupportedError(
            f"calibration=batch was given and {len(scores)} row to predict; expected at least two rows in the first "
            "call, whose mean is kept. Use calibration=content-free for single rows."
        )
    return log_mean(scores)
