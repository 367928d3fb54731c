"""A measurement that fails leaves null and a note, and never costs the score."""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest

from harness.backbones.locate import BackboneFiles
from harness.features import encode
from harness.measure import memory, meters, nvml, provenance
from harness.measure.clock import PhaseClock
from harness.measure.device import Device
from harness.measure.failures import Failures
from harness.measure.meters import Meters
from harness.methods import methods
from harness.records.record import MAX_ERROR, Budget, Record
from harness.running import worker as execute
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.tasks import Task
from harness.tasks.base import TextAnswers
from tests.planted import Constant, Planted
from tests.toys import plan_one, run_one


class Broken:
    """Stands for a meter, whatever is asked of it."""

    source = "a broken counter"

    def joules(self) -> float:
        raise OSError("planted")


def breaks(*_: Any, **__: Any) -> Any:
    raise OSError("planted")


def broken_on_leaving(*_: Any, **__: Any) -> Any:
    if threading.current_thread() is threading.main_thread() and memory._running:
        raise OSError("planted")
    return 10**9


BROKEN: dict[str, tuple[Any, str, Callable[..., Any], str, Callable[[Record], Any]]] = {
    "energy counter": (execute, "energy_counter", breaks, "energy", lambda r: r.cost.energy_joules),
    "energy reading": (execute, "energy_counter", lambda _: Broken(), "energy", lambda r: r.cost.energy_joules),
    "memory": (memory, "_resident_bytes", breaks, "memory", lambda r: r.cost.peak_bytes),
    "memory while it runs": (memory, "_resident_bytes", broken_on_leaving, "memory", lambda r: r.cost.peak_rss_bytes),
    "steadiness": (meters, "Steadiness", breaks, "steadiness", lambda r: r.unsteady),
    "unevenness": (execute, "unevenness", breaks, "steadiness", lambda _: None),
    "matrix rate": (execute, "matrix_rate", breaks, "matrix_rate", lambda r: r.utilisation),
    "commit": (provenance, "source_state", breaks, "commit", lambda r: r.provenance.commit),
    "packages": (provenance, "package_versions", breaks, "packages", lambda r: r.provenance.packages or None),
    "operations": (encode, "fit_flops", breaks, "train_flops", lambda r: r.cost.train_flops),
    "size": (execute, "artifact_size_bytes", breaks, "artifact_bytes", lambda r: r.cost.artifact_bytes),
    "training score": (execute, "train_score", breaks, "train_score", lambda r: r.train_score),
    "leftovers": (execute, "Leftovers", breaks, "left_behind", lambda r: r.facts.left_behind),
}
"""Meters: what is replaced, by what, the figure's name in the note, and the figure of a record."""


@pytest.fixture(scope="module")
def sound(toy: Task, tiny: BackboneFiles, cpu: Device, warm: Worker) -> Record:
    return run_one(toy, tiny, methods.get("linear-probe")(c=1.0), cpu, worker=warm)


@pytest.fixture(scope="module")
def warm(cpu: Device) -> Worker:
    """Keeps what it has read and encoded, and needs no calibration."""
    worker = Worker(cpu, None)
    worker._rates["fp32"] = worker._rates["bf16"] = 1e9
    return worker


@pytest.mark.parametrize("meter", BROKEN)
def test_a_meter_that_fails_costs_its_figure_and_not_the_score(
    meter: str,
    sound: Record,
    toy: Task,
    tiny: BackboneFiles,
    cpu: Device,
    warm: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where, name, broken, figure, value = BROKEN[meter]
    monkeypatch.setattr(where, name, broken)
    if meter == "matrix rate":
        monkeypatch.setattr(warm, "_rates", {})
    worker = None if meter == "operations" else warm  # counted once by each worker
    record = run_one(toy, tiny, methods.get("linear-probe")(c=1.0), cpu, worker=worker)
    assert record.status == "ok", record.error
    assert record.score == sound.score
    assert value(record) is None
    assert "planted" in record.facts.missing[figure]
    assert record.cost.fit_seconds is not None
    assert not sound.facts.missing


def test_memory_that_was_not_known_when_features_were_encoded_is_not_known_later(
    toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(cpu, None)
    worker._rates["fp32"] = worker._rates["bf16"] = 1e9
    method = methods.get("linear-probe")(c=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(memory, "_resident_bytes", breaks)
        run_one(toy, tiny, method, cpu, worker=worker)
    again = run_one(toy, tiny, method, cpu, worker=worker)
    assert again.status == "ok"
    assert again.cost.peak_bytes is None
    assert "when it was computed" in again.facts.missing["memory"]
    other = run_one(toy, None, methods.get("tfidf")(), cpu, worker=worker)
    assert other.cost.peak_bytes is not None


def test_a_budget_of_operations_that_cannot_be_counted_is_refused(
    toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "fit_flops", breaks)
    record = run_one(toy, tiny, methods.get("head")(), cpu, budget=Budget(train_flops=1e9))
    assert record.status == "unsupported"
    assert "cannot be counted (OSError: planted)" in str(record.error)


class BrokenTimer:
    def __init__(self, works_for: float) -> None:
        self.left = works_for

    def mark(self) -> float:
        self.left -= 1
        return breaks() if self.left < 0 else 0.0

    seconds = breaks


@pytest.mark.parametrize("works_for", [0, 1, math.inf])
def test_an_accelerators_clock_that_fails_is_not_asked_again(works_for: float) -> None:
    clock = PhaseClock(lambda: None, BrokenTimer(works_for))
    for _ in range(2):
        with clock.phase("fit"):
            pass
    assert clock.device_seconds("fit") is None
    assert clock.seconds("fit") is not None
    assert clock.failures == {"device_fit_seconds": "OSError: planted"}


class BrokenGpu(nvml.Gpu):
    used_bytes = breaks


@pytest.mark.parametrize("found", [breaks, lambda: BrokenGpu(None, None)])
def test_a_driver_that_fails_leaves_nulls(found: Any, cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "current_gpu", found)
    running = Meters(dataclasses.replace(cpu, kind="cuda"))  # torch finds none either: its memory cannot be read
    with running:
        running.end_fit()
    assert (running.peak_driver_bytes, running.memory.peak_device_bytes, running.memory.by_part) == (None, None, {})
    assert set(running.failures) == {"driver", "memory"}


def test_a_driver_that_fails_later_leaves_nulls_too(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([1])

    class Failing(nvml.Gpu):
        def used_bytes(self) -> int:
            return next(answers, None) or breaks()

        def slowed_by(self) -> list[str]:
            return ["heat"]

        def other_processes(self) -> None:
            return None

    monkeypatch.setattr(meters, "current_gpu", lambda: Failing(None, None))
    running = Meters(dataclasses.replace(cpu, kind="cuda"))
    with running:
        pass
    assert running.peak_driver_bytes is None
    assert "planted" in running.failures["driver"]


def test_an_interrupt_is_no_failed_measurement() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Failures().guard("figure", interrupt)


def test_what_was_never_measured_is_null(toy: Task, cpu: Device) -> None:
    """Not 0: a cell that could not run has had no peak of memory."""
    never = execute.unrun(Job(plan_one(toy, None, Planted()), None, "tests"), toy, cpu, "failed", "why")
    assert never.cost.peak_rss_bytes is None
    assert never.cost.peak_bytes is None


# ---- what a method returns, raises, and leaves behind


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["text-pair", "multiple-choice"])
def test_probabilities_that_are_not_finite_fail_the_cell(
    value: float, kind: str, toy_kinds: dict[str, Task], cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Partly(Constant):
        def predict(self, rows: Any, bench: Any) -> np.ndarray:
            answers = super().predict(rows, bench)
            answers[-1, 0] = value
            return answers

    monkeypatch.setattr(Planted, "_fit", lambda _: Partly())
    monkeypatch.setattr(Planted, "forms", frozenset({"classes", "choices"}))
    record = run_one(toy_kinds[kind], None, Planted(), cpu, size="12")
    assert record.status == "failed"
    assert "not finite" in str(record.error)
    assert record.score is None
    assert record.predictions is None


@pytest.mark.parametrize("kind", ["generation", "question-answering", "translation"])
def test_confidences_of_texts_that_are_not_finite_fail_the_cell(
    kind: str, toy_kinds: dict[str, Task], cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Writing(Constant):
        def predict(self, rows: Any, bench: Any) -> Any:
            confidence = np.full(len(rows), 0.5, dtype=np.float32)
            confidence[0] = np.nan
            return TextAnswers(("some words",) * len(rows), confidence)

    monkeypatch.setattr(Planted, "_fit", lambda _: Writing())
    monkeypatch.setattr(Planted, "forms", frozenset({"text", "spans"}))
    record = run_one(toy_kinds[kind], None, Planted(), cpu, size="12")
    assert record.status == "failed"
    assert "not finite" in str(record.error)


def test_a_score_that_is_no_number_fails_the_cell(toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    score = toy.kind.score
    monkeypatch.setattr(type(toy.kind), "score", lambda _, *args: dataclasses.replace(score(*args), value=math.nan))
    record = run_one(toy, None, Planted(), cpu)
    assert record.status == "failed"
    assert "accuracy of the predictions is nan" in str(record.error)


def test_an_error_of_megabytes_keeps_its_beginning_and_its_end(toy: Task, cpu: Device) -> None:
    record = run_one(toy, None, Planted(fault="essay"), cpu)
    assert record.status == "failed"
    error = str(record.error)
    assert len(error) <= MAX_ERROR
    assert error.startswith("ValueError: xxx")
    assert "characters left out" in error
    assert "in _fit" in error


def test_an_exception_that_cannot_say_what_it_is_still_makes_a_record(
    toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MuteError(Exception):
        __str__ = breaks

    def mute(_: object) -> None:
        raise MuteError

    monkeypatch.setattr(Planted, "_fit", mute)
    record = run_one(toy, None, Planted(), cpu)
    assert record.status == "failed"
    assert str(record.error).startswith("MuteError")


def test_processes_that_a_method_leaves_behind_are_ended(toy: Task, cpu: Device) -> None:
    """Its child, and that child's own, which is detached; what was there before stays."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    record = run_one(toy, None, Planted(fault="children"), cpu)
    assert record.status == "ok"
    assert record.facts.left_behind == "2 processes, ended"
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_a_thread_that_a_method_leaves_busy_spoils_the_worker(toy: Task, cpu: Device) -> None:
    released = threading.Event()

    def burn() -> None:
        while not released.is_set():
            pass

    worker = Worker(cpu, None)
    try:
        with pytest.MonkeyPatch.context() as patch:

            def start(_: object) -> Constant:
                threading.Thread(target=burn, daemon=True).start()
                threading.Thread(target=functools.partial(released.wait, 60), daemon=True).start()  # idle: no matter
                return Constant()

            patch.setattr(Planted, "_fit", start)
            record = run_one(toy, None, Planted(), cpu, worker=worker)
    finally:
        released.set()
    assert record.status == "ok"
    assert record.facts.left_behind == "1 busy thread"
    assert worker.is_spoilt
