"""Write frames to files: CSV, JSON Lines and Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from harness.analysis.columns import EXPORT_COLUMNS
from harness.analysis.frame import export_frame
from harness.records import Record
from harness.support import Recogniser, UsageError, check_output, csv_field, csv_starts_with, json_lines_hold, replacing


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as CSV: null is empty, numbers round-trip, and no text is run as a formula by a spreadsheet.

    A text that begins with one of = + - @, a tab or a carriage return gets a leading apostrophe.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(csv_field(str(name)) for name in frame.columns) + "\n")
        for row in _plain(frame).itertuples(index=False, name=None):
            file.write(",".join(csv_field(value) for value in row) + "\n")


def _write_json_lines(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as one JSON object a row: every column in every row, null where absent, numbers in full."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in _plain(frame).itertuples(index=False, name=None):
            values = dict(zip(frame.columns, row, strict=True))
            file.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with Python's own values, None for null."""
    return frame.astype(object).where(frame.notna(), None)


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as Parquet, types and nulls kept."""
    with replacing(path) as temporary:
        frame.to_parquet(temporary, engine="pyarrow", index=False)


def _parquet_starts_with(path: Path, columns: Sequence[str]) -> bool:
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
    except (OSError, ValueError):
        return False
    return list(names[: len(columns)]) == list(columns)


_WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": write_csv,
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}


_FIRST_COLUMNS = tuple(column.name for column in EXPORT_COLUMNS[:11])
"""First columns of an export, which identify a file as one; later versions add columns after them."""


def check_export(path: Path, *, inputs: Iterable[str] = (), overwrite: bool = False) -> None:
    """Refuse a path that an export must not replace (see `outputs.check_output`).

    Raises:
        UsageError: the ending is none of .csv, .jsonl and .parquet, or something would be lost.
    """
    _writer_of(path)
    ours: dict[str, Recogniser] = {
        ".csv": csv_starts_with(*_FIRST_COLUMNS),
        ".jsonl": json_lines_hold(_FIRST_COLUMNS, but=("cell",)),  # full records have a `cell`
        ".parquet": lambda file: _parquet_starts_with(file, _FIRST_COLUMNS),
    }
    check_output(path, inputs=inputs, ours=ours[path.suffix.lower()], overwrite=overwrite, option="The export")


def _writer_of(path: Path) -> Callable[[pd.DataFrame, Path], None]:
    """Return the function that writes a frame to a file of this ending.

    Raises:
        UsageError: the ending is not one of .csv, .jsonl and .parquet.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        *endings, last = _WRITERS
        raise UsageError(f"'{path}' was given; expected a name that ends in {', '.join(endings)} or {last}.")
    return writer


def export_records(records: Iterable[Record], path: str | Path) -> int:
    """Write `export_frame(records)` to `path` by its ending (.csv, .jsonl or .parquet), and return the number of rows.

    The file is replaced whole or not at all.

    Raises:
        UsageError: the ending is another one; raised before a record is read.
        StoreError: the file cannot be written.
    """
    target = Path(path)
    writer = _writer_of(target)
    frame = export_frame(records)
    writer(frame, target)
    return len(frame)
