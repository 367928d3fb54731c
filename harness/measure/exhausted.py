"""Recognise out-of-memory errors: each is a result of its own, and none is passed over."""

from __future__ import annotations

from harness.support import OutOfMemoryError, text_of


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that a device or the host had no more memory."""
    import torch

    if isinstance(error, (MemoryError, OutOfMemoryError, torch.OutOfMemoryError)):
        return True
    text = text_of(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
