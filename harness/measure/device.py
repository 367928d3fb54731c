"""Which device a cell runs on, what it is called in records, and which precision is native to it."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.support import UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]
PrecisionPolicy = Literal["auto", "fp32", "bf16"]

DEVICES = ("auto", "cpu", "cuda")
"""What a device may be asked for by."""


@dataclass(frozen=True)
class Device:
    """A device that cells run on.

    Attributes:
        kind: `cpu` or `cuda`.
        name: as records carry it; figures of different names are never pooled.
        threads: threads that torch and BLAS use on the host.
        native_bf16: whether bfloat16 matrix products are done in hardware.
        cells_at_a_time: how many share it; above 1 no time that is measured on it is any method's.
    """

    kind: Literal["cpu", "cuda"]
    name: str
    threads: int
    native_bf16: bool
    cells_at_a_time: int = 1

    def torch_device(self) -> torch.device:
        """The `torch.device`."""
        import torch

        return torch.device(self.kind)

    def precision(self, policy: PrecisionPolicy) -> Precision:
        """What the policy comes to here: `auto` is bf16 where the hardware has it natively, else fp32."""
        if policy == "auto":
            return "bf16" if self.native_bf16 else "fp32"
        return policy

    def synchronise(self) -> None:
        """Wait for the accelerator's queue; nothing on a CPU."""
        if self.kind == "cuda":
            import torch

            torch.cuda.synchronize()


def available_threads() -> int:
    """Processors this process may use (its affinity and its cgroup's quota), unless OMP_NUM_THREADS says less."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2 here: the affinity is all there is to know
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, int(asked)) if asked.isdigit() and int(asked) > 0 else count


def processor_flags() -> frozenset[str]:
    """Instruction-set flags of the processor, lower case; empty where the system does not list them."""
    fields = _cpuinfo()
    return frozenset((fields.get("flags") or fields.get("features") or "").lower().split())


def processor_name() -> str:
    """The processor's model name.

    Virtual machines may hide it behind its maker's ("AMD EPYC"), which stands for a decade of processors: then its
    family and model numbers are added, so that figures of two generations are never taken for one device's.
    """
    fields = _cpuinfo()
    name = fields.get("model name") or platform.processor() or platform.machine() or "unknown processor"
    if any(character.isdigit() for character in name) or not {"cpu family", "model"} <= fields.keys():
        return name
    return f"{name} (family {fields['cpu family']}, model {fields['model']})"


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor, by lower-case name; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def shared(device: Device, n_cells: int) -> Device:
    """The device when several cells run on it at a time: it bears another name, since its times are others."""
    if n_cells == 1:
        return device
    return dataclasses.replace(device, name=f"{device.name}, {n_cells} cells at a time", cells_at_a_time=n_cells)


def check_name(asked: str) -> None:
    """Refuse what no device may be asked for by, before anything is started on it; raises `UsageError`."""
    if asked not in DEVICES:
        raise UsageError(f"Device '{asked}' was asked for; expected auto, cpu or cuda.")


@functools.cache
def find_device(asked: str = "auto") -> Device:
    """The device called `auto`, `cpu` or `cuda`; `auto` is CUDA where there is a GPU.

    Raises:
        UsageError: another name, or `cuda` where there is none.
    """
    import torch

    check_name(asked)
    threads = available_threads()
    if asked == "cuda" and not torch.cuda.is_available():
        raise UsageError("Device 'cuda' was asked for and torch finds no CUDA device; try --device cpu.")
    if asked != "cpu" and torch.cuda.is_available():
        return Device("cuda", torch.cuda.get_device_name(0), threads, torch.cuda.get_device_capability(0) >= (8, 0))
    flags = processor_flags()
    native = bool({"avx512_bf16", "amx_bf16", "bf16"} & flags)
    plural = "s" if threads != 1 else ""
    return Device("cpu", f"{processor_name()}, {threads} thread{plural}", threads, native)
