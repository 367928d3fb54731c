"""Partial pooling in closed form: levels and slopes of tasks and methods as one Gaussian process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.linalg

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spreads:
    """How far things differ, as standard deviations; all terms are normal and independent of each other.

    Attributes:
        level, slope: of the whole, and its change with `Where.x`.
        covariate: the change with `Where.z`.
        task, task_slope: of tasks around the whole.
        family, family_slope, family_covariate: of families of methods, and their changes with `x` and `z`.
        family_task: of a family on a task around what the two say apart: whether frozen features suit it, say.
        method, method_slope: of methods around their family.
        both, both_slope: of a method on a task around what the two say apart.
        noise: of a mean over many seeds around all that.
    """

    level: float
    slope: float
    covariate: float
    task: float
    task_slope: float
    family: float
    method: float
    method_slope: float
    both: float
    both_slope: float
    noise: float
    family_slope: float = 0.0
    family_covariate: float = 0.0
    family_task: float = 0.0


@dataclass(frozen=True)
class Where:
    """Where something was measured, or is asked for.

    Attributes:
        x: size, on the scale that curves are straight on.
        z: what else is known of the task; 0 where nothing is.
        task: its name; None is a task that nothing was measured on.
        method: label of the configuration.
        family: of methods.
    """

    x: float
    z: float
    task: str | None
    method: str
    family: str


class Pooled:
    """A linear model with crossed random levels and slopes, whose posterior is exact.

    Args:
        where: of each measurement, n of them.
        values: shape (n,).
        variances: of each measurement around what it measures, shape (n,).
        spreads: of all terms.
    """

    def __init__(self, where: Sequence[Where], values: Floats, variances: Floats, spreads: Spreads) -> None:
        self._where, self._spreads = list(where), spreads
        self._mean = float(np.mean(values))
        covariance = kernel(self._where, self._where, spreads)
        covariance[np.diag_indices_from(covariance)] += variances + spreads.noise**2
        # Symmetric: its transpose is laid out as LAPACK wants it, and is not copied.
        self._root = scipy.linalg.cholesky(covariance.T, lower=True, overwrite_a=True, check_finite=False)
        residual = values - self._mean
        self._weights = self._solve(self._solve(residual), transposed=True)
        self.log_likelihood = float(-0.5 * residual @ self._weights - np.log(np.diag(self._root)).sum())

    def predict(self, where: Sequence[Where]) -> tuple[Floats, Floats]:
        """Posterior mean, shape (m,), and covariance, shape (m, m), of what would be measured with endless seeds."""
        across = kernel(self._where, where, self._spreads)
        half = self._solve(across)
        return self._mean + across.T @ self._weights, kernel(where, where, self._spreads) - half.T @ half

    def means(self, where: Sequence[Where]) -> Floats:
        """Posterior mean alone, shape (m,), for much less work."""
        return np.asarray(self._mean + kernel(self._where, where, self._spreads).T @ self._weights)

    def _solve(self, right: Floats, *, transposed: bool = False) -> Floats:
        trans: Literal["N", "T"] = "T" if transposed else "N"
        found = scipy.linalg.solve_triangular(self._root, right, trans=trans, lower=True, check_finite=False)
        return np.asarray(found, dtype=np.float64)


def kernel(a: Sequence[Where], b: Sequence[Where], spreads: Spreads) -> Floats:
    """Covariance of what would be measured at `a` and at `b` before anything is, shape (len(a), len(b)).

    It is a constant and a slope in each covariate that depend on nothing but what two measurements share.
    """
    shared = 4 * _same(a, b, "task") + 2 * _same(a, b, "family") + _same(a, b, "method")
    constant, slope, covariate = (np.array(column) for column in zip(*_by_shared(spreads), strict=True))
    found = slope.take(shared)
    found *= np.multiply.outer(_column(a, "x"), _column(b, "x"))
    found += constant.take(shared)
    of_covariate = covariate.take(shared)
    of_covariate *= np.multiply.outer(_column(a, "z"), _column(b, "z"))
    found += of_covariate
    return np.asarray(found)


def _by_shared(s: Spreads) -> Iterator[tuple[float, float, float]]:
    """Constant, slope in `x` and slope in `z` where the task, the family and the method are others or the same."""
    for task, family, method in itertools.product((0, 1), repeat=3):
        both = task * method
        yield (
            s.level**2
            + task * s.task**2
            + family * (s.family**2 + task * s.family_task**2)
            + method * s.method**2
            + both * s.both**2,
            s.slope**2
            + task * s.task_slope**2
            + family * s.family_slope**2
            + method * s.method_slope**2
            + both * s.both_slope**2,
            s.covariate**2 + family * s.family_covariate**2,
        )


def _same(a: Sequence[Where], b: Sequence[Where], name: str) -> npt.NDArray[np.int8]:
    codes: dict[str | None, int] = {}
    first, second = ([codes.setdefault(getattr(point, name), len(codes)) for point in points] for points in (a, b))
    return np.equal.outer(first, second).astype(np.int8)


def _column(points: Sequence[Where], name: str) -> Floats:
    return np.array([getattr(point, name) for point in points], dtype=np.float64)
