"""Correct forecasts of cells by the cells that have run so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

_PRIOR_SECONDS = 10.0
"""Weight of the forecasts themselves, in seconds of cells that take as long as forecast."""

_LEAST_FRACTION = 0.15
"""Fraction of a fit from which its total time follows; before, loading dominates."""

_LEAST_EVIDENCE = 0.03
"""Share of the remaining seconds that must have run before forecasts without a measurement count."""


@dataclass
class _Running:
    began: float
    forecast: float
    is_measured: bool
    projected: float | None = None


@dataclass
class _Sums:
    """Forecast and actual seconds of cells."""

    forecast: float = 0.0
    actual: float = 0.0


@dataclass
class Pace:
    """Ratio of actual to forecast seconds, and the seconds left of the running cells.

    Forecasts from measurements and those by arithmetic have a ratio each, since their errors differ.

    Args:
        n_at_a_time: number of cells that run at a time.
        now: clock.
    """

    n_at_a_time: int = 1
    now: Callable[[], float] = time.monotonic
    _running: dict[str, _Running] = field(default_factory=dict)
    _ended: dict[bool, _Sums] = field(default_factory=lambda: {True: _Sums(), False: _Sums()})

    def begins(self, cell: str, forecast: float, *, is_measured: bool) -> None:
        """Take note that a cell starts, with its forecast seconds, from measurements or by arithmetic."""
        self._running[cell] = _Running(self.now(), forecast, is_measured)

    def goes_on(self, cell: str, fraction: float | None) -> None:
        """Take note of the fraction of its budget that a running cell has spent."""
        running = self._running.get(cell)
        if running is not None and fraction is not None and fraction >= _LEAST_FRACTION:
            running.projected = (self.now() - running.began) / min(1.0, fraction)

    def ends(self, cell: str) -> None:
        """Take note that a cell has ended."""
        running = self._running.pop(cell, None)
        if running is not None:
            sums = self._ended[running.is_measured]
            sums.forecast += running.forecast
            sums.actual += self.now() - running.began

    def seconds_left(self, measured: float, by_arithmetic: float) -> float | None:
        """Return the expected seconds until the last cell ends; None while they cannot be known.

        Args:
            measured: forecast seconds of the waiting cells whose forecasts are from measurements.
            by_arithmetic: forecast seconds of the other waiting cells.
        """
        running = {True: 0.0, False: 0.0}
        longest = 0.0
        for one in self._running.values():
            total = one.forecast * self._ratio(one.is_measured) if one.projected is None else one.projected
            left = max(0.0, total - (self.now() - one.began))
            running[one.is_measured and one.projected is None] += left
            longest = max(longest, left)
        sure = measured * self._ratio(True) + running[True]
        unsure = by_arithmetic * self._ratio(False) + running[False]
        if unsure > sure and self._evidence() < _LEAST_EVIDENCE * (sure + unsure):
            return None
        return max(longest, (sure + unsure) / self.n_at_a_time)

    def _ratio(self, is_measured: bool) -> float:
        sums = self._with_projected(is_measured)
        return (sums.actual + _PRIOR_SECONDS) / (sums.forecast + _PRIOR_SECONDS)

    def _evidence(self) -> float:
        return sum(self._with_projected(is_measured).actual for is_measured in (True, False))

    def _with_projected(self, is_measured: bool) -> _Sums:
        known = [one for one in self._running.values() if one.projected is not None and one.is_measured == is_measured]
        ended = self._ended[is_measured]
        return _Sums(
            ended.forecast + sum(one.forecast for one in known),
            ended.actual + sum(one.projected or 0.0 for one in known),
        )
