"""Whether a cell had its processors to itself: what else ran on them, and how evenly training went on."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from harness.records import CurvePoint

MOST_OF_OTHERS: Final = 0.1
"""Share of its processors' time that other processes may take: the driver and the system need some of it."""

MOST_STOLEN: Final = 0.05
"""Share that a virtual machine's host may take for others."""

LEAST_SECONDS: Final = 1.0
"""What is shorter cannot be judged: the kernel counts in hundredths of a second."""

SLOW: Final = 0.5
MOST_SLOW: Final = 0.1
"""A fit is uneven where more than a tenth of its seconds went by at less than half of its median rate."""

_LEAST_WINDOWS = 8
_STAT = Path("/proc/stat")


class Steadiness:
    """Counts, from its making to `disturbance`, what others did on the processors that this process may use.

    Only on Linux, and only where `/proc/stat` shows these processors one by one; elsewhere it knows nothing.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._own = _own_seconds()
        self._all = _processor_seconds()

    def disturbance(self) -> str | None:
        """What disturbed the processors so far, in words; None where nothing did, or nothing is known."""
        wall = time.perf_counter() - self._began
        now = _processor_seconds()
        if self._all is None or now is None or wall < LEAST_SECONDS:
            return None
        (busy, stolen, n), own = now, _own_seconds() - self._own
        return describe(busy - self._all[0], stolen - self._all[1], own, wall * n)


def describe(busy: float, stolen: float, own: float, there: float) -> str | None:
    """In words, whether processors were disturbed.

    Args:
        busy: seconds that they worked, whoever for.
        stolen: seconds that a virtual machine's host took from them.
        own: seconds that this process worked.
        there: seconds that they had, all together.
    """
    others, taken = max(0.0, busy - own) / there, stolen / there
    if others > MOST_OF_OTHERS:
        return f"other processes took {others:.0%} of its processors' time"
    if taken > MOST_STOLEN:
        return f"the host took {taken:.0%} of its processors' time"
    return None


def unevenness(curve: Sequence[CurvePoint]) -> str | None:
    """Whether a fit slowed down for a while, in words; the first window is left out: kernels are chosen in it."""
    if len(curve) < _LEAST_WINDOWS + 2:
        return None
    windows = [
        (after.seconds - before.seconds, after.flops - before.flops)
        for before, after in itertools.pairwise(curve[1:])
        if after.seconds > before.seconds and after.flops is not None and before.flops is not None
    ]
    if sum(seconds for seconds, _ in windows) < LEAST_SECONDS or len(windows) < _LEAST_WINDOWS:
        return None
    rates = [flops / seconds for seconds, flops in windows]
    usual = statistics.median(rates)
    slow = sum(seconds for (seconds, _), rate in zip(windows, rates, strict=True) if rate < SLOW * usual)
    share = slow / sum(seconds for seconds, _ in windows)
    return f"{share:.0%} of its fit went at less than half of its usual rate" if share > MOST_SLOW else None


def _own_seconds() -> float:
    """Processor seconds of this process, all threads."""
    spent = psutil.Process().cpu_times()
    return float(spent.user + spent.system)


def _processor_seconds() -> tuple[float, float, int] | None:
    """Seconds that the processors which this process may use have worked, and were stolen; and how many they are."""
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
