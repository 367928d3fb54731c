"""Read columns of the user's own CSV, TSV, JSON, JSONL, Parquet or CoNLL file exactly as they are written.

The standard library parses CSV and JSON. The parsers of `datasets` read "NA" as missing (pandas) or "2024-01-01" as a
time (pyarrow), and they lose the line numbers that messages need.
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

from harness.data import conll
from harness.data.encodings import PACKED, read_text
from harness.data.raw import Origin
from harness.support import DataError
from harness.support import text as wording

TEXT_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", *conll.ENDINGS)
ENDINGS = (*TEXT_ENDINGS, ".parquet")
_DELIMITERS = (",", ";", "\t", "|")
_SAYS_DELIMITER = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
"""First line that tells spreadsheets the delimiter."""


@dataclass(frozen=True)
class FileRows:
    """The rows of a file.

    Attributes:
        columns: values by column, one per row: texts for CSV, native values for JSON and Parquet (None if missing).
        origin: line or row number of each row.
    """

    columns: dict[str, list[Any]]
    origin: Origin


def _ending_of(path: Path) -> str:
    """Return the ending that identifies a file's format, in lower case: `.csv` for `t.CSV` and `t.csv.gz`."""
    ending = path.suffix.lower()
    return path.with_suffix("").suffix.lower() if ending == PACKED else ending


def stem_of(path: Path) -> str:
    """Return a file's name without the endings of its format: `t` for `t.csv.gz`."""
    plain = path.with_suffix("") if path.suffix.lower() == PACKED else path
    return plain.stem


def is_data_file(name: str) -> bool:
    """Return whether a name has the ending of a supported data file."""
    return _ending_of(Path(name)) in ENDINGS


def read_rows(path: Path, columns: Sequence[str], *, others: bool = False) -> FileRows:
    """Read `columns` of a file; its ending decides the format. Text formats may be compressed by gzip (`.csv.gz`).

    Args:
        path: the file.
        columns: names of columns that must occur exactly once.
        others: whether to read all other columns too, in the file's order. Columns with the same name get a number
            after it (`note`, `note.1`).

    Raises:
        DataError: the file is missing, empty or malformed, has an unsupported format or encoding, or lacks a column.
            The message names the file and the line, row or column.
    """
    ending = _ending_of(path)
    try:
        exists = path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise DataError(f"{path}: the file cannot be accessed ({error.strerror or error}).") from error
    if not exists:
        near = _near_file(path)
        raise DataError(f"{path}: there is no such file.{near}")
    expected = f"{', '.join(ENDINGS)}, or a text format followed by {PACKED}"
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
    elif ending in conll.ENDINGS:
        rows = _read_conll(path, wanted, others=others)
    else:
        rows = _read_csv(path, wanted, ("\t",) if ending == ".tsv" else _DELIMITERS, others=others)
    if not rows.columns[columns[0]]:
        raise DataError(f"{path}: the file has no rows.")
    return rows


def absolute_path(path: str | Path) -> Path:
    """Return a user's path as an absolute one, since a worker may run in another folder.

    Raises:
        DataError: the path begins with `~NAME`, and this machine knows no such user.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise DataError(f"{path}: there is no such user's folder ({error}).") from error


class MissingColumnError(DataError):
    """A column that was asked for is not in the table."""


def missing_column(name: str, column: str, known: Iterable[str]) -> MissingColumnError:
    """Return the error for a missing column, which names the nearest column, then all of them."""
    names = list(known)
    lowered = {other.strip().lower(): other for other in names}
    near = difflib.get_close_matches(column.strip().lower(), list(lowered), n=1, cutoff=0.6)
    guess = f" Did you mean '{lowered[near[0]]}'?" if near else ""
    listed = ", ".join(f"'{other}'" for other in names)
    return MissingColumnError(f"{name}: there is no column '{column}'.{guess} Columns: {listed}.")


def _near_file(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f" Nor is there a folder {path.parent}."
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f" Did you mean '{near[0]}'?" if near else ""


def _places(path: Path, header: Sequence[str], columns: Sequence[str], *, others: bool) -> dict[str, int]:
    """Return the position of each column to read, by name; refuse a missing or repeated column."""
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
                        f"{path}: line {begins + skipped} has {wording.counted(len(fields), 'field')}, the header "
                        f"has {len(header)}. A text that holds '{delimiter}', quotes or line breaks must be in double "
                        "quotes."
                    )
                lines.append(begins + skipped)
                for column_values, place in zip(values, places.values(), strict=True):
                    column_values.append(fields[place])
        except csv.Error as error:
            raise DataError(
                f"{path}: the row that begins at line {line + skipped} is malformed ({error}). Write a quote within a "
                "quoted text twice."
            ) from None
    return FileRows(dict(zip(places, values, strict=True)), Origin(str(path), "line", lines))


def _header(path: Path, text: str, columns: list[str], delimiters: Sequence[str], line: int) -> tuple[str, list[str]]:
    """Return the header, and the delimiter under which it contains most of the requested columns."""
    best: tuple[int, int, str, list[str]] | None = None
    for delimiter in delimiters:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
        except (csv.Error, TypeError, ValueError):  # the last two if `sep=` names a quote or a line break
            continue
        found = (sum(column in header for column in columns), len(header))
        if best is None or found > best[:2]:
            best = (*found, delimiter, header)
    if best is None or not any(name.strip() for name in best[3]):
        raise DataError(f"{path}: line {line} is not a header; expected the names of the columns.")
    return best[2], best[3]


# ---- JSON and JSON Lines


class _DoubledKeyError(ValueError):
    """A repeated key in a JSON object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, or refuse a repeated key; the standard library would keep its last value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _DoubledKeyError(f"the key '{next(name for name in names if names.count(name) > 1)}' is there twice")
    return found


def _read_objects(path: Path, ending: str) -> tuple[list[dict[str, Any]], Origin]:
    """Return the objects of a JSON array or of JSON Lines, and their origin."""
    text = read_text(path)
    if ending == ".json" and text.lstrip().startswith("["):
        try:
            rows = json.loads(text, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON ({error}); expected an array of objects.") from None
        origin = Origin(str(path))
        wrong = next((at for at, row in enumerate(rows) if not isinstance(row, dict)), None)
        if wrong is not None:
            raise DataError(f"{path}: {origin.at(wrong)} of the array is not a JSON object; expected one per row.")
        return rows, origin
    rows, lines = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        expected = f"expected {'' if ending == '.jsonl' else 'an array, or '}one object per line"
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


# ---- CoNLL


def _read_conll(path: Path, columns: list[str], *, others: bool) -> FileRows:
    values, lines = conll.read_conll(path, with_tags=conll.COLUMNS[1] in columns or (None if others else False))
    return FileRows(
        {name: values[name] for name in _places(path, list(values), columns, others=others)},
        Origin(str(path), "line", lines),
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
    """Return the class names by column that `datasets` stores in a Parquet file (`ClassLabel`, or a list of such)."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        inner = {name: feature.get("feature", feature) for name, feature in features.items()}
        return {
            name: [str(one) for one in feature["names"]]
            for name, feature in inner.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _named(path: Path, column: str, values: list[Any], classes: list[str]) -> list[Any]:
    """Return the names of class indices; -1, which marks a missing label in `datasets`, becomes None."""

    def name_of(value: Any, at: int) -> Any:
        if isinstance(value, list):
            return [name_of(one, at) for one in value]
        if value is not None and not (isinstance(value, int) and -1 <= value < len(classes)):
            raise DataError(
                f"{path}: {Origin(str(path)).at(at)}: column '{column}' holds {value!r}; the file names "
                f"{len(classes)} classes, so 0 to {len(classes) - 1} was expected."
            )
        return None if value is None or value == -1 else classes[value]

    return [name_of(value, at) for at, value in enumerate(values)]
