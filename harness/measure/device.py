"""Find the device that cells run on, its name in records, and its native precision."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.support import UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]
PrecisionPolicy = Literal["auto", "fp32", "bf16"]

_ASKED = re.compile(r"auto|cpu|cuda(:\d+(,\d+)*)?")


@dataclass(frozen=True)
class Device:
    """A device that cells run on.

    Attributes:
        kind: `cpu` or `cuda`.
        name: name in records; figures of different names are never pooled.
        threads: threads that torch and BLAS use on the host.
        native_bf16: whether the hardware computes products of matrices faster in bfloat16 than in float32.
        cells_at_a_time: number of cells that share it; above 1, its times do not characterise a method.
        number: torch's number of the GPU in this process. Workers see one GPU, whose number is 0.
        memory_bytes: memory of the GPU; None on a CPU, whose memory is the host's.
    """

    kind: Literal["cpu", "cuda"]
    name: str
    threads: int
    native_bf16: bool
    cells_at_a_time: int = 1
    number: int = 0
    memory_bytes: int | None = None

    def torch_device(self) -> torch.device:
        """Return the `torch.device`."""
        import torch

        return torch.device(self.kind, self.number) if self.number else torch.device(self.kind)

    def precision(self, policy: PrecisionPolicy) -> Precision:
        """Return the precision of a policy on this device: `auto` is bf16 if it is native, else fp32."""
        if policy == "auto":
            return "bf16" if self.native_bf16 else "fp32"
        return policy

    def synchronise(self) -> None:
        """Wait for the accelerator's queue; return at once on a CPU."""
        if self.kind == "cuda":
            import torch

            torch.cuda.synchronize(self.torch_device())

    def shared_by(self, n_cells: int) -> Device:
        """Return the device for several cells at a time: it gets another name, since its times differ."""
        if n_cells == 1:
            return self
        return dataclasses.replace(self, name=f"{self.name}, {n_cells} cells at a time", cells_at_a_time=n_cells)


def assumed_device(kind: str, memory_bytes: int) -> Device:
    """Return a device that this machine need not have, for plans: a GPU with native bfloat16, or this processor.

    Args:
        kind: `cuda` or `cpu`; `auto` is `cuda`.
        memory_bytes: its memory.
    """
    check_device_name(kind)
    if kind == "cpu":
        return dataclasses.replace(find_device("cpu"), memory_bytes=memory_bytes)
    name = f"a CUDA device with {memory_bytes / 1e9:.4g} GB of memory (assumed)"
    return Device("cuda", name, available_threads(), native_bf16=True, memory_bytes=memory_bytes)


def available_threads() -> int:
    """Return the number of processors this process may use: its affinity, its cgroup's quota, OMP_NUM_THREADS."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2: only the affinity is known
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, int(asked)) if asked.isdigit() and int(asked) > 0 else count


def _processor_flags() -> frozenset[str]:
    """Return the processor's instruction-set flags in lower case; empty if the system does not list them."""
    fields = _cpuinfo()
    return frozenset((fields.get("flags") or fields.get("features") or "").lower().split())


def processor_name() -> str:
    """Return the processor's model name.

    Virtual machines may show only a brand ("AMD EPYC"), which covers a decade of processors. The family and model
    numbers are then added, so that figures of two generations are not pooled. So is the lack of AMX, which a hypervisor
    may hide: products in bfloat16 are sixteen times as slow without it.
    """
    return _model_name() + (", no AMX" if _hides_amx(_processor_flags()) else "")


def _model_name() -> str:
    fields = _cpuinfo()
    name = fields.get("model name") or platform.processor() or platform.machine() or "unknown processor"
    if any(character.isdigit() for character in name) or not {"cpu family", "model"} <= fields.keys():
        return name
    return f"{name} (family {fields['cpu family']}, model {fields['model']})"


def _hides_amx(flags: frozenset[str]) -> bool:
    """Return whether an Intel server processor that has AMX does not show it: all with half precision in AVX-512 do."""
    is_intel = _cpuinfo().get("vendor_id") == "GenuineIntel"
    return is_intel and "avx512_fp16" in flags and "amx_tile" not in flags


def _computes_bf16(flags: frozenset[str]) -> bool:
    """Return whether products of matrices are faster in bfloat16 than in float32.

    Intel's AVX-512 instruction for bfloat16 is no faster than its float32 ones: 74 against 147 GFLOP/s for one core of
    a Xeon whose AMX was hidden, with oneDNN.
    """
    if _cpuinfo().get("vendor_id") == "GenuineIntel":
        return "amx_bf16" in flags
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & flags)


def _cpuinfo() -> dict[str, str]:
    """Return Linux's facts about the first processor, by lower-case name; empty on other systems."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def check_device_name(asked: str) -> None:
    """Refuse an unknown name of a device before anything starts on it.

    Raises:
        UsageError: the name is not `auto`, `cpu`, `cuda`, or GPUs by number such as `cuda:1` or `cuda:0,2`.
    """
    if not _ASKED.fullmatch(asked):
        raise UsageError(f"Device '{asked}' was asked for; expected auto, cpu, cuda or cuda:NUMBER.")


def gpu_numbers(asked: str) -> list[int] | None:
    """Return the numbers of the GPUs that a user named, such as 1 of `cuda:1`; None if none is named.

    Raises:
        UsageError: the name is no device.
    """
    check_device_name(asked)
    numbers = asked.partition(":")[2]
    return list(dict.fromkeys(int(number) for number in numbers.split(","))) if numbers else None


@functools.cache
def find_device(asked: str = "auto") -> Device:
    """Return the device named `auto`, `cpu`, `cuda` or `cuda:NUMBER`; `auto` is CUDA if there is a GPU.

    Raises:
        UsageError: the name is unknown, or there is no such GPU.
    """
    import torch

    number = (gpu_numbers(asked) or [0])[0]
    threads = available_threads()
    if asked != "cpu" and torch.cuda.is_available():
        if number >= (count := torch.cuda.device_count()):
            raise UsageError(f"Device 'cuda:{number}' was asked for; torch's GPUs here end at cuda:{count - 1}.")
        facts = torch.cuda.get_device_properties(number)
        native = (facts.major, facts.minor) >= (8, 0)
        return Device("cuda", facts.name, threads, native, number=number, memory_bytes=int(facts.total_memory))
    if asked.startswith("cuda"):
        raise UsageError(
            f"Device '{asked}' was asked for and torch finds no CUDA device; try --device cpu. A plan for a device "
            "that is not here needs its memory: harness plan --device cuda --device-memory 24GB."
        )
    native = _computes_bf16(_processor_flags())
    plural = "s" if threads != 1 else ""
    return Device("cpu", f"{processor_name()}, {threads} thread{plural}", threads, native)
