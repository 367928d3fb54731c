"""Tell a fit that learned nothing: it predicts one class, at the training loss of guessing by the classes' shares."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from harness.records import Record

_LEARNED: float = 0.95
"""Loss at the end of a fit, as a share of the loss of guessing, from which a fit learned nothing."""

_ONE_CLASS = 0.98
"""Share of the predictions from which they count as one class."""

_ROUNDING = 0.001
"""Relative error of a score that was rounded."""

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
    """Return whether a fit gives nearly all texts the same class, and ended at the training loss of guessing.

    Training with too high a learning rate may leave a transformer whose states are the same for all texts. A low loss
    alone would not tell: a fit that ends early may be right on all rows with little confidence.

    Args:
        record: record of a fit. Without predictions, the macro F1 tells whether one class was predicted.
        guessing: loss of guessing on the training rows (`guessing_loss`); None takes the classes of the test rows, or
            equal shares where the record keeps none.
    """
    if not _predicts_one_class(record):  # first, since it needs no curve
        return False
    last = end_loss(record)
    if last is None:
        return False
    if guessing is None:
        guessing = _guessing(record)
    return guessing > 0 and last >= _LEARNED * guessing


def _predicts_one_class(record: Record) -> bool:
    found = record.predictions
    if found is not None and found.predicted is not None and len(found.predicted):
        return float(np.bincount(np.asarray(found.predicted)).max()) >= _ONE_CLASS * len(found.predicted)
    n_classes, score = _n_classes(record), record.score
    if n_classes is None or score is None:
        return False
    f1, accuracy = (
        score.value if score.metric == name else score.others.get(name) for name in ("macro_f1", "accuracy")
    )
    if f1 is None:
        return False
    # With one class, its precision is the accuracy, and its recall 1; the F1 of all others is 0.
    most = 1.0 if accuracy is None else 2 * accuracy / (1 + accuracy)
    return f1 <= (1 + _ROUNDING) * most / n_classes


def _guessing(record: Record) -> float:
    found = record.predictions
    if found is not None and found.target is not None and len(found.target):
        return guessing_loss(np.asarray(found.target))
    n_classes = _n_classes(record)
    return math.log(n_classes) if n_classes is not None else 0.0


def _n_classes(record: Record) -> int | None:
    n_classes = record.provenance.dataset.get("n_classes")
    return n_classes if isinstance(n_classes, int) and n_classes > 1 else None
