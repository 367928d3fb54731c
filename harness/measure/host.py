"""The memory of this host as this process may use it, and how often the kernel has killed for want of it."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import psutil

from harness.measure.device import Device

_HOST_SHARE = 0.95
"""Of the memory that this process may use; above it the kernel chooses whom to kill, and it may choose the driver."""


def host_limit_bytes() -> int:
    """What a worker may hold before it is stopped: nearly all that this process may use."""
    available = psutil.virtual_memory().total
    for path in _cgroup_files("memory.max", "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            available = min(available, int(path.read_text()))
    return int(available * _HOST_SHARE)


def kills_for_memory() -> int | None:
    """How many processes the kernel has killed for want of memory in this process's control group; None if unknown."""
    for path in _cgroup_files("memory.events", "memory.oom_control"):
        with suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
            if found:
                return int(found[1])
    return None


def _cgroup_files(version_2: str, version_1: str) -> list[Path]:
    """Where a file of this process's control group for memory would be, under either version, nearest first."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    root = Path("/sys/fs/cgroup")
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += [root / path.lstrip("/") / version_2, root / version_2]
        elif "memory" in controllers.split(","):
            found += [root / "memory" / path.lstrip("/") / version_1, root / "memory" / version_1]
    return found


def memory_bytes_of(device: Device, host_bytes: int) -> float:
    """Return the bytes of memory that a cell may take on a device; on a CPU, those of the host."""
    if device.kind == "cpu":
        return float(host_bytes)
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory)
