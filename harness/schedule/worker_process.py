"""The process that cells run in: it stays warm from one cell to the next, and a run survives its death.

It takes cells from a pipe and sends records back. It touches neither the store nor the terminal: the output of a method
goes into a pipe that the driver empties, and the driver handles Ctrl-C. It never outlives the driver.
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
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from harness.methods import Rung
from harness.running import Job, Standing
from harness.schedule.messages import (
    Alive,
    AtRung,
    Begun,
    CellProgress,
    CheckBackbone,
    Checked,
    Done,
    FromWorker,
    Give,
    GoOn,
    Preload,
    Ready,
    ToWorker,
    Warned,
)
from harness.schedule.shares import Share
from harness.tasks import Task

if TYPE_CHECKING:
    from harness.running import Worker

_PROGRESS_SECONDS = 0.25
"""Shortest time between two messages of progress: a step of a tiny model takes less time than sending one."""

SIGN_SECONDS = 1.0
"""Time between two signs of life of a busy worker."""

_WATCH_SECONDS = 0.25

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SOURCE = Path(__file__).resolve().parent.parent


def serve(
    connection: Connection,
    driver: int,
    output: Connection,
    share: Share,
    expected: str | None,
    cache: str | None,
    grace: float,
) -> None:
    """Run cells until the connection ends.

    Args:
        connection: to the driver.
        driver: process number of the driver.
        output: where everything printed goes.
        share: part of the machine that it gets.
        expected: name of the device of the process that this one replaces; None if it is the first.
        cache: folder of the feature cache; None keeps features in memory only.
        grace: seconds without progress, beyond twice its budget, after which a cell is cut.
    """
    _end_with(driver)
    _lead_a_group()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _redirect(output.fileno())

    from harness.backbones import load_backbone
    from harness.measure import failure_of, find_device
    from harness.running import Worker
    from harness.support import HarnessError, UsageError, quiet_libraries

    quiet_libraries()
    channel = _Channel(connection)
    share.take()
    try:
        device = find_device(share.device).shared_by(share.n_sharing)
        why_not = failure_of(device)
        if why_not is not None:
            raise UsageError(f"{device.name} cannot be used: {why_not.rstrip('.')}.")
        if expected not in (None, device.name):
            raise UsageError(f"A new worker found the device '{device.name}' in place of '{expected}'.")
    except UsageError as error:
        channel.send(Ready(None, str(error)))
        return
    worker = Worker(device, Path(cache) if cache is not None else None, deterministic=share.deterministic)
    channel.send(Ready(device))
    pass_on_warnings(channel.send)
    worker.on_change = lambda: channel.tell(worker.standing())
    report = Reporter(channel.offer)
    threading.Thread(target=_watch, args=(worker, channel, grace), name="watches the clock", daemon=True).start()
    tasks: dict[str, Task] = {}
    this = psutil.Process()
    inbox = _Inbox(connection)

    def decide(rung: Rung) -> bool:
        channel.send(AtRung(rung))
        return inbox.decision()

    while True:
        try:
            message = inbox.next()
        except EOFError:
            return
        if isinstance(message, CheckBackbone):
            channel.is_busy = True
            try:
                load_backbone(message.files)
                channel.send(Checked(None))
            except HarnessError as error:
                channel.send(Checked(str(error)))
            channel.is_busy = False
            continue
        if isinstance(message, Preload):
            with contextlib.suppress(HarnessError):  # `CheckBackbone` follows, and its answer says why
                load_backbone(message.files)
            continue
        if isinstance(message, Give):
            tasks[message.task.name] = message.task
            continue
        if isinstance(message, GoOn):  # for a fit that has ended meanwhile
            continue
        channel.begin(message, this.memory_info().rss)
        channel.is_busy = True
        record = worker.run(message, tasks[message.planned.cell.task], report, decide)
        channel.is_busy = False
        channel.end(Done(record, is_last=worker.is_spoilt))


def pass_on_warnings(send: Callable[[Warned], None]) -> None:
    """Send the harness's own warnings to the user; those of libraries stay in the process's output."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        if category is UserWarning and Path(filename).is_relative_to(_SOURCE):
            send(Warned(str(message)))
        else:
            before(message, category, filename, lineno, *rest)

    warnings.showwarning = show  # type: ignore[assignment]
    warnings.filterwarnings("always", category=UserWarning, module=r"harness\.")


class Reporter:
    """Sends the progress of a cell, at most once in `_PROGRESS_SECONDS`."""

    def __init__(self, send: Callable[[CellProgress], None]) -> None:
        self._send = send
        self._reported_at = 0.0

    def __call__(self, doing: str, fraction: float | None, loss: float | None) -> None:
        """Send the stage, the fraction of the budget that is spent, and the latest loss, unless it is too soon."""
        now = time.monotonic()
        if now - self._reported_at >= _PROGRESS_SECONDS:
            self._reported_at = now
            self._send(CellProgress(doing, fraction, loss))


class _Inbox:
    """Messages from the driver, in their order, and the decisions that a fit at a rung waits for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: deque[ToWorker] = deque()

    def next(self) -> ToWorker:
        """Return the next message; raise EOFError where the driver is gone."""
        return self._waiting.popleft() if self._waiting else self._connection.recv()

    def decision(self) -> bool:
        """Wait for the decision about the running fit; other messages wait for its end."""
        while True:
            try:
                message: ToWorker = self._connection.recv()
            except EOFError:
                os._exit(1)  # the driver is gone
            if isinstance(message, GoOn):
                return message.does
            self._waiting.append(message)


class _Channel:
    """Messages to the driver, from any thread.

    Attributes:
        is_busy: whether the driver waits for an answer, and should hear signs of life.
    """

    def __init__(self, connection: Connection) -> None:
        self.is_busy = False
        self._connection = connection
        self._lock = threading.Lock()
        self._told: tuple[object, ...] | None = None
        self._open: tuple[str, int] | None = None

    def send(self, message: FromWorker) -> None:
        """Send a whole message; end this process if the driver is gone."""
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(1)

    def begin(self, job: Job, rss_bytes: int) -> None:
        """Announce a cell, of which one record can follow."""
        with self._lock:
            self._open = job.key
        self.send(Begun(rss_bytes))

    def end(self, done: Done) -> None:
        """Send a cell's record, and end this process with it if it is the last message.

        Two threads may have a record of one cell: the one that ran it, and the one that stopped it. The first counts.
        """
        with self._lock:
            if self._open != done.key:
                return
            self._open = None
            try:
                self._connection.send(done)
            except OSError:
                os._exit(1)
            if done.is_last:
                os._exit(0)

    def offer(self, message: FromWorker) -> None:
        """Send a message unless that would mean waiting; the message may be lost.

        A stopped driver reads nothing, and waiting for it would count as the method's time.
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

    def tell(self, standing: Standing | None) -> None:
        """Report at once that the cell enters another stage: its next call may keep this process silent."""
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
    """Send signs of life, and stop a cell that is over its time and does not end by itself."""
    sign_at = 0.0
    while True:
        time.sleep(_WATCH_SECONDS)
        record = worker.look(grace)
        if record is not None:
            channel.end(Done(record, is_last=True))
        if channel.is_busy and time.monotonic() >= sign_at:
            sign_at = time.monotonic() + SIGN_SECONDS
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
    """End this process when the driver ends, in whatever way: its cell would disturb those of the next run."""
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
    """Redirect everything that Python or native code prints to `output`."""
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
