"""What counts as the same thing: backbones, budgets, data, devices, seeds, probes and metrics are told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.advice.answer import Advice, AdvisedMethod, answer_question
from harness.advice.own_texts import about_tokens
from harness.advice.question import Question
from harness.advice.validate import validate_advice
from harness.cost.calibration import Probed
from harness.forecast.evidence import gather
from harness.methods.configure import parse_methods
from harness.metrics import metrics
from harness.records.record import Budget, Record, Score
from harness.records.upgrade import highest_of
from harness.store.reading import reference_records
from tests.record_factory import BACKBONE, DEVICE, make_grid, make_record

TASKS = ("a", "b", "c", "d")


def grids(tasks: tuple[str, ...] = TASKS, **changes: object) -> list[Record]:
    return [r for task in tasks for r in make_grid(sizes=(32, 256, 2048), task=task, **changes)]


def changed(records: list[Record], *, seconds: float = 1.0, score: float | None = None, **cell: object) -> list[Record]:
    """Copies whose cells differ, that took `seconds` times as long, and reached `score`."""
    found = []
    for r in records:
        cost = replace(r.cost, fit_seconds=(r.cost.fit_seconds or 0) * seconds, encode_seconds=0.0, tune_seconds=0.0)
        reached = r.score if score is None or r.score is None else replace(r.score, value=score)
        found.append(replace(r, cell=replace(r.cell, **cell), cost=cost, score=reached))
    return found


def of_method(records: list[Record], name: str) -> list[Record]:
    return [r for r in records if r.cell.method == name]


def row(answer: Advice, method: str) -> AdvisedMethod:
    return next(choice for choice in answer.choices if choice.method == method)


def test_a_method_on_another_backbone_is_another_choice() -> None:
    small = grids()
    large = changed(of_method(small, "full"), seconds=10.0, score=0.97, backbone="org/large", weights="other")
    answer = answer_question(Question(n_train=256, task="a"), small + large)
    alone = [
        answer_question(Question(n_train=256, task="a", backbone=name), small + large)
        for name in (BACKBONE, "org/large")
    ]
    for name, own in zip((BACKBONE, "org/large"), alone, strict=True):
        one, other = row(answer, f"full on {name.rpartition('/')[2]}"), row(own, "full")
        assert one.score == pytest.approx(other.score)
        assert one.train_seconds == pytest.approx(other.train_seconds)
    assert row(answer, "tfidf")
    assert not any(choice.method == "full" for choice in answer.choices)
    assert validate_advice(small + large).tasks == list(TASKS)


def test_fits_that_a_budget_ended_are_a_method_of_their_own() -> None:
    records = grids()
    full = of_method(records, "full")
    before = row(answer_question(Question(n_train=256), records), "full")
    cut = [replace(r, cost=replace(r.cost, stopped_by="train_seconds")) for r in full]
    cut = changed(cut, seconds=0.01, score=0.3, budget=Budget(train_seconds=5))
    ended = changed(full, budget=Budget(train_seconds=500))  # ended by itself: as without a budget
    stepped = changed(full, seconds=0.01, score=0.2, budget=Budget(steps=1))
    answer = answer_question(Question(n_train=256), records + cut + ended + stepped)
    assert {c.method for c in answer.choices if c.method.startswith("full")} == {
        "full",
        "full, cut at train_seconds=5",
        "full, cut at steps=1",
    }
    for others in (cut, ended, stepped):
        found = row(answer_question(Question(n_train=256), records + others), "full")
        assert found.score == pytest.approx(before.score, abs=0.02)
    late = answer_question(Question(n_train=100_000, train_seconds=6), records + cut)
    assert row(late, "full, cut at train_seconds=5").fits
    assert row(late, "full, cut at train_seconds=5").train_seconds <= 5


def test_other_data_under_the_same_name_are_another_task() -> None:
    records = grids()
    before = row(answer_question(Question(n_train=256, task="a"), records), "full")
    old = changed([r for r in records if r.cell.task == "a"], score=0.5, data="e" * 32)
    old = [replace(r, provenance=replace(r.provenance, started_at="2024-01-01T00:00:00+00:00")) for r in old]
    assert row(answer_question(Question(n_train=256, task="a"), records + old), "full").score == before.score
    assert {p.task for p in gather(records + old).points} == {*TASKS, "a (eeeeeeee)"}
    assert validate_advice(records + old).tasks == list(TASKS)


def test_a_record_counts_once_and_a_seed_once() -> None:
    records = grids()
    assert gather(records + records) == gather(records)
    again = [replace(r, device="another", attempt=1) for r in records]
    assert {p.n_seeds for p in gather(records + again).points} == {3}


def test_a_probe_of_another_backbone_says_nothing() -> None:
    records = grids()
    config = records[-1].cell.config
    large = Probed("box", "org/large", "full", config, 16, 32, 60.0, 1e9, "now")
    same = replace(large, backbone=BACKBONE, seconds=0.1)
    other = replace(same, config={**config, "rank": 99}, seconds=60.0)
    question = Question(n_train=256, tokens=32.0)
    assert answer_question(question, records, [large, other]).device == DEVICE
    alone = answer_question(replace(question, device="box"), records, [same])
    both = answer_question(replace(question, device="box"), records, [same, large, other])
    assert row(both, "full").train_seconds == row(alone, "full").train_seconds is not None
    neither = answer_question(replace(question, device="box"), records, [large])
    assert row(neither, "full").train_seconds is None
    assert any("says how fast it is" in note for note in neither.notes)


def test_costs_are_those_of_the_users_own_machine() -> None:
    records = grids()
    mine = [replace(r, device="my laptop") for r in changed(make_grid(methods=("full",), task="mine"), seconds=3.0)]
    assert answer_question(Question(n_train=256), records + mine).device == DEVICE
    answer = answer_question(Question(n_train=256), records + mine, own_devices=["my laptop"])
    assert answer.device == "my laptop"
    assert any(note.startswith("Memory of") and note.endswith(f"is that of {DEVICE}.") for note in answer.notes)


def test_bytes_of_an_accelerator_are_not_a_processors() -> None:
    records = grids()
    gpu = [replace(r, device="GPU", cost=replace(r.cost, peak_device_bytes=10**9)) for r in of_method(records, "full")]
    answer = answer_question(Question(n_train=256, device="GPU"), records + gpu)
    assert row(answer, "full").peak_memory_bytes == pytest.approx(1e9, rel=0.1)
    assert row(answer, "lora").peak_memory_bytes is None
    assert row(answer, "lora").train_seconds is not None


def test_scores_of_0_to_100_stay_what_they_are() -> None:
    wanted = {"full": 12.0, "lora": 34.0, "linear-probe": 3.0}
    records = []
    for r in grids():
        if r.cell.method in wanted:
            value = wanted[r.cell.method]
            score = Score("bleu", value, value - 1, value + 1, True, 200, 200, highest=100.0)
            records.append(replace(r, kind="translation", score=score))
    answer = answer_question(Question(kind="translation", n_train=256, min_score=20), records)
    for method, value in wanted.items():
        assert row(answer, method).score == pytest.approx(value, rel=0.4)  # drawn towards the others
    assert [choice.method for choice in answer.choices if choice.fits] == ["lora"]
    exact = answer_question(Question(kind="translation", n_train=256, task="a"), records)
    assert row(exact, "lora").score == pytest.approx(34)


def test_the_highest_scores_are_those_of_the_metrics() -> None:
    declared = {name: metrics.get(name).high for name in metrics.names()}
    assert declared == {name: highest_of(name) for name in declared}


def test_one_seed_does_not_know_what_seeds_differ_by() -> None:
    """80 % intervals of cells with one seed hold the mean over endless seeds about as often as they say."""
    draw = np.random.default_rng(0)
    held = []
    records, others = [], {}
    for task in "abcdefghijkl":
        for method in ("full", "lora", "linear-probe"):
            means = draw.normal(0.7, 0.05)
            scores = np.clip(means + draw.normal(0, 0.06, 2), 0.05, 0.95)
            seeds = (0, 1) if task < "i" else (0,)
            records += [
                replace(r, score=replace(r.score, value=float(scores[seed]), n_test=2000))
                for seed in seeds
                if (r := make_record(method, 32, seed, task=task)).score
            ]
            if task >= "i":
                others[task, method] = means
    for (task, method), mean in others.items():
        choice = row(answer_question(Question(n_train=32, task=task), records), method)
        assert choice.basis == "measured"
        held.append(choice.low <= mean <= choice.high)
    assert 0.55 <= np.mean(held) <= 1.0


def test_what_trains_nothing_takes_no_time() -> None:
    records = grids()
    shots = [
        replace(r, family="in-context", cost=replace(r.cost, fit_seconds=None, encode_seconds=None, tune_seconds=None))
        for task in TASKS
        if (r := make_record("zero-shot", 0, task=task))
    ]
    choice = row(answer_question(Question(n_train=256, train_seconds=1.0), records + shots), "zero-shot")
    assert choice.train_seconds == 0
    assert choice.fits


def test_more_labels_are_within_the_same_limits() -> None:
    records = grids()
    free = answer_question(Question(n_train=512, task="a"), records)
    later = {c.method: c for c in answer_question(Question(n_train=2048, task="a"), records).choices}
    limit = 1.5 * row(free, "full").train_seconds
    assert later["full"].train_seconds > limit
    [line] = [
        one
        for one in answer_question(Question(n_train=512, task="a", train_seconds=limit), records).more
        if "2,048" in one
    ]
    assert "full needs" in line or "full (" not in line


def test_what_the_reference_results_advise_can_be_run() -> None:
    labels = {p.method for p in gather(reference_records()).points if p.kind == "classification"}
    assert {"full", "linear-probe", "tfidf"} <= labels
    for label in sorted(labels):
        parse_methods([label])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("some words number one", 2 + 4 * 1.35),
        ("\u6211" * 100, 102),
        ("MKTAYIAKQR" * 20, 2 + 200 / 4.2),
        ("\u6211\u4eec use BERT", 2 + 2 + 2 * 1.35),
    ],
)
def test_tokens_are_counted_by_characters_where_words_are_few(text: str, tokens: float) -> None:
    assert about_tokens(text) == pytest.approx(tokens)
