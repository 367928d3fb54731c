"""Seconds by phase, never counted twice.

Phases are exclusive: entering one pauses the one around it. What comes from a cache is charged at the seconds that
were measured when it was computed, so that a warm cell never looks cheaper than a cold one (protocol, Cost).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, get_args

from harness.measure.failures import Failures

Phase = Literal["load", "warmup", "encode", "tune", "fit", "predict", "measure"]
TRAIN_PHASES: tuple[Phase, ...] = ("encode", "tune", "fit")
"""What a `train_seconds` budget counts."""


class DeviceTimer(Protocol):
    """Seconds of a device's own clock between marks in its queue: reading them waits for nothing but the marks."""

    def mark(self) -> Any:
        """Put a mark behind all that was asked of the device so far."""
        ...

    def seconds(self, start: Any, end: Any) -> float:
        """Seconds between two marks, once the device has reached both."""
        ...


class EnergyCounter(Protocol):
    """Energy since some time in the past, in joules; None where it cannot be read (any more).

    Attributes:
        source: whose counter it is.
    """

    source: str

    def joules(self) -> float | None:
        """What the counter says now."""
        ...


class CudaTimer:
    """CUDA events."""

    def mark(self) -> Any:
        """An event in the current stream."""
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Waits for the later event."""
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000.0


class PhaseClock:
    """Wall-clock seconds of each phase of one cell.

    Args:
        synchronise: called at every boundary, so that work queued on an accelerator is counted where it was asked
            for; None on a CPU.
        timer: the accelerator's own clock; None on a CPU.
        energy: the device's counter, read at every boundary; None where it has none, or is shared.
        on_change: called after every boundary, in no phase's time; None calls nothing.

    A timer or a counter that fails is not read again: its figures are None, and `failures` says why.
    """

    def __init__(
        self,
        synchronise: Callable[[], None] | None = None,
        timer: DeviceTimer | None = None,
        energy: EnergyCounter | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self.failures = Failures()
        self._on_change = on_change
        self._aside: PhaseClock | None = None
        self._energy = energy
        self._joules: dict[Phase, float | None] = {}
        self._joules_before: float | None = None
        self._seconds: dict[Phase, float] = {}
        self._timer = timer
        self._mark: Any = None
        self._marks: list[tuple[Phase, Any, Any]] = []
        self._stack: list[Phase | None] = []
        self._since = 0.0
        self._synchronise = synchronise

    def _settle(self) -> None:
        """Give the time since the last boundary to the phase that is running, if any."""
        if self._synchronise is not None and self._stack:
            self._synchronise()
        now = time.perf_counter()
        mark = None if self._timer is None else self.failures.guard("device_fit_seconds", self._timer.mark)
        joules = None if self._energy is None else self.failures.guard("energy", self._energy.joules)
        if self._timer is not None and mark is None:
            self._timer = None
        if self._energy is not None and "energy" in self.failures:
            self._energy = None
        running = self._stack[-1] if self._stack else None
        if running is not None:
            self._seconds[running] = self._seconds.get(running, 0.0) + now - self._since
            before = self._joules_before
            self._charge_joules(running, None if joules is None or before is None else joules - before)
            if mark is not None:
                self._marks.append((running, self._mark, mark))
        self._since, self._mark, self._joules_before = now, mark, joules

    @contextmanager
    def _running(self, phase: Phase | None) -> Iterator[None]:
        self._settle()
        self._stack.append(phase)
        self._tell()
        try:
            yield
        finally:
            self._settle()
            self._stack.pop()
            self._tell()

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change()
            self._since = time.perf_counter()

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Count the block's seconds for `phase`; an enclosing phase is paused meanwhile."""
        with self._running(phase):
            yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count the block's seconds for no phase (measuring itself, filling a cache that is charged instead)."""
        with self._running(None):
            yield

    def charge(self, phase: Phase, seconds: float) -> None:
        """Add seconds that were measured elsewhere: what a reused result cost when it was computed."""
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds

    def charge_all(self, other: PhaseClock, phase: Phase, to: Phase) -> None:
        """Add what another clock counted for `phase`, in seconds and joules, to a phase of this one."""
        self._aside = None  # its seconds are this clock's from now on
        self.failures.update(other.failures)
        seconds = other.seconds(phase)
        if seconds is not None:
            self.charge(to, seconds)
            self._charge_joules(to, other.joules(phase))

    def _charge_joules(self, phase: Phase, joules: float | None) -> None:
        known = self._joules.get(phase, 0.0)
        self._joules[phase] = None if known is None or joules is None else known + joules

    def joules(self, phase: Phase) -> float | None:
        """Energy of `phase` that was measured, what was charged left out; None where any of it is not known."""
        return self._joules.get(phase)

    def aside(self) -> PhaseClock:
        """A clock of the same device that begins at nothing, for a fit within this one's cell."""
        self._aside = PhaseClock(self._synchronise, self._timer, self._energy, self._on_change)
        return self._aside

    def standing(self) -> tuple[float, Phase | None]:
        """Return the train seconds so far, and the phase that runs now; for another thread to ask.

        The seconds of a fit on a clock aside are included. The phase is None between phases.
        """
        aside = self._aside
        seconds, phase = self.train_seconds, next(iter(self._stack[-1:]), None)
        if aside is None:
            return seconds, phase
        other, inner = aside.standing()
        return seconds + other, inner

    @property
    def train_joules(self) -> float | None:
        """Energy of what a `train_seconds` budget counts; None where any of it is not known."""
        found = [self._joules[phase] for phase in TRAIN_PHASES if phase in self._joules]
        known = [joules for joules in found if joules is not None]
        return sum(known) if found and len(known) == len(found) else None

    @property
    def energy_source(self) -> str | None:
        """Whose counter `train_joules` is by; None where it is None."""
        return None if self._energy is None or self.train_joules is None else self._energy.source

    def seconds(self, phase: Phase) -> float | None:
        """Seconds of `phase` so far; None if nothing was ever counted for it."""
        known = self._seconds.get(phase)
        if self._stack and self._stack[-1] == phase:
            return (known or 0.0) + time.perf_counter() - self._since
        return known

    def device_seconds(self, phase: Phase) -> float | None:
        """Seconds of `phase` by the accelerator's own clock, what was charged left out; None without one.

        It runs on between two kernels: it checks the host's seconds, and is no measure of how busy the device was.
        """
        if self._timer is None:
            return None
        spans = [(start, end) for of, start, end in self._marks if of == phase]
        timer = self._timer

        def total() -> float:
            return sum(timer.seconds(start, end) for start, end in spans)

        return self.failures.guard("device_fit_seconds", total) if spans else None

    @property
    def train_seconds(self) -> float:
        """Seconds so far of what a `train_seconds` budget counts."""
        return sum(self.seconds(phase) or 0.0 for phase in TRAIN_PHASES)

    def by_phase(self) -> dict[str, float | None]:
        """`{"load_seconds": ..., ...}` with None for phases that never ran."""
        return {f"{phase}_seconds": self.seconds(phase) for phase in get_args(Phase)}
