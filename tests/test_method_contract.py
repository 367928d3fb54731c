"""The contract of every method, over the registry: a new method is tested the moment it exists."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.execute import Worker
from harness.measure.device import Device
from harness.methods import Method, artifact, methods
from harness.methods._fine_tuning import FineTuning, FittedModel, GradientMethod
from harness.records import Budget
from harness.tasks import Task
from tests.toys import make_bench, plan_one, run_one, test_rows

NAMES = methods.names()
TRAINED_BY_GRADIENT = [name for name in NAMES if issubclass(methods.get(name), GradientMethod)]
FINE_TUNING = [name for name in NAMES if issubclass(methods.get(name), FineTuning)]

REASONABLE_ON_RANDOM_WEIGHTS: dict[str, Any] = {"learning_rate": 3e-3, "head_learning_rate": 1e-2, "min_steps": 150}
"""A pretrained model's rates hardly move a tiny random one; what is tested here is the machinery."""


def configured(name: str, **settings: Any) -> Method:
    cls = methods.get(name)
    return cls(**{key: value for key, value in settings.items() if key in cls.model_fields})


def state_hash(module: torch.nn.Module) -> dict[str, str]:
    return {
        name: hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        for name, value in module.state_dict().items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is(name: str) -> None:
    cls = methods.get(name)
    assert cls.__doc__
    assert cls.family
    assert cls.trains
    assert cls.source
    assert cls.version >= 1
    config = cls().config()
    assert json.loads(json.dumps(config)) == config
    assert cls(**config).config() == config


@pytest.mark.parametrize("name", NAMES)
def test_never_touches_the_pristine_backbone(name: str, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    before = state_hash(load_backbone(tiny).pristine)
    record = run_one(toy, tiny, configured(name, min_steps=5, epochs=1), cpu)
    assert record.status == "ok", record.error
    assert state_hash(load_backbone(tiny).pristine) == before


@pytest.mark.parametrize("name", FINE_TUNING)
def test_trains_what_it_says_and_nothing_else(name: str, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    method = configured(name, min_steps=8, epochs=1)
    assert isinstance(method, FineTuning)
    bench = make_bench(toy, tiny, cpu)
    before = method.build(bench)
    start = state_hash(before)
    trained = {key for key, value in before.named_parameters() if value.requires_grad}
    count_before = sum(value.numel() for value in before.parameters() if value.requires_grad)
    rows = Worker(cpu, None).training_rows(toy, 48, 0, "stratified")
    fitted = method.fit(rows, bench)
    assert isinstance(fitted, FittedModel)
    end = state_hash(fitted.model)
    assert end.keys() == start.keys()
    moved = {key for key in end if end[key] != start[key]}
    assert moved == trained
    sizes = dict(fitted.model.named_parameters())
    assert fitted.n_trainable == count_before == sum(sizes[key].numel() for key in moved)
    assert fitted.n_parameters == sum(value.numel() for value in sizes.values())


def test_full_leaves_nothing_frozen_and_head_trains_one_linear_layer(
    toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    width, n_classes = 32, 3
    full = run_one(toy, tiny, configured("full", min_steps=2, epochs=1), cpu).cost
    assert full.n_trainable == full.n_parameters
    frozen = sum(value.numel() for value in load_backbone(tiny).pristine.parameters())
    for name in ("head", "linear-probe"):
        cost = run_one(toy, tiny, configured(name), cpu).cost
        assert cost.n_trainable == width * n_classes + n_classes
        assert cost.n_parameters == frozen + cost.n_trainable


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_predictions_whatever_ran_between(
    name: str, toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    worker = Worker(cpu, None)
    method = configured(name, min_steps=10, epochs=1)
    first = run_one(toy, tiny, method, cpu, worker=worker)
    run_one(toy, tiny, configured("full", min_steps=10, epochs=1), cpu, worker=worker, seed=1)
    again = run_one(toy, tiny, method, cpu, worker=worker)
    assert first.predictions is not None
    assert again.predictions is not None
    np.testing.assert_array_equal(first.predictions.predicted, again.predictions.predicted)
    np.testing.assert_array_equal(first.predictions.confidence, again.predictions.confidence)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "majority"])
def test_another_seed_is_another_draw(name: str, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    method = configured(name, min_steps=10, epochs=1)
    records = [run_one(toy, tiny, method, cpu, seed=seed) for seed in (0, 1)]
    confidences = [record.predictions.confidence for record in records if record.predictions is not None]
    assert len(confidences) == 2
    assert not np.array_equal(confidences[0], confidences[1])


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_restored_predicts_the_same(
    name: str, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    method = configured(name, min_steps=10, epochs=1)
    bench = make_bench(toy, tiny if method.serves else None, cpu)
    fitted = method.fit(Worker(cpu, None).training_rows(toy, 48, 0, "stratified"), bench)
    expected = fitted.predict(test_rows(toy), bench)
    written = artifact.save(fitted, method, tmp_path / "saved")
    assert written == artifact.size_bytes(fitted, method)
    restored_method, restored = artifact.load(tmp_path / "saved", make_bench(toy, tiny if method.serves else None, cpu))
    assert restored_method == method
    np.testing.assert_array_equal(restored.predict(test_rows(toy), bench), expected)
    assert restored.n_trainable == fitted.n_trainable


@pytest.mark.parametrize("name", TRAINED_BY_GRADIENT)
@pytest.mark.parametrize("budget", [Budget(steps=7), Budget(epochs=2), Budget(train_seconds=0.4)])
def test_stops_within_its_budget(name: str, budget: Budget, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    method = configured(name, epochs=10_000)
    worker = Worker(cpu, None)
    run_one(toy, tiny, method, cpu, worker=worker, budget=Budget(steps=1))  # kernels are warm from here on
    record = run_one(toy, tiny, method, cpu, worker=worker, budget=budget)
    assert record.status == "ok", record.error
    [cap] = budget.to_json()
    assert record.cost.stopped_by == cap
    steps = record.curve[-1].step
    if cap == "steps":
        assert steps == 7
    elif cap == "epochs":
        assert steps == 2 * -(-24 // method.config()["batch_size"])
    else:
        assert record.cost.train_seconds is not None
        assert 0.4 <= record.cost.train_seconds < 0.8


@pytest.mark.parametrize("name", [name for name in NAMES if name != "majority"])
def test_learns(name: str, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    worker = Worker(cpu, None)
    floor = run_one(toy, None, configured("majority"), cpu, worker=worker, size="192").score
    record = run_one(toy, tiny, configured(name, **REASONABLE_ON_RANDOM_WEIGHTS), cpu, worker=worker, size="192")
    assert record.status == "ok", record.error
    assert record.score is not None
    assert floor is not None
    assert record.score.value >= floor.value + 0.3


_IN_ANOTHER_PROCESS = """
import json, sys
from pathlib import Path
from harness.backbones.locate import locate_backbone
from harness.data.spec import TaskSpec
from harness.execute import Worker
from harness.measure.device import find_device
from harness.methods import artifact, methods
from harness.tasks import kinds
from tests.toys import make_bench, plan_one, test_rows
asked = json.loads(sys.argv[1])
task = kinds.get("classification").prepare(TaskSpec(**asked["spec"]), None)
files = locate_backbone(asked["backbone"])
worker = Worker(find_device("cpu"), Path(asked["cache"]))
for name in asked["names"]:
    settings = {k: v for k, v in asked["settings"].items() if k in methods.get(name).model_fields}
    planned = plan_one(task, files, methods.get(name)(**settings))
    record = worker.run(planned, task, files, "tests", lambda *_: None)
    bench = make_bench(task, files if planned.method.serves else None, find_device("cpu"))
    restored = artifact.load(Path(asked["saved"]) / name, bench)[1]
    print("RESULT", json.dumps([name, planned.cell.id, record.predictions.to_json(),
        restored.predict(test_rows(task), bench).astype("f8").tolist()]))
"""


def test_another_process_gives_the_same(
    toy: Task, toy_spec: Any, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    """Same identity, same predictions with a cold and a warm cache, and the same from what was saved."""
    settings = {"min_steps": 10, "epochs": 1}
    here: dict[str, tuple[str, Any, np.ndarray]] = {}
    for name in NAMES:
        method = configured(name, **settings)
        planned = plan_one(toy, tiny, method)
        record = Worker(cpu, None).run(planned, toy, tiny, "tests", lambda *_: None)
        bench = make_bench(toy, tiny if method.serves else None, cpu)
        fitted = method.fit(Worker(cpu, None).training_rows(toy, 24, 0, "stratified"), bench)
        artifact.save(fitted, method, tmp_path / "saved" / name)
        assert record.predictions is not None
        here[name] = (planned.cell.id, record.predictions.to_json(), fitted.predict(test_rows(toy), bench))
    asked = {
        "spec": toy_spec.model_dump(mode="json"),
        "backbone": str(tiny.folder),
        "cache": str(tmp_path / "cache"),
        "names": NAMES,
        "settings": settings,
        "saved": str(tmp_path / "saved"),
    }
    for _ in ("cold", "warm"):
        done = subprocess.run(
            [sys.executable, "-c", _IN_ANOTHER_PROCESS, json.dumps(asked)],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            cwd=Path(__file__).parent.parent,
        )
        assert done.returncode == 0, done.stderr
        results = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert [name for name, *_ in results] == NAMES
        for name, id_, predictions, restored in results:
            assert id_ == here[name][0]
            assert predictions == here[name][1], name
            np.testing.assert_array_equal(np.array(restored, dtype=np.float32), here[name][2])
