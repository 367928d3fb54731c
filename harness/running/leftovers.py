"""End processes that a method left running, and report its busy threads.

Otherwise they would take processor time from the cells that follow. Processes and threads that were there before the
cell are left alone, and so are those that libraries start once and keep.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Final

import psutil

_KEPT: Final = ("resource_tracker", "torch._inductor", "compile_worker")
"""Parts of the command lines of processes that Python and torch start once and use again."""

_END_SECONDS: Final = 1.0
_SAMPLE_SECONDS: Final = 0.1
_BUSY: Final = 0.2
"""Share of a processor from which a thread counts as busy."""


class Leftovers:
    """Remembers the processes and threads that exist when it is made.

    Attributes:
        are_threads: whether `end` found busy threads, which only the end of this process can stop.
    """

    def __init__(self) -> None:
        self._children = _children()
        self._threads = set(threading.enumerate())
        self.are_threads = False

    def end(self) -> str | None:
        """End the processes started since; return a text about leftovers, None without any."""
        said = []
        n_ended = sum(map(_end, _children() - self._children))
        if n_ended:
            said.append(f"{n_ended} process{'es' if n_ended > 1 else ''}, ended")
        new = [thread for thread in threading.enumerate() if thread not in self._threads]
        n_busy = _n_busy(new) if new else 0
        if n_busy:
            self.are_threads = True
            said.append(f"{n_busy} busy thread{'s' if n_busy > 1 else ''}")
        return "; ".join(said) or None


def _children() -> set[int]:
    """Return the numbers of this process's children."""
    try:
        texts = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    except OSError:
        texts = []
    if texts:
        return {int(number) for text in texts for number in text.split()}
    return {child.pid for child in psutil.Process().children()}


def _end(pid: int) -> int:
    """End a child and its descendants; return the number of processes ended, 0 if the child is kept."""
    try:
        child = psutil.Process(pid)
        if child.status() == psutil.STATUS_ZOMBIE:
            child.wait(0)
            return 0
        if any(part in word for word in child.cmdline() for part in _KEPT):
            return 0
        family = [child, *child.children(recursive=True)]
    except psutil.Error:
        return 0
    _end_processes(family, _END_SECONDS)
    return len(family)


def _end_processes(processes: list[psutil.Process], seconds: float) -> None:
    """Terminate processes, continue stopped ones so that they receive the signal, and kill the rest after a wait."""
    for name in ("SIGTERM", "SIGCONT"):
        for process in processes:
            with contextlib.suppress(psutil.Error, AttributeError):
                process.send_signal(getattr(signal, name))
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=seconds)


def _n_busy(threads: list[threading.Thread]) -> int:
    """Return the number of these threads that use a processor now."""
    before = _seconds_by_thread()
    time.sleep(_SAMPLE_SECONDS)
    after = _seconds_by_thread()
    ids = [thread.native_id for thread in threads if thread.is_alive() and thread.native_id in before]
    return sum(after.get(id_, 0.0) - before[id_] >= _BUSY * _SAMPLE_SECONDS for id_ in ids if id_ is not None)


def _seconds_by_thread() -> dict[int, float]:
    """Return the processor seconds of this process's threads by kernel id; empty on systems other than Linux."""
    ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    found = {}
    for folder in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            found[int(folder.name)] = (int(fields[11]) + int(fields[12])) / ticks
    return found
