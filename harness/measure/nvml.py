"""What the NVIDIA driver says of a GPU, from outside the process: memory, energy, clocks, other processes.

By nvidia-ml-py (`pip install 'adaptation-harness[gpu]'`); without it, or where the driver refuses, figures are None.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")

WATCH_SECONDS: Final = 0.02
"""How often the driver is asked for memory: a question takes some 20 microseconds."""

SLOWED_BY: Final = {
    0x0000000000000004: "its limit of power",
    0x0000000000000008: "a hardware slowdown",
    0x0000000000000020: "heat",
    0x0000000000000040: "heat, by hardware",
    0x0000000000000080: "a power brake",
}
"""Reasons for lower clocks, by their bits (nvml.h, nvmlClocksEventReasons); being idle is none."""

_USUAL: Final = 0x0000000000000004
"""A GPU at work reaches its limit of power; that is its usual speed and no disturbance."""


class Gpu:
    """One GPU as the driver sees it.

    Args:
        library: the module `pynvml`, initialised.
        handle: the driver's, of the device.
    """

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle

    def energy_joules(self) -> float | None:
        """Energy since the driver was loaded, whole device; None on devices older than Volta."""
        return self._ask(lambda: float(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000.0)

    def used_bytes(self) -> int | None:
        """Memory in use, whoever by: the context and libraries of this process included."""
        return self._ask(lambda: int(self._library.nvmlDeviceGetMemoryInfo(self._handle).used))

    def other_processes(self) -> int | None:
        """Processes that compute on it, this one left out; None where it is not among them.

        In a container the driver may know this process by another number: nobody can tell then which are others.
        """
        found = self._ask(lambda: self._library.nvmlDeviceGetComputeRunningProcesses(self._handle))
        if not found or not any(one.pid == os.getpid() for one in found):
            return None
        return len(found) - 1

    def slowed_by(self) -> list[str]:
        """Why its clocks are lower now than they could be, in words; nothing where it only draws its full power."""
        bits = self._ask(lambda: int(self._library.nvmlDeviceGetCurrentClocksEventReasons(self._handle)))
        if bits is None:  # a library or a driver before 535, which has it under another name
            bits = self._ask(lambda: int(self._library.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)))
        bits = bits or 0
        return [words for bit, words in SLOWED_BY.items() if bits & bit and bit != _USUAL]

    def _ask(self, question: Callable[[], T]) -> T | None:
        with suppress(self._library.NVMLError, AttributeError):
            return question()
        return None


@functools.cache
def current_gpu() -> Gpu | None:
    """The GPU that torch uses in this process; None without a GPU, its driver or nvidia-ml-py."""
    with suppress(ImportError):
        import pynvml
        import torch

        if not torch.cuda.is_available():
            return None
        with suppress(pynvml.NVMLError, AttributeError):
            pynvml.nvmlInit()
            # By its unique id: CUDA_VISIBLE_DEVICES renumbers devices for torch and not for the driver.
            unique = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
            name = unique if unique.startswith("GPU-") else f"GPU-{unique}"
            return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(name.encode()))
    return None


class DriverWatch:
    """The most memory that the driver saw in use between entering and leaving, and what slowed the device meanwhile.

    Args:
        gpu: what is asked; None watches nothing.

    Attributes:
        peak_bytes: None where nothing was watched.
        slowed_by: reasons for lower clocks.
        others: most processes that computed on it beside this one; None where it is not known.
        failure: why watching ended early; None where it did not.
    """

    def __init__(self, gpu: Gpu | None) -> None:
        self._gpu = gpu
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.peak_bytes: int | None = None
        self.slowed_by: set[str] = set()
        self.others: int | None = None
        self.failure: Exception | None = None

    def __enter__(self) -> DriverWatch:
        if self._gpu is not None:
            self._look()
            self._thread = threading.Thread(target=self._watch, daemon=True, name="driver-watch")
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            self._look()

    def _watch(self) -> None:
        try:
            while not self._over.wait(WATCH_SECONDS):
                self._look()
        except Exception as error:  # noqa: BLE001 - whatever the driver's library raises; figures are None then
            self.failure = error

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
        """What disturbed the device, in words; None where nothing is known to have."""
        if self.others:
            plural = "es" if self.others > 1 else ""
            return f"{self.others} other process{plural} computed on the GPU"
        return f"the GPU was slowed by {', '.join(sorted(self.slowed_by))}" if self.slowed_by else None
