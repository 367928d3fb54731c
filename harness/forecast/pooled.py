"""Partial pooling in closed form: random effects of tasks, groups of methods and methods as one Gaussian process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import scipy.linalg

Doubles = npt.NDArray[np.float64]
"""An array of float64."""

Shared = Literal["task", "group", "method", "backbone"]
"""Name of a field of `Where`."""

GIVEN: Final = "given"
"""Name of the part of a covariance whose spreads are known: no factor scales it."""

CURVE_LENGTH: Final = 0.7
"""Distance in `Where.x` over which a smooth curve changes: about two doublings of the labels."""


@dataclass(frozen=True)
class Term:
    """One normal random effect, which places have in common that agree in all of `shared`.

    Attributes:
        about: what the effect is of; one factor scales the spreads of all effects of it (`adapted`).
        shared: fields of `Where` in which two places must agree; without any, all places do.
        spread: standard deviation of the effect.
        over: constant (None), straight in `x` or in `z`, or a smooth `curve` in `x`.
        is_lone: whether only methods that were measured on one task have it.
    """

    about: str
    shared: tuple[Shared, ...]
    spread: float
    over: Literal["x", "z", "curve"] | None = None
    is_lone: bool = False


@dataclass(frozen=True)
class Spreads:
    """How far things differ: independent normal random effects.

    Attributes:
        terms: the effects.
        noise: standard deviation of a mean over many seeds, around all effects.
    """

    terms: tuple[Term, ...]
    noise: float

    def scaled(self, by: Mapping[str, float]) -> Spreads:
        """Return the spreads times a factor for what they are about; `noise` is about `noise`."""
        terms = tuple(replace(term, spread=term.spread * by.get(term.about, 1.0)) for term in self.terms)
        return Spreads(terms, self.noise * by.get("noise", 1.0))


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
        group: group of methods that it belongs to.
        lift: change by the backbone; None for the one with the most measurements, and without a backbone.
        backbone: name of the backbone, where effects of backbones are modelled.
        is_lone: whether the method was measured on one task alone.
    """

    x: float
    z: float
    task: str | None
    method: str
    group: str
    lift: Lift | None = None
    backbone: str | None = None
    is_lone: bool = False


class Pooled:
    """A linear model with crossed random effects, whose posterior is exact.

    The mean of all is not known beforehand: it is that of generalised least squares, and its error counts.

    Args:
        where: places of the n measurements.
        values: measured values, shape (n,).
        variances: variance of each measurement, shape (n,).
        spreads: spreads of all effects.
    """

    def __init__(self, where: Sequence[Where], values: Doubles, variances: Doubles, spreads: Spreads) -> None:
        self.where, self.spreads = list(where), spreads
        covariance = kernel(self.where, self.where, spreads)
        covariance[np.diag_indices_from(covariance)] += variances + spreads.noise**2
        # Symmetric: its transpose is laid out as LAPACK wants it, and is not copied.
        self._root = scipy.linalg.cholesky(covariance.T, lower=True, overwrite_a=True, check_finite=False)
        ones = self._solve(self._solve(np.ones(len(values))), transposed=True)
        self._ones, self._precision = ones, float(ones.sum())
        self.mean = float(ones @ values) / self._precision
        self._weights = self._solve(self._solve(values - self.mean), transposed=True)

    def predict(self, where: Sequence[Where]) -> tuple[Doubles, Doubles]:
        """Return posterior mean, shape (m,), and covariance, shape (m, m), of values without noise."""
        across = kernel(self.where, where, self.spreads)
        half = self._solve(across)
        of_mean = 1 - across.T @ self._ones
        covariance = kernel(where, where, self.spreads) - half.T @ half + np.outer(of_mean, of_mean) / self._precision
        return self.mean + across.T @ self._weights, covariance

    def means(self, where: Sequence[Where]) -> Doubles:
        """Return the posterior mean alone, shape (m,), for much less work."""
        return np.asarray(self.mean + kernel(self.where, where, self.spreads).T @ self._weights)

    def _solve(self, right: Doubles, *, transposed: bool = False) -> Doubles:
        trans: Literal["N", "T"] = "T" if transposed else "N"
        found = scipy.linalg.solve_triangular(self._root, right, trans=trans, lower=True, check_finite=False)
        return np.asarray(found, dtype=np.float64)


def kernel(a: Sequence[Where], b: Sequence[Where], spreads: Spreads) -> Doubles:
    """Return the covariance of values at `a` and at `b` before any is measured, shape (len(a), len(b))."""
    return sum(kernels(a, b, spreads).values(), np.zeros((len(a), len(b))))


def kernels(a: Sequence[Where], b: Sequence[Where], spreads: Spreads) -> dict[str, Doubles]:
    """Return the parts of the covariance by what the effects are about; changes by backbones (`Lift`) are `GIVEN`."""
    by_shared: defaultdict[tuple[str, tuple[Shared, ...]], list[Term]] = defaultdict(list)
    for term in spreads.terms:
        if term.spread:
            by_shared[term.about, term.shared].append(term)
    xa, xb, za, zb = _column(a, "x"), _column(b, "x"), _column(a, "z"), _column(b, "z")
    straight = np.multiply.outer(xa, xb)
    lone = np.multiply.outer(_column(a, "is_lone"), _column(b, "is_lone"))
    smooth: Doubles | None = None
    same = {name: _same(a, b, name) for name in {name for _, shared in by_shared for name in shared}}
    found: dict[str, Doubles] = {}
    for (about, shared), terms in by_shared.items():
        part = np.zeros((len(a), len(b)))
        for term in terms:
            if term.is_lone:
                if lone.any():
                    part += term.spread**2 * lone
            elif term.over is None:
                part += term.spread**2
            elif term.over == "x":
                part += term.spread**2 * straight
            elif term.over == "z":
                part += np.multiply.outer(term.spread**2 * za, zb)
            else:
                if smooth is None:
                    smooth = np.exp(-0.5 * (np.subtract.outer(xa, xb) / CURVE_LENGTH) ** 2)
                part += term.spread**2 * smooth
        for name in shared:
            part *= same[name]
        found[about] = found[about] + part if about in found else part
    if any(point.lift is not None for point in a) and any(point.lift is not None for point in b):
        found[GIVEN] = _of_lifts(a, b)
    return found


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


_PRIOR_SPREAD: Final = 0.8
"""Prior standard deviation of the logarithm of a factor of spreads."""

_MOST_FITTED: Final = 320
"""Largest number of measurements that factors of spreads are fitted to."""

_ROUNDS: Final = 6
_LARGEST_STEP: Final = 0.5


def adapted(where: Sequence[Where], values: Doubles, variances: Doubles, spreads: Spreads) -> Spreads:
    """Return the spreads times the most likely factors, one for all effects about the same thing.

    The likelihood is restricted (REML), and each factor's logarithm has a normal prior about 0. So a little evidence
    leaves the given spreads nearly as they are. Steps are those of the average information matrix (Gilmour, Thompson
    and Cullis, "Average information REML", Biometrics 51, 1995).
    """
    kept = _spaced(where, _MOST_FITTED)
    where, y, v = [where[i] for i in kept], values[kept], variances[kept]
    parts = kernels(where, where, spreads)
    known = parts.pop(GIVEN, np.zeros((len(where), len(where)))) + np.diag(v)
    parts["noise"] = spreads.noise**2 * np.eye(len(where))
    names, logs, best = list(parts), np.zeros(len(parts)), (-np.inf, np.zeros(len(parts)))
    for _ in range(_ROUNDS):
        now = [np.exp(2 * log) * parts[name] for name, log in zip(names, logs, strict=True)]
        covariance = known + np.sum(now, axis=0)
        root = scipy.linalg.cholesky(covariance, lower=True, check_finite=False)
        inverse = scipy.linalg.cho_solve((root, True), np.eye(len(y)), check_finite=False)
        ones = inverse.sum(0)
        projected = inverse - np.outer(ones, ones) / ones.sum()
        weights = projected @ y
        likelihood = -np.log(np.diag(root)).sum() - 0.5 * (np.log(ones.sum()) + y @ weights)
        likelihood -= 0.5 * (logs @ logs) / _PRIOR_SPREAD**2
        if likelihood > best[0]:
            best = (likelihood, logs)
        moved = np.array([part @ weights for part in now])  # each times 2: the derivative along the logarithm
        slope = moved @ weights - np.array([np.sum(projected * part) for part in now])
        curvature = 2 * moved @ projected @ moved.T
        gradient = slope - logs / _PRIOR_SPREAD**2
        step = np.linalg.solve(curvature + np.eye(len(names)) / _PRIOR_SPREAD**2, gradient)
        logs = logs + np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        if np.abs(step).max() < 0.02:
            break
    return spreads.scaled(dict(zip(names, np.exp(best[1]).tolist(), strict=True)))


def _spaced(where: Sequence[Where], most: int) -> npt.NDArray[np.intp]:
    """Return the indices of at most so many places, evenly spaced through tasks, methods and sizes."""
    if len(where) <= most:
        return np.arange(len(where))
    order = sorted(range(len(where)), key=lambda i: (str(where[i].task), where[i].method, where[i].x))
    return np.array([order[i] for i in np.linspace(0, len(where) - 1, most).round().astype(int)])


def _same(a: Sequence[Where], b: Sequence[Where], name: str) -> npt.NDArray[np.bool_]:
    return _same_values([getattr(point, name) for point in a], [getattr(point, name) for point in b])


def _same_values(a: Sequence[str | None], b: Sequence[str | None]) -> npt.NDArray[np.bool_]:
    codes: dict[str | None, int] = {}
    first, second = ([codes.setdefault(value, len(codes)) for value in values] for values in (a, b))
    return np.asarray(np.equal.outer(first, second))


def _column(points: Sequence[Where], name: str) -> Doubles:
    return np.array([getattr(point, name) for point in points], dtype=np.float64)
