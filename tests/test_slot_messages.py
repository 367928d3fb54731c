"""Messages of a worker about another cell than the one it runs now, simulated without processes."""

from __future__ import annotations

import dataclasses
import multiprocessing
import threading
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from harness.methods import methods
from harness.records.record import Budget, Record
from harness.running.attempt import Job
from harness.running.watch import Standing
from harness.schedule import worker_process
from harness.schedule.local import LocalSlot
from harness.schedule.local_process import LocalProcess
from harness.schedule.messages import Alive, Begun, Done, Ready, Stopped
from harness.schedule.shares import Share
from harness.schedule.slot import Limits
from harness.support.errors import UsageError
from harness.tasks import Task
from tests.record_factory import make_record
from tests.toys import plan_one


class Process(LocalProcess):
    """Stands for a worker's process: messages that came are put in by the test."""

    def __init__(self) -> None:
        self.came: deque[Any] = deque()
        self.sent: list[Any] = []

    def is_alive(self) -> bool:
        return True

    def is_stopped(self) -> bool:
        return False

    def resident_bytes(self) -> int:
        return 0

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def next(self) -> Any:
        return self.came.popleft() if self.came else None


def job_of(task: Task, n_train: int, seconds: float | None = None) -> Job:
    budget = Budget(train_seconds=seconds)
    return Job(plan_one(task, None, methods.get("majority")(), size=str(n_train), budget=budget), None, "suite", 1)


def record_of(job: Job) -> Record:
    return dataclasses.replace(make_record(), cell=job.planned.cell, attempt=job.attempt)


@pytest.fixture
def slot() -> tuple[LocalSlot, Process]:
    made = LocalSlot(Share("cpu"), None, Limits(), threading.Event())
    made._process = process = Process()
    return made, process


def test_a_second_record_of_the_cell_before_is_not_that_of_the_next(slot: tuple[LocalSlot, Process], toy: Task) -> None:
    made, process = slot
    first, second = job_of(toy, 8), job_of(toy, 16)
    made.start(first, toy, 0.0)
    process.came += [Begun(0), Done(record_of(first)), Done(record_of(first))]
    assert [type(event) for event in made.receive(1.0)] == [Begun, Done]
    made.start(second, toy, 2.0)
    process.came += [Begun(0), Done(record_of(first)), Done(record_of(second))]
    events = made.receive(3.0)
    assert [type(event) for event in events] == [Begun, Done]
    assert events[1].record.id == second.id  # type: ignore[union-attr]
    assert made.job is None
    again = dataclasses.replace(second, attempt=2)
    made.start(again, toy, 4.0)
    process.came += [Begun(0), Done(record_of(second))]
    assert [type(event) for event in made.receive(5.0)] == [Begun]
    assert made.job is again


def test_seconds_of_the_cell_before_are_not_counted_against_the_next(
    slot: tuple[LocalSlot, Process], toy: Task
) -> None:
    made, process = slot
    job = job_of(toy, 8, seconds=1.0)
    made.start(job, toy, 0.0)
    process.came.append(Alive(Standing("fitting", "counted", 100.0, 1, ("f" * 32, 1))))
    assert made.receive(1.0) == []
    assert made.over(1.1) is None
    process.came.append(Begun(0))
    made.receive(1.2)
    process.came.append(Alive(Standing("fitting", "counted", 100.0, 1, (job.id, job.attempt))))
    made.receive(1.3)
    assert isinstance(made.over(1.4), Stopped)


def test_a_device_that_is_not_there_is_refused_in_the_workers_own_words(slot: tuple[LocalSlot, Process]) -> None:
    made, process = slot
    process.came.append(Ready(None, "Device 'cuda' was asked for and torch finds no CUDA device; try --device cpu."))
    with pytest.raises(UsageError, match=r"^Device 'cuda' was asked for"):
        made.device()


def test_a_worker_sends_one_record_of_each_cell(toy: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that cuts a cell may have its record ready when the cell ends by itself."""
    codes: list[int] = []
    monkeypatch.setattr(worker_process.os, "_exit", codes.append)
    ours, theirs = multiprocessing.Pipe()
    channel = worker_process._Channel(theirs)
    first, second = job_of(toy, 8), job_of(toy, 16)
    for job in (first, second, second):  # one cell may be run twice, for two stores
        channel.begin(job, 0)
        channel.end(Done(record_of(job)))
        channel.end(Done(record_of(job), is_last=True))
    channel.begin(second, 0)
    channel.end(Done(record_of(first), is_last=True))
    assert codes == []
    channel.end(Done(record_of(second), is_last=True))
    assert codes == [0]
    came = []
    while ours.poll():
        came.append(ours.recv())
    ended = [message.record.id for message in came if isinstance(message, Done)]
    assert ended == [first.id, second.id, second.id, second.id]


def test_a_death_is_told_where_there_is_no_sigkill(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process()
    process._process = SimpleNamespace(join=lambda _: None, exitcode=-11)  # type: ignore[assignment]
    monkeypatch.setattr(process, "bury", lambda: None)
    monkeypatch.delattr("signal.SIGKILL")
    assert process.death() == ("was killed by signal 11 (SIGSEGV)", False)
