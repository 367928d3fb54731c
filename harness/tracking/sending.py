"""Sending of a run's records to several trackers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from harness.records import Record
from harness.tracking.delivery import Delivery, Tracked
from harness.tracking.tracker import Tracker

__all__ = ["Sending", "Tracked"]

_MOST_SECONDS: Final = 0.8
"""Seconds that a finished run waits for trackers that do not answer."""

_MOST_SHARE: Final = 0.02
"""Share of a run's seconds that it waits at its end for trackers that do answer."""

_PATIENCE_SECONDS: Final = 120.0
"""Seconds without an answer after which an export gives a tracker up; the first answer may need a new database."""


class Sending:
    """Open trackers, each with a process of its own.

    Args:
        trackers: the trackers, of which all packages are installed.
    """

    def __init__(self, trackers: Sequence[type[Tracker]]) -> None:
        self._began = time.monotonic()
        self._deliveries = [Delivery(tracker) for tracker in trackers]

    def __enter__(self) -> Sending:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for delivery in self._deliveries:
            if error is None:
                delivery.close()
            else:
                delivery.stop()

    def give_way(self) -> None:
        """Let the trackers have only what the measured cells leave of the processors."""
        for delivery in self._deliveries:
            delivery.give_way()

    def hurry(self) -> None:
        """Let the trackers have their share of the processors again: nothing is measured any more."""
        for delivery in self._deliveries:
            delivery.hurry()

    def add(self, record: Record) -> None:
        """Send a record; return at once, whatever the trackers do."""
        self._put(record, 0.0)

    def add_waiting(self, record: Record) -> None:
        """Send a record; wait where a tracker that still answers has many to keep."""
        self._put(record, _PATIENCE_SECONDS)

    def news(self) -> list[str]:
        """Return a sentence for each tracker that has just given up."""
        found = [(delivery.name, delivery.news()) for delivery in self._deliveries]
        return [f"Nothing more is sent to {name}: {why}. The run goes on." for name, why in found if why is not None]

    def finish(self) -> tuple[Tracked, ...]:
        """Wait for the last answers for a second at most, or a fiftieth of the run."""
        now = time.monotonic()
        until = now + max(_MOST_SECONDS, _MOST_SHARE * (now - self._began))
        return self._finish(_MOST_SECONDS, until)

    def finish_waiting(self) -> tuple[Tracked, ...]:
        """Wait for all answers, as long as trackers give some."""
        return self._finish(_PATIENCE_SECONDS, float("inf"))

    def _finish(self, patience: float, until: float) -> tuple[Tracked, ...]:
        for delivery in self._deliveries:
            delivery.close()
        return tuple(delivery.finish(patience, until) for delivery in self._deliveries)

    def _put(self, record: Record, patience: float) -> None:
        record = dataclasses.replace(record, predictions=None)  # they would fill the queue's memory
        for delivery in self._deliveries:
            delivery.put(record, patience)
