"""Read members of zip files, also of those that are compressed with Zstandard, and parts of large JSON texts."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from harness.support import UsageError

_ZSTANDARD: Final = 93
"""Number of Zstandard among the compressions of zip files; Python reads it since version 3.14."""

_LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")
_BLANKS: Final = " \t\n\r"
MAX_BYTES: Final = 2**32
"""Largest unpacked member."""


def read_member(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    """Return the unpacked content of a member.

    Args:
        archive: an open zip file.
        name: name of the member.
        where: path of the zip file, for messages.

    Raises:
        UsageError: the member is damaged, or larger than `MAX_BYTES`.
    """
    info = archive.getinfo(name)
    if info.file_size > MAX_BYTES:
        raise UsageError(f"{where}: {name} unpacks to {info.file_size:,} bytes; expected at most {MAX_BYTES:,}.")
    try:
        if info.compress_type != _ZSTANDARD:
            return archive.read(info)
        return _from_zstandard(archive, info)
    except (OSError, ValueError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile) as error:
        raise UsageError(f"{where}: {name} is damaged or cannot be unpacked: {error}.") from None


def _from_zstandard(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    import pyarrow

    file = archive.fp
    if file is None:
        raise ValueError("the file is closed")
    file.seek(info.header_offset)
    header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    file.seek(header[-2] + header[-1], 1)  # the name and the extra field
    packed = file.read(info.compress_size)
    with pyarrow.input_stream(pyarrow.BufferReader(packed), compression="zstd") as stream:
        raw = bytes(stream.read(info.file_size + 1))
    if len(raw) != info.file_size:
        raise ValueError(f"it holds {len(raw):,} bytes, not {info.file_size:,}")
    return raw


def members_of(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of a JSON object one after another; items of `samples` come one at a time.

    A log of many samples never lies in memory as a whole. An item of the list `samples` is yielded with this name.

    Raises:
        UsageError: the text is no JSON object, or ends early.
    """
    decode = json.JSONDecoder().raw_decode
    at = _skip(text, 0)
    try:
        if text[at] != "{":
            raise ValueError("it holds no object")
        at = _skip(text, at + 1)
        while text[at] != "}":
            name, at = decode(text, at)
            at = _skip(text, at)
            if text[at] != ":" or not isinstance(name, str):
                raise ValueError(f"a name is expected at character {at:,}")
            at = _skip(text, at + 1)
            if name == "samples" and text[at] == "[":
                at = _skip(text, at + 1)
                while text[at] != "]":
                    item, at = decode(text, at)
                    yield name, item
                    at = _after_item(text, at, "]")
                at += 1
            else:
                value, at = decode(text, at)
                yield name, value
            at = _after_item(text, at, "}")
    except (ValueError, IndexError, RecursionError) as error:
        reason = "it ends early" if isinstance(error, IndexError) else str(error)
        raise UsageError(f"{path} cannot be read as JSON: {reason}. Is the file complete?") from None


def _skip(text: str, at: int) -> int:
    while text[at] in _BLANKS:
        at += 1
    return at


def _after_item(text: str, at: int, end: str) -> int:
    at = _skip(text, at)
    if text[at] == ",":
        return _skip(text, at + 1)
    if text[at] != end:
        raise ValueError(f"a comma or '{end}' is expected at character {at:,}")
    return at
