"""What a cell may take, and what is said of one that took more, wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass

from harness.schedule.job import Cut, Job


@dataclass(frozen=True)
class Limits:
    """What a cell may take, whatever its budget.

    Attributes:
        cell_seconds: from its beginning to its record; None is no limit.
        host_bytes: resident memory of the worker; None is no limit.
    """

    cell_seconds: float | None = None
    host_bytes: int | None = None


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
