"""A place for one worker, wherever it runs: the cell that it has, and the limits that end the cell."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from harness.measure import kills_for_memory
from harness.running import GRACE_SECONDS, OWN_SHARE, SILENCE_SECONDS, Job, Watch
from harness.schedule.messages import Alive, Begun, Checked, Done, Event, FromWorker, Lost, Ready, Stopped

LOOK_SECONDS = 0.1
"""Time between two looks at the limits of running cells."""


@dataclass(frozen=True)
class Limits:
    """Limits on every cell of a run, beside its own budget.

    Attributes:
        cell_seconds: seconds from a cell's beginning to its record; None is no limit.
        host_bytes: resident memory of a worker; None is no limit.
        grace_seconds: seconds beyond twice a cell's `train_seconds` before it is stopped.
        silence_seconds: seconds without a message before a worker counts as hanging, where no budget is running out.
    """

    cell_seconds: float | None = None
    host_bytes: int | None = None
    grace_seconds: float = GRACE_SECONDS
    silence_seconds: float = SILENCE_SECONDS

    @property
    def own_grace_seconds(self) -> float:
        """Seconds after which a worker stops its own cell, so that the driver need not end the worker."""
        return OWN_SHARE * self.grace_seconds


def over_memory(
    job: Job, used: int, baseline: int, *, on_host: bool, host_bytes: int | None, giver: str
) -> Stopped | None:
    """Return why a cell is stopped if its worker holds more than the cell's budget or the host allows.

    Args:
        job: the running cell.
        used: resident bytes now.
        baseline: resident bytes when the cell began.
        on_host: whether the budget limits the host's memory; the cell itself checks an accelerator's.
        host_bytes: limit on the worker's memory; None is no limit.
        giver: whose memory that is, in words.
    """
    above, allowed = used - baseline, job.planned.cell.budget.peak_memory_bytes
    if on_host and allowed is not None and above > allowed:
        return Stopped(
            "out_of_memory", f"The cell needed {above:,} bytes above the baseline; its budget is {allowed:,}."
        )
    if host_bytes is not None and used > host_bytes:
        return Stopped("out_of_memory", f"The worker held {used:,} bytes of memory; {giver} gives it {host_bytes:,}.")
    return None


_Slot = TypeVar("_Slot", bound="Slot")


class Slot(ABC):
    """A place for one worker.

    Args:
        limits: limits on a cell.

    Attributes:
        job: the running cell; None where there is none.
        backbone: fingerprint of the backbone that its last cell used; None before.
        where: words that name the worker's place after a verb.
    """

    where = ""

    def __init__(self, limits: Limits) -> None:
        self.job: Job | None = None
        self.backbone: str | None = None
        self._limits = limits
        self._watch: Watch | None = None
        self._began_at: float | None = None
        self._baseline_bytes = 0
        self._kills_before = 0

    @abstractmethod
    def stop(self) -> None:
        """End the worker's process; what it was running is lost."""

    def events(self, now: float) -> list[tuple[Job, Event]]:
        """Return the events of the running cell since the last call; stop a cell that is over a limit."""
        job = self.job
        if job is None:
            return []
        found = self.receive(now)
        over = self.over(now)
        if over is not None:
            self.stop()
            found.append(over)
        return [(job, event) for event in found]

    def receive(self, now: float) -> list[Event]:
        """Return what the worker has said of the running cell since the last call."""
        events: list[Event] = []
        while self.job is not None and (message := self._next_or_loss()) is not None:
            if self._watch is not None:
                standing = message.standing if isinstance(message, Alive) else None
                is_of_job = standing is not None and standing.cell == self.job.key
                self._watch.hear(now, standing if is_of_job else None)
            if isinstance(message, Done) and message.key != self.job.key:
                continue
            if isinstance(message, Begun):
                self._began_at, self._baseline_bytes = now, message.rss_bytes
            if not isinstance(message, (Ready, Checked, Alive)):
                events.append(message)
            if isinstance(message, Done) and not message.is_last:
                self.job = None
            elif isinstance(message, (Done, Lost, Stopped)):
                self.stop()  # or the next cell would be given to a process that is about to end
        return events

    def over(self, now: float) -> Stopped | Lost | None:
        """Return how the running cell ends if it is over a limit or its worker hangs; None otherwise."""
        if self.job is None or self._watch is None:
            return None
        why = self._watch.overdue(now, self._is_stopped)
        if self._began_at is None:  # the cell is not to blame, so another worker tries it
            return None if why is None else self._loss(f"did not begin the cell{self.where} ({why})")
        seconds, limit = now - self._began_at, self._limits.cell_seconds
        if limit is not None and seconds > limit:
            return Stopped(
                "out_of_time", f"The cell was stopped after {seconds:.0f} s; its limit is {limit:g} s (--cell-limit)."
            )
        return self._over_memory() if why is None else Stopped("out_of_time", why)

    def _assign(self, job: Job, now: float) -> None:
        """Take note of a cell that the worker is given now."""
        budget, limits = job.planned.cell.budget.train_seconds, self._limits
        self.job, self._began_at = job, None
        self.backbone = job.planned.cell.weights or self.backbone
        self._watch = Watch(now, budget, grace=limits.grace_seconds, silence=limits.silence_seconds)
        self._kills_before = kills_for_memory() or 0

    def _was_memory_short(self) -> bool:
        """Return whether the kernel of this machine has killed a process for its memory since the cell was given."""
        return (kills_for_memory() or 0) > self._kills_before

    @abstractmethod
    def _next_or_loss(self) -> FromWorker | Event | None:
        """Return the worker's next message, or its loss; None where it has said nothing more."""

    def _loss(self, how: str) -> Lost:
        return Lost(how)

    def _is_stopped(self) -> bool:
        """Return whether the worker's process is stopped (SIGSTOP), if that is known."""
        return False

    def _over_memory(self) -> Stopped | None:
        """Return why the cell is stopped if the driver sees that it is over a limit on memory."""
        return None


def best_slot(free: Sequence[_Slot], job: Job) -> _Slot:
    """Return the place for a cell among free ones: one that has its backbone already, else the first."""
    wanted = job.planned.cell.weights
    return next((slot for slot in free if wanted is not None and slot.backbone == wanted), free[0])


class SlotWorkers(ABC):
    """Workers that each have a slot; leaving the context ends them."""

    @property
    @abstractmethod
    def n_running(self) -> int:
        """Number of cells that were started and have not ended."""

    def events(self, timeout: float) -> list[tuple[Job, Event]]:
        """Return the events of running cells; wait up to `timeout` seconds for the first.

        A cell ends with exactly one `Done`, `Lost` or `Stopped`.

        Raises:
            UsageError: no worker is left.
        """
        until = time.monotonic() + timeout
        while self.n_running:
            found = self._look(max(0.0, min(LOOK_SECONDS, until - time.monotonic())))
            if found or time.monotonic() >= until:
                return found
        return []

    @abstractmethod
    def close(self) -> None:
        """End all workers now; the cells that they were running are lost."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _look(self, timeout: float) -> list[tuple[Job, Event]]:
        """Wait up to `timeout` seconds for a message; return the events of all slots."""
