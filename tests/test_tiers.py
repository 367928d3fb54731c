"""Tiers of an answer: planted fronts, ties, few tasks, unknown costs, limits and scores out of reach."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.special import expit, logit
from scipy.stats import norm

from harness.advice import words
from harness.advice.answer import Advice, answer_question
from harness.advice.choices import AdvisedMethod, Beliefs
from harness.advice.own_texts import question_about
from harness.advice.question import Question
from harness.advice.reach import find_reach
from harness.advice.spending import AskedSpending
from harness.advice.tiers import find_tiers
from harness.cli import advised
from harness.forecast.evidence import Evidence, gather
from harness.records.facts import TextLengths
from harness.records.record import Cost, Record
from harness.records.served import ServedFacts
from harness.store import reference_records
from tests.record_factory import make_grid, make_record, with_facts

Planted = tuple[str, float, float, int]
"""Label, expected score, cost and number of tasks."""


def beliefs_of(planted: Sequence[Planted], own: float = 0.01, shared: float = 1.0) -> Beliefs:
    """Methods whose scores differ by `own` and share `shared`, as standard deviations of logits."""
    mean = logit(np.array([score for _, score, _, _ in planted]))
    covariance = np.full((len(mean), len(mean)), shared**2) + np.eye(len(mean)) * own**2
    half = 1.281552 * math.sqrt(own**2 + shared**2)
    ranges = tuple((float(expit(m)), float(expit(m - half)), float(expit(m + half))) for m in mean)
    return Beliefs(tuple(name for name, *_ in planted), mean, covariance, ranges, expit)


def choices_of(planted: Sequence[Planted], **changes: Any) -> list[AdvisedMethod]:
    return [
        AdvisedMethod(
            method=name, family="f", score=score, low=score, high=score, train_seconds=cost, peak_memory_bytes=None,
            predict_milliseconds=None, trainable_parameters=None, stored_bytes=None, fits=True, why_not=(),
            is_tied=False, basis="interpolated", n_records=1, n_tasks=n_tasks, **changes,
        )
        for name, score, cost, n_tasks in planted
    ]  # fmt: skip


def tiers_of(planted: Sequence[Planted], own: float = 0.01) -> list[tuple[str, str]]:
    costs = {name: cost for name, _, cost, _ in planted}
    return [(tier.name, tier.method) for tier in find_tiers(choices_of(planted), costs, beliefs_of(planted, own))]


# ---- the front


def test_tiers_are_the_upper_hull_of_a_planted_front():
    """A method is on the hull if it lies above every line between a cheaper and a dearer one, in log cost."""
    rng = np.random.default_rng(5)
    for _ in range(40):
        n = int(rng.integers(3, 8))
        costs = 10.0 * 4.0 ** rng.permutation(n)
        scores = np.sort(rng.uniform(0.3, 0.9, n)) if rng.random() < 0.5 else rng.uniform(0.3, 0.9, n)
        planted = [(f"m{i}", float(s), float(c), 5) for i, (s, c) in enumerate(zip(scores, costs, strict=True))]
        top = max(planted, key=lambda one: one[1])
        among = [one for one in planted if one[2] <= top[2]]
        on_hull = [
            one
            for one in sorted(among, key=lambda one: one[2])
            if not any(other[2] < one[2] and other[1] >= one[1] for other in among)
            and not any(
                a[2] < one[2] < b[2]
                and one[1] <= a[1] + (b[1] - a[1]) * math.log(one[2] / a[2]) / math.log(b[2] / a[2]) + 1e-12
                for a, b in itertools.permutations(among, 2)
            )
        ]
        found = [method for _, method in tiers_of(planted, own=1e-6)]
        wanted = [name for name, *_ in on_hull]
        assert found == wanted if len(wanted) <= 5 else (len(found) == 5 and set(found) < set(wanted))
        assert found[-1] == top[0]


def test_the_names_of_tiers_are_fixed():
    planted = [("free", 0.6, 1.0, 5), ("value", 0.8, 20.0, 5), ("more", 0.85, 100.0, 5), ("top", 0.88, 350.0, 5)]
    assert tiers_of(planted) == [
        ("nearly free", "free"), ("good value", "value"), ("between", "more"), ("best", "top"),
    ]  # fmt: skip
    dear = [planted[1], ("top", 0.88, 400.0, 5)]
    assert tiers_of(dear)[0] == ("nearly free", "value")  # a twentieth of the best
    assert tiers_of(planted[2:]) == [("cheapest", "more"), ("best", "top")]
    assert tiers_of(planted[:1]) == [("best", "free")]


def test_a_tier_that_costs_nearly_as_much_as_the_next_is_left_out():
    planted = [("a", 0.6, 10.0, 5), ("b", 0.7, 12.0, 5), ("c", 0.8, 100.0, 5)]
    assert [method for _, method in tiers_of(planted)] == ["b", "c"]


def test_gains_are_those_of_two_normal_values_taken_back_to_scores():
    planted = [("a", 0.7, 1.0, 5), ("b", 0.8, 100.0, 5)]
    beliefs = beliefs_of(planted, own=0.3, shared=0.8)
    (_, tier) = find_tiers(choices_of(planted), {"a": 1.0, "b": 100.0}, beliefs)
    assert tier.gain is not None
    draws = np.random.default_rng(0).multivariate_normal(beliefs.mean, beliefs.covariance, 400_000)
    low, high = np.quantile(expit(draws[:, 1]) - expit(draws[:, 0]), [0.1, 0.9])
    assert tier.gain.expected == pytest.approx(0.1)
    assert (tier.gain.low, tier.gain.high) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))
    chance = norm.cdf((logit(0.8) - logit(0.7)) / (0.3 * math.sqrt(2)))
    assert tier.gain.probability == pytest.approx(chance)
    assert tier.extra_seconds == 99.0


# ---- ties


def test_exact_ties_never_name_the_dearer_method():
    for order in itertools.permutations([("a", 0.8, 5.0, 9), ("b", 0.8, 4.0, 3), ("c", 0.8, 6.0, 3)]):
        assert tiers_of(order) == [("best", "b")]
    assert tiers_of([("a", 0.8, 4.01, 3), ("b", 0.8, 4.0, 2)]) == [("best", "a")]  # the same cost: better measured
    assert tiers_of([("a", 0.8, 4.0, 3), ("b", 0.8, 4.0, 3)]) == [("best", "a")]


def test_near_ties_go_to_the_cheaper_and_clear_differences_do_not():
    planted = [("cheap", 0.800, 10.0, 5), ("dear", 0.808, 100.0, 5)]
    assert tiers_of(planted, own=0.5) == [("best", "cheap")]
    assert [method for _, method in tiers_of(planted, own=0.001)] == ["cheap", "dear"]  # small, and certain
    far = [("cheap", 0.800, 10.0, 5), ("dear", 0.830, 100.0, 5)]
    assert [method for _, method in tiers_of(far, own=0.5)] == ["cheap", "dear"]


def test_what_does_not_beat_the_tier_before_it_beyond_chance_is_no_tier():
    planted = [("a", 0.60, 1.0, 5), ("b", 0.61, 40.0, 5), ("c", 0.62, 1600.0, 5), ("d", 0.80, 64000.0, 5)]
    assert [method for _, method in tiers_of(planted, own=0.5)] == ["a", "d"]


def test_a_method_on_few_tasks_must_be_clearly_better():
    planted = [("known", 0.80, 50.0, 10), ("new", 0.82, 40.0, 1)]
    assert tiers_of(planted, own=0.5) == [("best", "known")]
    assert tiers_of(planted, own=0.01) == [("best", "new")]  # better beyond nine in ten
    both_new = [("known", 0.80, 50.0, 1), ("new", 0.82, 40.0, 1)]
    assert tiers_of(both_new, own=0.5) == [("best", "new")]  # nothing is better measured


def test_methods_of_unknown_cost_are_no_tiers_unless_no_cost_is_known():
    planted = [("known", 0.8, 10.0, 5), ("unknown", 0.9, 0.0, 5)]
    choices, beliefs = choices_of(planted), beliefs_of(planted)
    assert [tier.method for tier in find_tiers(choices, {"known": 10.0}, beliefs)] == ["known"]
    (only,) = find_tiers(choices, {}, beliefs)
    assert (only.method, only.cost, only.name) == ("unknown", None, "best")
    assert find_tiers([], {}, beliefs) == ()


def test_a_lower_score_is_better_where_the_metric_says_so():
    planted = [("cheap", 0.8, 10.0, 5), ("dear", 0.6, 100.0, 5)]
    accuracy = beliefs_of([("cheap", 0.2, 1, 5), ("dear", 0.4, 1, 5)])
    ranges = ((0.8, 0.7, 0.9), (0.6, 0.5, 0.7))
    beliefs = dataclasses.replace(accuracy, ranges=ranges, back=lambda v: expit(-v), higher_is_better=False)
    first, last = find_tiers(choices_of(planted), {"cheap": 10.0, "dear": 100.0}, beliefs)
    assert (first.method, last.method) == ("cheap", "dear")
    assert last.gain is not None
    assert last.gain.expected == pytest.approx(0.2)
    assert 0 < last.gain.low < last.gain.high


# ---- a score to reach


def test_labels_for_a_score_follow_from_a_planted_curve():
    """The logit grows by 0.5 for each doubling from 0 at 100 labels, so 0.9 needs 100 * 2 ** (logit(0.9) / 0.5)."""

    def at(n_train: int) -> Beliefs:
        return beliefs_of([("m", float(expit(0.5 * math.log2(n_train / 100))), 1.0, 5)], own=0.0, shared=0.4)

    found = find_reach(0.9, 100, "m", ["m"], at(100), at, 2000)
    for labels, quantile in ((found.labels, 0.0), (found.labels_low, -1.281552), (found.labels_high, 1.281552)):
        wanted = 100 * 2 ** ((float(logit(0.9)) + 0.4 * quantile) / 0.5)
        assert labels == pytest.approx(wanted, rel=0.05)
    assert found.probability == pytest.approx(norm.cdf(-logit(0.9) / 0.4), rel=0.01)
    assert "It takes" not in found.sentences[0]
    hopeless = find_reach(0.999, 100, "m", ["m"], at(100), at, 200)
    assert (hopeless.labels, hopeless.labels_high) == (None, None)
    assert "cannot be told" in hopeless.sentences[1]


def grids(tasks: Sequence[str] = ("a", "b", "c", "d"), **changes: Any) -> list[Record]:
    return [r for task in tasks for r in make_grid(sizes=(32, 256, 2048), task=task, **changes)]


def test_a_score_out_of_reach_states_the_chance_and_keeps_the_tiers():
    plain = answer_question(Question(n_train=256), grids())
    answer = answer_question(Question(n_train=256, min_score=0.97), grids())
    assert answer.best is None
    assert answer.reach is not None
    assert answer.reach.method == answer.tiers[-1].method == plain.tiers[-1].method
    assert any("reaches 0.970 with a probability" in line for line in answer.more)
    reached = answer_question(Question(n_train=256, min_score=0.6), grids())
    assert reached.best is not None
    assert reached.best.chance_to_reach is not None
    assert reached.best.chance_to_reach > 0.5
    assert reached.reach is None


# ---- limits


def test_when_nothing_fits_each_limit_is_named_and_the_most_helpful_change_comes_first():
    question = Question(n_train=2048, task="a", train_seconds=1e-3, peak_memory_bytes=1e7, trainable_parameters=1e9)
    answer = answer_question(question, grids())
    assert answer.best is None
    assert answer.tiers == ()
    named = answer.more[0]
    for limit in ("of training", "of memory", "trainable parameters"):
        assert limit in named
    alone = answer_question(dataclasses.replace(question, peak_memory_bytes=1e12), grids())
    assert alone.relaxations[0].limits.keys() == {"train_seconds"}
    opened = {c.method: c.score for c in alone.choices}
    best = max(opened, key=lambda method: opened[method])
    assert alone.relaxations[0].score == pytest.approx(opened[best], abs=0.011)
    both = answer.relaxations
    assert both
    assert set(both[0].limits) <= {"train_seconds", "peak_memory_bytes"}


def test_unknown_costs_are_listed_apart_with_the_command_that_tells_them():
    records = [dataclasses.replace(r, cost=Cost()) if r.cell.method == "full" else r for r in grids()]
    behind = answer_question(Question(n_train=256, train_seconds=1e6), records)
    assert [one.method for one in behind.not_known] == ["full"]
    assert words.unknown_costs(behind) == []  # it is not expected to be better than what fits
    answer = answer_question(Question(n_train=2048, train_seconds=1e6), records)
    assert [one.method for one in answer.not_known] == ["full"]
    (line,) = words.unknown_costs(answer)
    assert "full (" in line
    assert "its training time is not known" in line
    assert "`harness probe --methods full`" in line
    assert not any("full" in said for said in words.excluded(answer))
    free = answer_question(Question(n_train=2048, task="a"), records)
    assert "full" not in [tier.method for tier in free.tiers]
    assert free.best is not None
    assert free.best.method == "full"  # the first choice, at a cost that is not known
    assert any("Possibly better: full" in said for said in words.beside(free))
    later = next(said for said in free.more if said.startswith("With 8,192 labels"))
    assert free.tiers[-1].method in later  # what more labels buy is said of the best tier, not of another method


# ---- questions


def test_without_labels_only_methods_that_need_none_are_advised():
    shot = [
        with_facts(make_record("zero-shot", 0, 0, task=task, accuracy=0.6), role="prompting") for task in ("a", "b")
    ]
    answer = answer_question(Question(n_train=0, classes=4), [*grids(), *shot])
    assert {choice.method for choice in answer.choices} == {"zero-shot"}
    assert answer.choice("zero-shot").labels == 0
    assert any(line.startswith("With 32 labels") for line in answer.more)
    empty = answer_question(Question(n_train=0, classes=4), grids())
    assert empty.choices == ()
    assert empty.tiers == ()


def test_methods_are_compared_by_one_metric_which_is_named():
    def with_f1(record: Record) -> Record:
        assert record.score is not None
        score = dataclasses.replace(record.score, metric="macro_f1", value=0.99)
        return dataclasses.replace(record, score=score)

    other = [with_f1(record) for record in make_grid(sizes=(32, 256), task="z") if record.score is not None]
    answer = answer_question(Question(n_train=256), [*grids(), *other])
    assert answer.metric == "accuracy"
    assert any("compared by accuracy" in note and "macro_f1" in note for note in answer.notes)
    assert all(choice.n_tasks == 4 for choice in answer.choices)


def test_no_expected_score_is_below_chance():
    bad = [make_record("full", 32, seed, task=task, accuracy=0.3) for seed in range(3) for task in ("a", "b")]
    answer = answer_question(Question(n_train=32, classes=2), bad)
    assert all(one.low >= 0.5 and one.score >= 0.5 for one in answer.choices)


def test_tokens_are_cut_as_tasks_cut_them():
    question = question_about(n_train=100, tokens=2000.0, longest=4000.0)
    assert (question.tokens, question.longest) == (128, 128)
    assert question_about(n_train=100, tokens=2000.0, max_length=512).tokens == 512
    assert question_about(n_train=100, tokens=50.0).tokens == 50


def test_sequences_of_characters_are_seen_in_a_file(tmp_path: Path):
    path = tmp_path / "proteins.csv"
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 30 + i % 7)) for i in range(40)]
    path.write_text("text,label\n" + "".join(f"{row},{'ab'[i % 2]}\n" for i, row in enumerate(rows)))
    question = question_about(path, "text", "label")
    assert question.characters is True
    assert question.tokens == pytest.approx(np.mean([2 + len(row) for row in rows]))


# ---- the reference results


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return gather(reference_records())


def screen(answer: Advice, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    console = Console(width=100, record=True, file=io.StringIO())
    monkeypatch.setattr(advised, "make_console", lambda: console)
    advised.show(answer, 0, "results/harness.sqlite", reference=True)
    return [line.rstrip() for line in console.export_text().splitlines()]


QUESTIONS = {
    "100 tickets": {"n_train": 100, "classes": 4},
    "sequences with a deadline": {"n_train": 10_000, "classes": 2, "characters": True, "train_seconds": 300.0},
    "abstracts": {"n_train": 2000, "classes": 5, "tokens": 128, "longest": 128, "peak_memory_bytes": 8e9},
    "intents": {"n_train": 154, "classes": 77},
    "no labels": {"n_train": 0, "classes": 4},
    "a score": {"n_train": 500, "min_score": 0.95},
    "nothing fits": {"n_train": 500, "train_seconds": 0.01, "peak_memory_bytes": 1e6},
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_typical_answer_fits_on_a_screen_and_shows_a_probe(
    name: str, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
):
    answer = answer_question(Question(**QUESTIONS[name]), evidence)
    lines = screen(answer, monkeypatch)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    frozen = [one.method for one in answer.choices if one.fits and one.role == "frozen features"]
    if frozen:
        assert any(method in line for line in lines for method in frozen)
    for tier in answer.tiers[:-1]:
        assert tier.cost is not None
    assert not any(re.search(r"\bnan\b|None", line) for line in lines)


def of_texts(record: Record, n_terms: float, tokens: float, *, counts_words: bool) -> Record:
    lengths = TextLengths(mean=tokens, longest=2 * int(tokens))
    return with_facts(record, train_texts=lengths, n_terms=n_terms, counts_words=counts_words)


def test_character_ngrams_are_advised_for_sequences_and_not_for_words():
    """Sequences have two terms a row, prose has about one a token."""
    sizes = (32, 256)
    prose = [of_texts(r, 20.0 * r.cell.n_train, 30.0, counts_words=True) for r in grids(("a", "b", "c"))]
    rows = make_grid(methods=("tfidf", "linear-probe", "full"), sizes=sizes, task="p")
    sequences = [of_texts(r, 2.0 * r.cell.n_train, 30.0, counts_words=True) for r in rows]
    characters = [
        of_texts(make_record("tfidf", n, seed, task="p", config={"analyzer": "char"}, accuracy=0.97), 500.0, 30.0,
                 counts_words=False)
        for n in sizes for seed in range(3)
    ]  # fmt: skip
    records = [*prose, *sequences, *characters]
    (label,) = {point.method for point in gather(records).points if not point.facts.counts_words}
    of_words = answer_question(Question(n_train=256, classes=2), records)
    assert label not in [choice.method for choice in of_words.choices]
    assert any(label in note for note in of_words.notes)
    of_sequences = answer_question(Question(n_train=256, classes=2, characters=True), records)
    assert of_sequences.best is not None
    assert of_sequences.best.method == label
    assert any("Only tasks of character sequences count" in note for note in of_sequences.notes)
    assert {choice.n_tasks for choice in of_sequences.choices} == {1}
    assert answer_question(Question(n_train=256, task="p"), records).choice(label).basis == "measured"


# ---- prices


def test_where_methods_prompt_the_cost_of_tiers_includes_predictions():
    """A served model needs no training, and its predictions take longest: it is no tier that is nearly free."""
    served = [
        with_facts(
            make_record("zero-shot", 0, 0, task=task, accuracy=0.97, n_test=200), role="prompting",
            served=ServedFacts(price=0.2, n_requests=200),
        )
        for task in ("a", "b", "c", "d")
    ]  # fmt: skip
    slow = [dataclasses.replace(r, cost=dataclasses.replace(r.cost, predict_seconds=200.0)) for r in served]
    answer = answer_question(Question(n_train=256), [*grids(), *slow])
    assert answer.cost_unit == "seconds"
    last = answer.tiers[-1]
    assert (last.method, last.name) == ("zero-shot", "best")
    assert last.cost == pytest.approx(1000.0, rel=0.2)  # 1,000 predictions of a second each
    assert answer.tiers[0].method != "zero-shot"
    elsewhere = [dataclasses.replace(r, cell=dataclasses.replace(r.cell, backbone="org/served")) for r in slow]
    both = answer_question(Question(n_train=256), [*grids(), *elsewhere])
    assert [one.method for one in both.choices if one.backbone == "org/served"] == ["zero-shot on served"]
    total = answer_question(Question(n_train=256), [*grids(), *slow], spending=AskedSpending(10_000.0))
    assert total.predictions == 10_000
    assert "total" in words.tier_rows(answer)[0]
    assert any("needs no labels" in line for line in words.beside(answer))


def test_a_notebook_shows_the_tiers():
    answer = answer_question(Question(n_train=256), grids())
    html = answer._repr_html_()
    assert "<table>" in html
    for tier in answer.tiers:
        assert f"<td>{tier.method}</td>" in html
    assert "<script" not in answer_question(Question(n_train=256, train_seconds=1e-9), grids())._repr_html_()
