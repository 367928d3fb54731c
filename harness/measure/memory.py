"""Peak memory of one cell: resident bytes of the process, and of the accelerator where there is one.

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
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_SAMPLE_SECONDS = 0.005
_running: list[MemoryMeter] = []


class MemoryMeter:
    """Peak memory between entering and leaving, absolute and above what was there on entering.

    Attributes:
        method: how the host's peak was had, `high-water mark` or `sampled every 5 ms`.
        peak_rss_bytes: peak resident bytes of the process.
        peak_rss_above_baseline_bytes: the same, less what was resident on entering.
        peak_device_bytes: peak bytes allocated on the accelerator above those on entering; None without one.
        peak_reserved_bytes: peak bytes that torch's allocator held there, in use or not, above those on entering.
        by_part: peak of each part that was marked (`end_part`) above what was there on entering: of the accelerator
            where there is one, else of the host.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        self.method = ""
        self.baseline_rss_bytes = 0
        self.peak_rss_bytes = 0
        self.peak_device_bytes: int | None = None
        self.peak_reserved_bytes: int | None = None
        self.by_part: dict[str, int] = {}
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
    def peak_rss_above_baseline_bytes(self) -> int:
        """Own peak above the baseline, or that of reused work when it was computed, whichever is higher."""
        return max(self.peak_rss_bytes - self.baseline_rss_bytes, self._noted_above, 0)

    def note(self, above_baseline_bytes: int, device_bytes: int = 0) -> None:
        """Count the peaks that a reused result needed when it was computed, on the host and on the accelerator."""
        self._noted_above = max(self._noted_above, above_baseline_bytes)
        self._noted_device = max(self._noted_device, device_bytes)
        self._part_bytes = max(self._part_bytes, above_baseline_bytes if self._device is None else device_bytes)

    def current_peak_above_baseline_bytes(self) -> int:
        """The host's peak so far above the baseline, while the meter runs."""
        return max(self._peak() - self.baseline_rss_bytes, 0)

    def current_device_peak_bytes(self) -> int:
        """The accelerator's peak so far above the baseline, while the meter runs; 0 without one."""
        return max(self._device_peak() - self._device_baseline, 0)

    def end_part(self, name: str) -> None:
        """What was held since the last part ended, or since entering, at most, is the peak of part `name`."""
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
            outer._keep_seen()
        if not _running:  # inside another meter nothing is left over from an earlier cell
            settle()
            if self._device is not None:
                import torch

                torch.cuda.empty_cache()  # or what earlier cells made the allocator hold would hide what this one needs
        _running.append(self)
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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sampler is not None:
            self._sampler.stop()
        self.peak_rss_bytes = self._peak()
        _running.remove(self)
        if self._device is not None:
            import torch

            torch.cuda.synchronize(self._device)
            self.peak_device_bytes = max(self._device_peak() - self._device_baseline, self._noted_device)
            self.peak_reserved_bytes = max(self._reserved_peak() - self._reserved_baseline, 0)


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
        self._over = threading.Event()

    def run(self) -> None:
        process = psutil.Process()
        while not self._over.wait(_SAMPLE_SECONDS):
            self.peak = max(self.peak, int(process.memory_info().rss))

    def stop(self) -> None:
        self._over.set()
        self.join()
        self.peak = max(self.peak, _resident_bytes())
