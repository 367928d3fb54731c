"""Judge whether a running cell still makes progress, from its worker's reports and their age.

A worker judges its own cell. So does the process that started the worker, since a call that holds the interpreter, or
a stopped process, prevents the worker from judging. Both sides use `Watch`, each with its own clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

Activity = Literal["counted", "watched", "exempt"]
"""Way of judging the present seconds of a cell.

`counted`: they count against `train_seconds`. `watched`: they do not count, but the cell must show progress
(predicting). `exempt`: neither (loading, warming up, measuring); only the silence of the whole worker is judged.
"""

GRACE_SECONDS: Final = 8.0
"""Seconds beyond twice `train_seconds` after which a cell is ended. Ending a worker takes up to two seconds more."""

OWN_SHARE: Final = 0.75
"""Share of the grace after which a worker ends its own cell; its record includes costs, which the driver's lacks."""

SILENCE_SECONDS: Final = 600.0
"""Seconds that a worker may be silent while no budget of seconds is running out.

A worker reports every second, from a separate thread. Only a call that holds the interpreter lock, or a stopped
process, keeps it silent. Such calls are legitimate and may take minutes; no known one takes ten.
"""

_MOSTLY: Final = 0.5
"""Share of a time without progress that a worker may have been silent and still counts as heard."""

_MOST_PER_LOOK: Final = 2.0


@dataclass(frozen=True)
class Standing:
    """Progress of a running cell.

    Attributes:
        doing: the stage in a word: `fitting`, `predicting`.
        activity: way of judging its seconds.
        train_seconds: seconds counted against the budget so far.
        n_signs: signs of progress so far.
        cell: identity and attempt of the cell; None if the worker does not report it.
    """

    doing: str
    activity: Activity
    train_seconds: float
    n_signs: int
    cell: tuple[str, int] | None = None


class AttentiveClock:
    """Clock of the seconds during which its owner was able to look.

    At most two seconds count per look, so time during which a driver was stopped, or a machine frozen, does not count.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._looked_at = now()
        self.seconds = 0.0

    def look(self) -> float:
        """Return the seconds counted so far, including those since the last look."""
        now = self._now()
        self.seconds += min(max(0.0, now - self._looked_at), _MOST_PER_LOOK)
        self._looked_at = now
        return self.seconds


class Watch:
    """Judge of one running cell by its worker's reports. All times are seconds of the caller's clock.

    Args:
        now: time at which the cell was handed out.
        train_seconds: the cell's budget; None without one.
        grace: seconds beyond twice the budget.
        silence: seconds of silence while no budget is running out.
    """

    def __init__(
        self,
        now: float,
        train_seconds: float | None,
        *,
        grace: float = GRACE_SECONDS,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self._limit = train_seconds
        self._grace = grace
        self._silence = silence
        self._heard_at = self._progress_at = now
        self._standing: Standing | None = None

    def hear(self, now: float, standing: Standing | None = None) -> None:
        """Take note of a sign of life of the worker, with its cell's progress if it reports it."""
        self._heard_at = now
        if standing is not None:
            if standing != self._standing:
                self._progress_at = now
            self._standing = standing

    def overdue(self, now: float, is_stopped: Callable[[], bool] = lambda: False) -> str | None:
        """Return the reason for ending the cell, or None.

        Args:
            now: the time.
            is_stopped: function that tells whether the worker's process is stopped; called only if that decides.
        """
        silent, standing = now - self._heard_at, self._standing
        doing = "starting the cell" if standing is None else standing.doing
        if self._limit is not None:
            spent = 0.0 if standing is None else standing.train_seconds
            most = 2 * self._limit + self._grace
            if standing is not None and standing.activity == "counted":
                late = spent + silent > most
            elif standing is not None and standing.activity == "watched":
                late = spent + now - self._progress_at > most
            else:
                late = silent + spent > most and is_stopped()
            if late and standing is not None and self._is_heard(now, standing):
                return self._no_progress(now, standing)
            if late:
                return self._silent(silent, doing, is_stopped())
        return self._silent(silent, doing, is_stopped()) if silent > self._silence else None

    def _is_heard(self, now: float, standing: Standing) -> bool:
        """Return whether the worker's own reports show that the cell is late."""
        if standing.activity == "counted":
            return standing.train_seconds > 2 * (self._limit or 0.0)
        return now - self._heard_at < _MOSTLY * (now - self._progress_at)

    def _no_progress(self, now: float, standing: Standing) -> str:
        limit = self._limit or 0.0
        if standing.activity == "counted":
            return too_long(standing.train_seconds, limit)
        return (
            f"No progress for {now - self._progress_at:.0f} s while {standing.doing}; the budget is {limit:g} s "
            "(train_seconds). Raise it, or have the method call bench.report as it goes on."
        )

    def _silent(self, seconds: float, doing: str, is_stopped: bool) -> str:
        cause = (
            "its process is stopped (SIGSTOP)"
            if is_stopped
            else "a call holds Python's interpreter lock, or the process does not run"
        )
        remedy = (
            f"the budget is {self._limit:g} s (train_seconds); raise it where the call needs longer."
            if self._limit is not None
            else "--cell-limit ends such cells sooner."
        )
        return f"The worker was silent for {seconds:.0f} s while {doing}: {cause}. It was ended; {remedy}"


def too_long(seconds: float, limit: float) -> str:
    """Return the reason for ending a fit that took more than twice its budget."""
    return f"Training took {seconds:.1f} s against a budget of {limit:g} s, and cannot be interrupted."


class Presence:
    """Detector of times when this process did not run: it was stopped, frozen, or waited for a processor.

    A thread calls `look` and sleeps a moment between two calls. In a gap with hardly any processor time, no method ran.
    """

    _SHORTEST_GAP_SECONDS: Final = 1.0
    _MOST_BUSY: Final = 0.1

    def __init__(self) -> None:
        self._looked_at, self._used = time.monotonic(), time.process_time()

    def look(self) -> float:
        """Return the seconds since the last look during which the process did not run; usually 0."""
        now, used = time.monotonic(), time.process_time()
        gap, busy = now - self._looked_at, used - self._used
        self._looked_at, self._used = now, used
        return gap - busy if gap > self._SHORTEST_GAP_SECONDS and busy < self._MOST_BUSY * gap else 0.0
