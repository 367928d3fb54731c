"""The search of settings inside `choose`: on a simulated clock, with scores that follow from the settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from harness.choose.candidates import Belief, Candidate
from harness.choose.runner import RUNGS, Runs
from harness.choose.search import Search
from harness.choose.settings import expected_gain, likely_settings, rungs_of, search_settings, train_harder
from harness.choose.tried import Tried
from harness.methods.base import Method, methods
from harness.methods.configure import parse_methods
from harness.methods.rungs import DROPPED, Rung
from harness.records.predictions import Predictions
from harness.records.record import CurvePoint, Record
from harness.store.reading import read_source
from harness.tasks.base import Task
from tests.record_factory import make_record

SECONDS_OF_AN_EPOCH = 3.0
EARLIER = Path(__file__).parents[1] / "results" / "earlier"


class Simulated:
    """Fits whose score follows from their settings, and whose clock moves by their epochs."""

    def __init__(self, truth: Callable[[Method], float]) -> None:
        self.clock = 0.0
        self.truth = truth
        self.spent: list[tuple[Method, float]] = []

    def now(self) -> float:
        return self.clock

    def plan(self, _: Task, method: Method, *__: object, **___: object) -> Any:
        return SimpleNamespace(method=method, unsupported=None)

    def estimate(self, planned: Any) -> Any:
        seconds = SECONDS_OF_AN_EPOCH * planned.method.epochs
        return SimpleNamespace(seconds=seconds, train_seconds=seconds, basis="records", peak_bytes=0.0)

    def run(
        self, planned: Any, _: Task, until: float, *__: object, at_rung: Callable[[Rung], bool], **___: object
    ) -> Record | None:
        method, began = planned.method, self.clock
        whole, score = SECONDS_OF_AN_EPOCH * method.epochs, self.truth(method)
        curve = []
        for share in RUNGS:
            self.clock = began + share * whole
            reached = score - 0.1 * (1 - share)
            curve.append(CurvePoint(1, share * whole, validation=reached))
            if not at_rung(Rung(share, 1, share * whole, reached)):
                self.spent.append((method, self.clock - began))
                return make_record("full", 1200, status="out_of_time", error=f"{DROPPED} {share:.0%}")
        self.clock = began + whole
        self.spent.append((method, whole))
        assert self.clock <= until
        return make_record(
            "full", 1200, int(1e4 * score), accuracy=score, seconds=whole, n_test=300, curve=tuple(curve),
            config=method.config(),
        )  # fmt: skip


def tried_settings(
    truth: Callable[[Method], float], left: float, classes: int = 77, seconds: float = 200.0
) -> tuple[list[Candidate], Simulated, Search, list[str]]:
    """Search the settings of `full` with so many seconds left; return what came of it."""
    (method,) = parse_methods(["full"])
    candidate = Candidate(method, "full", is_cheap=False, known_as=method)
    runs, said = Simulated(truth), list[str]()
    task = SimpleNamespace(
        train_labels=np.zeros(1200), n_strata=classes, n_test=300, metric="accuracy", name="a", provenance={}
    )
    search = Search(
        cast(Runs, runs),
        cast(Task, task),
        [cast(Task, task)],
        [candidate],
        Belief([], classes),
        left,
        None,
        said.append,
    )
    search.tries_settings, search.overhead = True, 1.0
    search.run(candidate, 0, left)
    runs.spent.clear()
    return search_settings(search, candidate, seconds), runs, search, said


def rises_with_the_rate(method: Any) -> float:
    return 0.8 + 0.15 * min(1.0, math.log(method.learning_rate / 1e-4) / math.log(3))


def test_a_better_setting_takes_the_place_and_worse_ones_are_dropped() -> None:
    found, runs, search, said = tried_settings(rises_with_the_rate, 400.0)
    assert found[0].method.learning_rate == pytest.approx(3e-4)  # type: ignore[attr-defined]
    assert all(candidate.known_as is not None for candidate in found)
    dropped = [tried for tried in search.tried if tried.is_dropped]
    assert dropped
    assert len(search.tried) == 1 + len(runs.spent)
    assert any("takes the place of full" in line for line in said)


def test_nothing_takes_the_place_where_settings_do_not_matter() -> None:
    found, runs, _, said = tried_settings(lambda _: 0.8, 400.0, classes=2)
    assert runs.spent
    assert found == []
    assert any("keeps its settings" in line for line in said)


def test_a_variant_enters_only_if_its_last_fit_ends_in_time() -> None:
    """A fit of four epochs takes 12 s, and its last fit at least as much again."""
    _, runs, _, _ = tried_settings(rises_with_the_rate, 46.0)
    assert {method.epochs for method, _ in runs.spent} <= {3.0, 4.0}  # type: ignore[attr-defined]
    _, runs, _, said = tried_settings(rises_with_the_rate, 30.0)
    assert runs.spent == []
    assert "no time for a variant" in said[-1]
    for left in (50.0, 70.0, 110.0):
        _, runs, search, _ = tried_settings(rises_with_the_rate, left)
        assert runs.clock + 12.0 <= search.end


def test_nothing_is_tried_where_it_is_switched_off() -> None:
    (method,) = parse_methods(["full"])
    candidate = Candidate(method, "full", is_cheap=False)
    search = Search(
        cast(Runs, Simulated(rises_with_the_rate)), cast(Task, None), [], [candidate], Belief([], 2), 400.0, None, print
    )
    search.tried.append(Tried(candidate, make_record("full", 1200), 1200, 0, 1.0))
    search.folds = [cast(Task, SimpleNamespace(train_labels=np.zeros(1200)))]
    assert search_settings(search, candidate, 300.0) == []


def test_a_method_with_few_steps_for_its_classes_is_trained_harder_at_once() -> None:
    """One variant is tried, with more epochs; with two classes none is."""

    def longer(method: Any) -> float:
        return 0.7 + 0.1 * min(1.0, math.log2(method.epochs / 4))

    for classes, epochs in ((77, 8.0), (2, 4.0)):
        _, runs, search, _ = tried_settings(longer, 400.0, classes=classes, seconds=0.0)
        (candidate,) = search.entrants
        assert runs.spent == []
        found = train_harder(search, candidate)
        assert found.method.epochs >= epochs  # type: ignore[attr-defined]
        assert len(runs.spent) == (classes == 77)
        assert search.entrants == [found]


def test_many_classes_of_few_rows_are_trained_harder_first() -> None:
    for name, first, second in (
        ("last-layers", {"epochs": 8.0}, {"learning_rate": 9e-4}),
        ("lora", {"epochs": 16.0}, {"epochs": 8.0}),
        ("full", {"epochs": 10.0}, {"epochs": 6.0}),
    ):
        (method,) = parse_methods([name])
        own = {name: getattr(method, name) for name in method.search_space}
        for settings, expected in zip(likely_settings(method, 1200, 77), (first, second), strict=False):
            assert {key: value for key, value in settings.items() if own[key] != value} == expected
    (method,) = parse_methods(["full"])
    rate = method.learning_rate  # type: ignore[attr-defined]
    assert all(settings["learning_rate"] == rate for settings in likely_settings(method, 1200, 2))
    for n_classes in (2, 6, 77):
        for settings in likely_settings(method, 1200, n_classes):
            assert type(method)(**{**method.config(), **settings}).config() != method.config()


def test_a_gain_is_shrunk_and_pairs_of_rows_make_it_surer() -> None:
    base = make_record("full", 1200, 1, accuracy=0.80, n_test=300)
    same, better = (make_record("full", 1200, seed, accuracy=a, n_test=300) for seed, a in ((2, 0.80), (2, 0.88)))
    assert expected_gain(base, same).mean == pytest.approx(0.0, abs=1e-3)
    gain = expected_gain(base, better)
    assert 0 < gain.mean < 0.08
    alone = expected_gain(base, make_record("full", 1200, 2, accuracy=0.88, n_test=300, predictions=None))
    assert alone.mean < gain.mean


def test_replacing_by_the_rule_costs_nothing_on_average() -> None:
    """Gains drawn as expected, measured on 300 rows: those that the rule takes are gains, and few are losses."""
    generator = np.random.default_rng(0)
    slope, taken = 0.8 * 0.2, []
    for _ in range(2000):
        gain = generator.normal(0, 0.12 * slope)
        fits = generator.normal(0, 0.08 * slope, size=2)
        one = make_predicted(generator, 0.8 + fits[0])
        other = make_predicted(generator, 0.8 + gain + fits[1])
        expected = expected_gain(one, other)
        if expected.mean > 0.674490 * expected.deviation:
            taken.append(gain)
    assert 20 < len(taken) < 600
    assert np.mean(taken) > 0.003
    assert np.mean(np.array(taken) < -0.005) < 0.25


@pytest.mark.slow
def test_replacing_by_the_rule_costs_nothing_on_recorded_settings() -> None:
    """25 methods on two tasks with several settings each: half of the rows validate, the others judge."""
    cells: dict[tuple[str, str, int], list[Record]] = {}
    for record in read_source(str(EARLIER / "amd-epyc-1-thread" / "defaults.jsonl")):
        if record.status == "ok" and record.curve and record.predictions is not None:
            cells.setdefault((record.cell.method, record.cell.task, record.cell.n_train), []).append(record)
    gains: dict[int, list[float]] = {128: [], 512: []}
    for (name, _, n_train), found in cells.items():
        own = methods.get(name)().config()
        base = next((record for record in found if record.cell.config == own), None)
        others = [record for record in found if record is not base]
        if base is None or not others:
            continue
        n_rows = len(right_of(base))
        for seed in range(10):
            order = np.random.default_rng(seed).permutation(n_rows)
            validates, judges = order[: n_rows // 2], order[n_rows // 2 :]
            expected = [(expected_gain(part_of(base, validates), part_of(one, validates)), one) for one in others]
            taken = [(gain.mean, one) for gain, one in expected if gain.mean > 0.674490 * gain.deviation]
            best = max(taken, key=lambda one: one[0])[1] if taken else base
            gains[n_train].append(float(right_of(best)[judges].mean() - right_of(base)[judges].mean()))
    assert len(gains[512]) >= 400
    assert np.mean(gains[128]) > 0
    assert np.mean(gains[512]) > -0.002


def right_of(record: Record) -> Any:
    predicted, target = record.predictions.classes  # type: ignore[union-attr]
    return predicted == target


def part_of(record: Record, rows: Any) -> Record:
    """The record with its score on some of the rows."""
    assert record.predictions is not None
    assert record.score is not None
    predicted, target = (array[rows] for array in record.predictions.classes)
    score = replace(record.score, value=float((predicted == target).mean()), n_test=len(rows))
    return replace(record, predictions=Predictions(record.predictions.rows, predicted, target), score=score)


def make_predicted(generator: np.random.Generator, accuracy: float) -> Record:
    n_right = int(generator.binomial(300, min(1.0, max(0.0, accuracy))))
    return make_record("full", 1200, accuracy=n_right / 300, n_test=300, predictions=None)


def test_rungs_are_read_from_a_records_curve() -> None:
    curve = (CurvePoint(1, 1.0, validation=0.5), CurvePoint(2, 2.0), CurvePoint(3, 3.0, validation=0.7))
    assert rungs_of(make_record("full", 64, curve=curve)) == [0.5, 0.7]
