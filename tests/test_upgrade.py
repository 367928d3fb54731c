"""Records of version 0.1 (schema 1) and their facts: what the upgrade infers is what the methods declare today."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.backbones.locate import BackboneFiles
from harness.choose.candidates import Belief, find_candidates
from harness.forecast.evidence import gather
from harness.methods import methods
from harness.records.facts import TRAINS_INSIDE, Facts, TextLengths
from harness.records.jsonl import dump, payload_of, read_jsonl, write_jsonl
from harness.records.record import Record
from harness.records.upgrade import facts_of, upgraded
from harness.records.validation import check_record
from harness.records.workload import FitLength
from harness.store.reading import reference_records
from harness.store.store import Store
from harness.support.errors import StoreError
from harness.support.resources import shipped
from harness.tasks import Task
from tests.record_factory import make_record

NOTES = {
    "peak_rss": "high-water mark",
    "chosen_c": "10.0",
    "longest_train_tokens": "96",
    "truncated_test_rows": "3 of 40, on the left",
    "tuned_trials": "8 tried, best 3",
    "tuned_settings": '{"rank": 4}',
    "energy_missing": "OSError: no counter",
    "unsteady": "a neighbour",
    "demonstrations": "4 1 2",
}


def of_schema_1(record: Record, notes: dict[str, str]) -> dict[str, Any]:
    """The record's JSON as version 0.1 wrote it."""
    value = json.loads(dump(payload_of(record)))
    del value["facts"]
    if value["score"]:
        del value["score"]["highest"]
    value["provenance"]["measured"] = notes
    return {**value, "schema": 1}


WITHOUT_OLD_RECORDS = {"contrastive-cosine", "cosine-similarity", "word-features"}
"""Methods that came after the first schema of records."""


@pytest.mark.parametrize("name", sorted({*methods.names()} - WITHOUT_OLD_RECORDS))
def test_what_old_records_imply_is_what_methods_declare(name: str) -> None:
    method = methods.get(name)()
    cell = {"method": name, "config": method.config(), "backbone": "b" if method.serves else None, "n_train": 8}
    found = facts_of({"cell": cell, "cost": {}, "family": method.family, "suite": "s"}, {}, {})
    assert found.role == method.role
    assert found.defaults == method.defaults()
    if method.role in TRAINS_INSIDE:
        assert found.fit_length == method.fit_length()


def test_every_note_has_a_field() -> None:
    record = make_record("lora", config={"batch_size": 16, "epochs": 4.0, "min_steps": 120, "rank": 8})
    value = of_schema_1(record, dict(NOTES))
    check_record(value)
    facts = Record.from_json(value).facts
    assert facts == Facts(
        role="fine-tuning",
        fit_length=FitLength(16, 4.0, 120),
        defaults={
            **{"tune": None, "compile": False, "accumulation": 1, "gradient_checkpointing": False, "l2_start": 0.0},
            **{"patience": None, "transformer_dropout": None, "validation_fraction": 0.2},
            **{"attention": "auto", "optimiser": "adamw", "prompt_format": "plain", "weights": "auto"},
            **{"b_rate_ratio": 1.0, "init": "default", "init_rows": 256, "layers": None, "rank_pattern": []},
            "update": "plain",
        },
        train_texts=TextLengths(longest=96),
        test_texts=TextLengths(n_texts=40, n_cut=3, cut_side="left"),
        penalty=10.0,
        tuned_trials="8 tried, best 3",
        tuned_settings={"rank": 4},
        unsteady="a neighbour",
        peak_rss_source="high-water mark",
        missing={"energy": "OSError: no counter"},
        remarks={"demonstrations": "4 1 2"},
    )
    assert value["provenance"]["measured"] == NOTES  # what was given stays as it was


@pytest.mark.parametrize(
    ("part", "given", "said"),
    [
        ("facts", {"role": "wizard"}, r"facts\.role is 'wizard'; expected one of floor, "),
        ("facts", {"train_texts": {"longest": -1}}, r"facts\.train_texts\.longest is -1"),
        ("facts", {"test_texts": {"n_cut": 5, "n_texts": 4}}, r"facts\.test_texts\.n_cut is 5; expected at most"),
        ("facts", {"workload": {"share_trained": 2.0}}, r"facts\.workload\.share_trained is 2\.0"),
        ("facts", {"fit_length": {"epochs": 1.0}}, r"facts\.fit_length.*batch_size is missing"),
        ("facts", {"mood": "good"}, r"facts\.mood is no field"),
        ("score", {"highest": 0}, r"score\.highest is 0"),
    ],
)
def test_facts_of_strangers_are_checked(part: str, given: dict[str, Any], said: str) -> None:
    value = json.loads(dump(payload_of(make_record())))
    value[part] = {**value[part], **given}
    with pytest.raises(StoreError, match=said):
        check_record(value)


def test_old_and_new_records_live_together(tmp_path: Path) -> None:
    old, new = of_schema_1(make_record(seed=1), dict(NOTES)), make_record(seed=2)
    file = tmp_path / "both.jsonl"
    file.write_text(f"{json.dumps(old)}\n{dump(payload_of(new))}\n", encoding="utf-8")
    both = list(read_jsonl(file))
    assert [record.facts.role for record in both] == ["fine-tuning", "fine-tuning"]
    write_jsonl(both, file)
    assert [payload_of(record) for record in read_jsonl(file)] == [payload_of(record) for record in both]
    assert upgraded(json.loads(file.read_text().splitlines()[0]))["schema"] == 2
    with Store.open(tmp_path / "new.sqlite") as store:
        for record in both:
            store.add(record)
        assert [r.facts for r in store.records()] == [r.facts for r in both]


def test_reference_results_keep_their_identity_and_round_trip() -> None:
    for file in sorted(shipped("results/earlier").rglob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            first = json.loads(next(lines))
        assert first["schema"] in (1, 2)
        record = Record.from_json({**first, "predictions": None})
        assert record.id == first["id"]
        assert Record.from_json(json.loads(dump(payload_of(record)))) == record


# ---- one configuration is one, by whatever name


def test_a_choice_in_a_hurry_finds_what_was_measured_of_the_linear_probe(toy: Task, minilm: BackboneFiles) -> None:
    """Its penalty is set instead of chosen, which is quicker; what is known of the probe is known of it too."""
    points = [point for point in gather(reference_records()).points if point.kind == "classification"]
    hurried = {one.method.name: one for one in find_candidates(None, toy, [minilm], "cpu", within=10.0)}
    calm = {one.method.name: one for one in find_candidates(None, toy, [minilm], "cpu", within=1e6)}
    probe = hurried["linear-probe"]
    assert probe.label == "linear-probe[c=1.0]"
    assert probe.method.c == 1.0
    assert sum(probe.is_measured_by(point) for point in points) > 20
    belief = Belief(points, 77)
    for name in ("linear-probe", "tfidf"):
        (mean,), spread = belief.expect([hurried[name]], [512], [])
        (expected,), of_calm = belief.expect([calm[name]], [512], [])
        assert (mean, spread[0, 0]) == (expected, of_calm[0, 0])
    assert Counter(one.is_measured_by(point) for one in calm.values() for point in points)[True] == sum(
        point.name in calm and point.method == point.name for point in points
    )


def test_another_configuration_is_not_the_measured_one(toy: Task) -> None:
    points = [point for point in gather(reference_records()).points if point.kind == "classification"]
    (given,) = find_candidates([methods.get("tfidf")(c=10.0)], toy, [], "cpu")
    assert not any(given.is_measured_by(point) for point in points)


@pytest.mark.parametrize(
    ("notes", "config", "where"),
    [
        ({"tuned_settings": '{"a": 123456789012345678901234567890}'}, {}, "facts.tuned_settings"),
        ({"tuned_settings": '{"a":' * 12 + "1" + "}" * 12}, {}, "facts.tuned_settings"),
        ({"tuned_settings": json.dumps({"k" * 1001: 1})}, {}, "facts.tuned_settings"),
        ({}, {"batch_size": 4, "n_pairs": 0}, "facts.fit_length.items_per_label"),
        ({}, {"batch_size": 4, "n_pairs": 2**53}, "facts.fit_length.items_per_label"),
    ],
)
def test_an_old_record_that_could_not_be_written_again_is_refused(
    notes: dict[str, str], config: dict[str, Any], where: str
) -> None:
    record = make_record()
    cell = dataclasses.replace(record.cell, config={**record.cell.config, **config})
    value = of_schema_1(dataclasses.replace(record, cell=cell), notes)
    with pytest.raises(StoreError, match=where.replace(".", r"\.")):
        check_record(value)


def test_fewer_coefficients_than_classes_say_nothing_of_terms() -> None:
    cell = {"method": "tfidf", "config": {}, "backbone": None, "n_train": 8}
    value = {"cell": cell, "cost": {"n_trainable": 1}, "family": "baseline", "suite": "s"}
    assert facts_of(value, {}, {"n_classes": 10}).n_terms is None
