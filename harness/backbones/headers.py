"""Read the shapes and types of a backbone's tensors from the headers of its safetensors files, without torch."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.backbones.layout import read_object
from harness.support import UsageError

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"

_INNER: Final = "_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module"
WRAPPERS: Final = rf"^(?:(?:module|{_INNER})\.)+|(?:{_INNER})\."
"""Prefixes that torch's wrappers add to names: data parallelism, compilation, sharding and checkpointing."""

FLOATS: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Supported types of weights, with their sizes in bytes."""

SAVE_AGAIN: Final = "Save the backbone again with transformers: model.save_pretrained(FOLDER)."


class Header(NamedTuple):
    """The header of one tensor.

    Attributes:
        shape: its size in each dimension.
        dtype: its type, as safetensors spells it.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


class Headers(NamedTuple):
    """The headers of all tensors of a backbone.

    Attributes:
        tensors: the header of each, under its name without the prefixes of wrappers.
        wrapped: whether any name had such a prefix.
    """

    tensors: Mapping[str, Header]
    wrapped: bool

    @property
    def n_bytes(self) -> int:
        """Size of all tensors as float32."""
        return 4 * sum(header.size for header in self.tensors.values())

    @property
    def are_bfloat16(self) -> bool:
        """Whether all matrices and embeddings are bfloat16; vectors may have any type, since they are raised."""
        found = {header.dtype for header in self.tensors.values() if len(header.shape) > 1 and header.dtype in FLOATS}
        return found == {"BF16"}


def weight_files(folder: Path, name: str) -> list[Path]:
    """Return the files that transformers reads weights from: one, or the shards of an index; empty without weights.

    Args:
        folder: the transformer's.
        name: the backbone, for messages.

    Raises:
        UsageError: a file is not a regular file, a shard is missing, or the weights have another name.
    """
    present = sorted(path.name for path in folder.glob("*.safetensors"))
    if SINGLE in present:
        return [_regular(folder / SINGLE, name)]
    index = folder / INDEX
    if index.exists() or index.is_symlink():
        weight_map = read_object(index, name).get("weight_map")
        shards = set(weight_map.values()) if isinstance(weight_map, dict) and _only_texts(weight_map) else set()
        if not shards or any(not shard.endswith(".safetensors") or Path(shard).name != shard for shard in shards):
            raise UsageError(f"Backbone '{name}': {INDEX} has no weight_map from tensors to .safetensors files.")
        absent = sorted(shard for shard in shards if not (folder / shard).is_file())
        if absent:
            raise UsageError(
                f"Backbone '{name}': {INDEX} names {absent[0]}, which is missing ({len(absent)} of {len(shards)} "
                "shards are). Copy the missing files into the folder."
            )
        return [_regular(folder / shard, name) for shard in sorted(shards)]
    if present:
        raise UsageError(
            f"Backbone '{name}' has {', '.join(present[:3])}; expected {SINGLE}, or {INDEX} with its shards. "
            f"{SAVE_AGAIN}"
        )
    return []


def _only_texts(weight_map: Mapping[str, Any]) -> bool:
    return all(isinstance(value, str) for value in weight_map.values())


def _regular(path: Path, name: str) -> Path:
    if not path.is_file():
        raise UsageError(f"Backbone '{name}': {path.name} is no regular file.")
    return path


def read_headers(folder: Path, name: str) -> Headers:
    """Return the headers of all tensors; empty without weights.

    Args:
        folder: the transformer's.
        name: the backbone, for messages.

    Raises:
        UsageError: a file is damaged or incomplete, or two tensors have one name.
    """
    files = weight_files(folder, name)
    stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    found = _read_headers(stamps, name)
    if files and files[0].name != SINGLE:
        listed = {bare_name(tensor) for tensor in read_object(folder / INDEX, name)["weight_map"]}
        absent = sorted(listed - set(found.tensors))
        if absent:
            raise UsageError(
                f"Backbone '{name}': {INDEX} lists {', '.join(absent[:3])}, which no shard holds "
                f"({len(absent)} tensors in all). {SAVE_AGAIN}"
            )
    return found


@functools.lru_cache(maxsize=64)
def _read_headers(stamps: tuple[tuple[Path, int, int], ...], name: str) -> Headers:
    """Return the same, cached by the files' sizes and times of change."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, Header] = {}
    wrapped = False
    for path, _, _ in stamps:
        try:
            with safe_open(path, framework="numpy") as opened:
                for tensor in opened.keys():  # noqa: SIM118 - a safetensors file is not a mapping
                    bare = bare_name(tensor)
                    wrapped |= bare != tensor
                    if bare in found:
                        raise UsageError(f"Backbone '{name}' holds the tensor {bare} twice. {SAVE_AGAIN}")
                    part = opened.get_slice(tensor)
                    found[bare] = Header(tuple(part.get_shape()), str(part.get_dtype()))
        except (OSError, ValueError, SafetensorError) as error:
            raise UsageError(
                f"Backbone '{name}': {path.name} is damaged or incomplete: {message_of(error)}. Copy it again."
            ) from None
    return Headers(found, wrapped)


def bare_name(tensor: str) -> str:
    """Return a tensor's name without the prefixes of torch's wrappers."""
    return re.sub(WRAPPERS, "", tensor)


def message_of(error: BaseException) -> str:
    """Return an error's message in one line, without its full stop; its type if it has no message."""
    if isinstance(error, KeyError):
        return f"there is no entry {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    n_read = next((count for count, line in enumerate(lines, 1) if not line.endswith(":")), len(lines))
    return " ".join(lines[:n_read])[:300].rstrip(".") if lines else type(error).__name__
