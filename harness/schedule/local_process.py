"""A worker process as its driver holds it: messages to and from it, its output, its death and its end.

Threads read and write the messages, so that the driver never waits: a worker that is stopped in the middle of a
message, or reads nothing, would otherwise stop the driver too.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any

import psutil

from harness.schedule.messages import FromWorker, ToWorker
from harness.schedule.shares import Share
from harness.schedule.worker_process import serve

_KEPT_LINES = 20
"""Lines of a worker's output that are kept, to show its last output."""

_TERMINATE_SECONDS = 1.0
"""Seconds between asking a worker and its children to end and killing them."""

_JOIN_SECONDS = 5.0
_CLOSE_SECONDS = 1.0
_DEATH_SECONDS = 10.0


class LocalProcess:
    """One worker process on this machine.

    Args:
        news: set whenever a message has come.
        share: part of the machine that the worker gets.
        expected: name of the device of the process that this one replaces; None if it is the first.
        cache: folder of the feature cache; None keeps features in memory only.
        grace: seconds without progress, beyond twice its budget, after which the worker stops its own cell.
    """

    def __init__(
        self, news: threading.Event, share: Share, expected: str | None, cache: str | None, grace: float
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        reading, writing = context.Pipe(duplex=False)
        self._process = context.Process(
            target=serve,
            args=(theirs, os.getpid(), writing, share, expected, cache, grace),
            name="harness worker",
            daemon=True,
        )
        with _without_main():
            self._process.start()
        theirs.close()
        writing.close()
        self._news = news
        self._output: deque[str] = deque(maxlen=_KEPT_LINES)
        self._received: deque[FromWorker | Exception] = deque()
        self._to_send: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._write)]
        for thread in self._threads:
            thread.start()
        threading.Thread(target=_keep_lines, args=(reading, self._output.append), daemon=True).start()

    def is_alive(self) -> bool:
        """Return whether the process runs."""
        return self._process.is_alive()

    def is_stopped(self) -> bool:
        """Return whether the process is stopped (SIGSTOP)."""
        with suppress(psutil.Error):
            status = psutil.Process(self._process.pid).status()
            return bool(status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
        return False

    def resident_bytes(self) -> int:
        """Return the resident memory of the process; 0 where it is gone."""
        with suppress(psutil.Error):
            return int(psutil.Process(self._process.pid).memory_info().rss)
        return 0

    def last_output(self) -> str:
        """Return the last lines that the process has printed."""
        return "\n".join(self._output)

    def send(self, message: ToWorker) -> None:
        """Send a message as soon as the process takes it; `next` finds out whether the process is dead."""
        self._to_send.put(ForkingPickler.dumps(message))

    def next(self) -> FromWorker | None:
        """Return the next message; None where none has come yet.

        Raises:
            EOFError: the process has closed the connection: it is dead.
            Exception: the data that came are not a message.
        """
        try:
            message = self._received.popleft()
        except IndexError:
            return None
        if isinstance(message, Exception):
            self._received.append(message)
            raise message
        return message

    def death(self) -> tuple[str, bool]:
        """Return how a process that has closed its connection died, in words, and whether it was killed (SIGKILL).

        Processes that it has left behind in its group are ended.
        """
        self._process.join(_DEATH_SECONDS)
        code = self._process.exitcode
        self.bury()
        if code is None or code >= 0:
            return f"exited with status {code}", False
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        return f"was killed by signal {-code} ({name})", name == "SIGKILL"

    def bury(self) -> None:
        """End what a dead process has left in its process group, and give up its connection."""
        if os.name == "posix" and self._process.pid is not None:
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._close()

    def end(self) -> None:
        """End the process, its process group, and children that have left the group.

        They are asked to end (SIGTERM), woken where they are stopped (SIGCONT), and killed a second later (SIGKILL).
        """
        family: list[psutil.Process] = []
        with suppress(psutil.Error):
            family = psutil.Process(self._process.pid).children(recursive=True)
        if os.name == "posix":
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)
            wait([self._process.sentinel], _TERMINATE_SECONDS)
            self._signal(signal.SIGKILL)
        else:
            self._process.kill()
        self._process.join(_JOIN_SECONDS)
        for process in family:
            with suppress(psutil.Error):
                process.kill()  # psutil refuses where the number belongs to another process by now
        self._close()

    def _signal(self, number: int) -> None:
        """Signal the group that the process leads; the process alone where it does not lead one yet."""
        pid = self._process.pid
        if pid is None:
            return
        with suppress(OSError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)

    def _close(self) -> None:
        self._to_send.put(None)
        for thread in self._threads:
            thread.join(_CLOSE_SECONDS)
        if not any(thread.is_alive() for thread in self._threads):  # else a child that is left holds the other end
            self._connection.close()

    def _read(self) -> None:
        try:
            while True:
                self._received.append(self._connection.recv())
                self._news.set()
        except (EOFError, OSError):
            self._received.append(EOFError())
        except Exception as error:  # noqa: BLE001 - raised by `next`, in the thread that can act on it
            self._received.append(error)
        self._news.set()

    def _write(self) -> None:
        with suppress(OSError):
            while (message := self._to_send.get()) is not None:
                self._connection.send_bytes(message)


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


def _keep_lines(source: Connection, keep: Callable[[str], None]) -> None:
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
        for line in lines[-_KEPT_LINES:]:
            keep(line.decode("utf-8", "replace")[:500])
    if rest:
        keep(rest.decode("utf-8", "replace")[:500])
