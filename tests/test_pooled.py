"""Partial pooling: against regression on explicit columns, a likelihood written out, and planted tasks and methods."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.optimize

from harness.forecast.curves import Curves
from harness.forecast.evidence import Point
from harness.forecast.pooled import CURVE_LENGTH, Pooled, Spreads, Term, Where, adapted
from harness.forecast.texts import TaskTexts
from harness.records.facts import Facts

SPREADS = Spreads(
    (
        Term("whole", (), 0.5, "x"),
        Term("whole", (), 0.3, "z"),
        Term("whole", (), 0.2, "curve"),
        Term("task", ("task",), 0.8),
        Term("task", ("task",), 0.3, "x"),
        Term("method", ("group",), 0.2, "curve"),
        Term("method", ("group",), 0.25, "z"),
        Term("method", ("method",), 0.4),
        Term("backbone", ("backbone",), 0.6),
        Term("both", ("task", "method"), 0.2),
        Term("both", ("task", "method"), 0.7, is_lone=True),
    ),
    noise=0.1,
)


def places() -> list[Where]:
    names = [("a", "m"), ("a", "n"), ("b", "m"), ("b", "n"), ("a", "o")]
    return [
        Where(x, 0.3, t, m, m if m == "o" else "f", backbone="big" if m == "n" else None, is_lone=m == "o")
        for t, m in names
        for x in (-1.0, 0.5)
    ]


def columns(points: list[Where]) -> np.ndarray:
    """One column for each normal effect of variance 1; smooth curves have one for each size."""
    xs = [-1.0, 0.5, 1.0]
    root = np.linalg.cholesky(np.exp(-0.5 * (np.subtract.outer(xs, xs) / CURVE_LENGTH) ** 2) + 1e-12 * np.eye(3))
    found = []
    for term in SPREADS.terms:
        values = [sorted({str(getattr(p, name)) for p in points}) for name in term.shared]
        for combined in itertools.product(*values):
            has = [tuple(str(getattr(p, name)) for name in term.shared) == combined for p in points]
            size = np.array(has) * term.spread * np.array([p.is_lone or not term.is_lone for p in points])
            if term.over == "curve":
                found += [size * [root[xs.index(p.x), i] for p in points] for i in range(3)]
            else:
                found.append(size * [1.0 if term.over is None else getattr(p, term.over) for p in points])
    return np.array(found).T


def test_pooling_is_the_posterior_of_the_linear_model_by_hand() -> None:
    """Bayesian regression on explicit columns, and a mean of which nothing is known, gives the same."""
    rng = np.random.default_rng(0)
    where = places()
    asked = [
        Where(1.0, 0.3, None, "m", "f"),
        Where(1.0, 0.3, "a", "n", "f", backbone="big"),
        Where(1.0, 0.3, None, "o", "o", is_lone=True),
    ]
    values, variances = rng.normal(size=len(where)), rng.uniform(0.01, 0.1, len(where))
    every = np.column_stack([np.full(len(where) + 3, 1e4), columns([*where, *asked])])
    design, at = every[:-3], every[-3:]
    noise = variances + SPREADS.noise**2
    precision = design.T @ (design / noise[:, None]) + np.eye(design.shape[1])
    coefficients = np.linalg.solve(precision, design.T @ (values / noise))
    mean, covariance = Pooled(where, values, variances, SPREADS).predict(asked)
    assert mean == pytest.approx(at @ coefficients, abs=1e-4)
    assert covariance == pytest.approx(at @ np.linalg.solve(precision, at.T), abs=1e-4)


def test_adapted_spreads_are_the_most_likely_ones() -> None:
    """An optimiser that knows only the restricted likelihood, written out on contrasts, finds the same factors."""
    rng = np.random.default_rng(1)
    where = [
        Where(x, 0.0, f"t{task}", f"m{method}", "f")
        for task in range(10)
        for method in range(4)
        for x in (-1.0, 0.0, 1.0)
    ]
    of_task, of_method = rng.normal(0, 1.6, 10), rng.normal(0, 0.1, 4)
    values = np.array([of_task[int(w.task[1:])] + of_method[int(w.method[1:])] + 0.5 * w.x for w in where if w.task])
    values += rng.normal(0, 0.3, len(where))
    variances = np.full(len(where), 0.01)
    spreads = Spreads(
        (Term("task", ("task",), 0.8), Term("method", ("method",), 0.3), Term("whole", (), 0.5, "x")), 0.1
    )
    found = adapted(where, values, variances, spreads)
    same = {
        name: np.equal.outer([getattr(w, name) for w in where], [getattr(w, name) for w in where])
        for name in ("task", "method")
    }
    contrasts = np.linalg.svd(np.ones((1, len(where))))[2][1:]  # orthogonal to the mean
    xs = np.array([w.x for w in where])

    def loss(logs: np.ndarray) -> float:
        task, method, whole, noise = np.exp(2 * logs) * np.square([0.8, 0.3, 0.5, 0.1])
        covariance = task * same["task"] + method * same["method"] + whole * np.outer(xs, xs)
        covariance = contrasts @ (covariance + np.diag(variances + noise)) @ contrasts.T
        rest = contrasts @ values
        likelihood = -0.5 * (np.linalg.slogdet(covariance)[1] + rest @ np.linalg.solve(covariance, rest))
        return float(-likelihood + 0.5 * np.sum(logs**2) / 0.8**2)

    best = np.exp(scipy.optimize.minimize(loss, np.zeros(4)).x)
    expected = spreads.scaled(dict(zip(("task", "method", "whole", "noise"), best, strict=True)))
    assert [t.spread for t in found.terms] == pytest.approx([t.spread for t in expected.terms], rel=0.05)
    assert found.noise == pytest.approx(expected.noise, rel=0.05)
    assert found.terms[0].spread > 1.0
    assert found.terms[1].spread < 0.25


def planted(rng: np.random.Generator, size: float, n_tasks: int = 9) -> list[Point]:
    """Points of tasks, groups and methods that differ `size` times as far as the reference results do."""
    groups = {"linear-probe": "frozen features", "knn": "frozen features", "lora": "fine-tuning", "full": "fine-tuning"}
    of_group = {group: rng.normal(0, 0.25) for group in sorted(set(groups.values()))}
    of_method = {method: rng.normal(0, 0.12) for method in groups}
    found = []
    for task in range(n_tasks):
        level, classes = rng.normal(0.5, size * 0.7), int(rng.choice([8, 16]))
        by_group = {group: rng.normal(0, 0.3) for group in of_group}
        for method, group in groups.items():
            own = rng.normal(0, 0.12)
            for each in (8, 64):
                logit = level + 0.4 * np.log2(each / 32) / 3 + of_group[group] + of_method[method]
                logit += by_group[group] + own + rng.normal(0, 0.05)
                seeds = np.clip(1 / (1 + np.exp(-logit - rng.normal(0, 0.1, 3))), 0.01, 0.99)
                found.append(point(f"t{task}", method, group, each * classes, classes, seeds))
    return found


def point(task: str, method: str, role: str, n_train: int, classes: int, seeds: np.ndarray) -> Point:
    return Point(
        task=task, kind="classification", backbone="b", method=method, name=method, config={},
        facts=Facts(role=role), family=role, n_train=n_train, metric="accuracy", higher_is_better=True,  # type: ignore[arg-type]
        highest=1.0, score=float(seeds.mean()), seed_variance=float(seeds.var(ddof=1) / len(seeds)), n_seeds=len(seeds),
        n_test=2000, seconds={}, memory={}, predict={}, trainable=None, stored=None, classes=classes, n_records=3,
    )  # fmt: skip


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_intervals_hold_as_often_as_they_say_where_tasks_differ_more_or_less(size: float) -> None:
    """The spreads are not told how far the planted tasks differ; the other tasks of each world tell."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(60):
        points = planted(rng, size)
        curves = Curves([p for p in points if p.task != "t0"])
        for n_train in sorted({p.n_train for p in points if p.task == "t0"}):
            own = {p.method: p for p in points if (p.task, p.n_train) == ("t0", n_train)}
            asked = TaskTexts(None, n_train, classes=next(iter(own.values())).classes)
            for method, (score, low, high) in zip(
                curves.by_method, curves.ranges(asked, *curves.expected(asked)), strict=True
            ):
                assert 1 / asked.classes <= low <= score <= high <= 1
                if own[method].score > 1 / asked.classes:  # no interval holds what is below chance
                    held.append(low <= own[method].score <= high)
    assert 0.7 <= np.mean(held) <= 0.92


def test_a_method_measured_on_one_task_is_hardly_expected_to_do_as_well_elsewhere() -> None:
    """Character n-grams suit proteins: that says little of ordinary text, and the interval says so."""
    rng = np.random.default_rng(3)
    points = planted(rng, 1.0)
    odd = [point("t1", "chars", "baseline", n, 4, np.array([0.97, 0.96, 0.98])) for n in (32, 256)]
    usual = [
        point(f"t{i}", "words", "baseline", n, 4, np.clip(rng.normal(0.6 + 0.05 * i, 0.02, 3), 0.3, 0.95))
        for i in range(8)
        for n in (32, 256)
    ]
    curves = Curves([*points, *usual, *odd])
    asked = TaskTexts(None, 64, classes=4)
    found = dict(zip(curves.by_method, curves.ranges(asked, *curves.expected(asked)), strict=True))
    assert found["chars"][0] < found["words"][0] + 0.08
    assert found["chars"][2] - found["chars"][1] > found["words"][2] - found["words"][1]


def test_two_unequal_classes_start_where_guessing_does() -> None:
    curves = Curves(planted(np.random.default_rng(4), 1.0))
    equal = TaskTexts(None, 16, classes=2)
    unequal = TaskTexts(None, 16, classes=2, majority=0.9)
    for plain, found in zip(
        curves.ranges(equal, *curves.expected(equal)), curves.ranges(unequal, *curves.expected(unequal)), strict=True
    ):
        for one, other in zip(plain, found, strict=True):
            assert other == pytest.approx(0.9 + 0.1 * (one - 0.5) / 0.5)
