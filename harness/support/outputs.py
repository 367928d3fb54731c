"""Write files under names that the user gave: lose no other files, and write a file completely or not at all.

Call `check_output` before any work, and `replacing` to write::

    check_output(out, inputs=[data, model], ours=csv_starts_with("text", "prediction"), overwrite=overwrite)
    ...
    with replacing(out) as temporary:
        temporary.write_text(...)

`check_folder` does the same for a command that writes several files into a folder. `csv_field` formats a value
for CSV files that users open: no text runs as a formula, and none breaks a row or the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.support.errors import StoreError, UsageError

_FOLDER_MARK = ".written-by-harness"
"""Name of the file that marks a folder whose contents a later command may replace."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SQLITE_HEADER = b"SQLite format 3\0"
_HEAD_BYTES = 1 << 20

Recogniser = Callable[[Path], bool]
"""Function that returns whether an existing file is an earlier output of the same command."""


def check_output(
    path: Path,
    *,
    inputs: Iterable[str | Path] = (),
    ours: Recogniser | None = None,
    overwrite: bool | None = False,
    option: str = "--out",
) -> None:
    """Refuse a path at which a file of another origin would be lost.

    Args:
        path: the file to write.
        inputs: paths or URLs that the command reads; they are never replaced.
        ours: recognises an earlier output of the same command, which may be replaced. None recognises nothing.
        overwrite: whether the user allowed replacing other files; inputs, stores and folders stay refused. None if
            the command has no option --overwrite.
        option: option that named the path, for the message.

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
    """Refuse a folder in which a command would replace files of another origin.

    Args:
        folder: the folder to write to; it need not exist.
        names: files and folders that the command writes there.
        inputs: paths or URLs that the command reads; they are never replaced.
        ours: recognises a folder that an older version of the command wrote without a mark (see `mark_folder`).
        overwrite: whether the user allowed replacing other files; None if the command has no such option.
        option: option that named the folder, for the message.

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
    if not clashes or overwrite or (folder / _FOLDER_MARK).is_file() or (ours is not None and ours(folder)):
        return
    raise UsageError(
        f"{option} '{folder}' was given, but it holds a {clashes[0].name} that this command did not write. "
        f"{_way_out('folder', overwrite)}"
    )


def _way_out(what: str, overwrite: bool | None) -> str:
    return f"Name another {what}." if overwrite is None else f"Name another {what}, or add --overwrite to replace it."


def mark_folder(folder: Path) -> None:
    """Make a folder and mark it as written by the harness, so that a later command may replace its files.

    Raises:
        StoreError: the folder cannot be made or written.
    """
    path = folder / _FOLDER_MARK
    if not path.is_file():
        with replacing(path) as temporary:
            temporary.write_text("The harness wrote this folder. A later command replaces its files.\n", "utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces it when the block ends without an error.

    The new file is on the disk before it replaces the old one, so a crash leaves one of the two complete.

    Args:
        path: the file to make or replace; its folder is made if missing.

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


def csv_field(value: Any, delimiter: str = ",", *, keeps_numbers: bool = False) -> str:
    r"""Return a value as one field of a CSV or TSV file, in quotes if it needs them.

    None is empty. A number has the shortest digits that read back as the same number. A text that begins with one of
    = + - @, a tab or a carriage return gets a leading apostrophe. Half a surrogate pair, which no file can hold, is
    written out: `\ud83d`.

    Args:
        value: a value of any type.
        delimiter: delimiter of the file.
        keeps_numbers: whether a text such as `-5` stays unchanged, for files whose columns were all read as texts.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    text = value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if text.startswith(_FORMULA) and not (keeps_numbers and _NUMBER.fullmatch(text)):
        text = f"'{text}"
    # The csv module before Python 3.13 leaves a lone carriage return unquoted, and readers break the row there.
    return '"{}"'.format(text.replace('"', '""')) if any(sign in text for sign in f'{delimiter}"\r\n') else text


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.readline(_HEAD_BYTES).decode("utf-8-sig", "replace").rstrip("\r\n")


def _starts_with(path: Path, head: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(head)) == head


def _is_same(path: Path, source: str | Path) -> bool:
    """Return whether both name one file; files in an input folder do not count."""
    if "://" in str(source):
        return False  # the file of a store is recognised by its header
    try:
        other = Path(source).expanduser()
        if path.exists() and other.exists():
            return path.samefile(other)
        return path.resolve() == other.resolve()
    except (OSError, ValueError, RuntimeError):
        return False
