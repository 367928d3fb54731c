"""Ridge regression whose penalty is chosen on the training rows alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data import folds
from harness.tasks import Floats, Ints


@dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted ridge regression, in the units of the target.

    Attributes:
        weights: shape (1, features).
        bias: shape (1,).
    """

    weights: Floats
    bias: Floats

    def estimates(self, features: Any) -> Floats:
        """Return one number a row, shape (rows, 1); `features` is dense or sparse, shape (rows, features)."""
        return np.asarray(features @ self.weights.T, dtype=np.float32) + self.bias


def fit_ridge(features: Any, targets: npt.NDArray[np.float64], inverse_penalty: float) -> Ridge:
    """Fit a ridge regression by scikit-learn, to targets standardised on these rows.

    It minimises C times half the sum of squared errors plus half the squared length of the weights, so that C means
    what it means for a logistic regression.

    Args:
        features: dense or sparse, shape (rows, features).
        targets: shape (rows,).
        inverse_penalty: C.
    """
    from sklearn.linear_model import Ridge as Solver

    mean, deviation = float(np.mean(targets)), float(np.std(targets)) or 1.0
    solver = Solver(alpha=1.0 / inverse_penalty)
    dense = isinstance(features, np.ndarray)
    solver.fit(features.astype(np.float64) if dense else features, (targets - mean) / deviation)
    weights = np.asarray(solver.coef_ * deviation, dtype=np.float32).reshape(1, -1)
    bias = np.array([float(np.squeeze(solver.intercept_)) * deviation + mean], dtype=np.float32)
    return Ridge(weights, bias)


def choose_ridge_penalty(
    features: Any,
    targets: npt.NDArray[np.float64],
    strata: Ints,
    grid: tuple[float, ...],
    n_folds: int,
    default: float,
) -> tuple[float, float]:
    """Return the C of the grid with the least squared error over folds, and the number of fits in whole ones.

    Folds are dealt by the protocol's fixed rule. With fewer than two folds of rows, the result is `default`.
    """
    n_folds = min(n_folds, len(targets) // 2)
    if n_folds < 2:
        return default, 0.0
    fold_of = folds(strata, n_folds)
    parts = [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(n_folds)]
    parts = [(inside, outside) for inside, outside in parts if len(inside) and len(outside)]
    if not parts:
        return default, 0.0
    best, least, spent = default, np.inf, 0.0
    for inverse_penalty in sorted(grid):
        error = 0.0
        for inside, outside in parts:
            fitted = fit_ridge(features[inside], targets[inside], inverse_penalty)
            error += float(((fitted.estimates(features[outside])[:, 0] - targets[outside]) ** 2).sum())
            spent += len(inside) / len(targets)
        if error < least:
            best, least = inverse_penalty, error
    return best, spent
