"""List the NVIDIA GPUs of this machine without CUDA, whose context would hold memory on the first of them.

The functions are those of the driver's library (docs.nvidia.com/deploy/nvml-api), called through ctypes: the process
that starts a run needs neither torch nor nvidia-ml-py for them.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LIBRARY = "libnvidia-ml.so.1"
_MOST_CHARACTERS = 96


@dataclass(frozen=True)
class ListedGpu:
    """One GPU as the driver lists it.

    Attributes:
        number: its number in `nvidia-smi`. CUDA may order GPUs of different models in another way, by their speed.
        name: its model.
        uuid: its unique id.
        memory_bytes: its memory.
        is_split: whether it is split into instances (MIG), which CUDA_VISIBLE_DEVICES selects by their own ids.
    """

    number: int
    name: str
    uuid: str
    memory_bytes: int
    is_split: bool = False


@dataclass(frozen=True)
class Driver:
    """The driver of the machine's GPUs.

    Attributes:
        version: its version.
        gpus: its GPUs, in its own order.
    """

    version: str
    gpus: tuple[ListedGpu, ...]


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@functools.cache
def nvidia_driver() -> Driver | None:
    """Return the NVIDIA driver and its GPUs; None without one, or if it does not answer."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        if library.nvmlInit_v2():
            return None
        count = ctypes.c_uint()
        if library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return None
        version = ctypes.create_string_buffer(_MOST_CHARACTERS)
        library.nvmlSystemGetDriverVersion(version, _MOST_CHARACTERS)
        gpus = tuple(_gpu(library, number) for number in range(count.value))
    except (OSError, AttributeError):
        return None
    return Driver(version.value.decode("utf-8", "replace"), gpus)


def _gpu(library: Any, number: int) -> ListedGpu:
    """Return one GPU; facts that the driver does not give are empty."""
    handle, memory = ctypes.c_void_p(), _Memory()
    current, pending = ctypes.c_uint(), ctypes.c_uint()
    name, uuid = (ctypes.create_string_buffer(_MOST_CHARACTERS) for _ in range(2))
    if not library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(number), ctypes.byref(handle)):
        library.nvmlDeviceGetName(handle, name, _MOST_CHARACTERS)
        library.nvmlDeviceGetUUID(handle, uuid, _MOST_CHARACTERS)
        library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        library.nvmlDeviceGetMigMode(handle, ctypes.byref(current), ctypes.byref(pending))
    model, unique = (text.value.decode("utf-8", "replace") for text in (name, uuid))
    return ListedGpu(number, model, unique, int(memory.total), is_split=bool(current.value))


def gpu_masks() -> list[str]:
    """Return the value of CUDA_VISIBLE_DEVICES that selects each visible GPU alone, in the order of torch's numbers.

    The list is empty without GPUs, and if torch was built without CUDA. An entry of the user's own value stands for
    itself: a number, or the id of a GPU or of a MIG instance. CUDA ignores the entries after an invalid one.
    """
    driver = nvidia_driver()
    if driver is None or not _torch_has_cuda():
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return [str(gpu.number) for gpu in driver.gpus]
    masks: list[str] = []
    for entry in given.split(","):
        mask = entry.strip()
        is_number = mask.isdigit() and int(mask) < len(driver.gpus)
        if mask in masks or not (is_number or mask.startswith(("GPU-", "MIG-"))):
            break
        masks.append(mask)
    return masks


@functools.cache
def _torch_has_cuda() -> bool:
    """Return whether torch was built with CUDA, by its file of versions: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return True
    found = re.search(r"^cuda\b.*=\s*(\S+)", text, re.MULTILINE)
    return found is None or found[1] != "None"
