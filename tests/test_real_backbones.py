"""The contract on real weights: MiniLM, and the mirror's causal model of 260,000 parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._peft import PeftMethod
from harness.running.worker import Worker
from harness.tasks import Task
from harness.testing.laboratory import state_hash
from harness.testing.method_checks import BRIEF, configured
from tests.toys import run_one

CAUSAL = "karpathy/tinyllamas-stories260K"


def check(name: str, task: Task, files: BackboneFiles, worker: Worker, cpu: Device) -> None:
    """Twice the same, and the shared weights as they were."""
    method = configured(methods.get(name), **BRIEF)
    before = state_hash(load_backbone(files).pristine)
    first, again = (run_one(task, files, method, cpu, worker=worker, size="24") for _ in range(2))
    if method.why_unsupported("classification", files, "cpu") is not None:
        assert first.status == "unsupported"
        return
    assert first.status == "ok", first.error
    assert first.predictions is not None
    assert again.predictions is not None
    np.testing.assert_array_equal(first.predictions.confidence, again.predictions.confidence)
    assert state_hash(load_backbone(files).pristine) == before
    assert first.cost.n_parameters is not None
    assert first.cost.n_trainable is not None
    assert 0 <= first.cost.n_trainable <= first.cost.n_parameters


@pytest.fixture(scope="module")
def worker(cpu: Device) -> Worker:
    return Worker(cpu, None)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if issubclass(methods.get(name), PeftMethod) else [])
        for name in methods.names()
    ],
)
def test_on_a_real_causal_model(name: str, mirror: Path, toy: Task, cpu: Device, worker: Worker) -> None:
    check(name, toy, locate_backbone(CAUSAL, mirror), worker, cpu)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in methods.names() if "encoder" in methods.get(name).serves])
def test_on_minilm(name: str, minilm: BackboneFiles, toy: Task, cpu: Device, worker: Worker) -> None:
    check(name, toy, minilm, worker, cpu)


@pytest.mark.slow
def test_pretraining_is_worth_much(sst2: Task, minilm: BackboneFiles, cpu: Device, worker: Worker) -> None:
    """At 512 labels random weights are far below pretrained ones, or something leaks."""
    scores = {}
    for name in ("full", "from-scratch"):
        record = run_one(sst2, minilm, methods.get(name)(), cpu, worker=worker, size="512")
        assert record.score is not None, record.error
        scores[name] = record.score.value
    assert scores["from-scratch"] <= scores["full"] - 0.1
