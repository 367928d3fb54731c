"""Find the memory limit of this process on the host, and count kills by the kernel for lack of memory."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import psutil

_HOST_SHARE = 0.95
"""Maximum share of the host's memory for a worker; above it, the kernel kills a process, perhaps the driver."""


def host_limit_bytes() -> int:
    """Return the bytes that a worker may hold before it is stopped: nearly all that this process may use."""
    available = psutil.virtual_memory().total
    for path in _cgroup_files("memory.max", "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            available = min(available, int(path.read_text()))
    return int(available * _HOST_SHARE)


def kills_for_memory() -> int | None:
    """Return how many processes of this control group the kernel has killed for lack of memory; None if unknown."""
    for path in _cgroup_files("memory.events", "memory.oom_control"):
        with suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
            if found:
                return int(found[1])
    return None


def _cgroup_files(version_2: str, version_1: str) -> list[Path]:
    """Return possible paths of a file in this process's memory control group, for both versions, nearest first."""
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
