"""An accelerator that fails takes its process with it: the cell has its record, and the next runs in a new process."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.choose.runner import Runner
from harness.measure import memory, meters, nvml
from harness.measure.clock import PhaseClock
from harness.measure.device import Device
from harness.measure.faults import device_failure, failure_of
from harness.measure.meters import Meters
from harness.methods.configure import parse_methods
from harness.planning.plan import PlannedCell
from harness.records.record import Record
from harness.running.worker import Worker
from harness.schedule.drive import run_cells
from harness.schedule.local import LocalWorkers
from harness.schedule.messages import Workers
from harness.schedule.pending import Claims
from harness.schedule.prepare import Prepared
from harness.schedule.ray_workers import RayWorkers
from harness.store.store import Store
from harness.support.errors import OutOfMemoryError
from harness.tasks import Rows, Task
from tests.executors import Quiet, needs_ray
from tests.planted import DEVICE_ERROR, Constant, Planted
from tests.toys import plan_one, run_one
from tests.warm_workers import worker_processes

FIRST_LINE = "CUDA error: device-side assert triggered"


# ---- which errors mean that the device has failed


@pytest.mark.parametrize(
    "text",
    [
        DEVICE_ERROR,
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: unspecified launch failure",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: misaligned address",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k)`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "Triton Error [CUDA]: an illegal memory access was encountered",
    ],
)
def test_errors_after_which_nothing_runs_are_recognised(text: str) -> None:
    first = text.partition("\n")[0]
    assert device_failure(RuntimeError(text)) == first
    assert device_failure(torch.AcceleratorError(text)) == first
    wrapped = ValueError("the method failed")
    wrapped.__cause__ = RuntimeError(text)
    assert device_failure(wrapped) == first


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        torch.AcceleratorError("CUDA error: out of memory"),
        torch.AcceleratorError("CUDA error: invalid configuration argument"),
        torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("an unknown error of a server"),
        ValueError(DEVICE_ERROR),
        OutOfMemoryError("The cell needed 5 bytes above the baseline"),
    ],
)
def test_other_errors_leave_the_device_alive(error: Exception) -> None:
    assert device_failure(error) is None


def test_an_unknown_error_of_the_accelerator_counts_as_a_failure() -> None:
    assert device_failure(torch.AcceleratorError("CUDA error: something new\nand more")) == "CUDA error: something new"


# ---- a run goes on


def run_with(workers: Workers, cells: list[PlannedCell], task: Task, device: Device, folder: Path) -> list[Record]:
    listener = Quiet()
    prepared = Prepared("planted", tuple(cells), {task.name: task}, {}, device)
    with Store.open(folder / "faults.sqlite") as store:
        assert run_cells(prepared, store, listener, workers).n_run == len(cells)
        found = {record.id: record for record in store.records()}
    assert listener.remarks == []  # no worker died
    return [found[planned.cell.id] for planned in cells]


def check(records: list[Record]) -> None:
    assert [record.status for record in records] == ["ok", "failed", "ok", "ok"]
    error = str(records[1].error)
    assert error.startswith(f"The device failed: {FIRST_LINE}. Nothing more can run on it in this process")
    assert "AcceleratorError" in error
    assert "in fail_the_device" in error
    assert records[1].cost.fit_seconds is not None
    assert records[2].provenance.started_at >= records[1].provenance.started_at


@pytest.fixture
def cells(toy: Task) -> list[PlannedCell]:
    """A cell that is fine, one whose device fails, another, and one of a method that needs no device."""
    planted = [plan_one(toy, None, Planted(fault=fault)) for fault in ("none", "device", "nap 0")]
    return [*planted, plan_one(toy, None, parse_methods(["tfidf"])[0], size="48")]


def test_a_cell_after_a_device_side_error_is_ok(
    cells: list[PlannedCell], toy: Task, cpu: Device, tmp_path: Path
) -> None:
    threads = threading.active_count()
    with LocalWorkers("cpu", None) as workers:
        check(run_with(workers, cells, toy, cpu, tmp_path))
    assert worker_processes() == []
    assert n_threads_at_rest(threads) <= threads


@needs_ray
@pytest.mark.slow
def test_a_cell_after_a_device_side_error_is_ok_with_ray(
    cells: list[PlannedCell], toy: Task, cpu: Device, tmp_path: Path
) -> None:
    with RayWorkers("cpu", None, n_workers=1) as workers:
        check(run_with(workers, cells, toy, workers.device, tmp_path))


def test_choose_goes_on_after_a_device_side_error(
    cells: list[PlannedCell], toy: Task, cpu: Device, tmp_path: Path
) -> None:
    with (
        LocalWorkers("cpu", None) as workers,
        Store.open(tmp_path / "store.sqlite") as store,
        Claims(store, cpu.name, retry_failed=False) as claims,
    ):
        runner = Runner(workers, store, claims, {toy.name: toy})
        until = time.monotonic() + 60
        check([record for planned in cells if (record := runner.run(planned, toy, until)) is not None])


def test_without_a_new_process_later_cells_say_why(toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of the caller's own, where nobody replaces it."""
    monkeypatch.setattr(Planted, "_fit", raises(torch.AcceleratorError(DEVICE_ERROR)))
    worker = Worker(cpu, None)
    first = run_one(toy, None, Planted(fault="a"), cpu, worker=worker)
    assert worker.is_spoilt
    assert FIRST_LINE in str(first.error)
    later = run_one(toy, None, parse_methods(["majority"])[0], cpu, worker=worker)
    assert later.status == "failed"
    assert f"failed in an earlier cell of this process: {FIRST_LINE}. Start a new process." in str(later.error)


# ---- a failure that shows late, or that a method hides


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def _synchronise() -> None: ...


@pytest.fixture
def accelerator(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device of the kind `cuda` without its own memory and clock."""
    monkeypatch.setattr(Device, "synchronise", lambda _: _synchronise())
    monkeypatch.setattr(f"{__name__}._synchronise", lambda: None)
    return dataclasses.replace(cpu, kind="cuda")


def test_a_failure_that_a_method_swallows_is_found(
    toy: Task, accelerator: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here in the score on training rows, which may fail: the cell keeps its score, and its process is replaced."""

    class Late(Constant):
        def predict(self, rows: Rows, bench: Any) -> np.ndarray:
            if len(rows) < len(toy.test):  # training rows
                monkeypatch.setattr(f"{__name__}._synchronise", raises(torch.AcceleratorError(DEVICE_ERROR)))
                raise torch.AcceleratorError(DEVICE_ERROR)
            return super().predict(rows, bench)

    monkeypatch.setattr(Planted, "_fit", lambda _: Late())
    worker = Worker(accelerator, None)
    record = run_one(toy, None, Planted(), accelerator, worker=worker, size="12")
    assert record.status == "ok"
    assert record.score is not None
    assert FIRST_LINE in record.facts.missing["train_score"]
    assert worker.is_spoilt


def test_a_failure_that_shows_at_the_end_of_a_phase_fails_the_cell(
    toy: Task, accelerator: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(_: object) -> Constant:
        monkeypatch.setattr(f"{__name__}._synchronise", raises(torch.AcceleratorError(DEVICE_ERROR)))
        return Constant()

    monkeypatch.setattr(Planted, "_fit", fit)
    record = run_one(toy, None, Planted(), accelerator, worker=(worker := Worker(accelerator, None)))
    assert record.status == "failed"
    assert str(record.error).startswith(f"The device failed: {FIRST_LINE}.")
    assert worker.is_spoilt


def test_a_clock_keeps_the_first_error_and_its_seconds() -> None:
    works = True

    def synchronise() -> None:
        if not works:
            raise torch.AcceleratorError("CUDA error: a later report")

    def fit() -> None:
        nonlocal works
        with clock.phase("tune"), clock.phase("fit"):
            works = False
            time.sleep(0.01)
            raise torch.AcceleratorError(DEVICE_ERROR)

    clock = PhaseClock(synchronise)
    with pytest.raises(torch.AcceleratorError, match="device-side assert"):
        fit()
    assert clock.standing()[1] is None
    assert (clock.seconds("fit") or 0) >= 0.01


def test_a_device_that_does_not_answer_has_failed(accelerator: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(Device, "synchronise", lambda _: released.wait(30) and None)
    assert failure_of(accelerator, 0.05) == "it did not answer for 0.05 s"
    released.set()
    assert failure_of(accelerator, 5.0) is None


# ---- no thread stays behind


def n_threads_at_rest(expected: int) -> int:
    """Return the number of threads, once those that are ending have ended."""
    until = time.monotonic() + 5
    while threading.active_count() > expected and time.monotonic() < until:
        time.sleep(0.01)
    return threading.active_count()


class FakeGpu(nvml.Gpu):
    def __init__(self) -> None: ...

    def used_bytes(self) -> int:
        return 7

    def slowed_by(self) -> list[str]:
        return []

    def other_processes(self) -> None:
        return None


@pytest.fixture
def watched(accelerator: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    """An accelerator with a driver that is watched, on a host whose memory is sampled by a thread."""
    monkeypatch.setattr(meters, "current_gpu", FakeGpu)
    monkeypatch.setattr(memory, "_reset_high_water", lambda: False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: 0)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    return accelerator


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "ok"),
        (ValueError("planted"), "failed"),
        (torch.AcceleratorError(DEVICE_ERROR), "failed"),
        (OutOfMemoryError("planted"), "out_of_memory"),
        (KeyboardInterrupt(), None),
    ],
)
def test_threads_end_with_the_cell(
    error: BaseException | None, status: str | None, toy: Task, watched: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []

    def fit(_: object) -> Constant:
        seen.append({thread.name for thread in threading.enumerate()})
        if error is not None:
            raise error
        return Constant()

    monkeypatch.setattr(Planted, "_fit", fit)
    threads = threading.active_count()
    expected = contextlib.nullcontext() if status else pytest.raises(KeyboardInterrupt)
    with expected:
        record = run_one(toy, None, Planted(), watched)
        assert record.status == status
        assert record.cost.peak_driver_bytes == 7
    assert {"driver-watch", "memory-sampler"} <= seen[0]
    assert n_threads_at_rest(threads) <= threads
    assert memory._running == []


@pytest.mark.parametrize("at", ["empty_cache", "reset_peak_memory_stats", "max_memory_allocated"])
def test_an_interrupt_while_meters_begin_or_end_leaves_no_thread(
    at: str, watched: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = threading.active_count()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.cuda, at, interrupt)
    with pytest.raises(KeyboardInterrupt), Meters(watched):
        pass
    assert n_threads_at_rest(threads) <= threads
    assert memory._running == []


def test_a_driver_that_hangs_stops_no_cell(watched: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(FakeGpu, "used_bytes", lambda _: released.wait(30) or 7)
    monkeypatch.setattr(nvml, "_ANSWER_SECONDS", 0.05)
    began = time.monotonic()
    with (running := Meters(watched)):
        pass
    assert time.monotonic() - began < 5
    assert running.peak_driver_bytes is None
    assert "did not answer for 0.05 s" in running.failures["driver"]
    released.set()


@pytest.fixture(autouse=True)
def _no_leftover_patches() -> Iterator[None]:
    """`fail_the_device` is for worker processes: none of its patches may reach this one."""
    before = torch.Tensor.to
    yield
    assert torch.Tensor.to is before
