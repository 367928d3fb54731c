"""Measure the peak memory of one cell, on the host and the accelerator; find the memory limits of the host.

A meter that fails raises nothing: its figures are None, and `MemoryMeter.failures` gives the reason.

On Linux the kernel keeps the high-water mark of the resident set, and a process can reset its own
(`/proc/self/clear_refs`, proc(5)); this misses no peak. Where the mark cannot be reset, a thread samples every few
milliseconds, and `method` says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import psutil

from harness.measure.device import Device
from harness.measure.failures import Failures
from harness.support import aside_meters

if TYPE_CHECKING:
    import torch

_T = TypeVar("_T")

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_SAMPLE_SECONDS = 0.005

_HOST_SHARE = 0.95
"""Maximum share of the host's memory for a worker; above it, the kernel kills a process, perhaps the driver."""

UNKNOWN_BYTES = -1
"""Mark of an unmeasured peak in arrays of whole numbers; it never reaches a record."""

_running: list[MemoryMeter] = []


class MemoryMeter:
    """Meter of peak memory between entering and leaving, absolute and above the level on entering.

    Attributes:
        method: source of the host's peak, `high-water mark` or `sampled every 5 ms`.
        peak_rss_bytes: peak resident bytes of the process; None before it was measured.
        peak_device_bytes: peak bytes allocated on the accelerator above those on entering; None without one.
        peak_reserved_bytes: peak bytes that torch's allocator held there, in use or not, above those on entering.
        by_part: peak of each part (`end_part`) above the level on entering: on the accelerator if there is one, else
            on the host.
        failures: reasons for missing figures.
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
        self._highest_bytes = 0
        self._above_bytes = 0
        self._before_aside = (0, 0, 0)
        self._seen_bytes = 0
        self._seen_device_bytes = 0
        self._device_baseline = 0
        self._sampler: _Sampler | None = None

    @property
    def peak_rss_above_baseline_bytes(self) -> int | None:
        """Peak above the baseline: the measured one or the original one of reused work, whichever is higher."""
        if self.peak_rss_bytes is None:
            return None
        return max(self._above_bytes, self._noted_above, 0)

    def note(self, above_baseline_bytes: int | None, device_bytes: int = 0) -> None:
        """Count the original peaks of a reused result, on the host and on the accelerator.

        If they were not measured (None, or `UNKNOWN_BYTES`), this meter's peaks are unknown too.
        """
        if above_baseline_bytes is None or above_baseline_bytes < 0 or device_bytes < 0:
            self._fail("the memory of reused work could not be measured when it was computed")
            return
        self._noted_above = max(self._noted_above, above_baseline_bytes)
        self._noted_device = max(self._noted_device, device_bytes)
        self._part_bytes = max(self._part_bytes, above_baseline_bytes if self._device is None else device_bytes)

    def current_peak_above_baseline_bytes(self) -> int:
        """Return the host's peak so far above the baseline, while the meter runs; `UNKNOWN_BYTES` if it failed."""
        found = self._guarded(lambda: max(self._peak() - self.baseline_rss_bytes, 0))
        return UNKNOWN_BYTES if found is None else found

    def current_device_peak_bytes(self) -> int:
        """Return the accelerator's peak so far above the baseline, while the meter runs; 0 without one."""
        found = self._guarded(lambda: max(self._device_peak() - self._device_baseline, 0))
        return UNKNOWN_BYTES if found is None else found

    def begin_aside(self) -> None:
        """Note the level before memory is put aside (`support.put_aside`)."""
        self._guarded(self._begin_aside)

    def end_aside(self) -> None:
        """Move the baselines by what was taken or freed since `begin_aside`; peaks in between do not count."""
        self._guarded(self._end_aside)

    def _begin_aside(self) -> None:
        release()  # as at the end: what the allocator gives back in between would count as freed
        self._keep_seen()
        self._before_aside = (_resident_bytes(), *self._held_on_device())

    def _end_aside(self) -> None:
        release()
        self._highest_bytes = max(self._highest_bytes, self._own_peak())
        now = (_resident_bytes(), *self._held_on_device())
        host, device, reserved = (after - before for after, before in zip(now, self._before_aside, strict=True))
        self.baseline_rss_bytes += host
        self._seen_bytes += host
        self._device_baseline += device
        self._seen_device_bytes += device
        self._reserved_baseline += reserved
        self._seen_reserved_bytes += reserved
        self._reset_marks()

    def _held_on_device(self) -> tuple[int, int]:
        """Return the bytes allocated and reserved on the accelerator now; 0 without one."""
        if self._device is None:
            return 0, 0
        import torch

        return int(torch.cuda.memory_allocated(self._device)), int(torch.cuda.memory_reserved(self._device))

    def _reset_marks(self) -> None:
        if self._sampler is not None:
            self._sampler.peak = _resident_bytes()
        else:
            _reset_high_water()
        if self._device is not None:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)

    def end_part(self, name: str) -> None:
        """Record the peak since the last part ended, or since entering, as that of part `name`."""
        self._guarded(lambda: self._end_part(name))

    def _end_part(self, name: str) -> None:
        self._keep_seen()
        self.by_part[name] = max(self._part_bytes, self.by_part.get(name, 0), 0)
        self._part_bytes = 0
        self._reset_marks()

    def _keep_seen(self) -> None:
        """Remember the marks before they are reset."""
        self._highest_bytes = max(self._highest_bytes, self._own_peak())
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
        """Return the host's peak since the marks were last reset."""
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
        for outer in _running:  # resetting the mark would lose the peaks of enclosing meters
            outer._guarded(outer._keep_seen)
        _running.append(self)
        aside_meters.append(self)
        try:
            self._guarded(self._begin)
        except BaseException:  # an interrupt: nobody will leave
            self._give_up()
            raise
        return self

    def _begin(self) -> None:
        if _running == [self]:  # inside another meter, nothing remains from an earlier cell
            settle()
            if self._device is not None:
                import torch

                torch.cuda.empty_cache()  # blocks held since earlier cells would hide this cell's needs
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
            self._give_up()

    def _give_up(self) -> None:
        """End the sampler's thread, and remove this meter from those that run."""
        if self._sampler is not None:
            self._sampler.end()
        if self in _running:
            _running.remove(self)
            aside_meters.remove(self)

    def _end(self) -> None:
        if self._sampler is not None:
            self._sampler.stop()
        peak = self._peak()
        if self._device is not None:
            import torch

            torch.cuda.synchronize(self._device)
            self.peak_device_bytes = max(self._device_peak() - self._device_baseline, self._noted_device)
            self.peak_reserved_bytes = max(self._reserved_peak() - self._reserved_baseline, 0)
        self._above_bytes = peak - self.baseline_rss_bytes
        self.peak_rss_bytes = max(self._highest_bytes, self._own_peak())

    def _guarded(self, work: Callable[[], _T]) -> _T | None:
        """Return the result of a measurement; after the first failure, measure nothing and return None."""
        if self._has_failed:
            return None
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - the system's interfaces can raise anything
            self._fail(error)
            return None

    def _fail(self, why: Exception | str) -> None:
        self._has_failed = True
        self.failures.note("memory", why)
        self.peak_rss_bytes = self.peak_device_bytes = self.peak_reserved_bytes = None
        self.by_part.clear()
        self.method = ""
        if self._sampler is not None:
            with contextlib.suppress(Exception):  # the reason is already noted
                self._sampler.stop()


def settle() -> None:
    """Return freed memory to the system, so that leftovers of a cell do not hide the needs of the next."""
    gc.collect()
    release()


def release() -> None:
    """Return the freed memory that the C library's allocator keeps to the system."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library than glibc has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)


def settle_for_good() -> None:
    """Collect garbage, and exclude all present objects (libraries, models) from later collections.

    Visiting hundreds of thousands of them would take a quarter of a second in `settle`, which runs for each cell.
    """
    gc.collect()
    gc.freeze()


def host_limit_bytes() -> int:
    """Return the bytes that a worker may hold before it is stopped: nearly all that this process may use."""
    available = psutil.virtual_memory().total
    for path in _cgroup_files("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            available = min(available, int(path.read_text()))
    return int(available * _HOST_SHARE)


def kills_for_memory() -> int | None:
    """Return how many processes of this control group the kernel has killed for lack of memory; None if unknown."""
    for path in _cgroup_files("memory.events", "memory.oom_control"):
        with contextlib.suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
            if found:
                return int(found[1])
    return None


def memory_bytes_of(device: Device, host_bytes: int) -> float:
    """Return the bytes of memory that a cell may take on a device; on a CPU, those of the host."""
    if device.memory_bytes is not None:  # the worker's; asking torch here would put a context on the first GPU
        return float(device.memory_bytes)
    if device.kind == "cpu":
        return float(host_bytes)
    import torch

    return float(torch.cuda.get_device_properties(device.number).total_memory)


def _cgroup_files(version_2: str, version_1: str) -> list[Path]:
    """Return possible paths of a file in this process's memory control group, for both versions, nearest first."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    root = Path("/sys/fs/cgroup")
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += [root / path.lstrip("/") / version_2, root / version_2]
        elif "memory" in controllers.split(","):
            found += [root / "memory" / path.lstrip("/") / version_1, root / "memory" / version_1]
    return found


def _reset_high_water() -> bool:
    """Reset VmHWM by writing 5 to clear_refs; return whether it worked, since some sandboxes ignore the write."""
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
    """A thread that reads the resident size every few milliseconds and keeps the largest."""

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
        except Exception as error:  # noqa: BLE001 - raised again in `stop`
            self.failure = error

    def end(self) -> None:
        """Have the thread end within a few milliseconds."""
        self._over.set()

    def stop(self) -> None:
        """End sampling.

        Raises:
            Exception: sampling failed earlier, so its peak is meaningless.
        """
        self.end()
        self.join()
        if self.failure is not None:
            raise self.failure
        self.peak = max(self.peak, _resident_bytes())
