"""A cell becomes a record whatever happens, and the records say what happened."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from harness.backbones.locate import BackboneFiles
from harness.data.sampling import parse_size
from harness.measure.device import Device
from harness.methods import Bench, Fitted, Method, methods
from harness.methods.configure import parse_method, parse_methods
from harness.planning.plan import plan_cells
from harness.records.record import Budget, Cell, Record, parse_budget
from harness.running.worker import Worker
from harness.support.errors import UnsupportedError, UsageError
from harness.tasks import Rows, Task
from tests.toys import plan_one, run_one


class Planted(Method):
    """Does what a test plants."""

    name: ClassVar[str] = "planted"
    family: ClassVar[str] = "test"
    role: ClassVar[str] = "baseline"
    trains: ClassVar[str] = "nothing"
    source: ClassVar[str] = "tests"
    serves: ClassVar[frozenset[Any]] = frozenset()
    plant: str = "nothing"

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        if self.plant == "raise":
            raise RuntimeError("planted")
        if self.plant == "memory":
            raise MemoryError
        if self.plant == "torch memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        if self.plant == "cpu allocator":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        if self.plant == "unsupported":
            raise UnsupportedError("planted reason")
        if self.plant == "labels of test rows":
            return PlantedFit("labels", bench)
        if self.plant == "slow":
            bench.clock.charge("fit", 5.0)
        if self.plant == "large":
            held = np.ones(20_000_000)
            del held
        return PlantedFit(self.plant, bench)

    def restore(self, tensors: dict[str, Any], state: dict[str, Any], bench: Bench) -> Fitted:
        return PlantedFit("nothing", bench)


class PlantedFit(Fitted):
    n_parameters = n_trainable = 1

    def __init__(self, plant: str, bench: Bench) -> None:
        self._plant = plant

    def predict(self, rows: Rows, bench: Bench) -> Any:
        if self._plant == "labels":
            return rows.known_labels
        shape = (len(rows), bench.n_outputs + (self._plant == "wrong shape"))
        return np.full(shape, np.nan if self._plant == "nan" else 1 / 3, dtype=np.float32)

    def tensors(self) -> dict[str, Any]:
        return {"x": np.zeros(1, dtype=np.float32)}


@pytest.mark.parametrize(
    ("plant", "status", "says"),
    [
        ("nothing", "ok", None),
        ("raise", "failed", "RuntimeError: planted"),
        ("memory", "out_of_memory", "no more memory"),
        ("torch memory", "out_of_memory", "CUDA out of memory"),
        ("cpu allocator", "out_of_memory", "can't allocate memory"),
        ("unsupported", "unsupported", "planted reason"),
        ("nan", "failed", "not finite"),
        ("wrong shape", "failed", "expected"),
        ("labels of test rows", "failed", "nothing about test rows is seen"),
    ],
)
def test_whatever_a_method_does_is_a_record(plant: str, status: str, says: str | None, toy: Task, cpu: Device) -> None:
    record = run_one(toy, None, Planted(plant=plant), cpu)
    assert record.status == status
    assert (record.score is not None) == (status == "ok")
    assert (record.predictions is not None) == (status == "ok")
    assert (record.error is None) == (status == "ok")
    if says:
        assert says in (record.error or "")
    assert Record.from_json(record.to_json()).to_json() == record.to_json()


def test_budgets_that_cannot_interrupt_are_checked(toy: Task, cpu: Device) -> None:
    assert run_one(toy, None, Planted(plant="slow"), cpu, budget=Budget(train_seconds=3)).status == "ok"
    record = run_one(toy, None, Planted(plant="slow"), cpu, budget=Budget(train_seconds=2))
    assert record.status == "out_of_time"
    assert record.cost.fit_seconds == 5.0
    record = run_one(toy, None, Planted(plant="large"), cpu, budget=Budget(peak_memory_bytes=50_000_000))
    assert record.status == "out_of_memory"
    assert "50,000,000" in (record.error or "")


def test_interrupting_passes_through(toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Planted, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_one(toy, None, Planted(), cpu)


def test_the_score_is_that_of_the_stored_predictions(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    record = run_one(toy, tiny, methods.get("linear-probe")(), cpu, size="96")
    assert record.predictions is not None
    assert record.score is not None
    target, predicted = record.predictions.target, record.predictions.predicted
    np.testing.assert_array_equal(target, toy.test_labels)
    assert record.score.value == pytest.approx(accuracy_score(target, predicted))
    assert record.score.others["macro_f1"] == pytest.approx(f1_score(target, predicted, average="macro"))
    assert record.score.n_test == len(target)
    assert record.score.low is not None
    assert record.score.low < record.score.value < (record.score.high or 0)


def test_draws_are_nested_and_never_test_rows(toy: Task, cpu: Device) -> None:
    worker = Worker(cpu, None)
    small, large = (worker.training_rows(toy, n, 0, "stratified") for n in (24, 96))
    assert list(large.index[:24]) == list(small.index)
    assert not set(large.texts) & set(toy.test.texts)
    assert len({bytes(toy.train_digests[row]) for row in large.index}) == 96
    other = worker.training_rows(toy, 24, 1, "stratified")
    assert set(other.index) != set(small.index)


def test_planning_is_pure_and_refuses_before_training(toy: Task, tiny: BackboneFiles) -> None:
    def plan(sizes: list[str], names: list[str]) -> list[Any]:
        return plan_cells(
            tasks=[toy],
            backbones={toy.name: (tiny,)},
            methods=parse_methods(names),
            sizes=[parse_size(size) for size in sizes],
            seeds=[0, 1],
            budgets=[Budget()],
            device="cpu",
        )

    cells = plan(["24", "8/class"], ["majority,linear-probe"])
    assert len(cells) == 8
    assert [cell.cell.id for cell in cells] == [
        cell.cell.id for cell in plan(["24", "8/class"], ["majority,linear-probe"])
    ]
    assert {cell.cell.backbone for cell in cells} == {None, tiny.name}
    with pytest.raises(UsageError) as raised:
        plan(["2", "100000", "9999/class"], ["majority"])
    assert len(str(raised.value).splitlines()) == 3
    with pytest.raises(UsageError, match="seed"):
        plan_cells(
            tasks=[toy],
            backbones={},
            methods=parse_methods(["majority"]),
            sizes=[parse_size("9")],
            seeds=[],
            budgets=[Budget()],
            device="cpu",
        )


def test_identity_follows_everything_that_matters(toy: Task, tiny: BackboneFiles) -> None:
    base = plan_one(toy, tiny, methods.get("lora")()).cell
    import dataclasses

    others: list[dict[str, Any]] = [
        {"task": "other"},
        {"data": "0" * 64},
        {"weights": "0" * 64},
        {"method": "full"},
        {"version": 2},
        {"config": {**base.config, "rank": 4}},
        {"n_train": 25},
        {"draw": "balanced"},
        {"budget": Budget(epochs=1)},
        {"seed": 1},
    ]
    ids = {dataclasses.replace(base, **change).id for change in others}
    assert len(ids | {base.id}) == len(others) + 1
    assert Cell.from_json(base.to_json()).id == base.id
    assert (
        dataclasses.replace(base, budget=Budget(epochs=3)).id
        == dataclasses.replace(base, budget=parse_budget("epochs=3")).id
    )


def test_methods_from_text() -> None:
    lora = parse_method("lora[rank=4, learning_rate=1e-3]")
    assert lora.config()["rank"] == 4
    assert lora.config()["learning_rate"] == 0.001
    assert len(parse_methods(["lora[rank=4],lora[rank=8]", "lora", "full"])) == 3  # rank 8 is the default
    probe = parse_method("linear-probe[c_grid=[0.1,1],c=none]")
    assert probe.config()["c_grid"] == [0.1, 1.0]
    for text, says in (
        ("lroa", "Did you mean 'lora'"),
        ("lora[rnk=4]", "Did you mean 'rank'"),
        ("lora[rank=0]", "rank"),
        ("lora[rank=x]", "rank"),
        ("lora[rank]", "SETTING=VALUE"),
        ("lora[rank=4", "Brackets"),
        ("lora[rank=4,rank=8]", "twice"),
    ):
        with pytest.raises(UsageError, match=says):
            parse_methods([text])


def test_budgets_from_text() -> None:
    assert parse_budget("train_seconds=60, epochs=3") == Budget(train_seconds=60, epochs=3)
    assert parse_budget("peak_memory_bytes=8GB").peak_memory_bytes == 8 * 10**9
    assert parse_budget("peak_memory_bytes=1.5GiB").peak_memory_bytes == 1_610_612_736
    assert parse_budget("") == Budget()
    assert parse_budget("peak_memory_bytes=0.1GiB").peak_memory_bytes == 107_374_182
    assert parse_budget("peak_memory_bytes=2.01GB").peak_memory_bytes == 2_010_000_000
    for text in ("epochs=0", "epochs=-1", "epochs=nan", "epochs", "epoch=3", "steps=2.5", "epochs=3,epochs=4",
                 "train_seconds=5GB", "peak_memory_bytes=8XB"):  # fmt: skip
        with pytest.raises(UsageError):
            parse_budget(text)
