"""Save and load a fitted method: its trained tensors (safetensors) and its settings (JSON), without pickle."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.backbones import BackboneFiles
from harness.methods.base import Fitted, Method, methods
from harness.methods.bench import Bench
from harness.methods.restoring import AGAIN, not_finite
from harness.support import HarnessError, UsageError, reason_of

ARTIFACT_TENSORS = "adapted.safetensors"
ARTIFACT_SETTINGS = "adapted.json"

Tensors = dict[str, npt.NDArray[Any]]

_DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "int32": "I32", "uint8": "U8"}
"""Types of saved tensors: numpy's name to safetensors' name."""


@dataclass(frozen=True)
class Artifact:
    """The files of a saved method, read and checked without a backbone.

    Attributes:
        method: the configured method.
        version: the version of the method that saved it, on its backbone.
        tensors: the saved tensors by name; all numbers are finite.
        state: further saved values of the method.
    """

    method: Method
    version: int
    tensors: Tensors
    state: dict[str, Any]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    method: str
    version: int
    config: dict[str, Any]
    state: dict[str, Any]


def save_artifact(fitted: Fitted, method: Method, folder: Path, bench: Bench, *, without: Collection[str] = ()) -> int:
    """Write everything beside the backbone that later predictions need; return the bytes written.

    Args:
        fitted: the fitted method.
        method: the method that fitted it.
        folder: the folder to write, made if missing.
        bench: the cell's bench; its backbone and kind of task decide which version of the method is saved.
        without: names of tensors that are stored elsewhere.

    Raises:
        FloatingPointError: a tensor is not finite.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: np.ascontiguousarray(value) for name, value in fitted.tensors().items() if name not in without}
    broken = not_finite(kept)
    if broken is not None:
        raise FloatingPointError(f"The fitted tensor '{broken}' is not finite, so the model is not saved.")
    save_file(kept, folder / ARTIFACT_TENSORS)
    (folder / ARTIFACT_SETTINGS).write_bytes(_settings(fitted, method, _version(method, bench)))
    return sum((folder / name).stat().st_size for name in (ARTIFACT_TENSORS, ARTIFACT_SETTINGS))


def read_artifact(folder: Path) -> Artifact:
    """Read the files of `save_artifact`, and check everything that can be checked without a backbone.

    Raises:
        UsageError: a file is missing or damaged, a tensor is not finite, or an earlier version of the method saved it.
    """
    if not (folder / ARTIFACT_SETTINGS).is_file() or not (folder / ARTIFACT_TENSORS).is_file():
        raise UsageError(
            f"'{folder}' holds no saved method; expected the files {ARTIFACT_SETTINGS} and {ARTIFACT_TENSORS} in it."
        )
    settings = _read_settings(folder / ARTIFACT_SETTINGS)
    cls = methods.get(settings.method)
    if settings.version < cls.version:  # `rebuild_artifact` checks later ones, which depend on the backbone
        raise _another_version(folder, settings.method, settings.version, cls.version)
    try:
        method = cls(**settings.config)
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("config",), "msg": str(error)}
        where = ".".join(str(part) for part in first["loc"]) or "config"
        raise UsageError(f"'{folder / ARTIFACT_SETTINGS}': config: {where}: {first['msg']}. {AGAIN}") from None
    if _canonical(method.config()) != _canonical(settings.config):
        raise UsageError(
            f"'{folder / ARTIFACT_SETTINGS}': config is not the whole configuration of '{cls.name}': a setting is "
            f"missing or has a wrong type. {AGAIN}"
        )
    tensors = _read_tensors(folder / ARTIFACT_TENSORS)
    broken = not_finite(tensors)
    if broken is not None:
        raise UsageError(f"'{folder / ARTIFACT_TENSORS}': the tensor '{broken}' is not finite. {AGAIN}")
    return Artifact(method, settings.version, tensors, settings.state)


def load_artifact(
    folder: Path, bench: Bench, *, besides: Mapping[str, npt.NDArray[Any]] | None = None
) -> tuple[Method, Fitted]:
    """Rebuild a saved method on the bench's backbone.

    Args:
        folder: the folder that `save_artifact` wrote.
        bench: a bench with the backbone that the method was fitted on.
        besides: tensors that are stored elsewhere, by name; those that the method does not train are ignored.

    Raises:
        UsageError: the folder does not hold exactly the method's tensors, or the method cannot run on this backbone
            or device. The message names the file or the tensor.
    """
    return rebuild_artifact(read_artifact(folder), folder, bench, besides=besides)


def rebuild_artifact(
    saved: Artifact, folder: Path, bench: Bench, *, besides: Mapping[str, npt.NDArray[Any]] | None = None
) -> tuple[Method, Fitted]:
    """Rebuild a method from files that are already read; see `load_artifact`."""
    besides = besides or {}
    version = _version(saved.method, bench)
    if saved.version != version:
        raise _another_version(folder, saved.method.name, saved.version, version)
    files = _files(bench)
    reason = saved.method.why_unsupported(bench.kind.name, files, bench.device.kind)
    if reason is not None:
        raise UsageError(f"'{folder}' cannot be used: {reason}")
    try:
        fitted = saved.method.restore({**besides, **saved.tensors}, saved.state, bench)
    except HarnessError as error:
        raise type(error)(f"'{folder}': {error}") from None
    except Exception as error:  # a damaged file can break a method anywhere
        raise UsageError(
            f"'{folder}': '{saved.method.name}' could not be restored ({reason_of(error)}). {AGAIN}"
        ) from error
    _check_restored(fitted, saved, besides, folder)
    return saved.method, fitted


def _version(method: Method, bench: Bench) -> int:
    """Return the version of a method in cells with the bench's backbone and kind of task."""
    return method.version_on(_files(bench) if method.serves else None, bench.kind.form)


def _files(bench: Bench) -> BackboneFiles | None:
    """Return the backbone's files, or the served model; None without either."""
    if bench.served is not None:
        return bench.served.model
    return bench.backbone.files if bench.backbone is not None else None


def _another_version(folder: Path, name: str, saved: int, expected: int) -> UsageError:
    return UsageError(
        f"'{folder}' was saved by version {saved} of '{name}'; this is version {expected}. Load it with the release of "
        "the harness that saved it, or fit and save the model again."
    )


def _check_restored(fitted: Fitted, saved: Artifact, besides: Collection[str], folder: Path) -> None:
    """Refuse a restored method that differs from the files read."""
    restored = fitted.tensors()
    for name in saved.tensors:
        if name not in restored:
            raise UsageError(f"'{folder / ARTIFACT_TENSORS}' holds the tensor '{name}', which is unexpected. {AGAIN}")
        if name in besides:
            raise UsageError(f"'{folder}' holds the tensor '{name}' twice. {AGAIN}")
    for name, value in restored.items():
        if name not in saved.tensors and name not in besides:
            raise UsageError(f"'{folder / ARTIFACT_TENSORS}' lacks the tensor '{name}'. {AGAIN}")
        found = saved.tensors.get(name)
        if found is not None and (found.shape != value.shape or found.dtype != value.dtype):
            raise UsageError(
                f"'{folder / ARTIFACT_TENSORS}': the tensor '{name}' is {found.dtype} of shape {found.shape}; expected "
                f"{value.dtype} of shape {value.shape}. {AGAIN}"
            )
    if _canonical(fitted.state()) != _canonical(saved.state):
        raise UsageError(f"'{folder / ARTIFACT_SETTINGS}': state is not what '{saved.method.name}' saves. {AGAIN}")


def _read_tensors(path: Path) -> Tensors:
    """Read every tensor of a safetensors file.

    Raises:
        UsageError: the file is damaged, or holds a tensor of a type that no method saves.
    """
    from safetensors import safe_open

    known = set(_DTYPES.values())
    try:
        with safe_open(path, framework="numpy") as opened:
            for name in opened.keys():  # noqa: SIM118 - no dict
                found = opened.get_slice(name).get_dtype()
                if found not in known:
                    raise UsageError(
                        f"'{path}': the tensor '{name}' is {found}; expected one of {', '.join(sorted(known))}. {AGAIN}"
                    )
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except HarnessError:
        raise
    except Exception as error:  # safetensors raises its own errors, OSError, and numpy's
        raise UsageError(f"'{path}' cannot be read as safetensors ({reason_of(error)}). {AGAIN}") from error


def artifact_size_bytes(fitted: Fitted, method: Method) -> int:
    """Return the bytes that `save_artifact` would write, without writing them."""
    # The version on the backbone has the same number of digits.
    return _safetensors_bytes(fitted.tensors()) + len(_settings(fitted, method, method.version))


def _settings(fitted: Fitted, method: Method, version: int) -> bytes:
    settings = _Settings(method=method.name, version=version, config=method.config(), state=fitted.state())
    return json.dumps(settings.model_dump(), ensure_ascii=False).encode()


def _read_settings(path: Path) -> _Settings:
    try:
        return _Settings.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"'{path}': {where}: {first['msg']}. {AGAIN}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"'{path}' cannot be read as JSON ({reason_of(error)}). {AGAIN}") from None


def _canonical(value: Any) -> str:
    """Return JSON, in which 1, 1.0 and true differ."""
    return json.dumps(value, sort_keys=True)


def _safetensors_bytes(tensors: Tensors) -> int:
    """Return the size of the file: 8 bytes, a JSON header padded to a multiple of 8, the data.

    Offsets in the header follow safetensors' order: decreasing alignment, then name.
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
