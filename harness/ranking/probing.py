"""The cross-validated score of a linear probe on frozen features."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.data import folds
from harness.tasks import Floats, Ints

N_FOLDS = 5
INVERSE_PENALTY = 10.0
"""scikit-learn's C on standardised features of a mean squared length of 1."""


@dataclass(frozen=True)
class ProbeScore:
    """Out-of-fold quality of a probe.

    Attributes:
        predicted: out-of-fold classes, shape (rows,); -1 for rows that no fold could hold out.
        accuracy: share of held-out rows that are predicted right.
        log_loss: mean negative log-probability of the right class, in nats.
        n_rows: number of held-out rows.
    """

    predicted: Ints
    accuracy: float
    log_loss: float
    n_rows: int


def probe(
    features: Floats, labels: Ints, n_folds: int = N_FOLDS, inverse_penalty: float = INVERSE_PENALTY
) -> ProbeScore:
    """Return the out-of-fold score of scikit-learn's logistic regression.

    Folds are the protocol's: the rows of each class go to the folds in turn. Classes with a single row are never held
    out, since no other row teaches them. The features are standardised, and rotated to their principal axes, which
    changes no prediction and shortens the fit where there are fewer rows than columns.

    Args:
        features: shape (rows, width).
        labels: class indices, shape (rows,).
        n_folds: number of folds.
        inverse_penalty: C of the scaled features.

    Raises:
        ValueError: no class has two rows, or there is a single class.
    """
    from sklearn.linear_model import LogisticRegression

    counts = np.bincount(labels)
    may_hold_out = counts[labels] > 1
    if len(np.unique(labels)) < 2 or not may_hold_out.any():
        raise ValueError("a probe needs two classes, and one of them needs two rows.")
    reduced = _reduced(features)
    fold_of = np.where(may_hold_out, folds(labels, n_folds), -1)
    predicted = np.full(len(labels), -1, dtype=np.int64)
    losses: list[npt.NDArray[np.float64]] = []
    for fold in range(n_folds):
        inside, outside = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        if len(outside) == 0 or len(np.unique(labels[inside])) < 2:
            continue
        model = LogisticRegression(C=inverse_penalty, max_iter=200, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a solver that stops early is good enough to rank by
            model.fit(reduced[inside], labels[inside])
        chances = model.predict_proba(reduced[outside])
        predicted[outside] = model.classes_[chances.argmax(axis=1)]
        place = np.minimum(np.searchsorted(model.classes_, labels[outside]), len(model.classes_) - 1)
        right = np.where(model.classes_[place] == labels[outside], chances[np.arange(len(outside)), place], 0.0)
        losses.append(-np.log(np.clip(right, 1e-7, 1.0)))
    held = predicted >= 0
    return ProbeScore(
        predicted=predicted,
        accuracy=float((predicted[held] == labels[held]).mean()),
        log_loss=float(np.concatenate(losses).mean()),
        n_rows=int(held.sum()),
    )


def _reduced(features: Floats) -> Floats:
    """Return standardised features of mean squared length 1, in the basis of their principal axes.

    Each column has one spread: a few columns of a language model's states are hundreds of times larger than the rest.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    spread = centred.std(axis=0)
    centred = centred[:, spread > 1e-9 * max(float(spread.max()), 1e-300)]
    if centred.shape[1] == 0:
        return np.zeros((len(features), 1), dtype=np.float32)
    standard = centred / centred.std(axis=0) / np.sqrt(centred.shape[1])
    left, singular, _ = np.linalg.svd(standard, full_matrices=False)
    return np.asarray(left * singular, dtype=np.float32)
