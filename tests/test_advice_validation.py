"""The validation of advice: what is left out together, plain rules, and summaries, against sums by hand."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import scipy.stats

from harness.advice.answer import answer_question
from harness.advice.own_texts import question_about
from harness.advice.plain_rules import PLAIN_RULES, plain_choices
from harness.advice.question import Question
from harness.advice.trials import RULES, AdviceValidation, Held, Trial
from harness.advice.validate import clusters_of, validate_advice
from harness.forecast.evidence import gather
from harness.records import PublishedEncoder, PublishedResult
from harness.records.encoders import EncoderFacts
from harness.records.record import Record
from tests.record_factory import BACKBONE, make_grid, with_facts


def grids(tasks: tuple[str, ...] = ("a", "b", "c"), **changes: object) -> list[Record]:
    return [r for task in tasks for r in make_grid(sizes=(32, 256, 2048), task=task, **changes)]


def from_hub(records: list[Record], hub: str) -> list[Record]:
    return [
        dataclasses.replace(
            r, provenance=dataclasses.replace(r.provenance, dataset={**r.provenance.dataset, "hub": hub})
        )
        for r in records
    ]


def test_tasks_with_the_same_rows_are_one_data_set() -> None:
    records = [
        *from_hub(grids(("sst2",)), "org/sst2"),
        *grids(("sst2-validation", "sst2-train", "trec_fine", "trec", "other")),
        *from_hub(grids(("renamed",)), "org/sst2"),
    ]
    found = clusters_of(records)
    assert len({found[name] for name in ("sst2", "sst2-validation", "sst2-train", "renamed")}) == 1
    assert found["trec"] == found["trec_fine"]
    assert len(set(found.values())) == 3


def test_all_backbones_are_asked_about_and_counted() -> None:
    small = grids(n_test=1000)
    large = [
        dataclasses.replace(
            r,
            cell=dataclasses.replace(r.cell, backbone="org/large", weights="w"),
            cost=dataclasses.replace(r.cost, n_parameters=10**9),
        )
        for r in small
        if r.cell.backbone is not None
    ]
    found = validate_advice(small + large)
    counts = found.questions_by("backbone")
    assert set(counts) == {BACKBONE, "org/large"}
    assert set(counts.values()) == {len(found.trials)}
    assert {one.backbone for trial in found.trials for one in trial.held} == {None, *counts}
    assert sum(found.questions_by("task").values()) == len(found.trials)
    assert set(found.questions_by("limit")) == {"none", "0.1 of the slowest", "0.5 of the slowest"}
    assert set(found.to_dict()["questions"]) == {"task", "backbone", "size", "limit"}


def test_one_metric_is_compared_at_a_time() -> None:
    """Points of another metric at the same task and size are no part of a comparison."""
    records = grids()
    other = [
        dataclasses.replace(
            r,
            cell=dataclasses.replace(r.cell, method="odd"),
            score=dataclasses.replace(r.score, metric="macro_f1", value=0.999),
        )
        for r in records
        if r.cell.method == "lora" and r.score is not None
    ]
    found = validate_advice(records + other)
    assert {trial.metric for trial in found.trials} == {"accuracy"}
    assert not any(one.method == "odd" for trial in found.trials for one in trial.held)


def test_plain_rules_choose_as_they_say() -> None:
    records = grids()
    large = [
        dataclasses.replace(r, cell=dataclasses.replace(r.cell, backbone="org/large", weights="w"))
        for r in records
        if r.cell.backbone is not None
    ]
    points = [
        dataclasses.replace(p, on=p.method, method=f"{p.method} on {p.backbone}")
        for p in gather(records + large).points
    ]
    own = {p.method: p for p in points if (p.task, p.n_train) == ("a", 2048)}
    others = [p for p in points if p.task != "a"]
    chosen = plain_choices(own, others, {"org/large": 2.0, BACKBONE: 1.0})
    assert list(chosen) == list(PLAIN_RULES)
    assert chosen["largest backbone's probe"] == "linear-probe on org/large"
    assert chosen["always full"] == chosen["setfit below 16 a class, else full"] == "full on org/large"
    assert chosen["always linear-probe"] in ("linear-probe on org/large", f"linear-probe on {BACKBONE}")
    means = {m: np.mean([p.score for p in others if p.method == m and p.n_train == 2048]) for m in own}
    assert chosen["best on average"] == max(means, key=lambda m: means[m])  # all methods on all tasks: plain means
    few = {m: p for m, p in own.items() if not m.startswith("full")}
    assert plain_choices(few, others, {})["always full"] is None


def trial(cluster: str, advice: float, rule: float, *, held: tuple[Held, ...] = ()) -> Trial:
    regret: dict[str, float | None] = dict.fromkeys(RULES)
    regret |= {"advice": advice, PLAIN_RULES[0]: rule}
    return Trial(cluster, cluster, 64, 4, None, "accuracy", regret, False, held, 3, ("b",))


def test_summaries_are_over_data_sets() -> None:
    inside, outside = Held("m", "b", 0.5, 0.4, 0.6, 0.45), Held("m", "b", 0.5, 0.4, 0.6, 0.7)
    trials = (
        trial("a", 0.0, 1.0, held=(inside, outside)),
        trial("a", 2.0, 3.0, held=(inside, inside)),
        trial("b", 1.0, 4.0, held=(outside,)),
        trial("c", 0.0, 0.0, held=(inside,)),
    )
    found = AdviceValidation(trials, Counter())
    means = np.array([[1.0, 2.0], [1.0, 4.0], [0.0, 0.0]])
    mean, low, high = found.regret("advice")
    assert mean == pytest.approx(means[:, 0].mean())
    interval = scipy.stats.ttest_1samp(means[:, 0], 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx(interval)
    assert found.ahead(PLAIN_RULES[0])[0] == pytest.approx((means[:, 1] - means[:, 0]).mean())
    assert found.best_plain_rule == PLAIN_RULES[0]
    share, low, high = found.share(PLAIN_RULES[0])
    assert share == pytest.approx(2 / 6)
    assert low <= share <= high <= 1
    assert found.coverage()[0] == pytest.approx((3 / 4 + 0 + 1) / 3)
    assert found.coverage_by("task") == {"a": (0.75, 4), "b": (0.0, 1), "c": (1.0, 1)}
    assert math.isnan(found.regret("always full")[0])


def test_published_probes_of_the_data_set_that_is_left_out_do_not_count() -> None:
    """An encoder's score on the very task would tell what the validation asks."""
    from harness.advice.validate import _without

    results = (PublishedResult("Banking77Classification", 0.8), PublishedResult("ImdbClassification", 0.9))
    left = _without(PublishedEncoder("org/one", EncoderFacts(), results), "banking77").results
    assert [result.task for result in left] == ["ImdbClassification"]


def test_words_that_never_come_twice_are_not_counted_on() -> None:
    """TF-IDF learns nothing from proteins, each a word of its own; and that says nothing of its scores on sentences."""

    def with_terms(records: list[Record], each: float) -> list[Record]:
        return [
            with_facts(r, n_terms=each * r.cell.n_train, role="baseline") if r.cell.method == "tfidf" else r
            for r in records
        ]

    sentences = with_terms(grids(("a", "b", "c")), 20.0)
    proteins = with_terms(grids(("p",)), 1.0)
    proteins = [
        dataclasses.replace(r, score=dataclasses.replace(r.score, value=0.1))
        for r in proteins
        if r.cell.method == "tfidf" and r.score is not None
    ]
    question = Question(n_train=256, classes=12)

    def score(question: Question, records: list[Record]) -> float:
        return next(c.score for c in answer_question(question, records).choices if c.method == "tfidf")

    assert score(question, sentences + proteins) == pytest.approx(score(question, sentences), abs=1e-3)
    blind = dataclasses.replace(question, terms=256.0)
    assert score(blind, sentences) == pytest.approx(1 / 12, abs=0.01)


def test_what_uses_no_labels_takes_as_long_with_many() -> None:
    records = [
        *grids(),
        *[
            dataclasses.replace(r, cell=dataclasses.replace(r.cell, method="label-similarity", n_train=0))
            for task in ("a", "b", "c")
            for r in make_grid(methods=("linear-probe",), sizes=(32,), task=task)
        ],
    ]
    seconds = [
        next(
            c.train_seconds
            for c in answer_question(Question(n_train=n), records).choices
            if c.method == "label-similarity"
        )
        for n in (32, 2048)
    ]
    assert seconds[0] == pytest.approx(seconds[1])


def test_longer_texts_than_tasks_read_count_as_cut() -> None:
    asked = question_about(n_train=100, tokens=900.0, longest=4000.0)
    assert (asked.tokens, asked.longest) == (128.0, 128.0)


def test_nothing_is_expected_below_chance() -> None:
    for classes in (2, 12):
        answer = answer_question(Question(n_train=classes, classes=classes), grids())
        assert min(choice.low for choice in answer.choices) >= 1 / classes
        assert max(choice.high for choice in answer.choices) <= 1


def test_many_classes_and_few_labels_have_wide_intervals() -> None:
    """Other tasks have 2 to 12 classes: 77 with two labels each are far from all of them."""
    records = []
    for task, classes in (("a", 2), ("b", 4), ("c", 12), ("d", 6)):
        for r in grids((task,)):
            dataset = {**r.provenance.dataset, "n_classes": classes}
            records.append(dataclasses.replace(r, provenance=dataclasses.replace(r.provenance, dataset=dataset)))
    few = {c.method: c for c in answer_question(Question(n_train=154, classes=77), records).choices}
    usual = {c.method: c for c in answer_question(Question(n_train=154, classes=4), records).choices}
    for method, choice in few.items():
        assert choice.score < usual[method].score
        assert choice.high - choice.low > usual[method].high - usual[method].low


def test_a_ratio_of_regrets_without_an_upper_end_says_so() -> None:
    from harness.cli.advise import _share_with_interval

    assert _share_with_interval(1.0, 0.76, 1.27) == "1.00 (0.76 to 1.27)"
    assert _share_with_interval(1.81, 0.77, 1142.25) == "1.81 (0.77 or more)"
    assert _share_with_interval(1.81, 0.77, float("inf")) == "1.81 (0.77 or more)"
