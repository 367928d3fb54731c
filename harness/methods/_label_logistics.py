"""One logistic regression for each label (one-vs-rest), with one penalty and one threshold for all."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.data import folds
from harness.methods._answers import ClassWeights
from harness.tasks import Floats, Labels

_NEVER, _ALWAYS = -30.0, 30.0

SCIKIT_LEARN_WEIGHTS: Final[dict[ClassWeights, str | None]] = {"none": None, "balanced": "balanced"}
"""Values of scikit-learn's `class_weight`."""


@dataclass(frozen=True, eq=False)
class LabelLogistics:
    """Fitted logistic regressions.

    Attributes:
        weights: shape (labels, features); 0 for a label that no training row has, or all have.
        bias: shape (labels,).
        threshold: score from which on a label is given.
        n_iterations: iterations of the solver, those of all labels together.
    """

    weights: Floats
    bias: Floats
    threshold: float = 0.5
    n_iterations: float = 0.0

    def probabilities(self, features: Any) -> Floats:
        """Return the probability of each label, shape (rows, labels); `features` is dense or sparse."""
        logits = np.asarray(features @ self.weights.T, dtype=np.float64) + self.bias
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), dtype=np.float32)

    def scores(self, features: Any) -> Floats:
        """Return the probabilities, moved so that the threshold is 0.5, shape (rows, labels)."""
        from harness.training import scores_at

        return scores_at(self.probabilities(features), self.threshold)


@dataclass(frozen=True)
class LabelChoice:
    """The chosen penalty and threshold, and the work of choosing them.

    Attributes:
        inverse_penalty: scikit-learn's C.
        threshold: score from which on a label is given.
        n_iterations: iterations of the solver over all rows; one on a part of the rows counts as that part.
    """

    inverse_penalty: float
    threshold: float
    n_iterations: float = 0.0


def choose_for_labels(
    features: Any,
    labels: Labels,
    *,
    grid: tuple[float, ...],
    n_folds: int,
    default: float,
    threshold: float | None,
    measure: Callable[[Any, Labels], float],
    class_weights: ClassWeights = "none",
) -> LabelChoice:
    """Choose the penalty with the least log loss over folds, and the threshold with the best metric on its scores.

    Rows are dealt to the folds in turn, in the order drawn.

    Args:
        features: dense or sparse, shape (rows, features).
        labels: 0 or 1, shape (rows, labels).
        grid: penalties to choose from; a single one is taken.
        n_folds: maximum number of folds.
        default: penalty where rows are too few for two folds.
        threshold: threshold to take; None chooses it.
        measure: as for `choose_threshold`.
        class_weights: weights of the rows with and without a label, in the fits and in the log loss.
    """
    from harness.training import choose_threshold

    n_folds = min(n_folds, len(labels) // 2)
    found = LabelChoice(grid[0] if len(grid) == 1 else default, 0.5 if threshold is None else threshold)
    if n_folds < 2 or (len(grid) == 1 and threshold is not None):
        return found
    fold_of = folds(np.zeros(len(labels), dtype=np.int64), n_folds)
    least, iterations = np.inf, 0.0
    for inverse_penalty in sorted(grid):
        scores = np.zeros(labels.shape, dtype=np.float32)
        for fold in range(n_folds):
            inside, outside = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            fitted = fit_label_logistics(features[inside], labels[inside], inverse_penalty, class_weights)
            iterations += fitted.n_iterations * len(inside) / len(labels)
            scores[outside] = fitted.probabilities(features[outside])
        loss = _log_loss(scores, labels, class_weights)
        if loss > least:
            break
        least = loss
        cut = choose_threshold(scores, labels, measure) if threshold is None else threshold
        found = LabelChoice(inverse_penalty, cut)
    return replace(found, n_iterations=iterations)


def fit_label_logistics(
    features: Any, labels: Labels, inverse_penalty: float, class_weights: ClassWeights = "none", threshold: float = 0.5
) -> LabelLogistics:
    """Fit one logistic regression for each label by scikit-learn.

    Args:
        features: dense or sparse, shape (rows, features), at least one row.
        labels: 0 or 1, shape (rows, labels).
        inverse_penalty: scikit-learn's C.
        class_weights: weights of the rows with and without a label.
        threshold: score from which on a label is given.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    n_labels = labels.shape[1]
    weights = np.zeros((n_labels, features.shape[1]), dtype=np.float32)
    bias = np.zeros(n_labels, dtype=np.float32)
    n_iterations = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for at in range(n_labels):
            own = labels[:, at]
            if own.min() == own.max():  # nothing to learn from: the label is given always, or never
                bias[at] = _ALWAYS if own[0] else _NEVER
                continue
            model = LogisticRegression(
                C=inverse_penalty, max_iter=1000, tol=1e-4, class_weight=SCIKIT_LEARN_WEIGHTS[class_weights]
            ).fit(features, own)
            weights[at], bias[at] = model.coef_[0], model.intercept_[0]
            n_iterations += int(np.max(model.n_iter_))
    return LabelLogistics(weights, bias, threshold, float(n_iterations))


def _log_loss(scores: Floats, labels: Labels, class_weights: ClassWeights) -> float:
    right: npt.NDArray[np.float64] = np.where(labels > 0, scores, 1.0 - scores).astype(np.float64)
    logs = np.log(np.clip(right, 1e-7, 1.0))
    if class_weights == "balanced":
        from harness.training import balanced_weights

        logs *= np.stack([balanced_weights(own, 2)[own] for own in labels.astype(np.int64).T], axis=1)
    return -float(logs.mean())
