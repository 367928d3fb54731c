"""Worker processes on this machine: they run cells, they are watched, and a run survives their death."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from harness.backbones import BackboneFiles
from harness.measure import Device
from harness.running import AttentiveClock, Job
from harness.schedule.local_process import LocalProcess
from harness.schedule.messages import CheckBackbone, Checked, Event, FromWorker, Give, Lost, Ready, Stopped
from harness.schedule.slot import Limits, Slot, SlotWorkers, over_memory
from harness.support import UsageError
from harness.tasks import Task

_MOST_STARTS = 2
"""Workers that may die before their first cell: the first may have been an accident."""

_WAIT_SECONDS = 0.5

_Answer = TypeVar("_Answer", bound=Ready | Checked)


class LocalSlot(Slot):
    """A place for one worker process on this machine, which is restarted after it has died.

    Args:
        device: `auto`, `cpu` or `cuda`.
        cache: folder of the feature cache; None keeps features in memory only.
        n_workers: number of workers that share the device.
        limits: limits on a cell.
        news: set whenever the worker has sent something.
    """

    def __init__(self, device: str, cache: Path | None, n_workers: int, limits: Limits, news: threading.Event) -> None:
        super().__init__(limits)
        self._device_name = device
        self._cache = None if cache is None else str(cache)
        self._n_workers = n_workers
        self._news = news
        self._process: LocalProcess | None = None
        self._given: dict[str, Task] = {}
        self._device: Device | None = None

    def warm_up(self) -> LocalProcess:
        """Return the process; start one if there is none."""
        if self._process is not None and self._process.is_alive():
            return self._process
        if self._process is not None:
            self._process.bury()
        self._given = {}
        grace = self._limits.own_grace_seconds
        self._process = LocalProcess(self._news, self._device_name, self._cache, self._n_workers, grace)
        return self._process

    def device(self) -> Device:
        """Return the worker's device; wait until it is known.

        Raises:
            UsageError: there is no such device, or the worker does not start.
        """
        lost = Lost("was not started")
        for _ in range(_MOST_STARTS):
            if self._device is not None:
                return self._device
            self.warm_up()
            ready = self._await(Ready)
            if isinstance(ready, Lost):
                lost = ready
            elif ready.device is not None:
                return ready.device
            else:
                raise UsageError(ready.why_not or "The worker has no device.")
        raise UsageError(f"The worker that runs cells did not start: it {lost.how}. {lost.said}")

    def check(self, files: BackboneFiles) -> str | None:
        """Return why a backbone cannot be loaded; None where it can."""
        lost = Lost("was not started")
        for _ in range(_MOST_STARTS):
            self.warm_up().send(CheckBackbone(files))
            checked = self._await(Checked)
            if isinstance(checked, Checked):
                return checked.why
            lost = checked
        return f"Backbone '{files.name}' could not be loaded: the worker that tried {lost.how}. {lost.said}"

    def start(self, job: Job, task: Task, now: float) -> None:
        """Give the worker a cell; start one if there is none."""
        process = self.warm_up()
        self._assign(job, now)
        if self._given.get(task.name) is not task:
            process.send(Give(task))
            self._given[task.name] = task
        process.send(job)

    def stop(self) -> None:
        """End the worker now, with everything that it has started."""
        self.job = None
        if self._process is not None:
            self._process.end()
            self._process = None

    def _next(self) -> FromWorker | None:
        """Return the next message, if there is one; raise EOFError where the worker is dead."""
        assert self._process is not None
        message = self._process.next()
        if isinstance(message, Ready):
            self._device = message.device
        return message

    def _next_or_loss(self) -> FromWorker | Lost | None:
        try:
            return self._next()
        except EOFError:
            return self._death()

    def _await(self, kind: type[_Answer]) -> _Answer | Lost:
        """Wait for a message of this kind; a worker that dies or is silent for too long is lost."""
        clock = AttentiveClock()
        heard_at = clock.seconds
        while True:
            message = self._next_or_loss()
            if isinstance(message, (kind, Lost)):
                return message
            if message is not None:
                heard_at = clock.look()
                continue
            self._news.wait(_WAIT_SECONDS)
            self._news.clear()
            if clock.look() - heard_at > self._limits.silence_seconds:
                lost = self._loss(f"said nothing for {self._limits.silence_seconds:g} s")
                self.stop()
                return lost

    def _death(self) -> Lost:
        assert self._process is not None
        process, self._process = self._process, None
        how, was_killed = process.death()
        return Lost(how, was_killed and self._was_memory_short(), process.last_output())

    def _loss(self, how: str) -> Lost:
        return Lost(how, said="" if self._process is None else self._process.last_output())

    def _is_stopped(self) -> bool:
        return self._process is not None and self._process.is_stopped()

    def _over_memory(self) -> Stopped | None:
        assert self.job is not None
        assert self._process is not None
        return over_memory(
            self.job,
            self._process.resident_bytes(),
            self._baseline_bytes,
            on_host=self._device is None or self._device.kind == "cpu",
            host_bytes=self._limits.host_bytes,
            giver="this host",
        )


class LocalWorkers(SlotWorkers):
    """One worker process or several; each runs one cell at a time and is restarted after it has died.

    Args:
        device: `auto`, `cpu` or `cuda`.
        cache: folder of the feature cache; None keeps features in memory only.
        n_workers: number of cells that may run at the same time.
        limits: limits on a cell; the memory of the host is shared evenly among workers.

    Attributes:
        remarks: empty: all workers are on this machine, and all are used.
    """

    def __init__(self, device: str, cache: Path | None, *, n_workers: int = 1, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        if n_workers > 1 and limits.host_bytes is not None:
            limits = replace(limits, host_bytes=limits.host_bytes // n_workers)
        self._news = threading.Event()
        self._attention = AttentiveClock()
        self._slots = [LocalSlot(device, cache, n_workers, limits, self._news) for _ in range(n_workers)]
        self.remarks: list[str] = []

    @property
    def device(self) -> Device:
        """Device of the first worker, which is started and waited for.

        Raises:
            UsageError: there is no such device, or the worker does not start.
        """
        return self._slots[0].device()

    @property
    def n_free(self) -> int:
        """Number of cells that could be started now."""
        return sum(slot.job is None for slot in self._slots)

    @property
    def n_running(self) -> int:
        """Number of running cells."""
        return len(self._slots) - self.n_free

    def warm_up(self) -> None:
        """Start the workers now: they import what they need while the driver gets ready."""
        for slot in self._slots:
            slot.warm_up()

    def refusals(self, backbones: Sequence[BackboneFiles]) -> list[str]:
        """Return why backbones cannot be loaded, before anything is trained."""
        return [why for files in backbones if (why := self._slots[0].check(files)) is not None]

    def start(self, job: Job, task: Task) -> None:
        """Run a cell on a free worker; `events` returns its result."""
        next(slot for slot in self._slots if slot.job is None).start(job, task, self._attention.look())

    def close(self) -> None:
        """End all workers now; the cells that they were running are lost."""
        for slot in self._slots:
            slot.stop()

    def _look(self, timeout: float) -> list[tuple[Job, Event]]:
        self._news.wait(timeout)
        self._news.clear()
        now = self._attention.look()
        return [event for slot in self._slots for event in slot.events(now)]
