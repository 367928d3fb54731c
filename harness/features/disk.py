"""Features on disk: one folder a key, one safetensors file for each addition.

Files are written under another name and renamed, so that a killed run leaves no half file. Each has a checksum, so that
a damaged one is removed and encoded again. The size is bounded: the least recently used folder is removed first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.tasks import Floats, Ints

DEFAULT_LIMIT_BYTES = 2 * 10**9
"""Default bound of the cache's size."""

_ABANDONED_SECONDS = 3600.0
"""Age after which an unfinished file belongs to a killed run, not to one that is still writing it."""


@dataclass(frozen=True, eq=False)
class Shard:
    """Some encoded rows of a split.

    Attributes:
        rows: positions in the split, shape (rows,).
        values: features, shape (rows, width), float32; for features of words, those of the rows one after another.
        seconds: each row's share of its batch's seconds, shape (rows,).
        peaks: resident bytes above the baseline that each row's batch needed, shape (rows,), int64. A request for some
            rows alone is not charged for longer ones that were encoded with them.
        device_peaks: the same for the accelerator; zeros without one.
        disturbed: whether other work disturbed the machine meanwhile, so that `seconds` are unreliable, shape (rows,).
    """

    rows: Ints
    values: Floats
    seconds: npt.NDArray[np.float64]
    peaks: Ints
    device_peaks: Ints
    disturbed: npt.NDArray[np.bool_]


class FeatureDisk:
    """A bounded folder of features.

    Args:
        folder: parent of the folder `features`, which is made at the first write.
        limit_bytes: maximum size of all keys together.
    """

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._folder = folder / "features"
        self._limit_bytes = limit_bytes

    def read(self, name: str) -> Iterator[Shard]:
        """Yield every intact shard of a key; remove damaged ones with a warning."""
        from safetensors import SafetensorError, safe_open

        folder = self._folder / name
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="numpy") as opened:
                    shard = Shard(
                        rows=opened.get_tensor("rows"),
                        values=opened.get_tensor("values"),
                        seconds=opened.get_tensor("seconds"),
                        peaks=opened.get_tensor("peaks"),
                        device_peaks=opened.get_tensor("device_peaks"),
                        disturbed=opened.get_tensor("disturbed"),
                    )
                    intact = opened.metadata()["sha256"] == _checksum(shard)
            except (SafetensorError, OSError, KeyError, ValueError, TypeError):
                intact = False
            if intact:
                yield shard
            else:
                warnings.warn(f"Damaged feature cache {path.name}: removed, and encoded again.", stacklevel=2)
                with contextlib.suppress(OSError):
                    path.unlink()
        with contextlib.suppress(OSError):
            os.utime(folder)  # the time of the last use, which _evict() compares

    def write(self, name: str, key: str, shard: Shard) -> None:
        """Keep a shard; a full or read-only disk only causes a warning."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        folder = self._folder / name
        temporary: str | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            about = folder / "key.json"
            if not about.exists():
                about.write_text(json.dumps(json.loads(key), indent=1), encoding="utf-8")
            handle, temporary = tempfile.mkstemp(dir=folder, suffix=".partial")
            os.close(handle)
            checksum = _checksum(shard)
            save_file(_tensors(shard), temporary, metadata={"sha256": checksum})
            Path(temporary).replace(folder / f"{checksum[:16]}.safetensors")
            self._evict(keep=name)
        except (OSError, SafetensorError) as error:  # safetensors raises its own errors on a full disk
            warnings.warn(f"Features could not be kept in {self._folder}: {error}", stacklevel=2)
            if temporary is not None:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink(missing_ok=True)  # a full disk has no room for half a file

    def size_bytes(self) -> int:
        """Return the present size of the cache in bytes."""
        return sum(path.stat().st_size for path in self._folder.glob("*/*") if path.is_file())

    def _evict(self, keep: str) -> None:
        for path in self._folder.glob("*/*.partial"):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink(missing_ok=True)
        total = self.size_bytes()
        folders = sorted(
            (path for path in self._folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
        )
        for folder in folders:
            if total <= self._limit_bytes:
                return
            if folder.name == keep:
                continue
            total -= sum(path.stat().st_size for path in folder.glob("*"))
            shutil.rmtree(folder, ignore_errors=True)


def _tensors(shard: Shard) -> dict[str, npt.NDArray[Any]]:
    return {field.name: getattr(shard, field.name) for field in dataclasses.fields(shard)}


def _checksum(shard: Shard) -> str:
    """Return a checksum of all arrays with their types and shapes, since any of them can be damaged."""
    digest = hashlib.sha256()
    for part in _tensors(shard).values():
        digest.update(f" {part.dtype.str} {part.shape} ".encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
