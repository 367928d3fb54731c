"""Energy that a device took, by its own counters: NVML's of a GPU, RAPL's of a processor; where neither is, None.

RAPL counts whole packages (powercap, docs.kernel.org/power/powercap/powercap.html): on a machine with other work it is
everybody's energy. Most systems let only root read it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from harness.measure.nvml import current_gpu

POWERCAP = Path("/sys/class/powercap")


class Counter(Protocol):
    """Energy since some time in the past, in joules; None where it cannot be read (any more)."""

    source: str

    def joules(self) -> float | None:
        """What the counter says now."""
        ...


class GpuCounter:
    """NVML's counter of the GPU that torch uses."""

    source = "NVML"

    def joules(self) -> float | None:
        """Since the driver was loaded."""
        gpu = current_gpu()
        return None if gpu is None else gpu.energy_joules()


class RaplCounter:
    """RAPL's counters of all packages of the machine, added up; each wraps around at its own range.

    Args:
        folder: where the kernel shows them.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        # `intel-rapl:0` is a package, `intel-rapl:0:1` a part of it, which it counts already; AMD's bear the same name.
        self._zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self.source = f"RAPL, {len(self._zones)} package{'s' if len(self._zones) != 1 else ''}"
        self._last: dict[Path, int] = {}
        self._wrapped: dict[Path, int] = {}

    def joules(self) -> float | None:
        """Since the machine started, with all wraps that were seen."""
        if not self._zones:
            return None
        total = 0
        for zone in self._zones:
            now = _number(zone / "energy_uj")
            if now is None:
                return None
            if now < self._last.get(zone, 0):
                self._wrapped[zone] = self._wrapped.get(zone, 0) + (_number(zone / "max_energy_range_uj") or 0)
            self._last[zone] = now
            total += now + self._wrapped.get(zone, 0)
        return total / 1e6


def counter(kind: str) -> Counter:
    """The counter of a `cpu` or `cuda` device; it may say nothing."""
    return GpuCounter() if kind == "cuda" else RaplCounter()


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
