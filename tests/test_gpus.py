"""Several GPUs: each worker sees one of its own, and figures of different models are never mixed. Needs no GPU."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections import deque
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles
from harness.backbones.room import check_room
from harness.measure import gpus, nvml
from harness.measure.device import Device, find_device, gpu_numbers
from harness.measure.gpus import Driver, ListedGpu, gpu_masks, nvidia_driver
from harness.measure.memory import memory_bytes_of
from harness.measure.numerics import numerics_of
from harness.methods.configure import parse_methods
from harness.records.record import Budget, Record
from harness.schedule import local
from harness.schedule.drive import run_cells
from harness.schedule.local import LocalWorkers
from harness.schedule.messages import Begun, Done, FromWorker, Ready
from harness.schedule.prepare import Prepared
from harness.schedule.shares import Share, plan_shares
from harness.schedule.slot import Limits
from harness.store.store import Store
from harness.support.errors import OutOfMemoryError, UsageError
from harness.tasks import Task
from tests.executors import Quiet
from tests.planted import Planted
from tests.toys import plan_one, run_one

A100, T4 = "NVIDIA A100-SXM4-40GB", "Tesla T4"


def listed(*names: str) -> Driver:
    return Driver("580.1", tuple(ListedGpu(i, name, f"GPU-{i}{i}", 40 << 30) for i, name in enumerate(names)))


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs of one model, as the driver and torch's file of versions describe it."""
    list_gpus(monkeypatch, A100, A100)


def list_gpus(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "nvidia_driver", lambda: listed(*names))
    monkeypatch.setattr(gpus, "_torch_has_cuda", lambda: True)


# ---- which GPUs there are


@pytest.mark.parametrize(
    ("given", "masks"),
    [
        (None, ["0", "1", "2"]),
        ("2,0", ["2", "0"]),
        (" 1 , 2", ["1", "2"]),
        ("", []),
        ("-1", []),
        ("1,-1,0", ["1"]),  # CUDA ignores what follows an invalid one
        ("0,7,1", ["0"]),
        ("GPU-11,GPU-22", ["GPU-11", "GPU-22"]),
        ("MIG-a,MIG-b", ["MIG-a", "MIG-b"]),
    ],
)
def test_the_users_choice_of_gpus_is_respected(
    given: str | None, masks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list_gpus(monkeypatch, A100, A100, A100)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert gpu_masks() == masks


def test_a_torch_without_cuda_has_no_gpus(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_masks() == ["0", "1"]
    monkeypatch.setattr(gpus, "_torch_has_cuda", lambda: False)
    assert gpu_masks() == []


def test_torchs_file_of_versions_says_whether_it_has_cuda() -> None:
    assert gpus._torch_has_cuda() == (torch.version.cuda is not None)


class FakeLibrary:
    """The driver's library of a machine with two GPUs, of which the second is split."""

    def __init__(self, name: str) -> None:
        assert name == "libnvidia-ml.so.1"

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, _: int) -> int:  # noqa: N802
        text.value = b"580.65.06"
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number: Any, handle: Any) -> int:  # noqa: N802
        handle._obj.value = number.value + 1
        return 0

    def nvmlDeviceGetName(self, handle: Any, text: Any, _: int) -> int:  # noqa: N802
        text.value = (A100, T4)[handle.value - 1].encode()
        return 0

    def nvmlDeviceGetUUID(self, handle: Any, text: Any, _: int) -> int:  # noqa: N802
        text.value = f"GPU-{handle.value}".encode()
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        memory._obj.total = handle.value << 34
        return 0

    def nvmlDeviceGetMigMode(self, handle: Any, current: Any, _: Any) -> int:  # noqa: N802
        current._obj.value = int(handle.value == 2)
        return 0


def test_the_driver_lists_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus.ctypes, "CDLL", FakeLibrary)
    found = nvidia_driver.__wrapped__()
    assert found == Driver(
        "580.65.06",
        (ListedGpu(0, A100, "GPU-1", 1 << 34), ListedGpu(1, T4, "GPU-2", 2 << 34, is_split=True)),
    )


def test_without_a_driver_nothing_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")

    monkeypatch.setattr(gpus.ctypes, "CDLL", absent)
    assert nvidia_driver.__wrapped__() is None


# ---- what each worker gets


def places(shares: list[Share]) -> list[tuple[str | None, int, str]]:
    return [(share.gpu, share.n_sharing, f"{share.number}/{share.n_workers}") for share in shares]


@pytest.mark.parametrize(
    ("device", "n_at_a_time", "all_gpus", "expected"),
    [
        ("auto", 1, True, [("0", 1, "0/2"), ("1", 1, "1/2")]),
        ("cuda", 1, True, [("0", 1, "0/2"), ("1", 1, "1/2")]),
        ("cuda", 1, False, [("0", 1, "0/1")]),
        ("cuda:1", 1, True, [("1", 1, "0/1")]),
        ("cuda:1,0", 1, True, [("1", 1, "0/2"), ("0", 1, "1/2")]),
        ("cuda", 2, True, [("0", 2, "0/4"), ("1", 2, "1/4"), ("0", 2, "2/4"), ("1", 2, "3/4")]),
        ("cpu", 2, True, [(None, 2, "0/2"), (None, 2, "1/2")]),
    ],
)
def test_worker_i_gets_gpu_i(
    device: str, n_at_a_time: int, all_gpus: bool, expected: list[Any], two_gpus: None
) -> None:
    assert places(plan_shares(device, n_at_a_time, all_gpus=all_gpus)) == expected


def test_a_gpu_that_is_not_there_is_refused(two_gpus: None) -> None:
    with pytest.raises(UsageError, match=r"'cuda:2' was asked for; .* here: cuda:0, cuda:1\."):
        plan_shares("cuda:0,2", all_gpus=True)
    with pytest.raises(UsageError, match="expected auto, cpu, cuda or cuda:NUMBER"):
        gpu_numbers("cuda:one")


def test_without_gpus_all_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "nvidia_driver", lambda: None)
    assert places(plan_shares("auto", 2, all_gpus=True)) == [(None, 2, "0/2"), (None, 2, "1/2")]
    with pytest.raises(UsageError, match="'cuda:1' was asked for and torch finds no CUDA device"):
        find_device("cuda:1")


def run_on(workers: LocalWorkers, faults: list[str], task: Task, device: Device, folder: Path) -> list[Record]:
    cells = [plan_one(task, None, Planted(fault=fault)) for fault in faults]
    with Store.open(folder / "gpus.sqlite") as store:
        run_cells(Prepared("gpus", tuple(cells), {task.name: task}, {}, device), store, Quiet(), workers)
        return list(store.records())


def test_two_cells_run_at_a_time_each_on_its_own_gpu(
    toy: Task, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In real processes, on processors: the driver's own process never starts CUDA."""
    shares = [Share("cpu", gpu=gpu, number=number, n_workers=2) for number, gpu in enumerate(("3", "GPU-5"))]
    monkeypatch.setattr(local, "plan_shares", lambda *_, **__: shares)
    monkeypatch.setattr(LocalWorkers, "_choose_gpus", lambda self: self._slots[0].device())
    monkeypatch.setattr(torch.cuda, "_lazy_init", pytest.fail)
    with LocalWorkers("cuda", None) as workers:
        device = workers.device
        records = run_on(workers, ["place 1", "place 2"], toy, device, tmp_path)
    found = [re.search(r"GPU (\S+), processors \[(.*)\]", str(record.error)) for record in records]
    assert {one[1] for one in found if one} == {"3", "GPU-5"}
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) >= 2:
        first, second = (set(one[2].split(", ")) for one in found if one)
        assert first
        assert not first & second
    assert device.cells_at_a_time == 1


# ---- GPUs of different models, broken and lost ones


class FakeProcess:
    """A worker process that says at once which device it sees, and that every cell is done."""

    devices: ClassVar[dict[str | None, list[str | None]]] = {}
    """Names of the device by GPU, one for each process that starts; the last stays. None is no device."""

    made: ClassVar[list[tuple[str | None, str | None]]] = []

    def __init__(self, news: Any, share: Share, expected: str | None, cache: str | None, grace: float) -> None:
        self.made.append((share.gpu, expected))
        names = self.devices[share.gpu]
        name = names.pop(0) if len(names) > 1 else names[0]
        kind: Any = "cpu" if name == "a processor" else "cuda"
        device = None if name is None else Device(kind, name, 1, native_bf16=True).shared_by(share.n_sharing)
        why = None
        if expected is not None and name != expected:
            device, why = None, f"A new worker found the device '{name}' in place of '{expected}'."
        elif name is None:
            why = "It cannot be used: CUDA error: uncorrectable ECC error encountered."
        self.received: deque[FromWorker] = deque([Ready(device, why)])
        self.is_dead = device is None
        self.share = share
        self.worker_device = device
        self._news = news

    def is_alive(self) -> bool:
        return not self.is_dead

    def send(self, message: Any) -> None:
        from harness.running.attempt import Job
        from harness.running.worker import unrun

        if self.worker_device is not None and isinstance(message, Job):
            record = unrun(message, self.task, self.worker_device, "failed", f"ran on {self.share.gpu}")
            self.received += [Begun(0), Done(record, is_last=True)]
        self._news.set()

    def next(self) -> FromWorker | None:
        if self.received:
            return self.received.popleft()
        if self.is_dead:
            raise EOFError
        return None

    def death(self) -> tuple[str, bool]:
        return "exited with status 0", False

    def last_output(self) -> str:
        return ""

    def is_stopped(self) -> bool:
        return False

    def resident_bytes(self) -> int:
        return 0

    def end(self) -> None:
        self.is_dead = True

    bury = end
    task: ClassVar[Any] = None


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch, toy: Task) -> type[FakeProcess]:
    monkeypatch.setattr(local, "LocalProcess", FakeProcess)
    monkeypatch.setattr(FakeProcess, "made", [])
    monkeypatch.setattr(FakeProcess, "task", toy)
    return FakeProcess


def see(processes: type[FakeProcess], **devices: list[str | None]) -> None:
    processes.devices = {mask.strip("_"): list(names) for mask, names in devices.items()}


def test_cells_are_spread_over_gpus_of_one_model(
    two_gpus: None, processes: type[FakeProcess], toy: Task, tmp_path: Path
) -> None:
    see(processes, _0=[A100], _1=[A100])
    with LocalWorkers("auto", None, all_gpus=True, limits=Limits(host_bytes=100)) as workers:
        assert workers.device.name == A100
        assert workers.n_free == 2
        records = run_on(workers, ["a", "b", "c", "d"], toy, workers.device, tmp_path)
        assert [slot._limits.host_bytes for slot in workers._slots] == [50, 50]
    assert {record.device for record in records} == {A100}
    assert sorted(str(record.error) for record in records) == ["ran on 0"] * 2 + ["ran on 1"] * 2
    assert workers.remarks == []
    assert {("0", A100), ("1", A100)} <= set(processes.made)  # replaced by one that expects the same


def test_gpus_of_another_model_are_not_used(
    monkeypatch: pytest.MonkeyPatch, processes: type[FakeProcess], toy: Task, tmp_path: Path
) -> None:
    list_gpus(monkeypatch, A100, T4, A100)
    see(processes, _0=[A100], _1=[T4], _2=[A100])
    with LocalWorkers("cuda", None, all_gpus=True) as workers:
        assert workers.device.name == A100
        records = run_on(workers, ["a", "b", "c"], toy, workers.device, tmp_path)
    assert workers.remarks == [f"GPU 1 is not used: it is '{T4}', and figures of '{A100}' are not pooled with it."]
    assert {str(record.error) for record in records} == {"ran on 0", "ran on 2"}


def test_named_gpus_of_different_models_are_refused(
    monkeypatch: pytest.MonkeyPatch, processes: type[FakeProcess]
) -> None:
    list_gpus(monkeypatch, A100, T4)
    see(processes, _0=[A100], _1=[T4])
    with LocalWorkers("cuda:0,1", None, all_gpus=True) as workers, pytest.raises(UsageError, match="GPU 1: It is"):
        _ = workers.device
    with LocalWorkers("cuda:1", None, all_gpus=True) as workers:
        assert workers.device.name == T4


def test_throughput_counts_cells_on_each_gpu(two_gpus: None, processes: type[FakeProcess]) -> None:
    see(processes, _0=[A100], _1=[A100])
    with LocalWorkers("cuda", None, n_workers=3, all_gpus=True) as workers:
        assert workers.device.name == f"{A100}, 3 cells at a time"
        assert workers.n_free == 6


def test_a_gpu_that_does_not_work_is_left_out(two_gpus: None, processes: type[FakeProcess]) -> None:
    see(processes, _0=[None], _1=[A100])
    with LocalWorkers("cuda", None, all_gpus=True) as workers:
        assert workers.device.name == A100
        assert workers.n_free == 1
        assert workers.remarks == [
            "GPU 0 is not used: it cannot be used: CUDA error: uncorrectable ECC error encountered."
        ]
    see(processes, _0=[None], _1=[None])
    with (
        LocalWorkers("cuda", None, all_gpus=True) as workers,
        pytest.raises(UsageError, match=r"No GPU can be used\.\nIt cannot"),
    ):
        _ = workers.device


def test_a_gpu_that_is_lost_in_a_run_is_left_out_and_the_last_one_ends_the_run(
    two_gpus: None, processes: type[FakeProcess], toy: Task, tmp_path: Path
) -> None:
    """A new worker that finds a processor instead of the GPU runs no cell: its figures would be another device's."""
    see(processes, _0=[A100, "a processor"], _1=[A100])
    with LocalWorkers("cuda", None, all_gpus=True) as workers:
        records = run_on(workers, ["a", "b", "c", "d"], toy, workers.device, tmp_path)
        assert len(records) == 4
        assert [str(record.error) for record in records].count("ran on 0") == 1
        assert workers.remarks == [
            f"GPU 0 is not used: a new worker found the device 'a processor' in place of '{A100}'."
        ]
    see(processes, _0=[A100, "a processor"], _1=[A100, "a processor"])
    with (
        LocalWorkers("cuda", None, all_gpus=True) as workers,
        pytest.raises(UsageError, match=r"found the device 'a processor' .* stay missing: the same command resumes"),
    ):
        run_on(workers, ["e", "f", "g", "h"], toy, workers.device, tmp_path)
    with Store.open(tmp_path / "gpus.sqlite") as store:
        assert len(list(store.records())) == 6
        assert store.claimed() == set()


def test_gpus_that_torch_cannot_use_leave_the_processor(two_gpus: None, processes: type[FakeProcess]) -> None:
    see(processes, _0=["a processor"], _1=["a processor"])
    processes.devices[None] = ["a processor"]
    with LocalWorkers("auto", None, all_gpus=True) as workers:
        assert workers.device.kind == "cpu"
        assert workers.n_free == 1


# ---- what is measured of a GPU


def test_the_memory_of_a_workers_gpu_is_known_without_cuda(monkeypatch: pytest.MonkeyPatch, cpu: Device) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", pytest.fail)
    assert memory_bytes_of(Device("cuda", A100, 1, native_bf16=True, memory_bytes=123), 5) == 123.0
    assert memory_bytes_of(cpu, 5) == 5.0


class FakeNvml:
    NVMLError = ValueError

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, name: bytes) -> bytes:  # noqa: N802
        return name


@pytest.mark.parametrize(
    ("mask", "name", "handle"),
    [
        ("1", A100, b"GPU-torch"),
        ("GPU-9", A100, b"GPU-torch"),
        ("MIG-9", f"{A100} MIG 1g.5gb", b"MIG-9"),
        ("0", f"{A100} MIG 1g.5gb", None),
    ],
)
def test_the_driver_is_asked_about_the_workers_own_gpu(
    mask: str, name: str, handle: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = type("Facts", (), {"name": name, "uuid": "torch"})
    monkeypatch.setitem(__import__("sys").modules, "pynvml", FakeNvml())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: facts)
    found = nvml.current_gpu.__wrapped__()
    assert (None if found is None else found._handle) == handle


@pytest.mark.parametrize(
    ("gigabytes", "dtype", "refused"),
    [(9, torch.float32, False), (7, torch.float32, True), (7, torch.bfloat16, False), (3, torch.bfloat16, True)],
)
def test_weights_larger_than_the_gpu_are_refused_before_they_are_moved(
    gigabytes: int, dtype: torch.dtype, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = type("Facts", (), {"total_memory": gigabytes * 10**9})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: facts)
    with torch.device("meta"):  # 2 billion parameters: 8 GB in float32, 4 in bfloat16
        model = torch.nn.Linear(40_000, 50_000)
    types = {id(value): dtype for value in model.parameters()}
    parameters = list(model.parameters())
    expected = (
        pytest.raises(OutOfMemoryError, match=r"'big' take .* Try qlora") if refused else contextlib.nullcontext()
    )
    with expected as caught:
        check_room("big", parameters, types, torch.device("cuda"))
    if refused and caught is not None:
        assert ("precision=bf16" in str(caught.value)) == (dtype is torch.float32)
    check_room("big", parameters, types, torch.device("cpu"))


def test_records_state_how_torch_computed(toy: Task, cpu: Device) -> None:
    record = run_one(toy, None, Planted(), cpu)
    assert record.provenance.numerics == {
        "deterministic": False,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    assert not torch.are_deterministic_algorithms_enabled()  # in this process; a run sets it in its workers
    on_gpu = dataclasses.replace(cpu, kind="cuda")
    assert numerics_of(on_gpu).items() >= {"tf32": False, "cudnn_benchmark": False, "deterministic": False}.items()


def test_deterministic_kernels_are_part_of_the_provenance_and_not_of_the_identity(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    """On a CPU the kernels are the same, and so are the scores."""
    planned = plan_one(toy, tiny, parse_methods(["lora"])[0], size="24", budget=Budget(steps=3))
    prepared = Prepared("gpus", (planned,), {toy.name: toy}, {toy.name: (tiny,)}, cpu)
    records = []
    for deterministic in (False, True):
        with (
            LocalWorkers("cpu", None, deterministic=deterministic) as workers,
            Store.open(tmp_path / f"{deterministic}.sqlite") as store,
        ):
            run_cells(prepared, store, Quiet(), workers)
            records += list(store.records(with_predictions=True))
    assert [record.status for record in records] == ["ok", "ok"]
    assert [record.provenance.numerics["deterministic"] for record in records] == [False, True]
    first, second = records
    assert first.id == second.id
    assert first.score == second.score
    assert first.predictions is not None
    assert second.predictions is not None
    assert np.array_equal(first.predictions.confidence, second.predictions.confidence)
