"""Advice about several backbones: by records, by published probes, and by neither."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.advice.answer import Advice, AdvisedMethod, answer_question
from harness.advice.configured import configured_facts
from harness.advice.held_out import validate_encoders
from harness.advice.on_backbones import read_backbones
from harness.advice.question import Question
from harness.forecast.encoders import from_logit
from harness.forecast.evidence import gather, merged_encoders, published_in
from harness.records.encoders import EncoderFacts, PublishedEncoder, PublishedResult
from harness.records.record import Record
from harness.support.errors import UsageError
from tests.record_factory import BACKBONE, make_grid

TASKS = ("a", "b", "c")
FACTS = EncoderFacts(n_parameters=100_000_000, width=384, pretraining="sentence encoder")


def grids() -> list[Record]:
    return [r for task in TASKS for r in make_grid(sizes=(32, 256), task=task)]


def published() -> tuple[PublishedEncoder, ...]:
    """Return encoders of known quality; the first is the default backbone, and `good/one` the best."""
    qualities = {BACKBONE: 0.0, "good/one": 1.5, "bad/one": -1.0, **{f"org{i}/m": i / 10 - 0.5 for i in range(12)}}
    found = []
    for name, quality in qualities.items():
        results = [
            PublishedResult(f"t{i}", from_logit(level + quality), 0.01, 10, None) for i, level in enumerate((0, 1))
        ]
        found.append(PublishedEncoder(name, FACTS, tuple(results)))
    return tuple(found)


def asked(*names: str, facts: dict[str, EncoderFacts] | None = None, records: list[Record] | None = None) -> Advice:
    question = Question(n_train=256, backbones=names)
    return answer_question(question, grids() if records is None else records, encoders=published, facts=facts or {})


def row(answer: Advice, method: str) -> AdvisedMethod:
    return next(choice for choice in answer.choices if choice.method == method)


def test_one_backbone_is_answered_as_without_the_question_and_reads_no_published_result() -> None:
    def refuse() -> tuple[PublishedEncoder, ...]:
        raise AssertionError("published results were read")

    plain = answer_question(Question(n_train=256), grids(), encoders=refuse)
    named = answer_question(Question(n_train=256, backbones=(BACKBONE,)), grids(), encoders=refuse)
    assert plain.choices == named.choices
    assert plain.bases == ()


def test_an_encoder_that_only_others_measured_is_ranked_by_their_results() -> None:
    answer = asked("all-MiniLM-L6-v2", "good/one", "bad/one")
    small, good, bad = (row(answer, f"linear-probe on {name}") for name in ("all-MiniLM-L6-v2", "good/one", "bad/one"))
    assert bad.score < small.score < good.score
    assert good.high - good.low > 0
    assert (good.basis, small.basis) == ("carried over", "interpolated")
    assert good.train_seconds is None
    assert good.peak_memory_bytes is None
    assert good.backbone == "good/one"
    bases = {basis.backbone: basis for basis in answer.bases}
    assert bases[BACKBONE].is_base
    assert bases["good/one"].n_records == 0
    assert "2 published probes (MTEB, 2 of unknown contamination)" in bases["good/one"].sentence("MTEB")
    alone = answer_question(Question(n_train=256), grids())
    assert small.score == row(alone, "linear-probe").score


def test_records_on_a_backbone_correct_what_its_probes_say() -> None:
    bad = [
        replace(r, cell=replace(r.cell, backbone="good/one", weights="w"), score=replace(r.score, value=0.3))
        for r in grids()
        if r.cell.method == "linear-probe" and r.score is not None
    ]
    carried = row(asked(BACKBONE, "good/one"), "head on one")
    corrected = row(asked(BACKBONE, "good/one", records=[*grids(), *bad]), "head on one")
    assert corrected.score < carried.score


def test_a_contaminated_result_is_named_and_counts_for_nothing() -> None:
    cheat = PublishedResult("t0", 0.999, 0.01, 10, True)
    tainted = merged_encoders(published(), [PublishedEncoder("bad/one", FACTS, (cheat,))])
    question = Question(n_train=256, backbones=(BACKBONE, "bad/one"))
    answer = answer_question(question, grids(), encoders=lambda: tainted)
    assert row(answer, "linear-probe on one").score < row(answer, "linear-probe on all-MiniLM-L6-v2").score
    assert "t0 left out: it was trained on them" in answer.bases[1].sentence("MTEB")


def test_a_causal_model_is_not_expected_from_encoders() -> None:
    facts = {"lm/causal": EncoderFacts(n_parameters=10**9, width=2048, layers=24, pretraining="causal")}
    answer = asked(BACKBONE, "lm/causal", facts=facts)
    there, here = row(answer, "full on causal"), row(answer, "full on all-MiniLM-L6-v2")
    assert there.score == pytest.approx(here.score, abs=0.02)
    assert there.high - there.low > here.high - here.low
    assert "no measurement" in answer.bases[1].sentence("MTEB")


def test_all_known_backbones_are_those_with_records_and_open_weights() -> None:
    answer = asked("all known")
    assert {basis.backbone for basis in answer.bases} == {BACKBONE}
    with pytest.raises(UsageError, match="names 'nobody', which is neither"):
        asked(BACKBONE, "nobody")
    with pytest.raises(UsageError, match="may be bad/one or good/one"):
        asked(BACKBONE, "one")
    with pytest.raises(UsageError, match="give one of them"):
        Question(n_train=9, backbone="a", backbones=("b",))


def test_names_are_read_from_a_text_or_a_list() -> None:
    assert read_backbones("a, b,a") == ("a", "b")
    assert read_backbones(["a"]) == ("a",)
    assert read_backbones(None) is None
    with pytest.raises(UsageError, match="separated by commas"):
        read_backbones("a,,b")


def test_facts_come_from_a_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "org" / "m"
    folder.mkdir(parents=True)
    config = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100, "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    found = configured_facts(["m", "absent"], tmp_path)
    assert found["org/m"].n_parameters == 12 * 2 * 64**2 + 6400
    assert found["org/m"].pretraining == "causal"
    assert list(found) == ["org/m"]


def test_imported_probes_are_encoders_and_no_points() -> None:
    (record,) = [r for r in grids() if r.cell.method == "linear-probe"][:1]
    probe = replace(record, facts=replace(record.facts, measured_by="MTEB", encoder=FACTS, n_draws=10))
    assert gather([probe]).points == ()
    (encoder,) = published_in([probe, record])
    assert record.score is not None
    assert (encoder.name, encoder.facts, encoder.results[0].accuracy) == (BACKBONE, FACTS, record.score.value)


def test_too_small_a_table_is_not_validated() -> None:
    with pytest.raises(UsageError, match="needs at least 40 encoders and 4 tasks"):
        validate_encoders(published())


@pytest.mark.slow
def test_expected_probes_are_within_three_points_and_their_intervals_hold_four_in_five() -> None:
    from harness.store import published_encoders

    encoder, nothing, task = validate_encoders(published_encoders(), seed=1)
    assert encoder.error <= 3.0
    assert 0.75 <= encoder.coverage <= 0.85
    assert encoder.additive_error is not None
    assert encoder.low_rank_error is not None
    assert encoder.error < min(encoder.additive_error, encoder.low_rank_error)
    assert nothing.error > encoder.error
    assert task.error < (task.low_rank_error or 0)
