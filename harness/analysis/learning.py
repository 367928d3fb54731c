"""Tell a fit that learned nothing from its training loss, which is then that of guessing by the classes' shares."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from harness.records import Record

_LEARNED: float = 0.95
"""Loss at the end of a fit, as a share of the loss of guessing, from which a fit learned nothing."""

_LAST_PART = 4
"""The last one of so many parts of a fit's steps is its end."""


def guessing_loss(classes: npt.NDArray[np.integer]) -> float:
    """Return the cross-entropy, in nats, of predicting each class with its share among these rows."""
    shares = np.bincount(classes) / max(1, len(classes))
    shares = shares[shares > 0]
    return -float((shares * np.log(shares)).sum())


def end_loss(record: Record) -> float | None:
    """Return the mean training loss of the last steps of a fit; None for methods without steps."""
    losses = [point.train_loss for point in record.curve if point.train_loss is not None]
    return float(np.mean(losses[-max(1, len(losses) // _LAST_PART) :])) if losses else None


def learned_nothing(record: Record, guessing: float | None = None) -> bool:
    """Return whether a fit knows no more than how frequent the classes are.

    Training with too high a learning rate may leave a transformer that gives all texts the same answer. Then the loss
    of the last steps is that of guessing, or higher. Fits whose answers are no classes are never counted.

    Args:
        record: record of a fit.
        guessing: loss of guessing on the training rows (`guessing_loss`); None takes the classes of the test rows, or
            equal shares where the record keeps none.
    """
    last = end_loss(record)
    if last is None:
        return False
    if guessing is None:
        guessing = _guessing(record)
    return guessing > 0 and last >= _LEARNED * guessing


def _guessing(record: Record) -> float:
    found = record.predictions
    if found is not None and found.target is not None and len(found.target):
        return guessing_loss(np.asarray(found.target))
    n_classes = record.provenance.dataset.get("n_classes")
    return math.log(n_classes) if isinstance(n_classes, int) and n_classes > 1 else 0.0
