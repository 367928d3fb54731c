"""Read columns of the user's own CSV, TSV, JSONL or Parquet file exactly as they are written.

CSV and JSONL are parsed by the standard library: the parsers below `datasets` read "NA" as missing (pandas) or
"2024-01-01" as a time (pyarrow) and lose the line numbers, and a user's labels and messages need both right.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.raw import Origin
from harness.errors import DataError

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class FileRows:
    """The rows of a file.

    Attributes:
        columns: values by column, one a row: text for CSV; what JSON or Parquet hold otherwise (None: missing).
        origin: the line or row of each.
    """

    columns: dict[str, list[Any]]
    origin: Origin


def read_rows(path: Path, columns: Sequence[str], *, others: bool = False) -> FileRows:
    """Read `columns` of a file; the format follows from its ending.

    Args:
        path: the file.
        columns: that have to be there.
        others: whether all other columns are read too, in the file's order.

    Raises:
        DataError: the file is missing, empty, of another format, not UTF-8, or malformed, or lacks a column. The
            message names the file and the line, row or column.
    """
    ending = path.suffix.lower()
    try:
        exists = path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise DataError(f"{path}: the file cannot be looked for ({error.strerror or error}).") from error
    if not exists:
        near = _near_file(path)
        raise DataError(f"{path}: there is no such file.{near}")
    if not path.is_file():
        raise DataError(f"{path}: not a file; expected one that ends in {', '.join(ENDINGS)}.")
    if ending not in ENDINGS:
        raise DataError(f"{path}: files that end in '{ending}' are not read; expected one of {', '.join(ENDINGS)}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty.")
    wanted = list(dict.fromkeys(columns))
    if others:
        wanted = _all_columns(path, ending, wanted)
    if ending == ".parquet":
        rows = _read_parquet(path, wanted)
    elif ending == ".jsonl":
        rows = _read_jsonl(path, _decode(path), wanted)
    else:
        rows = _read_csv(path, _decode(path), wanted, ("\t",) if ending == ".tsv" else _DELIMITERS)
    if not rows.columns[columns[0]]:
        raise DataError(f"{path}: the file has no rows.")
    return rows


def _all_columns(path: Path, ending: str, wanted: list[str]) -> list[str]:
    """Every column of the file, in its order; those wanted, too, where they are missing: reading says so."""
    if ending == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            found = pyarrow.parquet.read_schema(path).names
        except (pyarrow.ArrowException, OSError):  # what is wrong with it is said when it is read
            found = []
    elif ending == ".jsonl":
        rows = []
        for line in _decode(path).split("\n"):
            with suppress(ValueError, RecursionError):
                rows.append(json.loads(line))
        found = [name for row in rows if isinstance(row, dict) for name in row]
    else:
        found = _header(path, _decode(path), wanted, ("\t",) if ending == ".tsv" else _DELIMITERS)[1]
    return list(dict.fromkeys([*found, *wanted]))


def absolute_path(path: str | Path) -> Path:
    """A path as a user types it, made absolute: a worker may run in another folder.

    Raises:
        DataError: `~NAME` of a user that this machine does not know.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise DataError(f"{path}: there is no such user's folder ({error}).") from error


def missing_column(name: str, column: str, known: Iterable[str]) -> DataError:
    """The error for a column that a file or a data set lacks: names the nearest one, then all of them."""
    names = list(known)
    lowered = {other.strip().lower(): other for other in names}
    near = difflib.get_close_matches(column.strip().lower(), list(lowered), n=1, cutoff=0.6)
    guess = f" Did you mean '{lowered[near[0]]}'?" if near else ""
    listed = ", ".join(f"'{other}'" for other in names)
    return DataError(f"{name}: there is no column '{column}'.{guess} Columns: {listed}.")


def _near_file(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f" Nor is there a folder {path.parent}."
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f" Did you mean '{near[0]}'?" if near else ""


def _decode(path: Path) -> str:
    """The file's text, without a byte-order mark; refuses what is not UTF-8, naming the place."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error}).") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start + len(raw) - len(error.object)  # counted in the file, byte-order mark included
        line = raw.count(b"\n", 0, start) + 1
        raise DataError(
            f"{path}: line {line} is not UTF-8: byte 0x{raw[start]:02x} at offset {start}. "
            f"Save the file as UTF-8 (`iconv -f latin1 -t utf-8`, or 'CSV UTF-8' in a spreadsheet)."
        ) from None


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the limit of 128 KiB that the csv module sets on a field, which is global to the process."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_csv(path: Path, text: str, columns: list[str], delimiters: Sequence[str]) -> FileRows:
    with _long_fields():
        delimiter, header = _header(path, text, columns, delimiters)
        for column in columns:
            if column not in header:
                raise missing_column(str(path), column, header)
            if header.count(column) > 1:
                raise DataError(f"{path}: there are {header.count(column)} columns '{column}'; rename all but one.")
        places = [header.index(column) for column in columns]
        values: list[list[Any]] = [[] for _ in columns]
        lines: list[int] = []
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        line = 1
        try:
            for fields in reader:
                begins, line = line, reader.line_num + 1
                if begins == 1 or not fields or (len(fields) == 1 < len(header) and not fields[0].strip()):
                    continue  # the header, or a blank line
                if len(fields) != len(header):
                    raise DataError(
                        f"{path}: line {begins} has {len(fields)} fields, the header has {len(header)}. A text that "
                        f"holds '{delimiter}', quotes or line breaks must stand in double quotes."
                    )
                lines.append(begins)
                for column_values, place in zip(values, places, strict=True):
                    column_values.append(fields[place])
        except csv.Error as error:
            raise DataError(
                f"{path}: the row that begins at line {line} is malformed ({error}). A quote within a quoted text is "
                "written twice."
            ) from None
    return FileRows(dict(zip(columns, values, strict=True)), Origin(str(path), "line", lines))


def _header(path: Path, text: str, columns: list[str], delimiters: Sequence[str]) -> tuple[str, list[str]]:
    """The delimiter under which the header names the columns asked for, and the header."""
    best: tuple[int, int, str, list[str]] | None = None
    for delimiter in delimiters:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        found = (sum(column in header for column in columns), len(header))
        if best is None or found > best[:2]:
            best = (*found, delimiter, header)
    if best is None or not any(name.strip() for name in best[3]):
        raise DataError(f"{path}: line 1 is not a header; expected the names of the columns.")
    return best[2], best[3]


def _read_jsonl(path: Path, text: str, columns: list[str]) -> FileRows:
    values: dict[str, list[Any]] = {column: [] for column in columns}
    lines: list[int] = []
    known: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: line {number} is not JSON ({error}); expected one object a line.") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number} is not a JSON object; expected one object a line.")
        known.update(dict.fromkeys(row))
        lines.append(number)
        for column in columns:
            values[column].append(row.get(column))
    for column in columns:
        if lines and column not in known:
            raise missing_column(str(path), column, known)
    return FileRows(values, Origin(str(path), "line", lines))


def _read_parquet(path: Path, columns: list[str]) -> FileRows:
    from harness.data.loading import load_file

    with tempfile.TemporaryDirectory() as cache:
        data = load_file(path, cache)
    for column in columns:
        if column not in data.column_names:
            raise missing_column(str(path), column, data.column_names)
    return FileRows({column: data.data.column(column).to_pylist() for column in columns}, Origin(str(path)))
