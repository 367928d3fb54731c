"""Files of results, in whichever format, to records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.records import MAX_LINE_BYTES, Record, read_numbered
from harness.store.importing import peft, table
from harness.support import UsageError

FORMATS: Final = ("harness", "peft", "table")


def read_results(
    paths: Sequence[Path],
    form: str = "harness",
    mapping: Mapping[str, str] | None = None,
    *,
    scale: str | None = None,
    ignore: Sequence[str] = (),
) -> list[Record]:
    """Return the records of all files; see `locate_results`."""
    return [record for _, record in locate_results(paths, form, mapping, scale=scale, ignore=ignore)]


def locate_results(
    paths: Sequence[Path],
    form: str = "harness",
    mapping: Mapping[str, str] | None = None,
    *,
    scale: str | None = None,
    ignore: Sequence[str] = (),
) -> Iterator[tuple[str, Record]]:
    """Stream the records of files, or of the files of folders, each with the place that it was read from.

    Args:
        paths: files; of a folder the files that the format reads are taken.
        form: one of `FORMATS`: `harness` is what `harness export` writes (records or tables), `peft` the result files
            of the PEFT library's method comparison, `table` any tidy table.
        mapping: for `table`, a field to the column that holds it, or to `=VALUE` for the same value in all rows.
        scale: for `table`, `percent` or `fraction`: how scores are written.
        ignore: for `table`, columns to leave out.

    Raises:
        UsageError: no such format or file, or a file that is not of the format; its name and what is wrong are said.
        StoreError: a line that is no record, with its number and field.
    """
    if form not in FORMATS:
        raise UsageError(f"Format '{form}' was given; expected one of {', '.join(FORMATS)}.")
    for option, value in (("--map", mapping), ("--scale", scale), ("--ignore", ignore)):
        if value and form != "table":
            raise UsageError(f"{option} was given with the format {form}; only --format table has columns to be named.")
    for path in paths:
        for file in _files(path, form):
            yield from _read(file, form, mapping or {}, scale, ignore)


def _files(path: Path, form: str) -> list[Path]:
    if path.is_dir():
        endings = {".json"} if form == "peft" else {".jsonl", ".csv", ".parquet"}
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in endings)
        if not found:
            raise UsageError(f"The folder {path} holds no {' or '.join(sorted(endings))} file.")
        return found
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    return [path]


def _read(
    path: Path, form: str, mapping: Mapping[str, str], scale: str | None, ignore: Sequence[str]
) -> Iterator[tuple[str, Record]]:
    if form == "peft":
        yield str(path), peft.read(path)
    elif form == "table":
        yield from table.read(path, mapping, scale=scale, ignore=ignore)
    elif path.suffix.lower() == ".jsonl" and _holds_records(path):
        for number, record in read_numbered(path):
            yield f"{path}, line {number}", record
    else:
        yield from table.read(path, table.EXPORT)


def _holds_records(path: Path) -> bool:
    """Return whether a file holds whole records, and not the rows of a table."""
    try:
        with path.open("rb") as file:
            first = b""
            while not first.strip():
                first = file.readline(MAX_LINE_BYTES + 1)
                if not first:
                    return True
        value = json.loads(first)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        return True  # whose reader says what is wrong with it
    return not isinstance(value, dict) or "cell" in value or "method" not in value
