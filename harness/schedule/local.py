"""Worker processes on this machine: they run cells, they are watched, and they may die without taking a run along."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.backbones import BackboneFiles
from harness.measure import AttentiveClock, Device
from harness.schedule.job import Event, Job
from harness.schedule.limits import Limits
from harness.schedule.local_slot import Slot
from harness.tasks import Task

LOOK_SECONDS = 0.1
"""How often limits are looked at."""


class LocalWorkers:
    """One worker process or several; each runs one cell at a time and is started anew after it has died.

    Args:
        device: `auto`, `cpu` or `cuda`.
        cache: folder of the feature cache; None keeps features in memory only.
        n_workers: how many cells may run at the same time.
        limits: what a cell may take; the memory of the host is shared evenly among workers.

    Attributes:
        remarks: none: all workers are on this machine, and all are used.
    """

    def __init__(self, device: str, cache: Path | None, *, n_workers: int = 1, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        if n_workers > 1 and self._limits.host_bytes is not None:
            self._limits = replace(self._limits, host_bytes=self._limits.host_bytes // n_workers)
        self._news = threading.Event()
        self._attention = AttentiveClock()
        self._slots = [Slot(device, cache, n_workers, self._limits, self._news) for _ in range(n_workers)]
        self.remarks: list[str] = []

    @property
    def device(self) -> Device:
        """Where cells run, as the first worker says; starts it, and waits for it.

        Raises:
            UsageError: it does not start.
        """
        return self._slots[0].device()

    @property
    def n_free(self) -> int:
        """How many cells could be started now."""
        return sum(slot.job is None for slot in self._slots)

    @property
    def n_running(self) -> int:
        """How many cells are running."""
        return len(self._slots) - self.n_free

    def warm_up(self) -> None:
        """Start the workers now: they import what they need while the driver gets ready."""
        for slot in self._slots:
            slot.warm_up()

    def refusals(self, backbones: Sequence[BackboneFiles]) -> list[str]:
        """Why backbones cannot be loaded, of those that cannot: found out before anything is trained."""
        return [why for files in backbones if (why := self._slots[0].check(files)) is not None]

    def start(self, job: Job, task: Task) -> None:
        """Run a cell on a free worker; `events` tells what becomes of it."""
        next(slot for slot in self._slots if slot.job is None).start(job, task, self._attention.look())

    def events(self, timeout: float) -> list[tuple[Job, Event]]:
        """What has happened to running cells; waits up to `timeout` seconds for something to happen.

        A cell ends with exactly one `Done`, `Lost` or `Cut`.
        """
        until = time.monotonic() + timeout
        while True:
            running = [slot for slot in self._slots if slot.job is not None]
            if not running:
                return []
            self._news.wait(max(0.0, min(LOOK_SECONDS, until - time.monotonic())))
            self._news.clear()
            now = self._attention.look()
            found: list[tuple[Job, Event]] = []
            for slot in running:
                job = slot.job
                assert job is not None
                found += [(job, event) for event in slot.receive(now)]
                if slot.job is not None:
                    over = slot.over(now)
                    if over is not None:
                        slot.kill()
                        found.append((job, over))
            if found or time.monotonic() >= until:
                return found

    def close(self) -> None:
        """End all workers now; what they were running is lost."""
        for slot in self._slots:
            slot.kill()

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
