"""Peak memory of one cell: resident bytes of the process, and of the accelerator where there is one.

A meter that fails raises nothing: its figures are None, and `MemoryMeter.failures` says why.

On Linux the kernel keeps the high-water mark of the resident set and lets a process reset its own
(`/proc/self/clear_refs`, proc(5)); that misses nothing. Where it cannot be reset, a thread samples every few
milliseconds and `method` says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import psutil

from harness.measure.failures import Failures

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_SAMPLE_SECONDS = 0.005

UNKNOWN_BYTES = -1
"""Stands for a peak that could not be measured, in arrays of whole numbers. It never reaches a record."""

_running: list[MemoryMeter] = []


class MemoryMeter:
    """Peak memory between entering and leaving, absolute and above what was there on entering.

    Attributes:
        method: how the host's peak was had, `high-water mark` or `sampled every 5 ms`.
        peak_rss_bytes: peak resident bytes of the process; None before it was measured.
        peak_device_bytes: peak bytes allocated on the accelerator above those on entering; None without one.
        peak_reserved_bytes: peak bytes that torch's allocator held there, in use or not, above those on entering.
        by_part: peak of each part that was marked (`end_part`) above what was there on entering: of the accelerator
            where there is one, else of the host.
        failures: why figures are missing.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        self.failures = Failures()
        self.method = ""
        self.baseline_rss_bytes = 0
        self.peak_rss_bytes: int | None = None
        self.peak_device_bytes: int | None = None
        self.peak_reserved_bytes: int | None = None
        self.by_part: dict[str, int] = {}
        self._has_failed = False
        self._reserved_baseline = 0
        self._seen_reserved_bytes = 0
        self._noted_above = 0
        self._noted_device = 0
        self._part_bytes = 0
        self._seen_bytes = 0
        self._seen_device_bytes = 0
        self._device_baseline = 0
        self._sampler: _Sampler | None = None

    @property
    def peak_rss_above_baseline_bytes(self) -> int | None:
        """Own peak above the baseline, or that of reused work when it was computed, whichever is higher."""
        if self.peak_rss_bytes is None:
            return None
        return max(self.peak_rss_bytes - self.baseline_rss_bytes, self._noted_above, 0)

    def note(self, above_baseline_bytes: int | None, device_bytes: int = 0) -> None:
        """Count the peaks that a reused result needed when it was computed, on the host and on the accelerator.

        Where they could not be measured then (None, or `UNKNOWN_BYTES`), this meter's peaks are not known either.
        """
        if above_baseline_bytes is None or above_baseline_bytes < 0 or device_bytes < 0:
            self._fail("the memory of reused work could not be measured when it was computed")
            return
        self._noted_above = max(self._noted_above, above_baseline_bytes)
        self._noted_device = max(self._noted_device, device_bytes)
        self._part_bytes = max(self._part_bytes, above_baseline_bytes if self._device is None else device_bytes)

    def current_peak_above_baseline_bytes(self) -> int:
        """The host's peak so far above the baseline, while the meter runs; `UNKNOWN_BYTES` where it has failed."""
        found = self._guarded(lambda: max(self._peak() - self.baseline_rss_bytes, 0))
        return UNKNOWN_BYTES if found is None else found

    def current_device_peak_bytes(self) -> int:
        """The accelerator's peak so far above the baseline, while the meter runs; 0 without one."""
        found = self._guarded(lambda: max(self._device_peak() - self._device_baseline, 0))
        return UNKNOWN_BYTES if found is None else found

    def end_part(self, name: str) -> None:
        """What was held since the last part ended, or since entering, at most, is the peak of part `name`."""
        self._guarded(lambda: self._end_part(name))

    def _end_part(self, name: str) -> None:
        self._keep_seen()
        self.by_part[name] = max(self._part_bytes, self.by_part.get(name, 0), 0)
        self._part_bytes = 0
        if self._sampler is not None:
            self._sampler.peak = _resident_bytes()
        else:
            _reset_high_water()
        if self._device is not None:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)

    def _keep_seen(self) -> None:
        """Remember what the marks say before they are reset."""
        self._seen_bytes = self._peak()
        self._seen_device_bytes = self._device_peak()
        self._seen_reserved_bytes = self._reserved_peak()
        if self._device is None:
            own = self._own_peak() - self.baseline_rss_bytes
        else:
            import torch

            own = int(torch.cuda.max_memory_allocated(self._device)) - self._device_baseline
        self._part_bytes = max(self._part_bytes, own)

    def _own_peak(self) -> int:
        """Since the marks were last reset."""
        return self._sampler.peak if self._sampler is not None else _high_water_bytes() or _resident_bytes()

    def _peak(self) -> int:
        return max(self._own_peak(), self._seen_bytes)

    def _device_peak(self) -> int:
        if self._device is None:
            return 0
        import torch

        return max(int(torch.cuda.max_memory_allocated(self._device)), self._seen_device_bytes)

    def _reserved_peak(self) -> int:
        if self._device is None:
            return 0
        import torch

        return max(int(torch.cuda.max_memory_reserved(self._device)), self._seen_reserved_bytes)

    def __enter__(self) -> MemoryMeter:
        for outer in _running:  # resetting the mark would make an enclosing meter forget what it has seen
            outer._guarded(outer._keep_seen)
        _running.append(self)
        self._guarded(self._begin)
        return self

    def _begin(self) -> None:
        if _running == [self]:  # inside another meter nothing is left over from an earlier cell
            settle()
            if self._device is not None:
                import torch

                torch.cuda.empty_cache()  # or what earlier cells made the allocator hold would hide what this one needs
        self.baseline_rss_bytes = _resident_bytes()
        if _reset_high_water():
            self.method = "high-water mark"
        else:
            self.method = "sampled every 5 ms"
            self._sampler = _Sampler()
            self._sampler.start()
        if self._device is not None:
            import torch

            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._device_baseline = torch.cuda.memory_allocated(self._device)
            self._reserved_baseline = torch.cuda.memory_reserved(self._device)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._guarded(self._end)
        finally:
            _running.remove(self)

    def _end(self) -> None:
        if self._sampler is not None:
            self._sampler.stop()
        peak = self._peak()
        if self._device is not None:
            import torch

            torch.cuda.synchronize(self._device)
            self.peak_device_bytes = max(self._device_peak() - self._device_baseline, self._noted_device)
            self.peak_reserved_bytes = max(self._reserved_peak() - self._reserved_baseline, 0)
        self.peak_rss_bytes = peak

    def _guarded(self, work: Callable[[], T]) -> T | None:
        """Do some measuring; once any of it has failed, none of it is done, and no figure is given."""
        if self._has_failed:
            return None
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever the system's interfaces raise
            self._fail(error)
            return None

    def _fail(self, why: Exception | str) -> None:
        self._has_failed = True
        self.failures.note("memory", why)
        self.peak_rss_bytes = self.peak_device_bytes = self.peak_reserved_bytes = None
        self.by_part.clear()
        self.method = ""
        if self._sampler is not None:
            with contextlib.suppress(Exception):  # the reason is noted
                self._sampler.stop()


def settle() -> None:
    """Give freed memory back to the system, so that what a cell left behind does not hide what the next one needs."""
    gc.collect()
    release()


def release() -> None:
    """Give the system what the C library's allocator keeps of freed memory, for its next request."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library than glibc has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)


def settle_for_good() -> None:
    """Collect garbage once and for all that is there now: libraries and models that stay until the end.

    Going through their hundreds of thousands of objects takes a quarter of a second, and `settle` runs for each cell.
    """
    gc.collect()
    gc.freeze()


def _reset_high_water() -> bool:
    """Reset VmHWM by writing 5 to clear_refs; some sandboxes accept the write and ignore it, so look."""
    try:
        _CLEAR_REFS.write_text("5")
        high = _high_water_bytes()
    except OSError:
        return False
    return high is not None and high <= _resident_bytes() * 1.02 + 2**20


def _high_water_bytes() -> int | None:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


class _Sampler(threading.Thread):
    """Reads the resident size every few milliseconds and keeps the largest."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="memory-sampler")
        self.peak = _resident_bytes()
        self.failure: Exception | None = None
        self._over = threading.Event()

    def run(self) -> None:
        try:
            process = psutil.Process()
            while not self._over.wait(_SAMPLE_SECONDS):
                self.peak = max(self.peak, int(process.memory_info().rss))
        except Exception as error:  # noqa: BLE001 - told to whoever reads the peak
            self.failure = error

    def stop(self) -> None:
        """End sampling.

        Raises:
            Exception: sampling failed before; its peak means nothing.
        """
        self._over.set()
        self.join()
        if self.failure is not None:
            raise self.failure
        self.peak = max(self.peak, _resident_bytes())
