"""Whether an error says that there was no more memory: such an error is a result of its own, and never passed over."""

from __future__ import annotations

from harness.errors import OutOfMemoryError


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that a device or the host had no more memory."""
    import torch

    if isinstance(error, (MemoryError, OutOfMemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
