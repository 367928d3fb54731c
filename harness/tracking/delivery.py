"""One tracker's process, its queue, and the two threads that write to it and read its answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from harness.measure import LOWEST_PRIORITY
from harness.records import Record
from harness.support import reason_of
from harness.tracking.runs import tracked_run
from harness.tracking.tracker import Tracker

_MOST_WAITING = 1000
"""Number of records that wait for a tracker before further ones are left out."""

_REAP_SECONDS = 0.1

_STALLED_SECONDS = 10.0
_STALLED_START_SECONDS = 60.0
"""Seconds without an answer, and until the first one, after which a tracker hangs."""

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main(sys.argv[2])"
"""Program of the process: it imports what this process would, and nothing from the current folder."""


@dataclass(frozen=True)
class Tracked:
    """Outcome of sending records to one tracker.

    Attributes:
        tracker: name of the tracker.
        where: address or folder of its runs; None where it never answered.
        n_sent: number of records that it has kept now.
        n_known: number of records that it had before.
        n_unsent: number of records that it did not confirm.
        why: why some were not confirmed; None where all were.
        goes_on: whether its process goes on with these, for a minute at most.
    """

    tracker: str
    where: str | None
    n_sent: int
    n_known: int
    n_unsent: int
    why: str | None
    goes_on: bool = False


class Delivery:
    """Sending of records to one tracker; no call waits for it unless it says so.

    Args:
        tracker: the tracker.
    """

    def __init__(self, tracker: type[Tracker]) -> None:
        self.name = tracker.name
        self._changed = threading.Condition()
        self._waiting: deque[Record] = deque()
        self._is_closed = False
        self._is_let_go = False
        self._where: str | None = None
        self._counts = dict.fromkeys(("given", "sent", "known", "failed", "left_out"), 0)
        self._broken: str | None = None
        self._why_failed: str | None = None
        self._n_told = 0
        self._answered_at = time.monotonic()
        reference = f"{tracker.__module__}:{tracker.__qualname__}"
        program = _START.format(module="harness.tracking.sender")
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(sys.path), reference],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            # Its own group: Ctrl-C does not reach it, and its end reaches what it has started.
            process_group=0 if os.name == "posix" else None,
        )
        for work in (self._write, self._read):
            threading.Thread(target=work, name=f"{self.name} {work.__name__}", daemon=True).start()

    def give_way(self) -> None:
        """Let the process have only what other processes leave of the processors, from now on."""
        self._set_priority(LOWEST_PRIORITY)

    def hurry(self) -> None:
        """Give the process this process's priority again, where the system allows that."""
        if hasattr(os, "getpriority"):
            self._set_priority(os.getpriority(os.PRIO_PROCESS, 0))

    def _set_priority(self, priority: int) -> None:
        if hasattr(os, "setpriority"):
            with suppress(OSError):
                os.setpriority(os.PRIO_PGRP, self._process.pid, priority)

    def put(self, record: Record, patience: float = 0.0) -> None:
        """Send a record as soon as the tracker takes it.

        Args:
            record: a record; its predictions are not needed.
            patience: seconds to wait for room in the queue while the tracker does not answer.
        """
        with self._changed:
            if not self._n_open() and self._where is not None:
                self._answered_at = time.monotonic()  # it had nothing to answer before
            self._counts["given"] += 1
            while self._broken is None and len(self._waiting) >= _MOST_WAITING:
                left = self._answered_at + patience - time.monotonic()
                if left <= 0:
                    self._counts["left_out"] += 1
                    return
                self._changed.wait(left)
            if self._broken is None:
                self._waiting.append(record)
                self._changed.notify_all()

    def close(self) -> None:
        """Take no more records."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _let_go(self) -> None:
        """Let the process end by itself after the records that it has; it knows how long it may take."""
        with self._changed:
            self._is_closed = self._is_let_go = True
            self._changed.notify_all()

    def news(self) -> str | None:
        """Return why nothing more can be sent, once; None if there is nothing new."""
        with self._changed:
            if self._broken is None or self._n_told:
                return None
            self._n_told = 1
            return self._broken

    def finish(self, patience: float, until: float) -> Tracked:
        """Wait for the tracker's answers, and return the outcome.

        The process is ended, unless it has records that it may still send.

        Args:
            patience: seconds without an answer after which the tracker is given up.
            until: time after which nothing is waited for, by `time.monotonic`.
        """
        self.close()
        began = time.monotonic()
        with self._changed:
            while self._broken is None and self._n_open() > 0:
                left = min(until, max(began, self._answered_at) + patience) - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            found = self._outcome()
        if found.goes_on:
            self.give_way()
            self._let_go()
        else:
            self.stop()
        return found

    def _outcome(self) -> Tracked:
        counts, n_open = self._counts, self._n_open()
        n_unsent = n_open + counts["failed"] + counts["left_out"]
        silent = time.monotonic() - self._answered_at
        stalled = silent >= (_STALLED_START_SECONDS if self._where is None else _STALLED_SECONDS)
        goes_on = n_open > 0 and self._broken is None and not stalled
        slow = "it is slow" if goes_on or not n_open else f"it has not answered for {silent:.0f} s"
        why = self._broken or (slow if n_open or counts["left_out"] else self._why_failed)
        where, why = self._where, why if n_unsent else None
        return Tracked(self.name, where, counts["sent"], counts["known"], n_unsent, why, goes_on)

    def stop(self) -> None:
        """End the process and whatever it has started, at once."""
        self._let_go()
        with suppress(OSError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_SECONDS)

    def _n_open(self) -> int:
        counts = self._counts
        return counts["given"] - counts["sent"] - counts["known"] - counts["failed"] - counts["left_out"]

    def _write(self) -> None:
        stream = _stream(self._process.stdin)
        with suppress(OSError, ValueError):  # the process has ended: `_read` says so
            while (record := self._next()) is not None:
                try:
                    line = json.dumps(tracked_run(record).to_json())
                except Exception as error:  # noqa: BLE001 - one record must not keep back the others
                    self._count("failed", reason_of(error))
                    continue
                stream.write(line + "\n")
                stream.flush()
            with self._changed:
                self._changed.wait_for(lambda: self._is_let_go)
            stream.close()

    def _next(self) -> Record | None:
        """Return the next record, as soon as there is one; None where no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return None
            record = self._waiting.popleft()
            self._changed.notify_all()
            return record

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            for line in _stream(self._process.stdout):
                self._take(json.loads(line))
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_SECONDS)
        with self._changed:
            if self._broken is None:
                self._broken = f"its process ended with status {self._process.returncode}"
            self._changed.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            with self._changed:
                self._where, self._answered_at = message["ready"], time.monotonic()
        elif "broken" in message:
            with self._changed:
                self._broken = message["broken"]
                self._changed.notify_all()
        else:
            (name,) = message.keys() - {"why"}
            self._count(name, message.get("why"))

    def _count(self, name: str, why: str | None = None) -> None:
        with self._changed:
            self._counts[name] += 1
            self._why_failed = why or self._why_failed
            self._answered_at = time.monotonic()
            self._changed.notify_all()


def _stream(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise ValueError("the process was started without this pipe")
    return stream
