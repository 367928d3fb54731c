"""Energy that a device took, by its own counters: NVML's of a GPU, RAPL's of a processor; where neither is, None.

RAPL counts whole packages (powercap, docs.kernel.org/power/powercap/powercap.html): on a machine with other work it is
everybody's energy. Most systems let only root read it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from harness.measure.clock import EnergyCounter
from harness.measure.nvml import current_gpu

POWERCAP = Path("/sys/class/powercap")

_MOST_WATTS: Final = 500.0
"""Of one package: it cannot have wrapped around twice in less than its range takes at that."""


class GpuCounter:
    """NVML's counter of the GPU that torch uses."""

    source = "NVML"

    def joules(self) -> float | None:
        """Since the driver was loaded."""
        gpu = current_gpu()
        return None if gpu is None else gpu.energy_joules()


class RaplCounter:
    """RAPL's counters of all packages of the machine, added up; each wraps around at its own range.

    Where one may have wrapped around more than once since it was read last, nobody knows how much that was: None, once.

    Args:
        folder: where the kernel shows them.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        # `intel-rapl:0` is a package, `intel-rapl:0:1` a part of it, which it counts already; AMD's bear the same name.
        # A zone `psys` is the whole board, packages included.
        tops = [zone for zone in sorted(folder.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._zones = [zone for zone in tops if _text(zone / "name").startswith("package")]
        self._read_at: float | None = None
        self.source = f"RAPL, {len(self._zones)} package{'s' if len(self._zones) != 1 else ''}"
        self._last: dict[Path, int] = {}
        self._wrapped: dict[Path, int] = {}

    def joules(self) -> float | None:
        """Since the machine started, with all wraps that were seen."""
        if not self._zones:
            return None
        clock, total, is_known = time.monotonic(), 0, True
        for zone in self._zones:
            now = _number(zone / "energy_uj")
            if now is None:
                return None
            limit = _number(zone / "max_energy_range_uj") or 0
            if self._read_at is not None and clock - self._read_at > limit / 1e6 / _MOST_WATTS:
                is_known = False
            if now < self._last.get(zone, 0):
                self._wrapped[zone] = self._wrapped.get(zone, 0) + limit
            self._last[zone] = now
            total += now + self._wrapped.get(zone, 0)
        self._read_at = clock
        return total / 1e6 if is_known else None


def counter(kind: str) -> EnergyCounter:
    """The counter of a `cpu` or `cuda` device; it may say nothing."""
    return GpuCounter() if kind == "cuda" else RaplCounter()


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
