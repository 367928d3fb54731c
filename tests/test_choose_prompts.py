"""`choose` tries prompts and methods without labels, and says what predictions cost."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import harness
from harness.analysis import Prices
from harness.backbones.locate import BackboneFiles
from harness.choose.candidates import Belief, Candidate, find_candidates
from harness.choose.cheap import try_cheap_methods
from harness.choose.in_use import in_use
from harness.choose.prediction_cost import milliseconds_together, rule_out_slow
from harness.choose.tried import Tried, is_clearly_better
from harness.methods.configure import parse_methods
from harness.records import Budget, Record
from harness.tasks import Task
from tests.record_factory import make_record
from tests.searches import search_of
from tests.toys import write_toy_table

IN_CONTEXT = {"zero-shot", "few-shot", "calibrated-few-shot"}


def candidate(name: str, files: Any = None) -> Candidate:
    (method,) = parse_methods([name])
    return Candidate(method, name, method.workload(100, Budget(), 12).texts_per_step == 0, files=files)


def tried(
    name: str, accuracy: float, *, n_train: int = 100, each: float = 0.01, train: float = 1.0, **on: Any
) -> Tried:
    record = make_record(name, n_train, accuracy=accuracy, n_test=400)
    seconds = {"encode_seconds": 0.0, "tune_seconds": 0.0, "fit_seconds": train, "predict_seconds": 400 * each}
    record = dataclasses.replace(record, cost=dataclasses.replace(record.cost, **seconds))
    return Tried(candidate(name, **on), record, float(n_train), 0, 1.0)


def test_prompts_enter_where_a_backbone_is_a_language_model(
    toy: Task, tiny: BackboneFiles, tiny_llama: BackboneFiles
) -> None:
    found = {one.label: one for one in find_candidates(None, toy, [tiny_llama], "cpu")}
    assert found.keys() >= IN_CONTEXT
    for name in IN_CONTEXT:
        assert found[name].is_cheap
        assert found[name].is_prompted
        assert not found[name].reads_features
    assert found["linear-probe"].reads_features
    assert not IN_CONTEXT & {one.label for one in find_candidates(None, toy, [tiny], "cpu")}
    assert "majority" not in found
    similar = next(one for one in find_candidates(None, toy, [tiny], "cpu") if one.label == "label-similarity")
    assert similar.reads_features  # it compares vectors of the encoder, and no language model answers
    assert not similar.is_prompted


def test_methods_without_labels_gain_nothing_by_labels() -> None:
    assert candidate("zero-shot").labels_of(500) == 0
    assert candidate("cosine-similarity").labels_of(500) == 0
    assert candidate("few-shot").labels_of(500) == 500


def test_a_score_without_labels_may_be_clearly_beaten_by_one_with_labels() -> None:
    """More labels will not lift the method that uses none, so that fewer of them are no excuse for it."""
    zero, probe = tried("zero-shot", 0.6, n_train=0), tried("linear-probe", 0.8)
    assert is_clearly_better([probe], [zero])
    few = dataclasses.replace(tried("few-shot", 0.6), n_train=10.0)
    assert not is_clearly_better([probe], [few])  # with as many labels it may reach more
    assert is_clearly_better([tried("zero-shot", 0.9, n_train=0)], [probe])


def test_a_slow_prompt_rules_out_itself_alone() -> None:
    files = SimpleNamespace(fingerprint="a", name="b")
    entrants = [candidate(name, files) for name in ("linear-probe", "knn", "zero-shot")]
    search = search_of(entrants, Belief([], 2), 100, folds=[])
    search.most_milliseconds = 5.0
    rule_out_slow(search, dataclasses.replace(tried("zero-shot", 0.9, each=0.02), candidate=entrants[2]))
    assert [one.label for one in search.entrants] == ["linear-probe", "knn"]
    rule_out_slow(search, dataclasses.replace(tried("linear-probe", 0.9, each=0.02), candidate=entrants[0]))
    assert search.entrants == []  # both read texts with the backbone
    members = [tried("linear-probe", 0.9, each=0.01, files=files), tried("zero-shot", 0.9, each=0.05, files=files)]
    assert milliseconds_together(members) == pytest.approx(60.0)  # a prompt shares no features


@pytest.mark.parametrize(("seconds", "is_tried"), [(10.0, True), (25.0, False)])
def test_a_prompt_is_tried_where_its_answers_take_little_of_the_time(seconds: float, is_tried: bool) -> None:
    fold = SimpleNamespace(n_test=100, train_labels=np.zeros(400), n_outputs=2, n_strata=2)
    said: list[str] = []
    search = search_of([candidate("zero-shot")], Belief([], 2), 100, folds=[fold], seconds=seconds, say=said.append)
    ran: list[str] = []
    search.run = lambda one, *_, **__: ran.append(one.label)  # type: ignore[method-assign, assignment]
    try_cheap_methods(search)
    assert (ran == ["zero-shot"]) is is_tried
    if not is_tried:
        assert said == ["skipped, answering 100 validation rows would take about 25 s: zero-shot"]


def last(one: Tried) -> tuple[Candidate, Record]:
    return one.candidate, one.record


def test_costs_in_use_by_hand() -> None:
    """10 s of training and 5 ms each against 0.1 s and 50 ms: (10 - 0.1) / 0.045 = 220 predictions."""
    probe = tried("linear-probe", 0.8, each=0.005, train=10.0)
    prompts = [tried("zero-shot", 0.6, n_train=0, each=0.05, train=0.1), tried("few-shot", 0.55, each=0.5)]
    found = in_use(*last(probe), [probe, *prompts], Prices())
    assert (found.beside, found.unit, found.break_even) == ("zero-shot", "seconds", "after")
    assert found.break_even_predictions == pytest.approx(220.0)
    assert found.seconds_per_1000 == pytest.approx(5.0)
    assert found.price_per_1000 is None
    assert "training pays after 220 predictions" in found.in_words()
    priced = in_use(*last(probe), [probe, *prompts], Prices(per_hour=3.6))
    assert (priced.unit, priced.break_even_predictions) == ("money", pytest.approx(220.0))
    assert priced.price_per_1000 == pytest.approx(0.005)
    # Where a prompt was chosen, the best trained method stands beside it.
    other = in_use(*last(prompts[0]), [probe, *prompts], Prices())
    assert (other.is_prompted, other.beside) == (True, "linear-probe")
    assert other.break_even_predictions == pytest.approx(220.0)
    alone = in_use(*last(probe), [probe], Prices())
    assert (alone.beside, alone.in_words()) == (None, "1,000 predictions: 5.0 s.")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_language_model_is_prompted_and_trained_on_the_same_rows(tiny_llama: BackboneFiles, tmp_path: Path) -> None:
    write_toy_table(tmp_path / "tickets.csv")
    chosen = harness.choose(
        data=tmp_path / "tickets.csv",
        within="200s",
        save=tmp_path / "model",
        methods=["zero-shot", "few-shot", "linear-probe"],
        backbone=str(tiny_llama.folder),
        store=tmp_path / "store.sqlite",
        device="cpu",
        reference=False,
        progress=False,
        price_per_hour=0.5,
    )
    first = {one.candidate.label: one.record for one in chosen.tried if one.fold == 0}
    assert first.keys() == {"zero-shot", "few-shot", "linear-probe"}
    rows = {record.predictions.rows for record in first.values() if record.predictions is not None}
    assert len(rows) == 1
    assert first["zero-shot"].cell.n_train == 0
    assert chosen.in_use is not None
    assert chosen.in_use.beside is not None
    assert chosen.in_use.price_per_1000 is not None
    assert math.isfinite(chosen.in_use.price_per_1000)
    assert chosen.to_dict()["in_use"]["unit"] == "money"
