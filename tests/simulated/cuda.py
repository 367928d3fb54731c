"""Stand-ins for `torch.cuda` and for what torch does differently with tensors of a subclass."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import torch
import torch._dynamo  # before torch.cuda is changed: it looks for kernels that are not there

from tests.simulated import tensor

with suppress(ImportError):  # while no GPU is there bitsandbytes registers what computes on a CPU
    from tests.simulated import four_bits  # noqa: F401

from tests.simulated.state import STATE

NAME = "Simulated GPU"
_started: list[tensor.SimulatedMode] = []


class Event:
    """An event: all work before it is done when it is recorded."""

    def __init__(self, *_: object, **__: object) -> None:
        self.recorded_at = 0.0

    def record(self, *_: object) -> None:
        STATE.check()
        self.recorded_at = time.perf_counter()

    def synchronize(self) -> None:
        STATE.check()

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Event) -> float:
        return (other.recorded_at - self.recorded_at) * 1000.0


def start() -> None:
    """Give this process the simulated devices, in every thread."""
    if _started:
        return
    torch._C._simulated = ctypes.CDLL(os.environ["SIMULATED_LIBRARY"])  # type: ignore[attr-defined]
    _put_functions()
    _put_memory()
    _put_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # type: ignore[attr-defined]  # tensor(..., device="cuda") is a copy
    _started.append(tensor.SimulatedMode())
    _started[0].__enter__()
    _start_threads_with_it()


def _index(device: Any = None) -> int:
    if isinstance(device, int):
        return device
    found = torch.device(device).index if device is not None else None
    return tensor.current() if found is None else int(found)


def _synchronise(*_: object) -> None:
    STATE.check()


def _put_functions() -> None:
    cuda: Any = torch.cuda
    library = torch._C._simulated  # type: ignore[attr-defined]

    def exchange(index: int) -> int:
        before = tensor.current()
        if index >= 0:
            library.simulated_set_device(index)
        return before

    def properties(device: Any = None) -> Any:
        return SimpleNamespace(
            name=NAME, total_memory=STATE.capacity, multi_processor_count=132, uuid=f"simulated-{_index(device)}",
            major=9, minor=0,
        )  # fmt: skip

    for name, value in {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *_, **__: True,
        "is_current_stream_capturing": lambda: False,
        "device_count": library.simulated_count,
        "current_device": tensor.current,
        "set_device": lambda device: exchange(_index(device)) and None,
        "get_device_name": lambda *_: NAME,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_properties": properties,
        "synchronize": _synchronise,
        "set_sync_debug_mode": lambda mode: setattr(STATE, "warns_of_waits", mode in ("warn", 1)),
        "manual_seed": lambda *_: None,
        "manual_seed_all": lambda *_: None,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),
        "Event": Event,
        "_lazy_init": lambda: None,
        "_is_compiled": lambda: True,
        "_exchange_device": exchange,
        "_maybe_exchange_device": exchange,
    }.items():
        setattr(cuda, name, value)
    torch._C._cuda_isCurrentStreamCapturing = lambda: False  # type: ignore[attr-defined]
    import torch.cuda.amp.common as amp

    amp.amp_definitely_not_available = lambda: False


def _put_memory() -> None:
    cuda: Any = torch.cuda

    def allocated(device: Any = None) -> int:
        return STATE.allocated[_index(device)]

    def peak(device: Any = None) -> int:
        return STATE.peak[_index(device)]

    def info(device: Any = None) -> tuple[int, int]:
        STATE.check()
        return STATE.capacity - allocated(device), STATE.capacity

    for name, value in {
        "empty_cache": _synchronise,
        "memory_allocated": allocated,
        "max_memory_allocated": peak,
        "memory_reserved": allocated,
        "max_memory_reserved": peak,
        "mem_get_info": info,
        "reset_peak_memory_stats": lambda device=None: STATE.reset_peak(_index(device)),
    }.items():
        setattr(cuda, name, value)
        setattr(cuda.memory, name, value)


def _put_tensors() -> None:
    def pin_memory(self: torch.Tensor, *_: object) -> torch.Tensor:
        pinned = self.clone()
        pinned._is_pinned = True  # type: ignore[attr-defined]
        return pinned

    original = torch.utils.swap_tensors

    def swap_tensors(parameter: Any, moved: Any) -> None:
        """Swap a moved parameter in, with the attributes of the old one: on CUDA, its data alone would change."""
        for name, value in vars(parameter).items():
            if name not in ("inner", "block"):
                vars(moved).setdefault(name, value)
        original(parameter, moved)

    torch.utils.swap_tensors = swap_tensors
    torch.Tensor.pin_memory = pin_memory  # type: ignore[method-assign,assignment]
    torch.inference_mode = lambda *_, **__: torch.no_grad()  # type: ignore  # a subclass has no inference tensors


def _start_threads_with_it() -> None:
    """Enter the mode in each new thread, since torch keeps one stack of modes for each thread."""
    original = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def bootstrap(self: threading.Thread) -> None:
        with tensor.SimulatedMode():
            original(self)

    threading.Thread._bootstrap_inner = bootstrap  # type: ignore[attr-defined]


def forget_everything() -> None:
    """Forget what modules of the harness remember about devices."""
    for name in ("harness.measure.device", "harness.measure.nvml"):
        for value in vars(sys.modules.get(name, SimpleNamespace())).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
