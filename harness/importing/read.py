"""Files of results, in whichever format, to records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.errors import UsageError
from harness.importing import peft, table
from harness.jsonl import read_jsonl
from harness.records import Record

FORMATS: Final = ("harness", "peft", "table")


def read_results(
    paths: Sequence[Path], form: str = "harness", mapping: Mapping[str, str] | None = None
) -> list[Record]:
    """Read all files, or the files of folders, before anything is returned.

    Args:
        paths: files; of a folder the files that the format reads are taken.
        form: one of `FORMATS`: `harness` is what `harness export` writes (records or tables), `peft` the result files
            of the PEFT library's method comparison, `table` any tidy table.
        mapping: for `table`, a field to the column that holds it, or to `=VALUE` for the same value in all rows.

    Raises:
        UsageError: no such format or file, or a file that is not of the format; its name and what is wrong are said.
    """
    if form not in FORMATS:
        raise UsageError(f"Format '{form}' was given; expected one of {', '.join(FORMATS)}.")
    if mapping and form != "table":
        raise UsageError(f"--map was given with the format {form}; only --format table has columns to be named.")
    records: list[Record] = []
    for path in paths:
        for file in _files(path, form):
            records += _read(file, form, mapping or {})
    return records


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


def _read(path: Path, form: str, mapping: Mapping[str, str]) -> Iterator[Record]:
    if form == "peft":
        yield peft.read(path)
    elif form == "table":
        yield from table.read(path, mapping)
    elif path.suffix.lower() == ".jsonl" and _holds_records(path):
        yield from read_jsonl(path)
    else:
        yield from table.read(path, table.EXPORT)


def _holds_records(path: Path) -> bool:
    """Whole records, and not the rows of a table."""
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        value = json.loads(first)
    except ValueError:
        return True  # whose reader says what is wrong with it
    return not isinstance(value, dict) or "cell" in value or "method" not in value
