"""The process that cells run in: warm from one cell to the next, and expendable.

It takes cells from a pipe and gives records back. It touches neither the store nor the terminal: what a method prints
goes into a pipe that the driver empties, and Ctrl-C is the driver's to handle. It never outlives the driver.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from harness.measure import Standing
from harness.schedule.job import (
    Alive,
    Begun,
    Check,
    Checked,
    Done,
    FromWorker,
    Give,
    Job,
    Progress,
    Ready,
    ToWorker,
    Warned,
)
from harness.tasks import Task

if TYPE_CHECKING:
    from harness.running import Worker

PROGRESS_SECONDS = 0.1
"""No more than one message of progress in so many seconds: a step of a tiny model takes less than sending one."""

WATCH_SECONDS = 0.25

BEAT_SECONDS = 1.0
"""How often a worker that is busy says that it is there."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SOURCE = Path(__file__).resolve().parent.parent


def serve(
    connection: Connection,
    driver: int,
    output: Connection,
    device_name: str,
    cache: str | None,
    n_workers: int,
    grace: float,
) -> None:
    """Run cells until the connection ends.

    Args:
        connection: to the driver.
        driver: process number of the driver.
        output: where everything printed goes.
        device_name: `auto`, `cpu` or `cuda`.
        cache: folder of the feature cache; None keeps features in memory only.
        n_workers: how many share the device; the host's threads are divided among them.
        grace: seconds without progress, beyond twice its budget, after which a cell is cut.
    """
    _end_with(driver)
    _lead_a_group()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _redirect(output.fileno())

    from harness.backbones import load_backbone
    from harness.measure import available_threads, find_device, shared
    from harness.running import Worker
    from harness.support import HarnessError, quiet_libraries

    quiet_libraries()
    if n_workers > 1:  # before torch is imported, which reads it once
        os.environ["OMP_NUM_THREADS"] = str(max(1, available_threads() // n_workers))
    device = shared(find_device(device_name), n_workers)
    worker = Worker(device, Path(cache) if cache is not None else None)
    channel = _Channel(connection)
    channel.send(Ready(device))
    pass_on_warnings(channel.send)
    worker.on_change = lambda: channel.tell(worker.standing())
    threading.Thread(target=_watch, args=(worker, channel, grace), name="watches the clock", daemon=True).start()
    tasks: dict[str, Task] = {}
    this = psutil.Process()
    while True:
        try:
            message: ToWorker = connection.recv()
        except EOFError:
            return
        if isinstance(message, Check):
            channel.is_busy = True
            try:
                load_backbone(message.files)
                channel.send(Checked(None))
            except HarnessError as error:
                channel.send(Checked(str(error)))
            channel.is_busy = False
            continue
        if isinstance(message, Give):
            tasks[message.task.name] = message.task
            continue
        channel.begin(message, this.memory_info().rss)
        channel.is_busy = True
        record = worker.run(
            message.planned,
            tasks[message.planned.cell.task],
            message.files,
            message.suite,
            channel.report,
            attempt=message.attempt,
            save_to=message.save_to,
            hurried=message.hurried,
        )
        channel.is_busy = False
        channel.end(Done(record, is_last=worker.is_spoilt))


def pass_on_warnings(send: Callable[[Warned], None]) -> None:
    """Have the harness's own warnings reach the user; those of libraries stay in the output that nobody reads."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        if category is UserWarning and Path(filename).is_relative_to(_SOURCE):
            send(Warned(str(message)))
        else:
            before(message, category, filename, lineno, *rest)

    warnings.showwarning = show  # type: ignore[assignment]
    warnings.filterwarnings("always", category=UserWarning, module=r"harness\.")


class _Channel:
    """To the driver, from any thread.

    Attributes:
        is_busy: whether the driver waits for something, and should hear that this process is there.
    """

    def __init__(self, connection: Connection) -> None:
        self.is_busy = False
        self._connection = connection
        self._lock = threading.Lock()
        self._reported_at = 0.0
        self._told: tuple[object, ...] | None = None
        self._open: tuple[str, int] | None = None

    def send(self, message: FromWorker) -> None:
        """Send a whole message; once the driver is gone there is nobody to tell, and no reason to live."""
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(1)

    def begin(self, job: Job, rss_bytes: int) -> None:
        """Say that a cell begins; one record of it can follow."""
        with self._lock:
            self._open = (job.id, job.attempt)
        self.send(Begun(rss_bytes))

    def end(self, done: Done) -> None:
        """Send a cell's record, and end this process with it if it is the last message.

        Two threads may have a record of one cell: the one that ran it, and the one that cut it. The first counts.
        """
        cell = (done.record.id, done.record.attempt)
        with self._lock:
            if self._open != cell:
                return
            self._open = None
            try:
                self._connection.send(done)
            except OSError:
                os._exit(1)
            if done.is_last:
                os._exit(0)

    def offer(self, message: FromWorker) -> None:
        """Send a message that may as well be lost, unless that would mean to wait.

        A driver that is stopped reads nothing. Waiting for it would count as the method's time.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._has_room():
                self._connection.send(message)
        except OSError:
            os._exit(1)
        finally:
            self._lock.release()

    def report(self, doing: str, fraction: float | None, loss: float | None) -> None:
        """Progress, now and then."""
        now = time.monotonic()
        if now - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = now
            self.offer(Progress(doing, fraction, loss))

    def tell(self, standing: Standing | None) -> None:
        """Say at once when the cell enters another stage: the very next call may keep this process silent."""
        told = None if standing is None else (standing.cell, standing.doing, standing.activity)
        if told is not None and self._told != told:
            self._told = told
            self.offer(Alive(standing))

    def _has_room(self) -> bool:
        if not hasattr(select, "poll"):  # Windows: its pipes cannot be asked
            return True
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLOUT)
        return bool(poll.poll(0))


def _watch(worker: Worker, channel: _Channel, grace: float) -> None:
    """Say that this process is there, and cut off a cell that is over its time and ends by nothing else."""
    beat_at = 0.0
    while True:
        time.sleep(WATCH_SECONDS)
        record = worker.look(grace)
        if record is not None:
            channel.end(Done(record, is_last=True))
        if channel.is_busy and time.monotonic() >= beat_at:
            beat_at = time.monotonic() + BEAT_SECONDS
            channel.offer(Alive(worker.standing()))


def _lead_a_group() -> None:
    """Lead a process group, so that the driver ends this process with all that its methods start.

    On Linux, also become the parent of those whose own parent ends. A stop from the terminal (Ctrl-Z) then reaches the
    driver alone, and the running cell goes on to its end.
    """
    if hasattr(os, "setpgid"):
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _end_with(driver: int) -> None:
    """Die when the driver does, however it dies: a cell that nobody waits for would disturb those of the next run."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != driver:  # it died before that was asked for
        os._exit(1)

    def watch() -> None:  # where the kernel has no such service
        while os.getppid() == driver:
            time.sleep(1.0)
        os._exit(1)

    if sys.platform != "linux":
        threading.Thread(target=watch, name="ends with the driver", daemon=True).start()


def _redirect(output: int) -> None:
    """Have everything that is printed, by Python or by native code, go to `output`."""
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
