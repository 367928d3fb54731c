"""Counts of the simulated devices, their memory, and the faults that they are told to have."""

from __future__ import annotations

import os
import sys
import warnings
import weakref
from collections import Counter
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 2**30
ASSERTED = (
    "CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."
)


class State:
    """Counts since the last `reset`, bytes in use, and faults.

    Attributes:
        launches: operations that would start a kernel.
        waits: operations that stop the host until the device has done its work, by kind and place in the code.
        staged: copies to the device from memory that is not pinned; the driver may wait for its queue there.
        capacity: bytes of each device.
        allocated: bytes in use, by device.
        highest: highest bytes in use of any device, for tests: `torch.cuda` does not reset it.
        peak: highest bytes in use since `reset_peak`, by device.
        warns_of_waits: whether each wait is warned of (`torch.cuda.set_sync_debug_mode`).
        faults_after: launches after which the device fails for good; None never.
        is_dead: whether a device-side error has happened: every later operation fails.
    """

    def __init__(self) -> None:
        self.capacity = int(os.environ.get("SIMULATED_CAPACITY", 24 * GIB))
        self.allocated: Counter[int] = Counter()
        self.highest = 0
        self.peak: Counter[int] = Counter()
        self.is_dead = False
        self.warns_of_waits = False
        self.faults_after: int | None = None
        self._blocks: weakref.WeakValueDictionary[int, _Block] = weakref.WeakValueDictionary()
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.launches = 0
        self.staged = 0
        self.waits: Counter[tuple[str, str]] = Counter()

    @property
    def n_waits(self) -> int:
        """Number of waits."""
        return self.waits.total()

    def wait(self, kind: str) -> None:
        """Count a wait for the device."""
        self.check()
        self.waits[kind, _place()] += 1
        if self.warns_of_waits:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=2)

    def launch(self) -> None:
        """Count a kernel, and fail if this is the one."""
        self.check()
        self.launches += 1
        if self.faults_after is not None and self.launches > self.faults_after:
            raise self.fault()

    def check(self) -> None:
        """Raise if the device has failed before."""
        if self.is_dead:
            raise torch.AcceleratorError(ASSERTED)

    def fault(self) -> Exception:
        """Let the device fail for good, and return the error."""
        self.is_dead = True
        return torch.AcceleratorError(ASSERTED)

    def hold(self, inner: torch.Tensor, device: int) -> _Block:
        """Return the block of memory of a tensor, counted once for all tensors that share it.

        Raises:
            torch.OutOfMemoryError: it does not fit.
        """
        storage = inner.untyped_storage()
        block = self._blocks.get(storage._cdata)
        if block is None:
            n_bytes = storage.nbytes()
            if self.allocated[device] + n_bytes > self.capacity:
                free = self.capacity - self.allocated[device]
                raise torch.OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate {n_bytes / GIB:.2f} GiB. GPU {device} has a total capacity "
                    f"of {self.capacity / GIB:.2f} GiB of which {free / GIB:.2f} GiB is free."
                )
            block = self._blocks[storage._cdata] = _Block(self, device, n_bytes)
        return block

    def reset_peak(self, device: int) -> None:
        """Let the peak start from the bytes in use."""
        self.peak[device] = self.allocated[device]


class _Block:
    """Memory of one storage; it is free when the last tensor that holds it is gone."""

    def __init__(self, state: State, device: int, n_bytes: int) -> None:
        self._state, self._device, self._n_bytes = state, device, n_bytes
        state.allocated[device] += n_bytes
        state.peak[device] = max(state.peak[device], state.allocated[device])
        state.highest = max(state.highest, state.allocated[device])

    def __del__(self) -> None:
        self._state.allocated[self._device] -= self._n_bytes


def _place() -> str:
    """Return the innermost line of the harness that runs, and the innermost line outside torch where it differs."""
    own = inner = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and own is None:
        name = frame.f_code.co_filename
        if "/tests/simulated/" not in name and "/torch/" not in name:
            line = f"{'/'.join(name.split('/')[-2:])}:{frame.f_lineno}"
            inner = inner or line
            if "/harness/" in name:
                own = line
        frame = frame.f_back
    if own is None or inner is None:
        return inner or "?"
    return own if own == inner else f"{own} <- {inner}"


STATE = State()


@contextmanager
def limited(n_bytes: int) -> Iterator[None]:
    """Let the devices have no more than so many bytes."""
    before, STATE.capacity = STATE.capacity, n_bytes
    try:
        yield
    finally:
        STATE.capacity = before
