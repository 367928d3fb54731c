"""Detect whether a cell had its processors to itself: other work on them, and uneven training."""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from harness.records import CurvePoint

_MOST_OF_OTHERS: Final = 0.1
"""Share of the processors' time allowed for other processes; the driver and the system need some of it."""

_MOST_STOLEN: Final = 0.05
"""Share of time allowed for other guests of a virtual machine's host."""

_SHORTEST_SECONDS: Final = 1.0
"""Minimum duration that can be judged: the kernel counts in hundredths of a second."""

_SLOW: Final = 0.5
"""Share of the median rate below which a window is slow."""

_MOST_SLOW: Final = 0.1
"""Share of a fit's seconds in slow windows above which it is uneven."""

_LEAST_WINDOWS = 8
_STAT = Path("/proc/stat")

LOWEST_PRIORITY: Final = 19
"""Priority of processes beside a run that take only what its cells leave of the processors (`nice`)."""


class Steadiness:
    """Counter of other work, from its creation to `disturbance`, on the processors that this process may use.

    It needs Linux, with these processors listed one by one in `/proc/stat`; elsewhere it finds nothing.

    A run's trackers are children of the process that started this one. At the lowest priority they get some 1.5 % of a
    processor that a cell uses, so their work is no disturbance.

    Args:
        with_children: whether the work of this process's children is its own.
    """

    def __init__(self, *, with_children: bool = False) -> None:
        self._began = time.perf_counter()
        self._own_seconds = _family_seconds if with_children else _own_seconds
        self._beside = {} if with_children else _yielding_seconds(os.getppid())
        self._own = self._own_seconds()
        self._all = _processor_seconds()

    def disturbance(self) -> str | None:
        """Return the disturbance of the processors so far, in words; None if there was none, or it is unknown."""
        wall = time.perf_counter() - self._began
        now = _processor_seconds()
        if self._all is None or now is None or wall < _SHORTEST_SECONDS:
            return None
        (busy, stolen, n), own = now, self._own_seconds() - self._own
        if self._beside:
            beside = _yielding_seconds(os.getppid())
            own += sum(beside[pid] - before for pid, before in self._beside.items() if pid in beside)
        return judge_processors(busy - self._all[0], stolen - self._all[1], own, wall * n)


def judge_processors(busy: float, stolen: float, own: float, available: float) -> str | None:
    """Return the disturbance of processors in words; None without any.

    Args:
        busy: seconds that they worked for all processes.
        stolen: seconds that a virtual machine's host took from them.
        own: seconds that they worked for this process.
        available: seconds available on all processors together.
    """
    others, taken = max(0.0, busy - own) / available, stolen / available
    if others > _MOST_OF_OTHERS:
        return f"other processes took {others:.0%} of its processors' time"
    if taken > _MOST_STOLEN:
        return f"the host took {taken:.0%} of its processors' time"
    return None


def unevenness(curve: Sequence[CurvePoint]) -> str | None:
    """Return in words whether a fit slowed down for a while; the first window, which chooses kernels, is ignored."""
    if len(curve) < _LEAST_WINDOWS + 2:
        return None
    windows = [
        (after.seconds - before.seconds, after.flops - before.flops)
        for before, after in itertools.pairwise(curve[1:])
        if after.seconds > before.seconds and after.flops is not None and before.flops is not None
    ]
    if sum(seconds for seconds, _ in windows) < _SHORTEST_SECONDS or len(windows) < _LEAST_WINDOWS:
        return None
    rates = [flops / seconds for seconds, flops in windows]
    usual = statistics.median(rates)
    slow = sum(seconds for (seconds, _), rate in zip(windows, rates, strict=True) if rate < _SLOW * usual)
    share = slow / sum(seconds for seconds, _ in windows)
    return f"{share:.0%} of its fit went at less than half of its usual rate" if share > _MOST_SLOW else None


def _own_seconds() -> float:
    """Return the processor seconds of this process, over all threads."""
    spent = psutil.Process().cpu_times()
    return float(spent.user + spent.system)


def _yielding_seconds(pid: int) -> dict[int, float]:
    """Return the processor seconds of a process's children of the lowest priority and of their children, by number."""
    found: dict[int, float] = {}
    for child in _children(pid):
        with contextlib.suppress(OSError, psutil.Error):
            process = psutil.Process(child)
            if child != os.getpid() and process.nice() == LOWEST_PRIORITY:
                spent = process.cpu_times()
                found |= {child: float(spent.user + spent.system)} | _yielding_seconds(child)
    return found


def _children(pid: int) -> list[int]:
    """Return the children of a process, without reading all processes of the machine; empty if they are unknown."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError, ValueError):  # the thread has just ended
            found += [int(child) for child in listed.read_text(encoding="ascii").split()]
    return found


def _family_seconds() -> float:
    """Return the processor seconds of this process, of its children that run, and of those that have ended."""
    this = psutil.Process()
    ended = this.cpu_times()
    total = _own_seconds() + float(ended.children_user + ended.children_system)
    for child in this.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            spent = child.cpu_times()
            total += float(spent.user + spent.system + spent.children_user + spent.children_system)
    return total


def _processor_seconds() -> tuple[float, float, int] | None:
    """Return the busy and stolen seconds of the processors that this process may use, and their number."""
    try:
        allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = [line.split() for line in _STAT.read_text(encoding="ascii").splitlines()]
    except (OSError, AttributeError):
        return None
    found = [[int(field) for field in fields[1:9]] for fields in lines if fields and fields[0] in allowed]
    if len(found) != len(allowed) or any(len(fields) < 8 for fields in found):
        return None
    ticks = float(os.sysconf("SC_CLK_TCK"))
    # user, nice, system, idle, iowait, irq, softirq, steal
    busy = sum(fields[0] + fields[1] + fields[2] + fields[5] + fields[6] for fields in found)
    return busy / ticks, sum(fields[7] for fields in found) / ticks, len(found)
