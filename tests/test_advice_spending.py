"""`advise` puts prompting beside training: costs in use by hand, and the order by total cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.advice import Advice
from harness.records import Record, write_jsonl
from harness.records.served import ServedFacts
from harness.support import UsageError
from tests.record_factory import make_record, with_facts


def a_record(method: str, n_train: int, seed: int, accuracy: float, train: float, each: float, **on: Any) -> Record:
    record = make_record(method, n_train, seed, accuracy=accuracy, **on)
    seconds = {"encode_seconds": 0.0, "tune_seconds": 0.0, "fit_seconds": train, "predict_seconds": 200 * each}
    record = dataclasses.replace(record, cost=dataclasses.replace(record.cost, **seconds))
    role = "prompting" if method in ("zero-shot", "few-shot") else "fine-tuning"
    return with_facts(record, role=role)


def records() -> list[Record]:
    return [
        *(a_record("full", 500, seed, 0.90, 90.0, 0.001) for seed in range(3)),
        *(a_record("lora", 500, seed, 0.895, 50.0, 0.001) for seed in range(3)),
        *(a_record("few-shot", 500, seed, 0.60, 0.0, 0.010) for seed in range(3)),
    ]


def advise(folder: Path, given: list[Record], **asked: Any) -> Advice:
    write_jsonl(given, folder / "records.jsonl")
    return harness.advise(folder / "records.jsonl", reference=False, n_train=500, task="docstrings", **asked)


def test_nothing_changes_where_nothing_is_asked(tmp_path: Path) -> None:
    plain = advise(tmp_path, records())
    asked = advise(tmp_path, records(), price_per_hour=1.0)
    assert plain.spending == ()
    assert asked.choices == plain.choices  # ranked by total cost with --predictions alone
    assert "price_per_1000" not in plain.to_frame()
    assert list(asked.to_frame()["price_per_1000"]) == [one.price_per_1000 for one in asked.spending]


def test_break_evens_and_totals_by_hand(tmp_path: Path) -> None:
    """Measured cells: 90 / (0.010 - 0.001) = 10,000 and 50 / 0.009 = 5,556; 20,000 predictions take 110 s and 70 s."""
    answer = advise(tmp_path, records(), predictions=20_000, score_tolerance=0.05)
    assert [choice.method for choice in answer.choices] == ["lora", "full", "few-shot"]  # the cheaper of two good ones
    found = {one.method: one for one in answer.spending}
    assert [one.method for one in answer.spending] == [choice.method for choice in answer.choices]
    expected = {choice.method: choice for choice in answer.choices}
    for name in ("full", "lora"):
        own, beside = expected[name], expected["few-shot"]
        seconds = (own.train_seconds or 0.0) - (beside.train_seconds or 0.0)
        saved = ((beside.predict_milliseconds or 0.0) - (own.predict_milliseconds or 0.0)) / 1000
        assert (found[name].break_even, found[name].against) == ("after", "few-shot")
        assert found[name].break_even_predictions == pytest.approx(seconds / saved)
        total = (own.train_seconds or 0.0) + 20 * (own.predict_milliseconds or 0.0)
        assert (found[name].total, found[name].total_unit) == (pytest.approx(total), "seconds")
    assert found["full"].break_even_predictions == pytest.approx(10_000, rel=0.05)
    assert found["few-shot"].is_prompted
    assert not found["few-shot"].is_good_enough


def test_prices_and_labels_by_hand(tmp_path: Path) -> None:
    """At 3.6 an hour a second costs 0.001; 500 labels at 0.02 are 10 on both sides."""
    answer = advise(tmp_path, records(), price_per_hour=3.6, label_price=0.02, predictions=20_000)
    found = {one.method: one for one in answer.spending}
    assert found["full"].label_price == pytest.approx(10.0)
    assert found["full"].train_price == pytest.approx(0.09, rel=0.05)
    assert found["full"].total == pytest.approx(10.0 + 0.001 * 110, rel=0.01)
    assert found["full"].break_even_predictions == pytest.approx(10_000, rel=0.05)


def test_a_served_model_costs_its_requests(tmp_path: Path) -> None:
    """200 rows for 0.2 are 1 for 1,000; its seconds are not a machine's."""
    served = [
        with_facts(one, served=ServedFacts(price=0.2, n_requests=200))
        for one in records()
        if one.cell.method == "few-shot"
    ]
    given = [*(one for one in records() if one.cell.method != "few-shot"), *served]
    found = {one.method: one for one in advise(tmp_path, given, price_per_hour=3.6).spending}
    assert found["few-shot"].price_per_1000 == pytest.approx(1.0)
    assert found["few-shot"].seconds_per_1000 is None
    assert found["full"].break_even_predictions == pytest.approx(0.09 / (0.001 - 0.000001), rel=0.05)
    before = ServedFacts(price=0.3, n_requests=300, fit_requests=100, fit_price=0.1)
    tuned = [with_facts(one, served=before) for one in served]
    given = [*(one for one in given if one.cell.method != "few-shot"), *tuned]
    found = {one.method: one for one in advise(tmp_path, given, price_per_hour=3.6).spending}
    assert found["few-shot"].train_price == pytest.approx(0.1)
    assert found["few-shot"].price_per_1000 == pytest.approx(1.0)
    by_seconds = {one.method: one for one in advise(tmp_path, given, predictions=10).spending}
    assert by_seconds["full"].break_even is None


def test_what_cannot_be_answered_is_said_or_refused(tmp_path: Path) -> None:
    trained = [one for one in records() if one.cell.method != "few-shot"]
    assert any("No prompted method" in note for note in advise(tmp_path, trained, predictions=10).notes)
    for name, value in (("predictions", 0), ("price_per_hour", -1.0), ("score_tolerance", -0.1)):
        with pytest.raises(UsageError, match=name):
            advise(tmp_path, records(), **{name: value})
    with pytest.raises(UsageError, match="without predictions"):
        advise(tmp_path, records(), score_tolerance=0.1)
