"""Ask the NVIDIA driver about a GPU: memory, energy, clocks, other processes.

This needs nvidia-ml-py (`pip install 'adaptation-harness[gpu]'`); without it, or if the driver refuses, figures are
None.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

POLL_SECONDS: Final = 0.02
"""Seconds between two queries of the driver; each query takes about 20 microseconds."""

_ANSWER_SECONDS: Final = 5.0
"""Longest wait for an answer of the driver, which may hang after a failure of the GPU."""

SLOWED_BY: Final = {
    0x0000000000000004: "its limit of power",
    0x0000000000000008: "a hardware slowdown",
    0x0000000000000020: "heat",
    0x0000000000000040: "heat, by hardware",
    0x0000000000000080: "a power brake",
}
"""Reasons for lower clocks, by their bits (nvml.h, nvmlClocksEventReasons); idleness is not included."""

_USUAL: Final = 0x0000000000000004
"""Bit of the power limit. A busy GPU usually runs at this limit, so it is no disturbance."""


class Gpu:
    """One GPU as the driver sees it.

    Args:
        library: the module `pynvml`, initialised.
        handle: the driver's handle of the device.
    """

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle

    def energy_joules(self) -> float | None:
        """Return the energy of the whole device since the driver was loaded; None on devices older than Volta."""
        return self._ask(lambda: float(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000.0)

    def used_bytes(self) -> int | None:
        """Return the memory in use by all processes, including this process's context and libraries."""
        return self._ask(lambda: int(self._library.nvmlDeviceGetMemoryInfo(self._handle).used))

    def other_processes(self) -> int | None:
        """Return the number of other processes that compute on the GPU; None if this one is not listed.

        In a container the driver may know this process by another number, so others cannot be told apart.
        """
        found = self._ask(lambda: self._library.nvmlDeviceGetComputeRunningProcesses(self._handle))
        if not found or not any(one.pid == os.getpid() for one in found):
            return None
        return len(found) - 1

    def slowed_by(self) -> list[str]:
        """Return the reasons for reduced clocks in words; empty if only the power limit applies."""
        bits = self._ask(lambda: int(self._library.nvmlDeviceGetCurrentClocksEventReasons(self._handle)))
        if bits is None:  # a library or driver before 535, which uses another name
            bits = self._ask(lambda: int(self._library.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)))
        bits = bits or 0
        return [words for bit, words in SLOWED_BY.items() if bits & bit and bit != _USUAL]

    def _ask(self, query: Callable[[], _T]) -> _T | None:
        with suppress(self._library.NVMLError, AttributeError):
            return query()
        return None


@functools.cache
def current_gpu() -> Gpu | None:
    """Return the GPU that torch uses in this process; None without a GPU, its driver or nvidia-ml-py."""
    with suppress(ImportError):
        import pynvml
        import torch

        if not torch.cuda.is_available():
            return None
        with suppress(pynvml.NVMLError, AttributeError):
            pynvml.nvmlInit()
            # By unique id, since CUDA_VISIBLE_DEVICES renumbers devices for torch but not for the driver.
            facts = torch.cuda.get_device_properties(torch.cuda.current_device())
            mask = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
            if "MIG" in facts.name and not mask.startswith("MIG-"):
                return None  # an instance without its id: figures of the whole GPU are not this cell's
            unique = mask if mask.startswith("MIG-") else str(facts.uuid)
            name = unique if unique.startswith(("GPU-", "MIG-")) else f"GPU-{unique}"
            return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(name.encode()))
    return None


class DriverWatch:
    """Watch of a GPU's driver between entering and leaving: peak memory and disturbances.

    Only its thread asks the driver, so that a driver that hangs does not stop the cell.

    Args:
        gpu: the GPU to watch; None watches nothing.

    Attributes:
        peak_bytes: peak memory in use; None if nothing was watched.
        slowed_by: reasons for reduced clocks.
        others: maximum number of other processes that computed on the GPU; None if unknown.
        failure: error that ended watching early; None without one.
    """

    def __init__(self, gpu: Gpu | None) -> None:
        self._gpu = gpu
        self._over = threading.Event()
        self._has_looked = threading.Event()
        self._thread: threading.Thread | None = None
        self.peak_bytes: int | None = None
        self.slowed_by: set[str] = set()
        self.others: int | None = None
        self.failure: Exception | None = None

    def __enter__(self) -> DriverWatch:
        if self._gpu is not None:
            self._thread = threading.Thread(target=self._watch, daemon=True, name="driver-watch")
            self._thread.start()
            self._has_looked.wait(_ANSWER_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(_ANSWER_SECONDS)
            if self._thread.is_alive():
                self.failure = TimeoutError(f"the driver did not answer for {_ANSWER_SECONDS:g} s")

    def _watch(self) -> None:
        try:
            self._look()
            self._has_looked.set()
            while not self._over.wait(POLL_SECONDS):
                self._look()
            self._look()
        except Exception as error:  # noqa: BLE001 - any error of the driver's library makes the figures None
            self.failure = error
        finally:
            self._has_looked.set()

    def _look(self) -> None:
        assert self._gpu is not None
        used = self._gpu.used_bytes()
        if used is not None:
            self.peak_bytes = max(self.peak_bytes or 0, used)
        self.slowed_by.update(self._gpu.slowed_by())
        others = self._gpu.other_processes()
        if others is not None:
            self.others = max(self.others or 0, others)

    def disturbance(self) -> str | None:
        """Return the disturbance of the device in words; None if none is known."""
        if self.others:
            plural = "es" if self.others > 1 else ""
            return f"{self.others} other process{plural} computed on the GPU"
        return f"the GPU was slowed by {', '.join(sorted(self.slowed_by))}" if self.slowed_by else None
