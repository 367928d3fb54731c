"""The contract of every method, over the registry: a new method is tested the moment it exists.

Each runs on a tiny backbone of every architecture that it claims. Many checks share a fit: building and fitting is what
takes time.
"""

from __future__ import annotations

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
from harness.measure.device import Device
from harness.methods import Method, methods
from harness.methods._fine_tuning import FineTuning, FittedModel
from harness.methods._gradient import TrainedMethod
from harness.methods._peft import PeftMethod
from harness.methods.artifact import artifact_size_bytes, load_artifact, save_artifact
from harness.records.record import Budget
from harness.running.worker import Worker
from harness.tasks import Rows, Task
from tests.contract import BRIEF, configured, state_hash, unsupported
from tests.toys import make_bench, plan_one, run_one, test_rows

NAMES = methods.names()
CASES = [(name, architecture) for name in NAMES for architecture in sorted(methods.get(name).serves or {"encoder"})]
"""Methods that use no backbone are given one all the same, and must not mind."""

TRAINED_BY_GRADIENT = [name for name in NAMES if issubclass(methods.get(name), TrainedMethod)]
FINE_TUNING = [case for case in CASES if issubclass(methods.get(case[0]), FineTuning)]
NEEDS_CUDA = [name for name in NAMES if "CUDA" in methods.get(name).needs]

REASONABLE_ON_RANDOM_WEIGHTS: dict[str, Any] = {"learning_rate": 3e-3, "head_learning_rate": 1e-2, "min_steps": 150}
"""A pretrained model's rates hardly move a tiny random one; what is tested here is the machinery."""


@pytest.fixture(scope="module")
def worker(cpu: Device) -> Worker:
    return Worker(cpu, None)


def draw(task: Task, method: Method, n: int, cpu: Device) -> Rows:
    return Worker(cpu, None).training_rows(task, n if method.uses_labels else 0, 0, "stratified")


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
    assert set(cls.search_space) <= set(cls.model_fields)


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_cells_do_not_touch_each_other(
    name: str, architecture: str, toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Device, worker: Worker
) -> None:
    """The shared weights stay as they were, A, B, A gives A twice, and another seed is another result."""
    files = tiny_backbones[architecture]
    method = configured(name, **BRIEF)
    before = state_hash(load_backbone(files).pristine)
    first = run_one(toy, files, method, cpu, worker=worker)
    if unsupported(method, files):
        assert first.status == "unsupported"
        assert first.error == method.why_unsupported("classification", files, "cpu")
        return
    assert first.status == "ok", first.error
    run_one(toy, files, configured("full", **BRIEF), cpu, worker=worker, seed=1)
    again = run_one(toy, files, method, cpu, worker=worker)
    other = run_one(toy, files, method, cpu, worker=worker, seed=1)
    assert first.predictions is not None
    assert again.predictions is not None
    assert other.predictions is not None
    np.testing.assert_array_equal(first.predictions.predicted, again.predictions.predicted)
    np.testing.assert_array_equal(first.predictions.confidence, again.predictions.confidence)
    if method.uses_labels and name != "majority":
        assert not np.array_equal(first.predictions.confidence, other.predictions.confidence)
    assert state_hash(load_backbone(files).pristine) == before


@pytest.mark.parametrize(("name", "architecture"), FINE_TUNING)
def test_trains_what_it_says_and_nothing_else(
    name: str, architecture: str, toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    files = tiny_backbones[architecture]
    method = configured(name, **{**BRIEF, "min_steps": 12})
    assert isinstance(method, FineTuning)
    if unsupported(method, files):
        return
    bench = make_bench(toy, files, cpu)
    before = method.build(bench)
    start = state_hash(before)
    trained = {key for key, value in before.named_parameters() if value.requires_grad}
    count_before = sum(value.numel() for value in before.parameters() if value.requires_grad)
    fitted = method.fit(draw(toy, method, 48, cpu), bench)
    assert isinstance(fitted, FittedModel)
    end = state_hash(fitted.model)
    assert end.keys() == start.keys()
    moved = {key for key in end if end[key] != start[key]}
    assert moved == trained
    sizes = dict(fitted.model.named_parameters())
    assert fitted.n_trainable == count_before == sum(sizes[key].numel() for key in moved)
    assert fitted.n_parameters == sum(value.numel() for value in sizes.values())
    if isinstance(method, PeftMethod):
        in_head = sum(value.numel() for value in fitted.model.head.parameters())
        wrapped: Any = fitted.model.transformer
        assert fitted.n_trainable - in_head == wrapped.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize(("name", "architecture"), FINE_TUNING)
def test_starts_from_the_pretrained_function(
    name: str, architecture: str, toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    """What is added changes nothing before it is trained, but for soft prompts, which are text from the start."""
    files = tiny_backbones[architecture]
    method = methods.get(name)()
    assert isinstance(method, FineTuning)
    if unsupported(method, files) or method.reserved_tokens() or name == "from-scratch":
        return
    model = method.build(make_bench(toy, files, cpu)).eval()
    ids = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.transformer(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        pristine = load_backbone(files).pristine(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(found, pristine, rtol=1e-4, atol=1e-2 if name == "bottleneck-adapter" else 1e-4)


def test_full_leaves_nothing_frozen_and_head_trains_one_linear_layer(
    toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    width, n_classes = 32, 3
    full = run_one(toy, tiny, configured("full", **BRIEF), cpu).cost
    assert full.n_trainable == full.n_parameters
    frozen = sum(value.numel() for value in load_backbone(tiny).pristine.parameters())
    for name in ("head", "linear-probe"):
        cost = run_one(toy, tiny, configured(name), cpu).cost
        assert cost.n_trainable == width * n_classes + n_classes
        assert cost.n_parameters == frozen + cost.n_trainable


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_saved_and_restored_predicts_the_same(
    name: str, architecture: str, toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Device, tmp_path: Path
) -> None:
    files = tiny_backbones[architecture]
    method = configured(name, **BRIEF)
    if unsupported(method, files):
        return
    bench = make_bench(toy, files if method.serves else None, cpu)
    fitted = method.fit(draw(toy, method, 48, cpu), bench)
    expected = fitted.predict(test_rows(toy), bench)
    written = save_artifact(fitted, method, tmp_path / "saved", bench)
    assert written == artifact_size_bytes(fitted, method)
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} == {".json", ".safetensors"}
    another = make_bench(toy, files if method.serves else None, cpu, seed=7)  # what is saved needs no seed
    restored_method, restored = load_artifact(tmp_path / "saved", another)
    assert restored_method == method
    np.testing.assert_array_equal(restored.predict(test_rows(toy), another), expected)
    assert restored.n_trainable == fitted.n_trainable


@pytest.mark.parametrize("name", [name for name in TRAINED_BY_GRADIENT if name not in NEEDS_CUDA])
@pytest.mark.parametrize("budget", [Budget(steps=7), Budget(epochs=2), Budget(train_seconds=0.4)])
def test_stops_within_its_budget(
    name: str, budget: Budget, toy: Task, tiny: BackboneFiles, cpu: Device, worker: Worker
) -> None:
    method = configured(name, epochs=10_000, n_pairs=1, max_steps=100_000)
    run_one(toy, tiny, method, cpu, worker=worker, budget=Budget(steps=1))  # kernels are warm from here on
    record = run_one(toy, tiny, method, cpu, worker=worker, budget=budget)
    assert record.status == "ok", record.error
    [cap] = budget.to_json()
    assert record.cost.stopped_by == cap
    steps = record.curve[-1].step
    if cap == "steps":
        assert steps == 7
    elif cap == "epochs":
        rows_of_an_epoch = 48 if name == "setfit" else 24  # a pair of each sign for each text
        assert steps == 2 * -(-rows_of_an_epoch // method.config()["batch_size"])
    else:
        assert record.cost.train_seconds is not None
        assert 0.4 <= record.cost.train_seconds < 0.8


@pytest.mark.parametrize("name", [name for name in TRAINED_BY_GRADIENT if name not in NEEDS_CUDA])
def test_stops_early_and_validates_on_its_own_labels(
    name: str, toy: Task, tiny: BackboneFiles, cpu: Device, worker: Worker
) -> None:
    method = configured(name, patience=1, epochs=200, n_pairs=1, max_steps=2000, learning_rate=3e-2)
    record = run_one(toy, tiny, method, cpu, worker=worker, size="30", budget=Budget(steps=120))
    assert record.status == "ok", record.error
    validated = [point for point in record.curve if point.validation is not None]
    assert len(validated) >= 2
    assert record.cost.stopped_by in ("early_stopping", "steps")
    if record.cost.stopped_by == "early_stopping":
        assert record.curve[-1].step < 120
        assert record.curve[-1].validation is not None


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in NAMES
        if name != "majority" and name not in NEEDS_CUDA and methods.get(name).family != "in context"
    ],
)
def test_learns(name: str, toy: Task, tiny: BackboneFiles, cpu: Device, worker: Worker) -> None:
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
from harness.running.worker import Worker
from harness.measure.device import find_device
from harness.methods import methods
from harness.methods.artifact import save_artifact, artifact_size_bytes, load_artifact
from harness.tasks import kinds
from tests.toys import make_bench, plan_one, test_rows
asked = json.loads(sys.argv[1])
task = kinds.get("classification").prepare(TaskSpec(**asked["spec"]), None)
worker = Worker(find_device("cpu"), Path(asked["cache"]))
for name, architecture in asked["cases"]:
    files = locate_backbone(asked["backbones"][architecture])
    settings = {k: v for k, v in asked["settings"].items() if k in methods.get(name).model_fields}
    planned = plan_one(task, files, methods.get(name)(**settings))
    record = worker.run(planned, task, files, "tests", lambda *_: None)
    bench = make_bench(task, files if planned.method.serves else None, find_device("cpu"), like=worker)
    restored = load_artifact(Path(asked["saved"]) / architecture / name, bench)[1]
    print("RESULT", json.dumps([name, architecture, planned.cell.id, record.predictions.to_json(),
        restored.predict(test_rows(task), bench).astype("f8").tolist()]))
"""


FIRST_OF_FAMILY = {methods.get(name).family: name for name in reversed(NAMES) if name not in NEEDS_CUDA}


@pytest.mark.parametrize("which", ["one a family", pytest.param("all", marks=pytest.mark.slow)])
def test_another_process_gives_the_same(
    which: str, toy: Task, toy_spec: Any, tiny_backbones: dict[str, BackboneFiles], cpu: Device, tmp_path: Path
) -> None:
    """Same identity, same predictions with a cold and a warm cache, and the same from what was saved."""
    # Whatever makes a family depend on the process is likely to do so in each of its methods, on any architecture.
    cases = [case for case in CASES if not unsupported(configured(case[0]), tiny_backbones[case[1]])]
    if which != "all":
        first = {name: architecture for name, architecture in reversed(cases) if name in FIRST_OF_FAMILY.values()}
        cases = [case for case in cases if case[0] == "full" or case in first.items()]
    here: dict[tuple[str, str], tuple[str, Any, np.ndarray]] = {}
    worker = Worker(cpu, None)
    for name, architecture in cases:
        files = tiny_backbones[architecture]
        method = configured(name, **BRIEF)
        bench = make_bench(toy, files if method.serves else None, cpu, like=worker)
        fitted = method.fit(draw(toy, method, 24, cpu), bench)
        save_artifact(fitted, method, tmp_path / "saved" / architecture / name, bench)
        expected = fitted.predict(test_rows(toy), bench)
        predictions = toy.kind.decode(toy, expected).to_json()
        here[name, architecture] = (plan_one(toy, files, method).cell.id, predictions, expected)
    asked = {
        "spec": toy_spec.model_dump(mode="json"),
        "backbones": {name: str(files.folder) for name, files in tiny_backbones.items()},
        "cache": str(tmp_path / "cache"),
        "settings": BRIEF,
        "saved": str(tmp_path / "saved"),
    }
    # The second process finds features in the cache: only methods that read features need it.
    cached = [case for case in cases if methods.get(case[0]).family in ("frozen features", "in context")]
    for chosen in (cases, cached):
        done = subprocess.run(
            [sys.executable, "-c", _IN_ANOTHER_PROCESS, json.dumps({**asked, "cases": chosen})],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            cwd=Path(__file__).parent.parent,
        )
        assert done.returncode == 0, done.stderr
        results = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert [(name, architecture) for name, architecture, *_ in results] == chosen
        for name, architecture, id_, predictions, restored in results:
            known = here[name, architecture]
            assert id_ == known[0]
            assert predictions == known[1], (name, architecture)
            np.testing.assert_array_equal(np.array(restored, dtype=np.float32), known[2])
