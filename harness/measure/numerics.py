"""Set how torch computes, and state it for records: which kernels may run, and whether results repeat bit for bit."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from harness.measure.device import Device
from harness.measure.gpus import nvidia_driver

WORKSPACE: Final = ":4096:8"
"""Value of CUBLAS_WORKSPACE_CONFIG for repeatable products: 8 buffers of 4 MiB (docs.nvidia.com/cuda/cublas)."""


def prepare_deterministic() -> None:
    """Set the environment for deterministic kernels; cuBLAS reads it once, before its first product."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)


def set_numerics(*, deterministic: bool = False) -> None:
    """Set torch's policy in this process.

    Products of float32 matrices are those of IEEE float32: TF32, which keeps 10 bits of each factor, is off for
    products and convolutions, whatever the environment says. cuDNN does not choose kernels by timing them.

    Args:
        deterministic: whether only kernels that repeat their results run; an operation without one raises an error
            (pytorch.org/docs/stable/notes/randomness.html).
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    if deterministic:
        prepare_deterministic()
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=False)
        # Filling finds the use of memory that nobody wrote; it changes no result, and takes time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def numerics_of(device: Device) -> dict[str, Any]:
    """Return how torch computes on a device, read from torch itself; empty where torch was never imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    found: dict[str, Any] = {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device.kind == "cpu":
        return found
    driver = nvidia_driver()
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    return {
        **found,
        "tf32": bool(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32),
        "bf16_reduced_precision_reduction": torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        **({} if driver is None else {"driver": driver.version}),
        **({} if workspace is None else {"cublas_workspace": workspace}),
    }
