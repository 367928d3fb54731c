"""Replays of searches on recorded grids: the simulator against hand-computed grids, and what it hides from searches."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.api.replaying import replay
from harness.cli.main import app
from harness.methods.base import methods
from harness.records.record import Budget, Cost, Record
from harness.replay.grids import Grid, find_grids, twin
from harness.replay.replaying import (
    DEFAULT_GRIDS,
    SEARCHERS,
    Allowance,
    belief_about,
    replay_searches,
    whole_seconds,
)
from harness.replay.runs import RecordedRuns, Split
from harness.replay.searchers import Play
from harness.store.reading import reference_grids
from harness.support.errors import UsageError
from tests.record_factory import make_record

TRAINED = {"full": 0.9, "lora": 0.86, "last-layers": 0.84}
CHEAP = {"linear-probe": 0.8, "tfidf": 0.7, "prototypes": 0.75}


def fitted(name: str, accuracy: float, seed: int = 0, **changes: Any) -> Record:
    """One record of a method of this version at 1,000 labels, with round costs."""
    method = methods.get(name)()
    is_cheap = name in CHEAP
    backbone = None if name == "tfidf" else "owner/backbone"
    cost = Cost(
        encode_seconds=None if name == "tfidf" else (10.0 if is_cheap else 0.0),
        fit_seconds=2.0 if is_cheap else 100.0,
        predict_seconds=0.4 if name == "tfidf" else 4.0,
        train_flops=None if name == "tfidf" else (1e12 if is_cheap else 2e13),
        train_tokens=0,
    )
    fields = {"n_train": 1000, "config": method.config(), **changes}
    record = make_record(
        name, fields.pop("n_train"), seed, accuracy=accuracy, n_test=400, task="tickets",
        backbone=backbone, **fields,
    )  # fmt: skip
    return replace(record, cost=cost)


def toy(**changes: Any) -> list[Record]:
    return [fitted(name, score, seed, **changes) for name, score in {**TRAINED, **CHEAP}.items() for seed in (0, 1)]


def grid_of(records: list[Record]) -> Grid:
    ((grid,), refused) = find_grids(records)
    assert not refused
    return grid


def plan(runs: RecordedRuns, name: str, **asked: Any) -> Any:
    one = next(one for one in runs.configurations if one.label == name)
    return runs.plan(runs.folds[0], one.method, files=runs.files_of(one), **asked)


def test_a_split_deals_each_row_once_and_follows_from_its_seed() -> None:
    grid = grid_of(toy())
    split = Split.of(grid, 3)
    rows = np.concatenate([*split.folds, split.test])
    assert sorted(rows) == list(range(400))
    assert len(split.folds) == 3  # as `harness choose` makes them of 1,000 labels
    assert [len(fold) for fold in split.folds] == [
        66,
        66,
        66,
    ]  # a fifth of the labels, at most half of the rows
    again, other = Split.of(grid, 3), Split.of(grid, 4)
    assert np.array_equal(split.test, again.test)
    assert not np.array_equal(split.test, other.test)


def test_scores_and_seconds_are_those_of_the_records() -> None:
    """A fold has 800 labels, so that a fit takes the recorded seconds times the steps of 800 labels over 1,000."""
    grid = grid_of(toy())
    runs = RecordedRuns(Split.of(grid, 0))
    record = runs.run(plan(runs, "full"), runs.folds[0], 1e9)
    assert record is not None
    assert record.score is not None
    assert record.predictions is not None
    fit = runs.split.draw(next(one for one in grid.configurations if one.label == "full"), _fits(grid, "full"), 0)
    rows = runs.split.folds[0]
    assert record.score.value == np.mean(fit.predicted[rows] == grid.target[rows])
    assert runs.tested(record) == np.mean(fit.predicted[runs.split.test] == grid.target[runs.split.test])
    steps = [methods.get("full")().workload(n, Budget(), 12).steps for n in (800, 1000)]
    assert runs.clock == pytest.approx(100 * steps[0] / steps[1] + 66 * 4.0 / 400)


def _fits(grid: Grid, name: str) -> Any:
    return next(one for one in grid.configurations if one.label == name).fits


def test_frozen_features_are_paid_once() -> None:
    """10 s encode 1,000 texts: the first method encodes the 800 labels and 66 validation rows, the next nothing."""
    runs = RecordedRuns(Split.of(grid_of(toy()), 0))
    runs.run(plan(runs, "linear-probe"), runs.folds[0], 1e9)
    assert runs.clock == pytest.approx(866 * 10 / 1000 + 2 * 0.8)
    before = runs.clock
    runs.run(plan(runs, "prototypes"), runs.folds[0], 1e9)
    assert runs.clock - before == pytest.approx(2 * 0.8)


def test_a_fit_that_would_be_late_takes_the_time_and_gives_nothing() -> None:
    runs = RecordedRuns(Split.of(grid_of(toy()), 0))
    assert runs.run(plan(runs, "full"), runs.folds[0], 30.0) is None
    assert runs.clock == 30.0


def test_a_cut_fit_is_worse_unless_a_cut_fit_was_recorded() -> None:
    whole = RecordedRuns(Split.of(grid_of(toy()), 0))
    full = whole.run(plan(whole, "full"), whole.folds[0], 1e9)
    half = whole.run(plan(whole, "full", budget=Budget(train_seconds=40.0)), whole.folds[0], 1e9)
    assert full is not None
    assert half is not None
    assert half.cost.stopped_by == "train_seconds"
    assert half.cost.train_seconds == pytest.approx(40.0)
    assert half.curve[-1].step == pytest.approx(0.5 * full.curve[-1].step, abs=1)
    assert 0.35 < whole.tested(half) < 0.6  # half of 0.9 and half of the most frequent of 12 classes
    cut = [fitted("full", 0.85, seed, budget=Budget(epochs=1.0)) for seed in (0, 1)]
    known = RecordedRuns(Split.of(grid_of([*toy(), *cut]), 0))
    quarter = known.run(plan(known, "full", budget=Budget(train_seconds=40.0)), known.folds[0], 1e9)
    assert quarter is not None
    assert known.tested(quarter) == pytest.approx(0.85, abs=0.05)  # one epoch of four was recorded


def test_a_fit_to_fewer_rows_lies_between_the_recorded_sizes() -> None:
    smaller = [fitted(name, score - 0.3, n_train=125) for name, score in {**TRAINED, **CHEAP}.items()]
    grids, _ = find_grids([*toy(), *smaller])
    grid = next(grid for grid in grids if grid.n_train == 1000)
    runs = RecordedRuns(Split.of(grid, 0))
    middle = runs.run(plan(runs, "full", n_train=283), runs.folds[0], 1e9)  # 354 of 1,000: half way from 125, in logs
    assert middle is not None
    assert runs.tested(middle) == pytest.approx(0.75, abs=0.06)


def test_settings_that_were_not_recorded_are_refused_in_the_replay() -> None:
    runs = RecordedRuns(Split.of(grid_of(toy()), 0))
    one = next(one for one in runs.configurations if one.label == "full")
    planned = runs.plan(runs.folds[0], methods.get("full")(learning_rate=0.5), files=runs.files_of(one))
    record = runs.run(planned, runs.folds[0], 1e9)
    assert record is not None
    assert record.status == "unsupported"
    assert "was not recorded" in str(record.error)
    assert runs.clock == 0.0


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_test_rows_decide_nothing_and_no_search_is_late(name: str) -> None:
    """With the predictions of the test rows shuffled, every search makes the same fits and keeps the same one."""
    grid = grid_of(toy())
    split = Split.of(grid, 1)
    rng = np.random.default_rng(0)
    shuffled = []
    for one in grid.configurations:
        fits = []
        for fit in one.fits:
            predicted = fit.predicted.copy()
            predicted[split.test] = rng.permutation(predicted[split.test])
            fits.append(replace(fit, predicted=predicted))
        shuffled.append(replace(one, fits=tuple(fits)))
    other = replace(grid, configurations=tuple(shuffled))
    found = []
    for one in (grid, other, grid):
        own = replace(split, grid=one)
        runs = RecordedRuns(own)
        record = SEARCHERS[name](Play(runs, 200.0, 5, belief_about(grid, [])))
        assert runs.clock <= 200.0
        found.append((runs.clock, None if record is None else runs.label_of(record)))
    assert found[0] == found[1] == found[2]


def test_a_grid_must_be_large_enough_and_hold_predictions() -> None:
    _, refused = find_grids([record for record in toy() if record.cell.method in ("full", "lora")])
    assert "2 configurations" in next(iter(refused.values()))
    _, refused = find_grids([replace(record, predictions=None) for record in toy()])
    assert "no predicted classes" in next(iter(refused.values()))
    few = [replace(r, predictions=_first(r, 100)) for r in toy()]
    _, refused = find_grids(few)
    assert "100 test rows" in next(iter(refused.values()))
    with pytest.raises(UsageError, match=r"No recorded grid can be replayed: .*100 test rows"):
        replay_searches(few, [], allowances=[Allowance(share=0.1)], n_seeds=1)


def _first(record: Record, n: int) -> Any:
    found = record.predictions
    assert found is not None
    assert found.predicted is not None
    assert found.target is not None
    return replace(found, predicted=found.predicted[:n], target=found.target[:n], confidence=None)


def test_the_prior_knows_nothing_of_the_task_nor_of_tasks_with_its_texts() -> None:
    assert twin("sst2-validation") == twin("sst2-train") == twin("rotten_tomatoes") == twin("sst2")
    assert twin("trec_fine") == twin("trec-validation")
    assert twin("trec") != twin("sst2")
    grid = replace(grid_of(toy()), task="trec-validation")
    known = [replace(r, cell=replace(r.cell, task=task)) for task in ("trec", "trec_fine", "banking77") for r in toy()]
    assert {point.task for point in belief_about(grid, known)._points} == {"banking77"}


def test_regret_is_measured_to_the_best_without_its_luck() -> None:
    """Twenty configurations of one true score: the luckiest is far above, the best without luck is not."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(20):
        record = fitted("lora", 0.8, config={**methods.get("lora")().config(), "learning_rate": 0.001 * (i + 1)})
        assert record.predictions is not None
        target = record.predictions.target
        assert target is not None
        wrong = rng.random(400) < 0.3
        predicted = np.where(wrong, (target + 1) % 12, target)
        records.append(replace(record, predictions=replace(record.predictions, predicted=predicted)))
    grid = grid_of(records)
    rows = np.arange(400)
    assert grid.luckiest_score(rows) > 0.73
    assert grid.best_score(rows) < 0.72


def test_a_comparison_over_grids_and_seeds() -> None:
    found = replay_searches(
        toy(), [], allowances=[Allowance(share=0.5), Allowance(seconds=30.0)], n_seeds=2, searchers=["random", "choose"]
    )
    assert found.grids == ["tickets:1000"]
    assert found.allowances == ["50 %", "30 s"]
    assert len(found.outcomes) == 2 * 2 * 2
    assert found.best_baseline("50 %") == "random"
    frame = found.to_frame()
    assert set(frame["searcher"]) == {"random", "choose"}
    assert (frame["seconds"] <= frame["within"]).all()
    rows = found.to_dict()["searchers"]
    own = frame[(frame["searcher"] == "choose") & (frame["allowance"] == "50 %")]
    assert next(r for r in rows if r["searcher"] == "choose")["regret_points"]["mean"] == own["regret"].mean()
    whole = whole_seconds(grid_of(toy()))
    assert own["within"].iloc[0] == pytest.approx(0.5 * whole)


def test_bad_input_is_refused_before_anything_is_replayed() -> None:
    with pytest.raises(UsageError, match=r"within='0%'"):
        replay(within="0%", progress=False)
    with pytest.raises(UsageError, match="seeds=0"):
        replay(seeds=0, progress=False)
    with pytest.raises(UsageError, match="searcher"):
        replay(searchers="hyperopt", progress=False)
    with pytest.raises(UsageError, match="banking77:154"):
        replay(grids="banking77:153", progress=False)


def test_the_shipped_grids_are_found_from_the_command_line() -> None:
    result = CliRunner().invoke(
        app, ["replay", "--grids", "trec:256", "--seeds", "1", "--searchers", "random", "--within", "5%", "--json"]
    )
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["grids"] == ["trec:256"]
    assert answer["searchers"][0]["n_replays"] == 1


def test_the_reference_results_hold_the_eight_default_grids() -> None:
    grids, _ = find_grids(reference_grids())
    assert set(DEFAULT_GRIDS) <= {grid.key for grid in grids if len(grid.configurations) > 25}
