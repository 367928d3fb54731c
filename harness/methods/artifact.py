"""What is kept of a fitted method: the tensors that were trained (safetensors) and its settings (JSON). No pickle."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import UsageError
from harness.methods.base import Bench, Fitted, Method, methods

_TENSORS = "adapted.safetensors"
_SETTINGS = "adapted.json"


def save(fitted: Fitted, method: Method, folder: Path, *, without: Collection[str] = ()) -> int:
    """Write what predicting again needs beside the backbone; returns the bytes written.

    Args:
        fitted: what is saved.
        method: that it was fitted by.
        folder: is made where it is missing.
        without: names of tensors that are kept elsewhere.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: np.ascontiguousarray(value) for name, value in fitted.tensors().items() if name not in without}
    save_file(kept, folder / _TENSORS)
    (folder / _SETTINGS).write_bytes(_settings(fitted, method))
    return sum((folder / name).stat().st_size for name in (_TENSORS, _SETTINGS))


def load(folder: Path, bench: Bench, *, besides: Mapping[str, npt.NDArray[Any]] | None = None) -> tuple[Method, Fitted]:
    """Rebuild a saved method on the bench's backbone.

    Args:
        folder: that `save` has written.
        bench: with the backbone that it was fitted on.
        besides: tensors that were kept elsewhere, by name.

    Raises:
        UsageError: the folder does not hold one, or it was saved by another version of the method.
    """
    from safetensors.numpy import load_file

    if not (folder / _SETTINGS).is_file() or not (folder / _TENSORS).is_file():
        raise UsageError(f"'{folder}' holds no saved method; expected {_SETTINGS} and {_TENSORS} in it.")
    settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    cls = methods.get(settings["method"])
    if cls.version != settings["version"]:
        raise UsageError(
            f"'{folder}' was saved by version {settings['version']} of '{cls.name}'; this is version {cls.version}."
        )
    method = cls(**settings["config"])
    tensors = {**(besides or {}), **load_file(folder / _TENSORS)}
    return method, method.restore(tensors, settings["state"], bench)


def size_bytes(fitted: Fitted, method: Method) -> int:
    """What `save` would write, in bytes, without writing it."""
    return _safetensors_bytes(fitted.tensors()) + len(_settings(fitted, method))


def _settings(fitted: Fitted, method: Method) -> bytes:
    settings = {
        "method": method.name,
        "version": method.version,
        "config": method.config(),
        "state": fitted.state(),
    }
    return json.dumps(settings, ensure_ascii=False).encode()


_DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "int32": "I32", "uint8": "U8"}


def _safetensors_bytes(tensors: dict[str, npt.NDArray[Any]]) -> int:
    """Size of the file: 8 bytes, a JSON header padded to a multiple of 8, the data (the format's own description).

    The header's offsets are those of safetensors' order: by falling alignment, then by name.
    """
    header: dict[str, Any] = {}
    at = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
        value = tensors[name]
        header[name] = {
            "dtype": _DTYPES[str(value.dtype)],
            "shape": list(value.shape),
            "data_offsets": [at, at + value.nbytes],
        }
        at += value.nbytes
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + length + (-length % 8) + at
