"""Advice on results of other tools: one metric in each comparison, any direction, and ranges without an upper end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from harness.advice import Advice, question_about
from harness.advice.answer import answer_question
from harness.forecast import gather
from harness.records import Record, Score
from harness.support import UsageError
from tests.record_factory import make_grid

TASKS = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def records() -> list[Record]:
    methods = ("tfidf", "linear-probe", "full")  # in this order from worst to best at 2,048 labels
    return [one for task in TASKS for one in make_grid(methods, sizes=(128, 2048), seeds=(0, 1), task=task)]


def scored(
    records: list[Record],
    metric: str,
    value: Callable[[float], float],
    *,
    higher_is_better: bool = True,
    highest: float | None = 1.0,
    task: str = "",
    seed: int = 0,
) -> list[Record]:
    """The same records with scores of another metric."""
    found = []
    for one in records:
        assert one.score is not None
        cell = dataclasses.replace(one.cell, task=one.cell.task + task, seed=one.cell.seed + seed)
        score = Score(metric, value(one.score.value), None, None, higher_is_better, 200, highest=highest)
        found.append(dataclasses.replace(one, cell=cell, score=score))
    return found


def answer(records: list[Record]) -> Advice:
    return answer_question(question_about(n_train=2048), records)


def test_scores_of_two_metrics_of_one_cell_are_no_mean(records: list[Record]) -> None:
    others = scored(records, "macro_f1", lambda _: 0.05, seed=10)
    alone, both = answer(records), answer([*records, *others])
    assert both.metric == "accuracy"
    assert {one.method: one.score for one in both.choices} == {one.method: one.score for one in alone.choices}
    assert {point.metric for point in gather([*records, *others]).points} == {"accuracy", "macro_f1"}


@pytest.mark.parametrize("percent_first", [True, False])
def test_one_name_of_two_ranges_is_two_metrics(records: list[Record], *, percent_first: bool) -> None:
    fractions = scored(records, "quality", lambda x: x)
    percents = scored(records[: len(records) // 2], "quality", lambda x: 100 * x, highest=100.0, task=" of another")
    found = answer([*percents, *fractions] if percent_first else [*fractions, *percents])
    assert found.metric == "quality"
    assert found.highest == 1.0
    assert all(0.3 < one.low <= one.high <= 1 for one in found.choices)
    assert any("quality (up to 100, higher is better)" in note for note in found.notes)


def test_one_name_of_two_directions_is_two_metrics(records: list[Record]) -> None:
    errors = scored(records[:12], "match", lambda x: 1 - x, higher_is_better=False, task=" of another")
    found = answer([*errors, *scored(records, "match", lambda x: x)])
    assert found.higher_is_better
    assert found.best is not None
    assert found.best.method == "full"


@pytest.mark.parametrize(
    ("metric", "value", "higher_is_better"),
    [("wer", lambda x: 1 - x, False), ("loss", lambda x: 10 * (1 - x), False), ("elo", lambda x: 1000 * x, True)],
)
def test_metrics_without_an_upper_end_keep_their_order(
    records: list[Record], metric: str, value: Callable[[float], float], *, higher_is_better: bool
) -> None:
    own = scored(records, metric, value, higher_is_better=higher_is_better, highest=None)
    found = answer(own)
    assert [one.method for one in found.choices] == ["full", "linear-probe", "tfidf"]
    assert [tier.method for tier in found.tiers][-1] == "full"
    assert all(tier.gain is None or (tier.gain.expected > 0 and tier.gain.probability > 0.5) for tier in found.tiers)
    measured = [one.score.value for one in own if one.cell.method == "full" and one.cell.n_train == 2048 and one.score]
    assert min(measured) <= found.choices[0].score <= max(measured)


def test_negative_scores_without_an_upper_end_are_refused(records: list[Record]) -> None:
    own = scored(records, "log_likelihood", lambda x: x - 1, highest=None)
    with pytest.raises(UsageError, match=r"log_likelihood: it has no upper end, and .* below 0"):
        answer(own)


def test_a_store_of_published_results_alone_says_why_nothing_counts(records: list[Record]) -> None:
    published = [dataclasses.replace(r, facts=dataclasses.replace(r.facts, measured_by="SetFit")) for r in records]
    assert gather([*records, *published[:5]]).n_left_out == 0  # the same records twice
    with pytest.raises(UsageError, match=f"{len(records)} scored records of results that other tools"):
        answer(published)
