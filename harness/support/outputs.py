"""Files that a command writes under a name the user gave: refuse what would be lost, then write whole or not at all.

Use `check_output` before any work is done, and `replacing` to write::

    check_output(out, inputs=[data, model], ours=csv_starts_with("text", "prediction"), overwrite=overwrite)
    ...
    with replacing(out) as temporary:
        temporary.write_text(...)

`check_folder` is the same for a command that writes several files into a folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from harness.support.errors import StoreError, UsageError

FOLDER_MARK = ".written-by-harness"
"""Name of the file that marks a folder whose contents a later command may replace."""

_SQLITE_HEADER = b"SQLite format 3\0"
_HEAD_BYTES = 1 << 20

Recogniser = Callable[[Path], bool]
"""Returns whether an existing file is an earlier output of the same command."""


def check_output(
    path: Path,
    *,
    inputs: Iterable[str | Path] = (),
    ours: Recogniser | None = None,
    overwrite: bool | None = False,
    option: str = "--out",
) -> None:
    """Refuse to write to a path where something would be lost that this command did not write.

    Args:
        path: the file to write.
        inputs: paths or URLs that the command reads. They are never replaced.
        ours: recognises an earlier output of the same command, which may be replaced. None recognises nothing.
        overwrite: whether the user allowed replacing other files. Inputs, stores and folders stay refused. None
            where the command has no option --overwrite.
        option: how the user named the path, for the message.

    Raises:
        UsageError: the path is an input, a store, a folder, no regular file, or a file that `ours` does not recognise.
    """
    found = f"{option} '{path}' was given"
    another = "Name another file."
    if not path.name:
        raise UsageError(f"{found}, which names no file. {another}")
    for source in inputs:
        if _is_same(path, source):
            raise UsageError(f"{found}, which is a file that this command reads. {another}")
    try:
        if path.is_dir():
            raise UsageError(f"{found}, which is a folder; expected a file. Name a file in it, such as {path / 'out'}.")
        if not path.exists():
            return
        if not path.is_file():
            raise UsageError(f"{found}, which is not a regular file. {another}")
        if _starts_with(path, _SQLITE_HEADER):
            raise UsageError(f"{found}, which is a store of records or another database. {another}")
        if overwrite or path.stat().st_size == 0 or (ours is not None and ours(path)):
            return
    except OSError as error:
        raise UsageError(f"{found}, which cannot be read: {error.strerror or error}. {another}") from None
    raise UsageError(f"{found}, which exists and was not written by this command. {_way_out('file', overwrite)}")


def check_folder(
    folder: Path,
    names: Iterable[str],
    *,
    inputs: Iterable[str | Path] = (),
    ours: Recogniser | None = None,
    overwrite: bool | None = False,
    option: str = "--out",
) -> None:
    """Refuse a folder in which a command would replace files that it did not write.

    Args:
        folder: where the command will write. It need not exist.
        names: files and folders that the command writes there.
        inputs: paths or URLs that the command reads. They are never replaced.
        ours: recognises a folder that the command wrote before it left marks (see `mark_folder`).
        overwrite: whether the user allowed replacing other files; None where the command has no such option.
        option: how the user named the folder, for the message.

    Raises:
        UsageError: the path is a file, or one of `names` is an input, a store, or was written by something else.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{option} '{folder}' was given, which is a file; expected a folder. Name another one.")
    clashes = [folder / name for name in names if (folder / name).exists()]
    inputs = list(inputs)
    for path in clashes:
        if any(_is_same(path, source) for source in inputs):
            raise UsageError(f"{option} '{folder}' was given, but {path} is read by this command. Name another folder.")
        if path.is_file() and _starts_with(path, _SQLITE_HEADER):
            raise UsageError(f"{option} '{folder}' was given, but {path} is a database. Name another folder.")
    if not clashes or overwrite or (folder / FOLDER_MARK).is_file() or (ours is not None and ours(folder)):
        return
    raise UsageError(
        f"{option} '{folder}' was given, but it holds a {clashes[0].name} that this command did not write. "
        f"{_way_out('folder', overwrite)}"
    )


def _way_out(what: str, overwrite: bool | None) -> str:
    return f"Name another {what}." if overwrite is None else f"Name another {what}, or add --overwrite to replace it."


def mark_folder(folder: Path) -> None:
    """Make a folder and mark it as written by the harness, so that `check_folder` lets the next command replace it.

    Raises:
        StoreError: the folder cannot be made or written.
    """
    path = folder / FOLDER_MARK
    if not path.is_file():
        with replacing(path) as temporary:
            temporary.write_text("The harness wrote this folder. A later command replaces its files.\n", "utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` that takes its place when the block ends without an error.

    The new file is on the disk before it replaces the old one, so a crash leaves one of the two whole.

    Args:
        path: the file to make or replace; its folder is made where it is missing.

    Raises:
        StoreError: the folder or the file cannot be written.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex[:16]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}. Name another file or folder."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def csv_starts_with(*columns: str) -> Recogniser:
    """Return a recogniser of CSV files whose header begins with these columns."""

    def recognise(path: Path) -> bool:
        header = _first_line(path)
        return [name.strip('"') for name in header.split(",")][: len(columns)] == list(columns)

    return recognise


def json_lines_hold(columns: Iterable[str], *, but: Iterable[str] = ()) -> Recogniser:
    """Return a recogniser of JSON Lines files whose first object has all of `columns` and none of `but`."""
    wanted, unwanted = frozenset(columns), frozenset(but)

    def recognise(path: Path) -> bool:
        try:
            value = json.loads(_first_line(path))
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) and wanted <= value.keys() and not unwanted & value.keys()

    return recognise


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.readline(_HEAD_BYTES).decode("utf-8-sig", "replace").rstrip("\r\n")


def _starts_with(path: Path, head: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(head)) == head


def _is_same(path: Path, source: str | Path) -> bool:
    """Return whether both name one file; a folder that is read is not the files in it."""
    if "://" in str(source):
        return False  # a store's file is recognised by its header
    try:
        other = Path(source).expanduser()
        if path.exists() and other.exists():
            return path.samefile(other)
        return path.resolve() == other.resolve()
    except (OSError, ValueError, RuntimeError):
        return False
