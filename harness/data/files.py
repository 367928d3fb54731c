"""Read columns of the user's own CSV, TSV, JSON, JSONL or Parquet file exactly as they are written.

CSV and JSON are parsed by the standard library: the parsers below `datasets` read "NA" as missing (pandas) or
"2024-01-01" as a time (pyarrow) and lose the line numbers, and a user's labels and messages need both right.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.encodings import PACKED, read_text
from harness.data.raw import Origin
from harness.support import DataError

TEXT_ENDINGS = (".csv", ".tsv", ".jsonl", ".json")
ENDINGS = (*TEXT_ENDINGS, ".parquet")
_DELIMITERS = (",", ";", "\t", "|")
_SAYS_DELIMITER = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
"""A first line by which spreadsheets are told the delimiter."""


@dataclass(frozen=True)
class FileRows:
    """The rows of a file.

    Attributes:
        columns: values by column, one a row: text for CSV; what JSON or Parquet hold otherwise (None: missing).
        origin: the line or row of each.
    """

    columns: dict[str, list[Any]]
    origin: Origin


def ending_of(path: Path) -> str:
    """Return the ending that says a file's format, in lower case: `.csv` of `t.CSV` and of `t.csv.gz`."""
    ending = path.suffix.lower()
    return path.with_suffix("").suffix.lower() if ending == PACKED else ending


def stem_of(path: Path) -> str:
    """Return a file's name without the endings of its format: `t` of `t.csv.gz`."""
    plain = path.with_suffix("") if path.suffix.lower() == PACKED else path
    return plain.stem


def is_data_file(name: str) -> bool:
    """Return whether a name ends as files of data do."""
    return ending_of(Path(name)) in ENDINGS


def read_rows(path: Path, columns: Sequence[str], *, others: bool = False) -> FileRows:
    """Read `columns` of a file; the format follows from its ending. Text formats may be packed by gzip (`.csv.gz`).

    Args:
        path: the file.
        columns: names of columns that must be there, once each.
        others: whether all other columns are read too, in the file's order. Columns that share a name get a number
            behind it (`note`, `note.1`).

    Raises:
        DataError: the file is missing, empty, of another format or encoding, or malformed, or lacks a column. The
            message names the file and the line, row or column.
    """
    ending = ending_of(path)
    try:
        exists = path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise DataError(f"{path}: the file cannot be looked for ({error.strerror or error}).") from error
    if not exists:
        near = _near_file(path)
        raise DataError(f"{path}: there is no such file.{near}")
    expected = f"{', '.join(ENDINGS)}, or a text format with {PACKED} behind it"
    if not path.is_file():
        raise DataError(f"{path}: not a file; expected one that ends in {expected}.")
    if ending not in ENDINGS or (path.suffix.lower() == PACKED and ending not in TEXT_ENDINGS):
        raise DataError(f"{path}: files that end in '{path.suffix}' are not read; expected one of {expected}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty.")
    wanted = list(dict.fromkeys(columns))
    if ending == ".parquet":
        rows = _read_parquet(path, wanted, others=others)
    elif ending in (".jsonl", ".json"):
        rows = _columns_of_objects(path, *_read_objects(path, ending), wanted, others=others)
    else:
        rows = _read_csv(path, wanted, ("\t",) if ending == ".tsv" else _DELIMITERS, others=others)
    if not rows.columns[columns[0]]:
        raise DataError(f"{path}: the file has no rows.")
    return rows


def absolute_path(path: str | Path) -> Path:
    """Return a path as a user types it, made absolute: a worker may run in another folder.

    Raises:
        DataError: `~NAME` of a user that this machine does not know.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise DataError(f"{path}: there is no such user's folder ({error}).") from error


def missing_column(name: str, column: str, known: Iterable[str]) -> DataError:
    """Return the error for a column that a file or a data set lacks: it names the nearest one, then all of them."""
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


def _places(path: Path, header: Sequence[str], columns: Sequence[str], *, others: bool) -> dict[str, int]:
    """Return the place of each column to read by its name; refuses one that is missing or there twice."""
    for column in columns:
        if column not in header:
            raise missing_column(str(path), column, header)
        if header.count(column) > 1:
            raise DataError(f"{path}: there are {header.count(column)} columns '{column}'; rename all but one.")
    if not others:
        return {column: header.index(column) for column in columns}
    places: dict[str, int] = {}
    for place, name in enumerate(header):
        unique, number = name, 0
        while unique in places or (number and unique in header):
            number += 1
            unique = f"{name}.{number}"
        places[unique] = place
    return places


# ---- CSV and TSV


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the limit of 128 KiB that the csv module sets on a field, which is global to the process."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_csv(path: Path, columns: list[str], delimiters: Sequence[str], *, others: bool) -> FileRows:
    text, skipped = read_text(path), 0
    first = re.match(r"[^\r\n]*", text)
    said = _SAYS_DELIMITER.fullmatch(first.group()) if first else None
    if said is not None:
        text = re.sub(r"\A[^\r\n]*(\r\n|\n|\r|\Z)", "", text)
        delimiters, skipped = (said.group(1),), 1
    with _long_fields():
        delimiter, header = _header(path, text, columns, delimiters, skipped + 1)
        places = _places(path, header, columns, others=others)
        values: list[list[Any]] = [[] for _ in places]
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
                        f"{path}: line {begins + skipped} has {len(fields)} fields, the header has {len(header)}. A "
                        f"text that holds '{delimiter}', quotes or line breaks must stand in double quotes."
                    )
                lines.append(begins + skipped)
                for column_values, place in zip(values, places.values(), strict=True):
                    column_values.append(fields[place])
        except csv.Error as error:
            raise DataError(
                f"{path}: the row that begins at line {line + skipped} is malformed ({error}). A quote within a quoted "
                "text is written twice."
            ) from None
    return FileRows(dict(zip(places, values, strict=True)), Origin(str(path), "line", lines))


def _header(path: Path, text: str, columns: list[str], delimiters: Sequence[str], line: int) -> tuple[str, list[str]]:
    """Return the delimiter under which the header names most of the columns asked for, and the header."""
    best: tuple[int, int, str, list[str]] | None = None
    for delimiter in delimiters:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
        except (csv.Error, TypeError, ValueError):  # the last two: `sep=` names a quote or a line break
            continue
        found = (sum(column in header for column in columns), len(header))
        if best is None or found > best[:2]:
            best = (*found, delimiter, header)
    if best is None or not any(name.strip() for name in best[3]):
        raise DataError(f"{path}: line {line} is not a header; expected the names of the columns.")
    return best[2], best[3]


# ---- JSON and JSON Lines


class _DoubledKeyError(ValueError):
    """A key that an object has twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object with each key once; the standard library would keep the last value of a doubled key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _DoubledKeyError(f"the key '{next(name for name in names if names.count(name) > 1)}' is there twice")
    return found


def _read_objects(path: Path, ending: str) -> tuple[list[dict[str, Any]], Origin]:
    """Return the objects of a JSON array, or of JSON Lines, and where each stands."""
    text = read_text(path)
    if ending == ".json" and text.lstrip().startswith("["):
        try:
            rows = json.loads(text, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON ({error}); expected an array of objects.") from None
        origin = Origin(str(path))
        wrong = next((at for at, row in enumerate(rows) if not isinstance(row, dict)), None)
        if wrong is not None:
            raise DataError(f"{path}: {origin.at(wrong)} of the array is not a JSON object; expected one a row.")
        return rows, origin
    rows, lines = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        expected = "expected one object a line" if ending == ".jsonl" else "expected an array, or one object a line"
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            if isinstance(error, _DoubledKeyError):
                raise DataError(f"{path}: line {number}: {error}.") from None
            raise DataError(f"{path}: line {number} is not JSON ({error}); {expected}.") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number} is not a JSON object; {expected}.")
        rows.append(row)
        lines.append(number)
    return rows, Origin(str(path), "line", lines)


def _columns_of_objects(
    path: Path, rows: list[dict[str, Any]], origin: Origin, columns: list[str], *, others: bool
) -> FileRows:
    known = list(dict.fromkeys(name for row in rows for name in row))
    if not rows:
        return FileRows({column: [] for column in columns}, origin)
    return FileRows(
        {name: [row.get(name) for row in rows] for name in _places(path, known, columns, others=others)}, origin
    )


# ---- Parquet


def _read_parquet(path: Path, columns: list[str], *, others: bool) -> FileRows:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            places = _places(path, list(schema.names), columns, others=others)
            table = file.read() if others else file.read(columns=columns)
            by_name = places if others else {name: table.column_names.index(name) for name in columns}
            values = {name: table.column(place).to_pylist() for name, place in by_name.items()}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(f"{path}: the file cannot be read ({type(error).__name__}: {first}).") from error
    for name, classes in _classes_in(schema.metadata).items():
        if name in values:
            values[name] = _named(path, name, values[name], classes)
    return FileRows(values, Origin(str(path)))


def _classes_in(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return the names of classes by column that the `datasets` library keeps in a Parquet file (`ClassLabel`)."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: [str(one) for one in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _named(path: Path, column: str, values: list[Any], classes: list[str]) -> list[Any]:
    """Return the names of class indices; -1, by which `datasets` means no label, becomes None."""
    for at, value in enumerate(values):
        if value is not None and not (isinstance(value, int) and -1 <= value < len(classes)):
            raise DataError(
                f"{path}: {Origin(str(path)).at(at)}: column '{column}' holds {value!r}; the file names "
                f"{len(classes)} classes, so 0 to {len(classes) - 1} was expected."
            )
    return [None if value is None or value == -1 else classes[value] for value in values]
