"""Partial pooling in closed form: levels and slopes of tasks and methods as one Gaussian process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.linalg

Doubles = npt.NDArray[np.float64]
"""An array of float64."""


@dataclass(frozen=True)
class Spreads:
    """How far things differ, as standard deviations; all terms are normal and independent of each other.

    Attributes:
        level, slope: the whole, and its change with `Where.x`.
        covariate: its change with `Where.z`.
        task, task_slope: tasks around the whole.
        family, family_slope, family_covariate: families of methods, and their changes with `x` and `z`.
        family_task: a family on a task, around the sum of both: frozen features suit some tasks, say.
        method, method_slope: methods around their family.
        both, both_slope: a method on a task, around the sum of both.
        noise: a mean over many seeds, around all of these.
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
class Lift:
    """How a backbone changes the scores of one method, against the backbone with the most measurements.

    Attributes:
        backbone: name of the backbone.
        role: role of the transformer in the method; methods of a role differ alike.
        mean: expected change.
        own: spread of that change, the same on all tasks.
        between: spread of the change between tasks.
        rest: spread of what methods of the role change further.
    """

    backbone: str
    role: str | None
    mean: float
    own: float
    between: float
    rest: float


@dataclass(frozen=True)
class Where:
    """Where something was measured, or is asked for.

    Attributes:
        x: size, on the scale that curves are straight on.
        z: further covariate of the task; 0 where it is not known.
        task: name of the task; None is a task without measurements.
        method: label of the configuration.
        family: family of the method.
        lift: change by the backbone; None for the one with the most measurements, and without a backbone.
    """

    x: float
    z: float
    task: str | None
    method: str
    family: str
    lift: Lift | None = None


class Pooled:
    """A linear model with crossed random levels and slopes, whose posterior is exact.

    Args:
        where: places of the n measurements.
        values: measured values, shape (n,).
        variances: variance of each measurement, shape (n,).
        spreads: spreads of all terms.
    """

    def __init__(self, where: Sequence[Where], values: Doubles, variances: Doubles, spreads: Spreads) -> None:
        self._where, self._spreads = list(where), spreads
        self._mean = float(np.mean(values))
        covariance = kernel(self._where, self._where, spreads)
        covariance[np.diag_indices_from(covariance)] += variances + spreads.noise**2
        # Symmetric: its transpose is laid out as LAPACK wants it, and is not copied.
        self._root = scipy.linalg.cholesky(covariance.T, lower=True, overwrite_a=True, check_finite=False)
        residual = values - self._mean
        self._weights = self._solve(self._solve(residual), transposed=True)
        self.log_likelihood = float(-0.5 * residual @ self._weights - np.log(np.diag(self._root)).sum())

    def predict(self, where: Sequence[Where]) -> tuple[Doubles, Doubles]:
        """Return mean, shape (m,), and covariance, shape (m, m), of the values that endless seeds would give."""
        across = kernel(self._where, where, self._spreads)
        half = self._solve(across)
        return self._mean + across.T @ self._weights, kernel(where, where, self._spreads) - half.T @ half

    def means(self, where: Sequence[Where]) -> Doubles:
        """Return the posterior mean alone, shape (m,), for much less work."""
        return np.asarray(self._mean + kernel(self._where, where, self._spreads).T @ self._weights)

    def _solve(self, right: Doubles, *, transposed: bool = False) -> Doubles:
        trans: Literal["N", "T"] = "T" if transposed else "N"
        found = scipy.linalg.solve_triangular(self._root, right, trans=trans, lower=True, check_finite=False)
        return np.asarray(found, dtype=np.float64)


def kernel(a: Sequence[Where], b: Sequence[Where], spreads: Spreads) -> Doubles:
    """Return the covariance of values at `a` and at `b` before any is measured, shape (len(a), len(b)).

    It is a constant and a slope in each covariate. These depend only on what the two share: task, family or method.
    """
    shared = 4 * _same(a, b, "task") + 2 * _same(a, b, "family") + _same(a, b, "method")
    constant, slope, covariate = (np.array(column) for column in zip(*_by_shared(spreads), strict=True))
    found = slope.take(shared)
    found *= np.multiply.outer(_column(a, "x"), _column(b, "x"))
    found += constant.take(shared)
    of_covariate = covariate.take(shared)
    of_covariate *= np.multiply.outer(_column(a, "z"), _column(b, "z"))
    found += of_covariate
    if any(point.lift is not None for point in a) and any(point.lift is not None for point in b):
        found += _of_lifts(a, b)
    return np.asarray(found)


def _of_lifts(a: Sequence[Where], b: Sequence[Where]) -> Doubles:
    """Return the covariance by backbones: of their effects on all tasks, on one task, and on methods of one role."""

    def parts(points: Sequence[Where]) -> tuple[list[str | None], list[str | None], Doubles]:
        lifts = [point.lift for point in points]
        spreads = [(0.0, 0.0, 0.0) if lift is None else (lift.own, lift.between, lift.rest) for lift in lifts]
        backbones = [None if lift is None else lift.backbone for lift in lifts]
        roles = [None if lift is None else f"{lift.backbone} {lift.role}" for lift in lifts]
        return backbones, roles, np.array(spreads)

    one, other = parts(a), parts(b)
    own, between, rest = (np.multiply.outer(one[2][:, i], other[2][:, i]) for i in range(3))
    same = _same_values(one[0], other[0])
    covariance = same * (own + _same(a, b, "task") * between) + _same_values(one[1], other[1]) * rest
    return np.asarray(covariance)


def _same_values(a: Sequence[str | None], b: Sequence[str | None]) -> Doubles:
    codes: dict[str | None, int] = {}
    first, second = ([codes.setdefault(value, len(codes)) for value in values] for values in (a, b))
    return np.equal.outer(first, second).astype(np.float64)


def _by_shared(s: Spreads) -> Iterator[tuple[float, float, float]]:
    """Yield constant, slope in `x` and slope in `z` for another or the same task, family and method."""
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


def _column(points: Sequence[Where], name: str) -> Doubles:
    return np.array([getattr(point, name) for point in points], dtype=np.float64)
