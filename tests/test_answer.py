"""The answer on the report's page: which method to use within a budget, in words, and the order of the panels."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from harness.api.results import read_records
from harness.records.record import Cost
from harness.report.answer import Size, choose, footnote, in_words, sizes_of_panels
from harness.report.page_data import panels_data
from harness.report.reading_order import in_reading_order
from harness.report.rows import each_row
from harness.report.views.base import ReportData
from tests.record_factory import make_grid, make_record

REFERENCE = "results/earlier/amd-epyc-2-threads"


def answers(records, limits=None, at=-1):
    """Return the answer and the footnote of the first panel."""
    panel = panels_data(ReportData(records))[0]
    at = at % len(panel["sizes"])
    rows = each_row(panel["rows"])
    said = "".join(words for _, words in in_words(at, panel, rows, limits or {}))
    return said, footnote(panel["sizes"][at], panel, rows, limits or {})


def grid(**scores):
    """Return one cell each of three seeds at 100 labels, from (accuracy, seconds) by method."""
    floor = {"backbone": None}
    return [
        make_record(
            name.replace("_", "-"),
            100,
            seed,
            accuracy=accuracy,
            seconds=seconds,
            n_test=1000,
            **(floor if name == "majority" else {}),
        )
        for name, (accuracy, seconds) in scores.items()
        for seed in range(3)
    ]


def test_the_best_the_saver_and_the_cheap_one_are_named():
    methods = {
        "full": (0.905, 60),
        "lora": (0.9, 18),
        "linear_probe": (0.7, 1),
        "tfidf": (0.55, 0.1),
        "majority": (0.3, 0),
    }
    said, note = answers(grid(**methods))
    assert said == (
        "With 100 labels, use full: accuracy 0.905 (0.890–0.918), 60 s of training. lora is not shown to be worse "
        "(0.900), at about a third of the training time. linear-probe is nearly free: 0.700 in 1.0 s."
    )
    assert note == "Best mean of 5 methods, 3 seeds; worse: shown by a test at the 5 % level (Holm)."


def test_a_limit_leaves_methods_out_and_says_so():
    records = grid(full=(0.9, 60), linear_probe=(0.7, 1), majority=(0.3, 0.001))
    said, note = answers(records, {"train": 20.0})
    assert said.startswith("With 100 labels and at most 20 s of training, use linear-probe: accuracy 0.7")
    assert "The other method that fits is worse." in said
    assert note.startswith("Best mean of 2 of 3 methods within the budget, 3 seeds")


def test_where_nothing_fits_the_limit_and_the_least_need_are_named():
    records = grid(full=(0.9, 60), linear_probe=(0.7, 1))
    said, _ = answers(records, {"train": 0.5, "memory": 2e9})
    assert said.startswith(
        "With 100 labels and at most 0.5 s of training and 2.0 GB of memory, nothing that was measured fits."
    )
    assert "The least training time: linear-probe with 1.0 s (0.7" in said
    assert "The least memory" not in said
    said, _ = answers(records, {"train": 10.0, "trainable": 10.0})
    assert "The least trainable parameters: linear-probe with 4,620" in said


def test_two_limits_may_exclude_all_together():
    fast = make_record("linear-probe", 100, accuracy=0.7, seconds=1)
    small = make_record("lora", 100, accuracy=0.8, seconds=50)
    fast = dataclasses.replace(fast, cost=dataclasses.replace(fast.cost, n_trainable=1_000_000))
    said, _ = answers([fast, small], {"train": 2.0, "trainable": 100_000.0})
    assert said.endswith("nothing that was measured fits. Each limit alone would allow some methods.")


def test_without_a_test_nothing_is_called_tied_or_worse():
    records = [
        dataclasses.replace(make_record(name, 100, accuracy=accuracy), predictions=None)
        for name, accuracy in (("full", 0.8), ("lora", 0.7))
    ]
    records = [dataclasses.replace(r, score=dataclasses.replace(r.score, low=None, high=None)) for r in records]
    said, note = answers(records)
    assert "No test against 1 method was possible." in said
    assert "worse" not in said + note


def test_one_seed_is_said_with_what_it_leaves_open():
    records = [r for r in grid(full=(0.9, 60), lora=(0.89, 18)) if r.cell.seed == 0]
    assert "One seed: differences below 0.0" in answers(records)[1]


def test_a_best_that_is_not_shown_to_beat_guessing_says_so():
    said, _ = answers(grid(linear_probe=(0.302, 9), majority=(0.3, 0.001)))
    assert said.endswith("9.0 s of training. It is not shown to beat majority (0.300).")
    said, _ = answers(grid(linear_probe=(0.2, 9), majority=(0.3, 0.001)))
    assert said.endswith("It gives all texts the same answer: nothing that fits is better.")


def test_a_floor_that_ties_after_correction_is_not_called_beaten():
    """One rule decides: what counts as tied in the standings is not beaten in another sentence."""
    size = Size(100, "stratified", [0, 1, 2, 3], {0: [0.03, 0.5, 0.9]})
    names = ("full", "majority", "lora", "head")
    rows = [{"name": name, "train": 9.0, "floor": name == "majority", "n_train": 100} for name in names]
    found = choose(size, rows, {})
    assert found.tied == [1, 2, 3]
    assert found.beats_floor is False


def test_fewer_labels_may_be_better_within_a_limit():
    records = [
        make_record(name, n_train, seed, accuracy=accuracy, seconds=seconds, n_test=1000)
        for name, n_train, accuracy, seconds in (
            ("full", 100, 0.8, 10),
            ("full", 400, 0.9, 40),
            ("linear-probe", 100, 0.6, 1),
            ("linear-probe", 400, 0.7, 4),
        )
        for seed in range(3)
    ]
    said, _ = answers(records, {"train": 20.0})
    assert "use linear-probe: accuracy 0.7" in said
    assert "full scores higher on only 100 of the labels: 0.8" in said
    assert "only 100" not in answers(records)[0]


def test_records_without_costs_are_answered_by_their_scores():
    records = [dataclasses.replace(r, cost=Cost()) for r in grid(full=(0.9, 60), lora=(0.6, 18))]
    said, _ = answers(records)
    assert "of training" not in said
    assert "of the time" not in said


def test_the_best_and_the_tied_are_those_of_the_standings():
    """Without limits, and at every size of every panel of the published results."""
    report = ReportData(list(read_records(REFERENCE)))
    n_sizes = 0
    for panel in panels_data(report):
        rows = each_row(panel["rows"])
        standings = report.standings[report.standings["panel"] == panel["title"]]
        for size in panel["sizes"]:
            at_size = standings[standings["n_train"] == size.n_train]
            found = choose(size, rows, {})
            names = [rows[i]["name"] for i in size.rows]
            assert names[found.best] == at_size.loc[at_size["is_best"], "variant"].item()
            tied = at_size[at_size["is_tied"].fillna(False) & ~at_size["is_best"]]["variant"]
            assert {names[place] for place in found.tied} == set(tied)
            assert {names[place] for place in found.untested} == set(at_size[at_size["is_tied"].isna()]["variant"])
            n_sizes += 1
    assert n_sizes >= 10


@pytest.mark.parametrize("limits", [{"train": 20.0}, {"memory": 2e8}, {"train": 40.0, "trainable": 1e5}])
def test_every_budget_has_tests_of_its_best(limits):
    """Tests are computed for methods that can be the best only; none may be missing for another reason."""
    report = ReportData(list(read_records(REFERENCE)))
    sizes = sizes_of_panels(report.observations, report.panels)
    for data in panels_data(report):
        for size in sizes[data["title"]]:
            found = choose(size, each_row(data["rows"]), limits)
            assert found.best is None or found.best in size.p_values


def test_panels_with_tuned_defaults_or_one_seed_come_last():
    tasks = {"tuned": (0, 1, 2), "thin": (0,), "small": (0, 1, 2), "large": (0, 1, 2)}
    methods = {"small": ("tfidf", "lora")}
    records = [
        r
        for task, seeds in tasks.items()
        for r in make_grid(task=task, seeds=seeds, sizes=(32,), methods=methods.get(task, ("tfidf", "lora", "full")))
    ]
    report = ReportData([dataclasses.replace(r, **_chosen(r)) for r in records])
    assert [panel.task for panel in report.panels] == ["large", "small", "tuned", "thin"]
    assert in_reading_order(reversed(report.panels)) == report.panels


def _chosen(record):
    provenance = record.provenance
    dataset = {**provenance.dataset, "defaults_chosen_here": record.cell.task == "tuned"}
    return {"provenance": dataclasses.replace(provenance, dataset=dataset)}


def test_unknown_costs_fit_no_limit():
    known, unknown = grid(full=(0.6, 1), lora=(0.9, 1))[::3]
    unknown = dataclasses.replace(unknown, cost=Cost())
    assert "use lora" in answers([known, unknown])[0]
    assert "use full" in answers([known, unknown], {"train": 100.0})[0]
    assert pd.notna(known.cost.fit_seconds)
