"""One worker process on this machine as the driver knows it: started, given cells, watched, ended, started again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import psutil

from harness.backbones import BackboneFiles
from harness.measure import AttentiveClock, Device, Watch, kills_for_memory
from harness.schedule.ending import end_group_of, end_worker, is_stopped
from harness.schedule.job import Alive, Begun, Check, Checked, Cut, Done, Event, FromWorker, Give, Job, Lost, Ready
from harness.schedule.limits import Limits, over_memory, over_time
from harness.schedule.line import Line
from harness.schedule.worker_process import serve
from harness.support import UsageError
from harness.tasks import Task

MOST_STARTS = 2
"""Workers that may die before their first cell: the first may have been an accident."""

KEPT_LINES = 20
"""Lines of a worker's output that are kept, to say what it said last."""

_WAIT_SECONDS = 0.5

M = TypeVar("M", bound=FromWorker)


class Slot:
    """A place for one worker process.

    Args:
        device: `auto`, `cpu` or `cuda`.
        cache: folder of the feature cache; None keeps features in memory only.
        n_workers: how many share the device.
        limits: what a cell may take.
        news: set whenever the worker has said something.

    Attributes:
        job: the running cell; None where there is none.
    """

    def __init__(self, device: str, cache: Path | None, n_workers: int, limits: Limits, news: threading.Event) -> None:
        self._device_name = device
        self._cache = cache
        self._n_workers = n_workers
        self._limits = limits
        self._news = news
        self._process: multiprocessing.process.BaseProcess | None = None
        self._line: Line | None = None
        self._given: dict[str, Task] = {}
        self._watch: Watch | None = None
        self._began_at: float | None = None
        self._baseline_bytes = 0
        self._device: Device | None = None
        self._kills_before = 0
        self._said: deque[str] = deque(maxlen=KEPT_LINES)
        self.job: Job | None = None

    def warm_up(self) -> None:
        """Start the process, if there is none."""
        if self._process is None or not self._process.is_alive():
            self._spawn()

    def device(self) -> Device:
        """Return the worker's device; waits for it to say.

        Raises:
            UsageError: it does not start.
        """
        lost = Lost("was not started")
        for _ in range(MOST_STARTS):
            if self._device is not None:
                return self._device
            self.warm_up()
            ready = self._await(Ready)
            if isinstance(ready, Ready):
                return ready.device
            lost = ready
        raise UsageError(f"The worker that runs cells did not start: it {lost.how}. {lost.said}")

    def check(self, files: BackboneFiles) -> str | None:
        """Return why a backbone cannot be loaded; None where it can."""
        lost = Lost("was not started")
        for _ in range(MOST_STARTS):
            self.warm_up()
            assert self._line is not None
            self._line.send(Check(files))
            checked = self._await(Checked)
            if isinstance(checked, Checked):
                return checked.why
            lost = checked
        return f"Backbone '{files.name}' could not be loaded: the worker that tried {lost.how}. {lost.said}"

    def start(self, job: Job, task: Task, now: float) -> None:
        """Give the worker a cell; start one if there is none."""
        self.warm_up()
        assert self._line is not None
        self.job, self._began_at, self._watch = job, None, self._limits.watch(now, job)
        self._kills_before = kills_for_memory() or 0
        if self._given.get(task.name) is not task:
            self._line.send(Give(task))
            self._given[task.name] = task
        self._line.send(job)

    def receive(self, now: float) -> list[Event]:
        """Return what the worker has sent; the end of the connection is its death."""
        events: list[Event] = []
        try:
            while self.job is not None and (message := self._next()) is not None:
                if self._watch is not None:
                    self._watch.hear(now, self.job.standing_in(message))
                if isinstance(message, Done) and not self.job.is_ended_by(message):
                    continue
                if isinstance(message, Begun):
                    self._began_at, self._baseline_bytes = now, message.rss_bytes
                if not isinstance(message, (Ready, Checked, Alive)):
                    events.append(message)
                if isinstance(message, Done):
                    self.job = None
                    if message.is_last:  # or the next cell would be given to a process that is about to end
                        self.kill()
        except EOFError:
            events.append(self._death())
            self.job = None
        return events

    def over(self, now: float) -> Cut | Lost | None:
        """Return what is to become of the running cell if it is over a limit or its worker hangs; None otherwise."""
        if self.job is None or self._watch is None or self._process is None:
            return None
        pid = self._process.pid
        why = self._watch.overdue(now, lambda: is_stopped(pid))
        if self._began_at is None:  # no cell has begun, so none is at fault: another worker tries
            return None if why is None else Lost(f"did not begin the cell ({why})", said="\n".join(self._said))
        late = over_time(now - self._began_at, self._limits.cell_seconds)
        if late is not None:
            return late
        if why is not None:
            return Cut("out_of_time", why)
        return over_memory(
            self.job,
            self._resident_bytes(),
            self._baseline_bytes,
            on_host=self._device is None or self._device.kind == "cpu",
            host_bytes=self._limits.host_bytes,
            giver="this host",
        )

    def kill(self) -> None:
        """End the worker now, with everything that it has started."""
        self.job = None
        if self._process is None:
            return
        end_worker(self._process)
        self._forget()

    def _next(self) -> FromWorker | None:
        """Return the next message, if there is one; raises EOFError where the worker is dead."""
        assert self._line is not None
        message = self._line.next()
        if isinstance(message, Ready):
            self._device = message.device
        return message

    def _await(self, kind: type[M]) -> M | Lost:
        """Wait for a message of this kind; a worker that dies or says nothing for long is lost."""
        clock = AttentiveClock()
        heard_at = clock.seconds
        while True:
            try:
                message = self._next()
            except EOFError:
                return self._death()
            if isinstance(message, kind):
                return message
            if message is not None:
                heard_at = clock.look()
                continue
            self._news.wait(_WAIT_SECONDS)
            self._news.clear()
            if clock.look() - heard_at > self._limits.silence_seconds:
                said = "\n".join(self._said)
                self.kill()
                return Lost(f"said nothing for {self._limits.silence_seconds:g} s", said=said)

    def _spawn(self) -> None:
        if self._process is not None:
            end_group_of(self._process)
            self._forget()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        reading, writing = context.Pipe(duplex=False)
        self._said = deque(maxlen=KEPT_LINES)
        self._given = {}
        cache = str(self._cache) if self._cache is not None else None
        self._process = context.Process(
            target=serve,
            args=(
                theirs,
                os.getpid(),
                writing,
                self._device_name,
                cache,
                self._n_workers,
                self._limits.own_grace_seconds,
            ),
            name="harness worker",
            daemon=True,
        )
        with _without_main():
            self._process.start()
        theirs.close()
        writing.close()
        self._line = Line(ours, self._news)
        threading.Thread(target=_read_all, args=(reading, self._said.append), daemon=True).start()

    def _death(self) -> Lost:
        assert self._process is not None
        self._process.join(10)
        code = self._process.exitcode
        end_group_of(self._process)
        of_memory = False
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
            how = f"was killed by signal {-code} ({name})"
            of_memory = name == "SIGKILL" and (kills_for_memory() or 0) > self._kills_before
        else:
            how = f"exited with status {code}"
        self._forget()
        return Lost(how, of_memory, "\n".join(self._said))

    def _forget(self) -> None:
        """Give up the connection to a process that is dead."""
        if self._line is not None:
            self._line.close()
        self._process = self._line = None

    def _resident_bytes(self) -> int:
        assert self._process is not None
        with suppress(psutil.Error):
            return int(psutil.Process(self._process.pid).memory_info().rss)
        return 0


_starting = threading.Lock()


@contextmanager
def _without_main() -> Iterator[None]:
    """Start a process that does not import the caller's script, which need not guard itself by `__name__` then."""
    with _starting:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")  # it has no file, so there is nothing to import
        try:
            yield
        finally:
            sys.modules["__main__"] = main


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
