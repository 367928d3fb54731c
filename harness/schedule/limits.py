"""What a cell may take, and what is said of one that took more, wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass

from harness.measure import GRACE_SECONDS, OWN_SHARE, SILENCE_SECONDS, Watch
from harness.schedule.job import Cut, Job


@dataclass(frozen=True)
class Limits:
    """What a cell may take, whatever its budget.

    Attributes:
        cell_seconds: from its beginning to its record; None is no limit.
        host_bytes: resident memory of the worker; None is no limit.
        grace_seconds: beyond twice a cell's `train_seconds`, until it is cut where it does not end by itself.
        silence_seconds: that a worker may say nothing where no budget of seconds is running out.
    """

    cell_seconds: float | None = None
    host_bytes: int | None = None
    grace_seconds: float = GRACE_SECONDS
    silence_seconds: float = SILENCE_SECONDS

    def watch(self, now: float, job: Job) -> Watch:
        """Return a watch over a cell that is handed out now."""
        budget = job.planned.cell.budget.train_seconds
        return Watch(now, budget, grace=self.grace_seconds, silence=self.silence_seconds)

    @property
    def own_grace_seconds(self) -> float:
        """Seconds after which a worker cuts its own cell, so that the driver need not."""
        return OWN_SHARE * self.grace_seconds


def over_time(seconds: float, limit: float | None) -> Cut | None:
    """Whether a cell has gone on for longer than it may."""
    if limit is None or seconds <= limit:
        return None
    return Cut("out_of_time", f"The cell was stopped after {seconds:.0f} s; its limit is {limit:g} s (--cell-limit).")


def over_memory(job: Job, used: int, baseline: int, *, on_host: bool, host_bytes: int | None, giver: str) -> Cut | None:
    """Whether a worker holds more than its cell's budget or its host allows.

    Args:
        job: the running cell.
        used: resident bytes now.
        baseline: the same when the cell began.
        on_host: whether the budget is of the host's memory; an accelerator's is looked at by the cell itself.
        host_bytes: what the worker may hold; None is no limit.
        giver: whose memory that is, in words.
    """
    above, allowed = used - baseline, job.planned.cell.budget.peak_memory_bytes
    if on_host and allowed is not None and above > allowed:
        return Cut("out_of_memory", f"The cell needed {above:,} bytes above the baseline; its budget is {allowed:,}.")
    if host_bytes is not None and used > host_bytes:
        return Cut("out_of_memory", f"The worker held {used:,} bytes of memory; {giver} gives it {host_bytes:,}.")
    return None
