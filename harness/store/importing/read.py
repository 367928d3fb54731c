"""Read files of results in any supported format as records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.records import MAX_LINE_BYTES, Record, read_numbered
from harness.store.importing.mteb import read_mteb
from harness.store.importing.peft import read_peft_result
from harness.store.importing.table import EXPORT, read_result_table
from harness.support import UsageError

FORMATS: Final = ("harness", "eee", "inspect", "lm-eval", "mteb", "peft", "setfit", "table")
"""Names of the formats that can be imported."""

_OF_FOLDERS: Final = frozenset({"eee", "inspect", "lm-eval", "mteb", "setfit"})
"""Formats whose files lie in folders of folders, and are found by their content."""

_WITH_COLUMNS: Final = ("mteb", "table")


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
    """Stream the records of files and folders, each with its place in the file.

    Args:
        paths: files, or folders of which the files in the format are read.
        form: `harness` for the files of `harness export` (records or tables); `eee` for Every Eval Ever, `inspect` for
            logs of Inspect, `lm-eval` for results of lm-evaluation-harness, `mteb` for MTEB's result files and tables
            of them, `peft` for result files of the PEFT library's method comparison, `setfit` for results of SetFit's
            scripts, `table` for any tidy table.
        mapping: for `table`, a field to its column, or to `=VALUE` for one value in all rows.
        scale: for `table`, scale of the scores: `percent` or `fraction`.
        ignore: for tables, columns to leave out.

    Raises:
        UsageError: the format or file does not exist, or the file does not match the format; the message names the
            fault.
        StoreError: a line is no record; the message names its number and field.
    """
    if form not in FORMATS:
        raise UsageError(f"Format '{form}' was given; expected one of {', '.join(FORMATS)}.")
    if ignore and form not in _WITH_COLUMNS:
        raise UsageError(f"--ignore was given with the format {form}; it applies only to tables.")
    for option, value in (("--map", mapping), ("--scale", scale)):
        if value and form != "table":
            raise UsageError(f"{option} was given with the format {form}; it applies only to --format table.")
    for path in paths:
        for file in _files(path, form):
            yield from _read(file, form, mapping or {}, scale, ignore)


def _files(path: Path, form: str) -> list[Path]:
    if path.is_dir() and form in _OF_FOLDERS:
        return [path]
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
    if form in ("peft", *_OF_FOLDERS):
        try:
            yield from _read_others(path, form, ignore)
        except UsageError as error:
            raise UsageError(f"{error}{_hint(path, form)}") from None
    elif form == "table":
        yield from read_result_table(path, mapping, scale=scale, ignore=ignore)
    elif path.suffix.lower() in (".json", ".eval", ".gz"):
        raise UsageError(f"{path} is no export of the harness.{_hint(path)}")
    elif path.suffix.lower() == ".jsonl" and _holds_records(path):
        for number, record in read_numbered(path):
            yield f"{path}, line {number}", record
    else:
        yield from read_result_table(path, EXPORT)


def _read_others(path: Path, form: str, ignore: Sequence[str]) -> Iterator[tuple[str, Record]]:
    if form == "peft":
        yield str(path), read_peft_result(path)
    elif form == "mteb":
        yield from read_mteb(path, ignore)
    else:
        yield from _reader(form)(path)


def _reader(form: str) -> Callable[[Path], Iterator[tuple[str, Record]]]:
    """Return the function that reads a format of another tool; only this one is imported."""
    if form == "eee":
        from harness.store.eee.read import read_eee as read
    elif form == "inspect":
        from harness.store.importing.inspect_ai import read_inspect as read
    elif form == "lm-eval":
        from harness.store.importing.lm_eval import read_lm_eval as read
    else:
        from harness.store.importing.setfit import read_setfit as read
    return read


def _hint(path: Path, given: str | None = None) -> str:
    """Return which format a file of another tool seems to have, as a sentence; empty if it is the given one."""
    from harness.store.importing.recognise import format_of

    found = format_of(path) if path.is_file() else given
    if given is not None and found in (given, None):
        return ""
    known = ", ".join(form for form in FORMATS if form not in ("harness", "table"))
    return f" It looks like --format {found}." if found else f" Name its format: --format {known}."


def _holds_records(path: Path) -> bool:
    """Return whether a file contains full records, not the rows of a table."""
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
        return True  # the reader of records reports the fault
    return not isinstance(value, dict) or "cell" in value or "method" not in value
