"""Methods with something wrong with them, for whoever has to survive them. A worker process imports them by name."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, ClassVar

import numpy as np

from harness.methods.base import NO_BACKBONE, Fitted, Method
from harness.methods.bench import Bench
from harness.support.errors import OutOfMemoryError
from harness.tasks.base import Rows


class Constant(Fitted):
    """Answers the same of every row."""

    n_parameters = 0
    n_trainable = 0

    def __init__(self, value: float = 0.5, columns: int = 0) -> None:
        self.value = value
        self.columns = columns

    def predict(self, rows: Rows, bench: Bench) -> np.ndarray:
        return np.full((len(rows), self.columns or bench.n_outputs), self.value, dtype=np.float32)

    def tensors(self) -> dict[str, Any]:
        return {}


def hold_the_interpreter(seconds: float) -> None:
    """Sleep without letting any other thread of this process run Python, as a bad extension does."""
    library = ctypes.PyDLL(None)  # keeps the lock, unlike CDLL
    library.usleep.argtypes = [ctypes.c_uint]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        library.usleep(500_000_000)


DEVICE_ERROR = """CUDA error: device-side assert triggered
Search for `cudaErrorAssert' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1"""
"""An error that CUDA reports once, and then to every later call of the process."""


def fail_the_device() -> None:
    """Fail as an accelerator does: every later operation on it fails in this process, whatever runs."""
    import torch

    def fails(*_: object, **__: object) -> Any:
        raise torch.AcceleratorError(DEVICE_ERROR)

    for name in ("synchronize", "empty_cache", "memory_allocated", "max_memory_allocated", "reset_peak_memory_stats"):
        setattr(torch.cuda, name, fails)
    torch.Tensor.to = torch.nn.Module.to = fails  # type: ignore[method-assign]
    Planted._fit = fails  # type: ignore[method-assign]
    fails()


class Hanging(Constant):
    """Never answers, and says nothing of its phase."""

    def predict(self, rows: Rows, bench: Bench) -> np.ndarray:
        time.sleep(1e6)
        return super().predict(rows, bench)


class Spinning(Constant):
    """Never answers, and keeps a processor busy."""

    def predict(self, rows: Rows, bench: Bench) -> np.ndarray:
        with bench.working("predict"):
            while True:
                pass


class Slower(Constant):
    """Answers after 20 s, and shows that it gets on."""

    def predict(self, rows: Rows, bench: Bench) -> np.ndarray:
        for row in range(200):
            time.sleep(0.1)
            bench.report("predicting", row / 200, None)
        return super().predict(rows, bench)


SPAWN = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1e6)"], start_new_session=True)
time.sleep(1e6)
"""
"""A process that starts another, detached from it, and goes on as long."""


def _burn() -> None:
    while True:
        pass


PREDICTING: dict[str, type[Constant]] = {"hang": Hanging, "spin": Spinning, "slower": Slower}
"""Faults while predicting, by the name that plants them."""


class Planted(Method):
    """Does what `fault` says when it is fitted."""

    name: ClassVar[str] = "planted"
    family: ClassVar[str] = "baseline"
    role: ClassVar[str] = "baseline"
    trains: ClassVar[str] = "nothing"
    source: ClassVar[str] = "the tests"
    serves = NO_BACKBONE

    fault: str = "none"

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        with bench.working("fit"):
            return self._fit()

    def restore(self, tensors: dict[str, Any], state: dict[str, Any], bench: Bench) -> Fitted:
        return Constant()

    def _fit(self) -> Fitted:
        if self.fault == "raise":
            raise ValueError("planted")
        if self.fault == "device":
            fail_the_device()
        if self.fault == "exit":
            sys.exit(3)
        if self.fault == "vanish":
            os._exit(0)
        if self.fault == "crash":
            print("last words", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.fault == "sleep":
            time.sleep(1e6)
        if self.fault == "hold":
            hold_the_interpreter(1e6)
        if self.fault == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.fault in PREDICTING:
            return PREDICTING[self.fault]()
        if self.fault.startswith("place"):
            time.sleep(1.0)  # so that each worker gets one
            processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
            raise ValueError(f"GPU {os.environ.get('CUDA_VISIBLE_DEVICES')}, processors {processors}")
        if self.fault.startswith("nap "):
            time.sleep(float(self.fault.removeprefix("nap ")))
        if self.fault == "leak":
            held = []
            while True:
                held.append(np.ones(2_000_000))
                time.sleep(0.01)
        if self.fault == "chatter":
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                print("x" * 100_000)
                time.sleep(0.05)
        if self.fault == "children":
            subprocess.Popen([sys.executable, "-c", SPAWN])
            time.sleep(0.5)
        if self.fault == "threads":
            threading.Thread(target=_burn, daemon=True).start()
        if self.fault == "essay":
            raise ValueError("x" * 5_000_000)
        if self.fault == "nan":
            return Constant(float("nan"))
        if self.fault == "shape":
            return Constant(columns=99)
        return Constant()


class Hungry(Planted):
    """Runs out of memory unless its steps are made in at least `fits` pieces."""

    name: ClassVar[str] = "hungry"

    batch_size: int = 8
    accumulation: int = 1
    fits: int = 4

    def halved(self) -> Hungry | None:
        """Twice the pieces."""
        if self.accumulation >= self.batch_size:
            return None
        return self.model_copy(update={"accumulation": 2 * self.accumulation})

    def _fit(self) -> Fitted:
        if self.accumulation < self.fits:
            raise OutOfMemoryError("planted: no more memory")
        return Constant()
