"""Worker processes on this machine: they run cells, they are watched, and they may die without taking a run along."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

import psutil

from harness.backbones.locate import BackboneFiles
from harness.errors import UsageError
from harness.measure.device import Device
from harness.measure.host import kills_for_memory
from harness.schedule.job import Begun, Check, Checked, Cut, Done, Event, FromWorker, Give, Job, Lost, Ready
from harness.schedule.limits import Limits, over_memory, over_time
from harness.schedule.worker_process import serve
from harness.tasks.base import Task

LOOK_SECONDS = 0.1
"""How often limits are looked at."""

MOST_STARTS = 2
"""Workers that may die before their first cell: the first may have been an accident."""

KEPT_LINES = 20
"""Lines of a worker's output that are kept, to say what it said last."""


class LocalWorkers:
    """One worker process or several; each runs one cell at a time and is started anew after it has died.

    Args:
        device: `auto`, `cpu` or `cuda`.
        cache: folder of the feature cache; None keeps features in memory only.
        n_workers: how many cells may run at the same time.
        limits: what a cell may take; the memory of the host is shared evenly among workers.

    Attributes:
        remarks: none: all workers are on this machine, and all are used.
    """

    def __init__(self, device: str, cache: Path | None, *, n_workers: int = 1, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        if n_workers > 1 and self._limits.host_bytes is not None:
            self._limits = replace(self._limits, host_bytes=self._limits.host_bytes // n_workers)
        self._slots = [_Slot(device, cache, n_workers) for _ in range(n_workers)]
        self.remarks: list[str] = []

    @property
    def device(self) -> Device:
        """Where cells run, as the first worker says; starts it, and waits for it.

        Raises:
            UsageError: it does not start.
        """
        return self._slots[0].device()

    @property
    def n_free(self) -> int:
        """How many cells could be started now."""
        return sum(slot.job is None for slot in self._slots)

    @property
    def n_running(self) -> int:
        """How many cells are running."""
        return len(self._slots) - self.n_free

    def warm_up(self) -> None:
        """Start the workers now: they import what they need while the driver gets ready."""
        for slot in self._slots:
            slot.warm_up()

    def refusals(self, backbones: Sequence[BackboneFiles]) -> list[str]:
        """Why backbones cannot be loaded, of those that cannot: found out before anything is trained."""
        return [why for files in backbones if (why := self._slots[0].check(files)) is not None]

    def start(self, job: Job, task: Task) -> None:
        """Run a cell on a free worker; `events` tells what becomes of it."""
        next(slot for slot in self._slots if slot.job is None).start(job, task)

    def events(self, timeout: float) -> list[tuple[Job, Event]]:
        """What has happened to running cells; waits up to `timeout` seconds for something to happen.

        A cell ends with exactly one `Done`, `Lost` or `Cut`.
        """
        until = time.monotonic() + timeout
        while True:
            running = [slot for slot in self._slots if slot.job is not None]
            if not running:
                return []
            ready = wait(
                [slot.connection for slot in running], timeout=max(0.0, min(LOOK_SECONDS, until - time.monotonic()))
            )
            found: list[tuple[Job, Event]] = []
            for slot in running:
                job = slot.job
                assert job is not None
                if slot.connection in ready:
                    found += [(job, event) for event in slot.receive()]
                if slot.job is not None:
                    cut = slot.over(self._limits)
                    if cut is not None:
                        slot.kill()
                        found.append((job, cut))
            if found or time.monotonic() >= until:
                return found

    def close(self) -> None:
        """End all workers now; what they were running is lost."""
        for slot in self._slots:
            slot.kill()

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Slot:
    """A place for one worker process."""

    def __init__(self, device: str, cache: Path | None, n_workers: int) -> None:
        self._device_name = device
        self._cache = cache
        self._n_workers = n_workers
        self._process: multiprocessing.process.BaseProcess | None = None
        self._given: dict[str, Task] = {}
        self._began_at: float | None = None
        self._baseline_bytes = 0
        self._device: Device | None = None
        self._kills_before = 0
        self._said: deque[str] = deque(maxlen=KEPT_LINES)
        self.connection: Connection
        self.job: Job | None = None

    def warm_up(self) -> None:
        """Start the process, if there is none."""
        if self._process is None or not self._process.is_alive():
            self._spawn()

    def device(self) -> Device:
        """The worker's device; waits for it to say."""
        for _ in range(MOST_STARTS):
            self.warm_up()
            try:
                while self._device is None:
                    message: FromWorker = self.connection.recv()
                    if isinstance(message, Ready):
                        self._device = message.device
                return self._device
            except (EOFError, OSError):
                lost = self._death()
        raise UsageError(f"The worker that runs cells did not start: it {lost.how}. {lost.said}")

    def check(self, files: BackboneFiles) -> str | None:
        """Why a backbone cannot be loaded; None where it can."""
        for _ in range(MOST_STARTS):
            self.warm_up()
            try:
                self.connection.send(Check(files))
                while True:
                    message: FromWorker = self.connection.recv()
                    if isinstance(message, Ready):
                        self._device = message.device
                    if isinstance(message, Checked):
                        return message.why
            except (EOFError, OSError):
                lost = self._death()
        return f"Backbone '{files.name}' could not be loaded: the worker that tried {lost.how}. {lost.said}"

    def start(self, job: Job, task: Task) -> None:
        """Give the worker a cell; start one if there is none."""
        self.warm_up()
        self.job = job
        self._began_at = None
        self._kills_before = kills_for_memory() or 0
        with suppress(OSError):  # it has just died: `receive` will find out
            if self._given.get(task.name) is not task:
                self.connection.send(Give(task))
                self._given[task.name] = task
            self.connection.send(job)

    def receive(self) -> list[Event]:
        """What the worker has sent; the end of the connection is its death."""
        events: list[Event] = []
        try:
            while self.job is not None and self.connection.poll():
                message: FromWorker = self.connection.recv()
                if isinstance(message, Ready):
                    self._device = message.device
                if isinstance(message, Begun):
                    self._began_at, self._baseline_bytes = time.monotonic(), message.rss_bytes
                if not isinstance(message, (Ready, Checked)):
                    events.append(message)
                if isinstance(message, Done):
                    self.job = None
                    if message.is_last:  # or the next cell would be given to a process that is about to end
                        self.kill()
        except (EOFError, OSError):
            events.append(self._death())
            self.job = None
        return events

    def over(self, limits: Limits) -> Cut | None:
        """Whether the running cell is over a limit."""
        if self._began_at is None or self.job is None:
            return None
        late = over_time(time.monotonic() - self._began_at, limits.cell_seconds)
        return late or over_memory(
            self.job,
            self._resident_bytes(),
            self._baseline_bytes,
            on_host=self._device is None or self._device.kind == "cpu",
            host_bytes=limits.host_bytes,
            giver="this host",
        )

    def kill(self) -> None:
        """End the worker now."""
        self.job = None
        if self._process is None:
            return
        self._process.kill()
        self._process.join()
        self.connection.close()
        self._process = None

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        reading, writing = context.Pipe(duplex=False)
        self._said = deque(maxlen=KEPT_LINES)
        self._given = {}
        cache = str(self._cache) if self._cache is not None else None
        self._process = context.Process(
            target=serve,
            args=(theirs, os.getpid(), writing, self._device_name, cache, self._n_workers),
            name="harness worker",
            daemon=True,
        )
        self._process.start()
        theirs.close()
        writing.close()
        threading.Thread(target=_read_all, args=(reading, self._said.append), daemon=True).start()

    def _death(self) -> Lost:
        assert self._process is not None
        self._process.join(10)
        code = self._process.exitcode
        of_memory = False
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
            how = f"was killed by signal {-code} ({name})"
            of_memory = -code == signal.SIGKILL and (kills_for_memory() or 0) > self._kills_before
        else:
            how = f"exited with status {code}"
        self.connection.close()
        self._process = None
        return Lost(how, of_memory, "\n".join(self._said))

    def _resident_bytes(self) -> int:
        assert self._process is not None
        with suppress(psutil.Error):
            return int(psutil.Process(self._process.pid).memory_info().rss)
        return 0


def _read_all(source: Connection, keep: Callable[[str], None]) -> None:
    """Empty a worker's output, so that it never waits for a reader; keep its last lines."""
    rest = b""
    while True:
        try:
            chunk = os.read(source.fileno(), 65536)
        except OSError:
            return
        if not chunk:
            break
        *lines, rest = (rest + chunk)[-65536:].split(b"\n")
        for line in lines[-KEPT_LINES:]:
            keep(line.decode("utf-8", "replace")[:500])
    if rest:
        keep(rest.decode("utf-8", "replace")[:500])
