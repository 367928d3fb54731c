"""Refuse weights that are larger than the memory of the GPU, before any of them is moved there."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from harness.support import OutOfMemoryError


def check_room(
    name: str, parameters: Collection[nn.Parameter], types: dict[int, torch.dtype], device: torch.device
) -> None:
    """Refuse a model whose weights alone exceed the memory of a GPU.

    They could be spread over several GPUs (accelerate's `device_map`). That was never tried here: meters, batches and
    adapters expect one device, so a cell on several would not be measured as others are.

    Args:
        name: name of the backbone, for the message.
        parameters: its parameters.
        types: type of each parameter on the device, by its id.
        device: where they would go; anything but a GPU has room.

    Raises:
        OutOfMemoryError: the weights do not fit; the message says what does.
    """
    if device.type != "cuda":
        return
    needed = sum(value.numel() * types[id(value)].itemsize for value in parameters)
    there = int(torch.cuda.get_device_properties(device).total_memory)
    if needed <= there:
        return
    is_wide = any(types[id(value)] is torch.float32 and value.ndim > 1 for value in parameters)
    half = " `precision=bf16` halves them." if is_wide else ""
    raise OutOfMemoryError(
        f"The weights of backbone '{name}' take {needed / 1e9:.1f} GB, and the GPU has {there / 1e9:.1f} GB. One cell "
        f"cannot use several GPUs. Try qlora, which stores weights in four bits, or a smaller backbone.{half}"
    )
