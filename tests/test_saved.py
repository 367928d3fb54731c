"""Saved models: they predict what the record says, in formats that transformers and peft read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import load_model
from harness.backbones.locate import BackboneFiles
from harness.data.sampling import parse_size
from harness.measure.device import Device
from harness.methods import peft_table
from harness.methods.configure import parse_methods
from harness.planning.plan import plan_cells
from harness.records.record import Budget, Record
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.support.errors import UsageError
from harness.tasks.base import Task
from tests.toys import save_one

METHODS = (
    "tfidf", "majority", "linear-probe", "knn", "mlp-probe", "head", "full", "from-scratch", "probe-then-full",
    "last-layers", "bitfit", "lora", "bottleneck-adapter", "prompt-tuning", "vera", "setfit",
)  # fmt: skip


def saved(text: str, task: Task, files: BackboneFiles, device: Device, folder: Path) -> Record:
    (planned,) = plan_cells(
        tasks=[task],
        backbones={task.name: (files,)},
        methods=parse_methods([text]),
        sizes=[parse_size("12")],
        seeds=[3],
        budgets=[Budget(steps=4)],
        device="cpu",
    )
    record = Worker(device, None).run(Job(planned, files, "test", save_to=folder), task)
    assert record.status == "ok", record.error
    return record


@pytest.mark.parametrize("name", METHODS)
def test_it_predicts_what_was_measured(name: str, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path) -> None:
    record = saved(name, toy, tiny, cpu, tmp_path / "model")
    assert record.predictions is not None
    assert record.predictions.confidence is not None
    predicted, _ = record.predictions.classes
    model = load_model(tmp_path / "model", "cpu")
    probabilities = model.probabilities(list(toy.test.texts))
    assert probabilities.shape == (len(toy.test), 3)
    assert (probabilities.argmax(axis=1) == predicted).all()
    assert np.allclose(probabilities.max(axis=1), record.predictions.confidence, atol=2e-3)
    assert model.predict(list(toy.test.texts[:2])) == [toy.label_names[k] for k in predicted[:2]]
    assert model.probabilities([]).shape == (0, 3)


def test_no_weight_is_stored_twice_and_transformers_reads_it(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file
    from transformers import AutoModel, AutoTokenizer

    saved("full", toy, tiny, cpu, tmp_path / "model")
    assert all(name.startswith("head.") for name in load_file(tmp_path / "model" / "adapted.safetensors"))
    model = AutoModel.from_pretrained(tmp_path / "model" / "transformer")
    before = AutoModel.from_pretrained(tiny.folder)
    weights = dict(before.named_parameters())
    moved = [name for name, value in model.named_parameters() if not (value == weights[name]).all()]
    assert any("attention" in name for name in moved)
    assert AutoTokenizer.from_pretrained(tmp_path / "model" / "transformer").is_fast
    modes = {path.stat().st_mode for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert len(modes) == 1  # a service may read what the user may share


IN_FILES = ["lora", "adalora", "dora", "rslora", "loha", "lokr", "oft", "vera", "fourierft", "ia3"]
IN_FILES += ["lora[init=pissa]", "rslora[init=pissa,rank_pattern=query:4]"]
IN_TABLE = [
    row.name for row in peft_table.TABLE if "encoder" in row.serves and row.name not in {"lily", "trainable-tokens"}
]
"""Rows of the table; Lily reads otherwise than in peft, and the ids below hold no special token."""


@pytest.mark.parametrize("method", [*IN_FILES, *(pytest.param(name, marks=pytest.mark.slow) for name in IN_TABLE)])
def test_peft_reads_the_adapter(method: str, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModel

    name, _, given = method.removesuffix("]").partition("[")
    settings = ",".join(filter(None, ("learning_rate=0.1,precision=fp32", given)))  # else ours are rounded
    saved(f"{name}[{settings}]", toy, tiny, cpu, tmp_path / "model")
    base = AutoModel.from_pretrained(tmp_path / "model" / "transformer")
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "model" / "adapter")).eval()
    ours = load_model(tmp_path / "model", "cpu")._members[0].fitted.model.transformer  # type: ignore[attr-defined]
    ids = torch.tensor([[2, 7, 8, 3]])
    with torch.no_grad():
        theirs = adapted(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        found = ours(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-6)


def test_what_is_no_saved_model_is_refused(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no saved model: there is no model\.json"):
        load_model(tmp_path)
    saved("tfidf", toy, tiny, cpu, tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    with pytest.raises(UsageError, match="expected a list of texts"):
        load_model(tmp_path / "model").predict("one text")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 7}))
    with pytest.raises(UsageError, match="format"):
        load_model(tmp_path / "model")


def test_each_file_is_hashed_once_as_it_is_saved_and_once_as_it_is_loaded(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    digest = hashlib.file_digest

    def noted(handle: Any, name: str) -> Any:
        hashed.append(handle.name)
        return digest(handle, name)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    save_one("full", toy, tiny, cpu, tmp_path / "model")
    assert any(str(name).endswith("transformer/model.safetensors") for name in hashed)
    assert len(set(hashed)) == len(hashed)
    hashed.clear()
    load_model(tmp_path / "model", "cpu")
    assert str(tmp_path / "model" / "transformer" / "model.safetensors") in map(str, hashed)
    assert len(set(hashed)) == len(hashed)
