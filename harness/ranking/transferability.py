"""Scores of how well frozen features separate classes, in closed form: LogME and the shrunk H-score."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

_MOST_ITERATIONS = 100
_TOLERANCE = 1e-6
_LARGEST_RATIO = 1e12
"""Ratio of the two precisions at which the weights are as good as zero."""


def log_me(features: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return LogME: the log of the largest evidence of a Bayesian linear regression, per row and class.

    Each class has its own regression of its indicator y (1 for its rows, else 0) on the features F of `n` rows and
    `d` columns: y ~ N(F w, 1/beta), w ~ N(0, 1/alpha). The evidence is p(y | F, alpha, beta), with w integrated out.
    The precisions alpha and beta are found by MacKay's fixed point, as in You et al., 2021 (ICML, arXiv:2102.11005),
    in the basis of F's singular vectors. The value does not depend on the scale or rotation of the features.

    Args:
        features: shape (rows, width).
        labels: class index of each row, shape (rows,).

    Returns:
        The mean over the classes that occur, in nats per row. Higher is better; it can have any sign.
    """
    matrix, classes = _checked(features, labels)
    n_rows = len(matrix)
    left, singular, _ = np.linalg.svd(matrix, full_matrices=False)
    found = []
    for value in np.unique(classes):
        target = (classes == value).astype(np.float64)
        found.append(_log_evidence(singular**2, left.T @ target, float(target @ target), n_rows))
    return float(np.mean(found))


def _log_evidence(strengths: Doubles, projected: Doubles, squared: float, n_rows: int) -> float:
    """Return the largest log evidence per row of one regression.

    Args:
        strengths: squared singular values of the features.
        projected: the target in the basis of the left singular vectors.
        squared: sum of the target's squares.
        n_rows: number of rows.
    """
    energies = projected**2
    outside = max(0.0, squared - float(energies.sum()))
    floor = 1e-12 * max(squared, 1.0)

    def fitted(ratio: float) -> tuple[float, float, float]:
        """Return the effective number of weights, their squared length and the squared residual."""
        kept = strengths / (strengths + ratio)
        n_effective = float(kept.sum())
        length = float((strengths * energies / (strengths + ratio) ** 2).sum())
        return n_effective, length, outside + float((energies * (1.0 - kept) ** 2).sum())

    ratio = float(strengths.mean()) or 1.0  # alpha / beta
    alpha = beta = 1.0
    for _ in range(_MOST_ITERATIONS):
        n_effective, length, residual = fitted(ratio)
        alpha = n_effective / max(length, floor / (float(strengths.max()) or 1.0))
        beta = max(n_rows - n_effective, 1e-9) / max(residual, floor)
        last, ratio = ratio, min(alpha / beta, _LARGEST_RATIO * (float(strengths.max()) or 1.0))
        if abs(ratio - last) <= _TOLERANCE * last:
            break
    _, length, residual = fitted(ratio)
    evidence = (
        n_rows * math.log(beta / (2.0 * math.pi))
        + len(strengths) * math.log(alpha)
        - float(np.log(alpha + beta * strengths).sum())
        - beta * residual
        - alpha * length
    )
    return 0.5 * evidence / n_rows


def h_score(features: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the H-score with a shrunk covariance: the share of the features' variance that lies between classes.

    It is tr(S^-1 B), where S is the covariance of the features and B that of the class means (Bao et al., 2019, ICIP).
    With few rows S cannot be inverted, or not reliably. Ledoit and Wolf's shrinkage a replaces it with
    (1 - a) S + a tr(S)/d I, and B with (1 - a) B (Ibrahim et al., 2022, arXiv:2110.06893). The value does not depend on
    the scale, rotation or mean of the features.

    Args:
        features: shape (rows, width).
        labels: class index of each row, shape (rows,).

    Returns:
        A number from 0 (all classes have one mean) to the number of classes less 1.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    matrix, classes = _checked(features, labels)
    n_rows, width = matrix.shape
    centred = matrix - matrix.mean(axis=0)
    total = float((centred**2).sum()) / n_rows
    if total == 0.0:
        return 0.0
    shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True)) if width > 1 else 0.0
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    values, inverse = np.unique(classes, return_inverse=True)
    counts = np.bincount(inverse)
    means = np.stack([centred[inverse == place].mean(axis=0) for place in range(len(values))])
    # In the basis of the right singular vectors the covariance is diagonal; class means lie in their span.
    shrunk = (1.0 - shrinkage) * singular**2 / n_rows + shrinkage * total / width
    kept = shrunk > 1e-12 * float(shrunk.max())
    rotated = (means @ right.T)[:, kept]
    between = (counts[:, None] / n_rows * rotated**2).sum(axis=0)
    return float((1.0 - shrinkage) * (between / shrunk[kept]).sum())


def _checked(features: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Doubles, npt.NDArray[np.int64]]:
    """Return features and labels as arrays.

    Raises:
        ValueError: shapes that do not go together, numbers that are not finite, or a single class.
    """
    matrix, classes = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if matrix.ndim != 2 or classes.shape != matrix.shape[:1] or matrix.size == 0:
        raise ValueError(
            f"features of shape {matrix.shape} and labels of shape {classes.shape}; expected (n, d), (n,)."
        )
    if not np.isfinite(matrix).all():
        raise ValueError("features with NaN or infinite values; expected finite numbers.")
    if len(np.unique(classes)) < 2:
        raise ValueError("labels of a single class; expected at least two.")
    return matrix, classes
