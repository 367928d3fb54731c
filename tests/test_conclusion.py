"""The sentence at the end of a run says what `standings` shows, and no more."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import pytest

from harness.records.budgets import Budget
from harness.records.record import Record
from harness.report.answer import choose, in_words
from harness.report.conclusion import conclude
from harness.report.contrasts import standings
from harness.report.page import page_html
from harness.report.page_data import panels_data
from harness.report.rows import each_row
from harness.report.views.base import ReportData
from harness.support.errors import UsageError
from tests.record_factory import make_grid, make_record, with_facts


def said(records: Sequence[Record]) -> str:
    sentence = conclude(records)
    assert sentence is not None
    return sentence


def grid(accuracies: dict[str, float], seconds: dict[str, float], seeds: int = 3, **fields: object) -> list[Record]:
    return [
        make_record(method, 192, seed, accuracy=accuracy, seconds=seconds[method], n_test=400, **fields)  # type: ignore[arg-type]
        for method, accuracy in accuracies.items()
        for seed in range(seeds)
    ]


SECONDS = {"linear-probe": 1.2, "lora": 30.0, "full": 48.0}


def test_a_dear_method_that_is_tied_with_a_cheap_best_one() -> None:
    sentence = said(grid({"linear-probe": 0.70, "lora": 0.40, "full": 0.69}, SECONDS))
    assert re.fullmatch(
        r"With 192 labels, linear-probe scores best: accuracy 0\.700 \[0\.\d{3}, 0\.\d{3}\] after 1\.2 s of training; "
        r"full is not shown to be worse\.",
        sentence,
    )


def test_a_cheap_method_that_is_tied_with_a_dear_best_one() -> None:
    sentence = said(grid({"linear-probe": 0.69, "lora": 0.40, "full": 0.70}, SECONDS))
    assert "full scores best: accuracy 0.700" in sentence
    assert sentence.endswith("linear-probe, which is not shown to be worse, scores 0.690 after 1.2 s.")


def test_a_best_method_that_beats_all_others() -> None:
    sentence = said(grid({"linear-probe": 0.50, "lora": 0.40, "full": 0.80}, SECONDS))
    assert sentence.endswith("; each of the 2 other methods is shown to be worse.")
    assert said(grid({"lora": 0.40, "full": 0.80}, SECONDS)).endswith("; the other method is shown to be worse.")


def test_one_seed_and_one_method_are_said() -> None:
    assert said(grid({"linear-probe": 0.5, "full": 0.8}, SECONDS, seeds=1)).startswith("With 192 labels and one seed, ")
    alone = said(grid({"full": 0.8}, SECONDS))
    assert re.fullmatch(
        r"With 192 labels, full scores accuracy 0\.800 \[0\.\d{3}, 0\.\d{3}\] after 48 s of training\.", alone
    )


@pytest.mark.parametrize("seed", range(12))
def test_no_sentence_claims_more_than_the_standings(seed: int) -> None:
    """Random grids: who is best, who is tied and who is cheapest, against the table itself."""
    rng = np.random.default_rng(seed)
    accuracies = {name: float(rng.choice([0.55, 0.62, 0.64, 0.66])) for name in SECONDS}
    records = grid(accuracies, {name: float(rng.choice([1, 5, 40])) for name in SECONDS}, seeds=int(rng.choice([1, 3])))
    table = standings(records).set_index("variant")
    panel = panels_data(ReportData(records))[0]
    size, rows = panel["sizes"][0], each_row(panel["rows"])
    found = choose(size, rows, {})
    sentence = said(records)
    [best] = table.index[table["is_best"]]
    others = table.drop(best)
    tied = others.index[others["is_tied"].fillna(False)]
    assert f", {best} scores best" in sentence
    saver = re.search(r"; (\S+), which is not shown to be worse, scores", sentence)
    listed = re.search(r"; ([^;]+?) (?:is|are) not shown to be worse", sentence)
    assert (saver is None) == (found.saver is None)
    if saver is not None:
        assert saver[1] == rows[size.rows[found.saver]]["name"]
        assert saver[1] in tied
    elif len(tied):
        assert listed is not None
        assert set(re.split(r", | and ", listed[1])) == set(tied)
    assert (saver is None and listed is None) == (len(tied) == 0)
    if others["is_tied"].isna().any():
        assert "shown to be worse." not in sentence or len(tied)
    elif not len(tied):
        assert "2 other methods is shown to be worse" in sentence
    page = "".join(words for _, words in in_words(0, panel, rows, {}))  # the same choice, in other words
    assert f"use {best}: " in page
    assert all(name in page for name in tied) or (found.saver is not None and "Nor " in page)


def test_a_best_that_ties_with_guessing_does_not_call_that_a_good_choice() -> None:
    records = grid({"majority": 0.300, "full": 0.302}, {"majority": 0.001, "full": 48.0})
    assert said(records).endswith("; it is not shown to beat majority (0.300).")


def test_methods_that_cannot_be_tested_are_named_as_such() -> None:
    """Without predictions, one seed each says nothing about the difference."""
    records = [
        dataclasses.replace(record, predictions=None, score=dataclasses.replace(record.score, low=None, high=None))
        for record in grid({"linear-probe": 0.5, "full": 0.8}, SECONDS, seeds=1)
        if record.score is not None
    ]
    assert standings(records)["is_tied"].isna().any()
    assert "whether linear-probe is worse could not be tested" in said(records)


def test_the_largest_size_that_most_methods_have() -> None:
    records = make_grid(methods=("linear-probe", "full"), sizes=(32, 128))
    records += make_grid(methods=("linear-probe",), sizes=(512,))
    assert said(records).startswith("With 128 labels, ")
    assert re.search(r'id="answer"[^>]*>\s*<p class="said">With 128\s+labels, use ', page_html(records))
    balanced = [make_record("lora", 96, seed, draw="balanced") for seed in range(3)]
    assert said(balanced).startswith("With 96 labels (8/class), ")


def test_seconds_of_a_busy_machine_are_marked() -> None:
    records = [with_facts(record, unsteady="a neighbour") for record in grid({"lora": 0.4, "full": 0.8}, SECONDS)]
    assert said(records).endswith(" (the machine was busy: these seconds are unreliable).")


def test_several_tasks_are_counted_and_not_pooled() -> None:
    records = [
        record
        for task, (probe, full) in {"a": (0.60, 0.80), "b": (0.55, 0.75), "c": (0.70, 0.69)}.items()
        for record in grid({"linear-probe": probe, "full": full}, SECONDS, task=task)
    ]
    table = standings(records)
    not_worse = table[table["is_tied"].fillna(False)].groupby("variant").size()
    assert not_worse["full"] == 3  # by the table itself
    assert said(records) == (
        "full scores best on 2 of 3 tasks, each at its largest size; it is best or not shown to be worse on 3."
    )
    budgets = [
        record
        for steps in (10, 20)
        for record in grid({"linear-probe": 0.6, "full": 0.8}, SECONDS, budget=Budget(steps=steps))
    ]
    assert said(budgets).startswith("full scores best on 2 of 2 tables")


def test_there_is_no_sentence_without_a_score() -> None:
    assert conclude([make_record(status="failed")]) is None
    with pytest.raises(UsageError, match="nothing to report"):
        conclude([])


def test_two_seeds_show_nobody_to_be_worse() -> None:
    """Two seeds are not tested: neither the sentence nor the page's answer may claim a difference."""
    records = grid({"linear-probe": 0.50, "lora": 0.40, "full": 0.80}, SECONDS, seeds=2)
    free = make_record("zero-shot", 0, 0, accuracy=0.3, n_test=400)
    for some in (records, [*records, free]):
        assert re.search(r"; whether linear-probe.* are worse could not be tested with two seeds\.$", said(some))
        panel = panels_data(ReportData(some))[0]
        page = "".join(words for _, words in in_words(0, panel, each_row(panel["rows"]), {}))
        assert "Two seeds are too few for a test." in page
    tasks = [r for task in "ab" for r in grid({"lora": 0.40, "full": 0.80}, SECONDS, seeds=2, task=task)]
    assert said(tasks).endswith("each at its largest size; differences could not be tested.")
