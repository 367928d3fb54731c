"""Whether a folder's weights are stored in bfloat16, from the headers of its files."""

from __future__ import annotations

import functools
from pathlib import Path

from harness.backbones.headers import FLOATS, read_headers
from harness.support import HarnessError


@functools.lru_cache(maxsize=64)
def stores_bfloat16(folder: Path) -> bool | None:
    """Return whether all matrices and embeddings of a folder are bfloat16; None without readable weights."""
    try:
        tensors = read_headers(folder, folder.name).tensors.values()
    except (HarnessError, OSError):
        return None
    types = {header.dtype for header in tensors if len(header.shape) > 1 and header.dtype in FLOATS}
    return types == {"BF16"} if types else None
