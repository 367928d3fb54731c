"""Measure a device's best rate of matrix products, the reference for utilisation.

The measurement is a second of products of large square matrices, kept per device, precision and version of torch. It
gives this device's sustained limit at its actual clocks and power, not the figure of a data sheet.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from harness.measure.device import Device, Precision
from harness.support import StoreError, replacing

_CALIBRATION_SECONDS: Final = 1.0
"""Approximate duration of a calibration."""

_SIDES: Final = {"cpu": (256, 512, 1024, 2048), "cuda": (4096, 8192)}
"""Sides of the matrices tried, of which the best counts. Sizes whose product would exceed the calibration's time are
skipped: a processor without bfloat16 took a minute for a side of 2,048."""

_FILE = "matrix-rates.json"


def matrix_rate(device: Device, precision: Precision, folder: Path | None) -> float | None:
    """Return the floating-point operations per second of matrix products on `device`; a multiply-add is two.

    The result is None if it cannot be measured now, for example without enough free memory.

    Args:
        device: the device; torch is set to its threads.
        precision: precision of the factors.
        folder: folder that keeps rates between processes; None keeps them in this one only.
    """
    with contextlib.suppress(RuntimeError, MemoryError):  # torch raises RuntimeError without enough memory
        return _measured(device, precision) if folder is None else _kept_or_measured(device, precision, folder)
    return None


def _kept_or_measured(device: Device, precision: Precision, folder: Path) -> float:
    import torch

    key = f"{device.name} / {precision} / torch {torch.__version__}"
    kept = _kept(folder)
    if key not in kept:
        kept[key] = measure_rate(device, precision)
        with contextlib.suppress(OSError, StoreError):  # if it cannot be kept, it is measured again next time
            _keep(folder, key, kept[key])
    return kept[key]


@functools.cache
def _measured(device: Device, precision: Precision) -> float:
    return measure_rate(device, precision)


def measure_rate(device: Device, precision: Precision, seconds: float = _CALIBRATION_SECONDS) -> float:
    """Return the best rate within about `seconds` of products."""
    import torch

    kind, sides = device.torch_device(), _SIDES[device.kind]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    with _threads(device), torch.inference_mode():
        for side in sides:
            if best and 2.0 * side**3 / best > seconds:
                break
            left, right = (torch.randn(side, side, device=kind).to(dtype) for _ in range(2))
            out = left @ right  # the first product chooses kernels
            device.synchronise()
            until = time.perf_counter() + seconds / len(sides)
            while True:
                began = time.perf_counter()
                torch.mm(left, right, out=out)
                device.synchronise()
                ended = time.perf_counter()
                best = max(best, 2.0 * side**3 / (ended - began))
                if ended >= until:
                    break
    return best


@contextlib.contextmanager
def _threads(device: Device) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    if device.kind == "cpu":
        torch.set_num_threads(device.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _kept(folder: Path) -> dict[str, float]:
    try:
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return {str(key): float(rate) for key, rate in found.items() if float(rate) > 0}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _keep(folder: Path, key: str, rate: float) -> None:
    merged = {**_kept(folder), key: rate}  # entries that another process added meanwhile stay
    with replacing(folder / _FILE) as temporary:
        temporary.write_text(json.dumps(merged, indent=1), encoding="utf-8")
