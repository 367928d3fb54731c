"""Probes of steps: texts of the length asked for, costs that grow as they should, and advice that carries them over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.advice.answer import answer_question
from harness.advice.question import Question
from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.backbones.shapes import BACKBONE_SHAPES, write_shape
from harness.cost.calibration import Probed, keep, probes
from harness.cost.shape import read_shape
from harness.cost.synthetic import synthetic_task
from harness.forecast.work import texts_read
from tests.commands import run_cli
from tests.record_factory import make_grid


@pytest.mark.parametrize("seq_len", [4, 17, 64])
def test_texts_are_as_long_as_was_asked(seq_len: int, tiny: BackboneFiles, minilm: BackboneFiles) -> None:
    task = synthetic_task(8, 4, seq_len)
    for files in (tiny, minilm):
        encoded = task.kind.tokenize(task.train, load_backbone(files), seq_len)
        assert {len(ids) for ids in encoded.ids} == {seq_len}
    assert len(set(task.train.texts)) == 8


@pytest.mark.parametrize(
    ("name", "millions"), [("bert-base-like", 110), ("bert-large-like", 335), ("llama-3.2-1b-like", 1236)]
)
def test_shapes_have_the_sizes_that_were_published(name: str, millions: int, tmp_path: Path) -> None:
    """Parameters as the models' own cards state them; BERT's shape leaves out positions and biases."""
    files = write_shape(name, tmp_path / name)
    shape = read_shape(files.folder)
    assert shape is not None
    assert shape.n_parameters / 1e6 == pytest.approx(millions, rel=0.02)
    assert not files.has_weights


def test_the_largest_shape_by_transformers_own_count(tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    files = write_shape("llama-3.2-3b-like", tmp_path / "shape")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(files.folder))
    assert sum(p.numel() for p in model.parameters()) == 3_212_749_824  # as the hub counts Llama-3.2-3B
    assert set(BACKBONE_SHAPES) >= {"llama-3.2-1b-like", "bert-large-like"}


def test_the_command_measures_keeps_and_says_why_not(tiny: BackboneFiles, tmp_path: Path) -> None:
    given = ("probe", "--backbone", str(tiny.folder), "--device", "cpu", "--seq-len", "16", "--random-weights")
    said = run_cli(*given, "--batch-size", "8", "--methods", "linear-probe,full,few-shot", "--json", cwd=tmp_path)
    found = {one["method"]: one for one in json.loads(said[said.index("{") :])["methods"]}
    assert found["full"]["seconds"] > 0
    assert found["full"]["tokens_per_second"] == pytest.approx(8 * 16 / found["full"]["seconds"])
    assert found["full"]["peak_bytes"] > 0
    assert found["linear-probe"]["batch_size"] is None
    assert "encoder" in found["few-shot"]["why_not"]
    assert {one.method for one in probes()} == {"linear-probe", "full"}
    assert "expected a whole number above 0" in run_cli("probe", "--batch-size", "0", cwd=tmp_path, code=2)


def test_what_was_kept_is_replaced_and_damage_is_no_error(tmp_path: Path) -> None:
    one = Probed("d", None, "tfidf", {}, None, 32, 0.5, 1e6, "2026-01-01T00:00:00+00:00")
    keep([one], tmp_path)
    path = keep([Probed(**{**one.__dict__, "seconds": 0.25})], tmp_path)
    assert [found.seconds for found in probes(tmp_path)] == [0.25]
    path.write_text("[{")
    assert probes(tmp_path) == []


def test_advice_on_a_probed_device_is_that_of_the_measured_one_scaled() -> None:
    """A device on which every probed step takes three times as long is advised at three times the seconds."""
    records = [r for task in ("a", "b", "c") for r in make_grid(sizes=(32, 256, 2048), task=task)]
    question = Question(n_train=256, classes=2, tokens=32.0)
    before = answer_question(question, records)
    slow = []
    for choice in before.choices:
        record = next(r for r in records if r.cell.method == choice.method)
        batch = record.cell.config.get("batch_size")
        if record.cell.backbone is None or choice.train_seconds is None or batch is None:
            continue
        step = choice.train_seconds * batch / texts_read(record.facts, 256)
        slow.append(
            Probed("slow", record.cell.backbone, choice.method, record.cell.config, batch, 32, 3 * step, 1e9, "now")
        )
    assert slow, "the grid has a method that takes steps"
    after = answer_question(question, records, slow)
    assert after.device == "slow"
    assert any("times 3.00" in note for note in after.notes)
    for one, other in zip(before.choices, after.choices, strict=True):
        if one.train_seconds is not None and other.train_seconds is not None:
            assert other.train_seconds == pytest.approx(3 * one.train_seconds, rel=1e-6)
    assert answer_question(Question(n_train=256, device=before.device), records, slow).device == before.device


def test_a_local_folder_without_weights_will_do(tmp_path: Path) -> None:
    files = write_shape("bert-base-like", tmp_path / "bare")
    assert locate_backbone(str(files.folder), weights=False).architecture == "encoder"
