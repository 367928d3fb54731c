"""Read a device's energy from its own counters: NVML for a GPU, RAPL for a processor; None without either.

RAPL counts whole packages (powercap, docs.kernel.org/power/powercap/powercap.html), so it includes the energy of other
work on the machine. On most systems, only root can read it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from harness.measure.clock import EnergyCounter
from harness.measure.nvml import current_gpu

_POWERCAP = Path("/sys/class/powercap")

_MOST_WATTS: Final = 500.0
"""Maximum power of one package, which bounds how fast its counter can wrap around."""


class _GpuCounter:
    """NVML's counter of the GPU that torch uses."""

    source = "NVML"

    def joules(self) -> float | None:
        """Return the energy since the driver was loaded."""
        gpu = current_gpu()
        return None if gpu is None else gpu.energy_joules()


class RaplCounter:
    """Sum of the RAPL counters of all packages of the machine; each wraps around at its own range.

    If a counter may have wrapped around more than once since the last reading, this reading is None.

    Args:
        folder: folder in which the kernel shows the counters.
    """

    def __init__(self, folder: Path = _POWERCAP) -> None:
        # `intel-rapl:0` is a package, which includes its part `intel-rapl:0:1`; AMD's zones have the same names.
        # A zone `psys` is the whole board, packages included.
        tops = [zone for zone in sorted(folder.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._zones = [zone for zone in tops if _text(zone / "name").startswith("package")]
        self._read_at: float | None = None
        self.source = f"RAPL, {len(self._zones)} package{'s' if len(self._zones) != 1 else ''}"
        self._last: dict[Path, int] = {}
        self._wrapped: dict[Path, int] = {}

    def joules(self) -> float | None:
        """Return the energy since the machine started, with all observed wraps."""
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


def energy_counter(kind: str) -> EnergyCounter:
    """Return the energy counter of a `cpu` or `cuda` device, whose readings may be None."""
    return _GpuCounter() if kind == "cuda" else RaplCounter()


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
