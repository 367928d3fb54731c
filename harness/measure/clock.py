"""Measure seconds and joules by phase, each counted once.

Phases are exclusive: entering one pauses the enclosing one. Cached results are charged at the seconds measured when
they were computed, so a warm cell never looks cheaper than a cold one (protocol, Cost).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, get_args

from harness.measure.failures import Failures

Phase = Literal["load", "warmup", "encode", "tune", "fit", "predict", "measure"]
TRAIN_PHASES: tuple[Phase, ...] = ("encode", "tune", "fit")
"""Phases that a `train_seconds` budget counts."""


class DeviceTimer(Protocol):
    """A device's own clock, which measures seconds between marks in its queue without waiting for other work."""

    def mark(self) -> Any:
        """Put a mark after all work queued so far."""
        ...

    def seconds(self, start: Any, end: Any) -> float:
        """Return the seconds between two marks, once the device has reached both."""
        ...


class EnergyCounter(Protocol):
    """A counter of energy since some moment in the past.

    Attributes:
        source: name of the counter, such as `NVML`.
    """

    source: str

    def joules(self) -> float | None:
        """Return the present reading in joules; None if it cannot be read."""
        ...


class CudaTimer:
    """A timer made of CUDA events."""

    def mark(self) -> Any:
        """Record an event in the current stream."""
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Wait for the later event and return the seconds between both."""
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000.0


class PhaseClock:
    """Wall-clock seconds of each phase of one cell.

    Args:
        synchronise: function called at every boundary, so that queued work of an accelerator counts for the phase
            that queued it; None on a CPU.
        timer: the accelerator's own clock; None on a CPU.
        energy: the device's counter, read at every boundary; None if there is none, or the device is shared.
        on_change: function called after every boundary, outside all phases; None calls nothing.

    A timer or counter that fails is not read again: its figures are None, and `failures` gives the reason.
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
        """Add the time since the last boundary to the running phase, if any."""
        try:
            if self._synchronise is not None and self._stack:
                self._synchronise()
        finally:  # the seconds count even if the device has failed
            self._count()

    def _count(self) -> None:
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
        except BaseException:
            with contextlib.suppress(Exception):  # a device that has failed says so again; the first error counts
                self._leave()
            raise
        self._leave()

    def _leave(self) -> None:
        try:
            self._settle()
        finally:
            self._stack.pop()
            self._tell()

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change()
            self._since = time.perf_counter()

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Count the block's seconds for `phase`, and pause the enclosing phase."""
        with self._running(phase):
            yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count the block's seconds for no phase: for measuring itself, or filling a cache that is charged instead."""
        with self._running(None):
            yield

    def charge(self, phase: Phase, seconds: float) -> None:
        """Add seconds measured elsewhere, such as the original cost of a reused result."""
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds

    def set_aside(self, seconds: float) -> None:
        """Charge seconds that have just passed to "measure" instead of the running phase, if there is one."""
        running = self._stack[-1] if self._stack else None
        if running is not None and running != "measure":
            self.charge(running, -seconds)
            self.charge("measure", seconds)

    def charge_all(self, other: PhaseClock, phase: Phase, to: Phase) -> None:
        """Add another clock's seconds and joules of `phase` to a phase of this one."""
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
        """Return the measured energy of `phase`, without charged work; None if any part is unknown."""
        return self._joules.get(phase)

    def aside(self) -> PhaseClock:
        """Return a new clock of the same device that starts at zero, for a fit within this clock's cell."""
        self._aside = PhaseClock(self._synchronise, self._timer, self._energy, self._on_change)
        return self._aside

    def standing(self) -> tuple[float, Phase | None]:
        """Return the training seconds so far, and the running phase (None between phases); safe in other threads.

        The seconds include those of a fit on a clock from `aside`.
        """
        aside = self._aside
        seconds, phase = self.train_seconds, next(iter(self._stack[-1:]), None)
        if aside is None:
            return seconds, phase
        other, inner = aside.standing()
        return seconds + other, inner

    @property
    def train_joules(self) -> float | None:
        """Energy of the phases that a `train_seconds` budget counts; None if any part is unknown."""
        found = [self._joules[phase] for phase in TRAIN_PHASES if phase in self._joules]
        known = [joules for joules in found if joules is not None]
        return sum(known) if found and len(known) == len(found) else None

    @property
    def energy_source(self) -> str | None:
        """Name of the counter behind `train_joules`; None if that is None."""
        return None if self._energy is None or self.train_joules is None else self._energy.source

    def seconds(self, phase: Phase) -> float | None:
        """Return the seconds of `phase` so far; None if nothing was ever counted for it."""
        known = self._seconds.get(phase)
        if self._stack and self._stack[-1] == phase:
            return (known or 0.0) + time.perf_counter() - self._since
        return known

    def device_seconds(self, phase: Phase) -> float | None:
        """Return the seconds of `phase` by the accelerator's own clock, without charged work; None without one.

        This clock also runs between kernels: it verifies the host's seconds, and does not measure utilisation.
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
        """Seconds so far of the phases that a `train_seconds` budget counts."""
        return sum(self.seconds(phase) or 0.0 for phase in TRAIN_PHASES)

    def by_phase(self) -> dict[str, float | None]:
        """Return `{"load_seconds": ..., ...}` with None for phases that never ran."""
        return {f"{phase}_seconds": self.seconds(phase) for phase in get_args(Phase)}
