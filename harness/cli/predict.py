"""`harness predict`."""

from __future__ import annotations

import csv
import datetime
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.data import Origin
from harness.support import DataError, UsageError, check_output, csv_field, replacing

_ADDED = ("prediction", "probability")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def predict_command(model: Path, data: Path, text: str, out: Path, device: str, *, overwrite: bool = False) -> int:
    """Write the rows of a file with the columns `prediction` and `probability`; return the exit code.

    A row whose text is missing, blank or not valid Unicode gets two empty fields. The output is checked before anything
    is predicted, and appears whole or not at all.

    Raises:
        UsageError: the output cannot be written or would replace something, or the model is damaged.
        DataError: the data cannot be read, have one of the two columns already, or hold no text at all.
        StoreError: writing fails.
    """
    from harness.data import read_rows
    from harness.measure import check_device_name
    from harness.saved import load_model, read_description, why_not_text

    check_device_name(device)
    delimiter = _DELIMITERS.get(out.suffix.lower())
    if delimiter is None:
        raise UsageError(f"--out '{out}' was given; expected a name that ends in .csv or .tsv.")
    _check_place(out, model)
    read_description(model)
    rows = read_rows(data, [text], others=True)
    for name in _ADDED:
        if name in rows.columns:
            raise DataError(f"{data} has a column '{name}' already; rename it, so that nothing is overwritten.")
    header = [*rows.columns, *_ADDED]
    check_output(out, inputs=[data], ours=lambda path: _header_of(path, delimiter) == header, overwrite=overwrite)
    texts = rows.columns[text]
    skipped: dict[str, list[int]] = defaultdict(list)
    for at, value in enumerate(texts):
        reason = why_not_text(value)
        if reason is not None:
            skipped[reason].append(at)
    left_out = {at for several in skipped.values() for at in several}
    usable = [at for at in range(len(texts)) if at not in left_out]
    if not usable:
        raise DataError(f"{data}: column '{text}' holds no text to predict: {_in_words(skipped, rows.origin)}.")
    loaded = load_model(model, device)
    probabilities = loaded.probabilities([texts[at] for at in usable])
    predictions: list[str | None] = [None] * len(texts)
    confidences: list[str | None] = [None] * len(texts)
    for at, row, best in zip(usable, probabilities, probabilities.argmax(axis=1), strict=True):
        predictions[at], confidences[at] = loaded.labels[best], f"{row[best]:.4f}"
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        _write_row(handle, header, delimiter)
        for row in zip(*rows.columns.values(), predictions, confidences, strict=True):
            _write_row(handle, row, delimiter)
    console = Console(highlight=False)
    console.print(f"{len(usable):,} predictions: {out}", markup=False, soft_wrap=True)
    if skipped:
        found = _in_words(skipped, rows.origin)
        rows_have = "row has" if len(left_out) == 1 else "rows have"
        console.print(f"{len(left_out):,} {rows_have} no prediction: {found}.", markup=False, soft_wrap=True)
    return 0


def _check_place(out: Path, model: Path) -> None:
    """Refuse an output in a folder that is missing or not writable, or in the model's own."""
    try:
        folder = out.expanduser().resolve().parent
        inside = folder.is_relative_to(model.expanduser().resolve())
    except (OSError, RuntimeError) as error:
        raise UsageError(f"--out '{out}' was given, which cannot be looked for: {error}.") from None
    if inside:
        raise UsageError(f"--out '{out}' was given, which is in the model's folder; name a file elsewhere.")
    if not folder.is_dir():
        raise UsageError(f"--out '{out}' was given; there is no folder '{folder}'. Make it first, or name another one.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--out '{out}' was given; the folder '{folder}' cannot be written to. Name another one.")


def _header_of(path: Path, delimiter: str) -> list[str]:
    """Return the names of a file's columns; none where it is not such a file."""
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            return next(csv.reader(handle, delimiter=delimiter), [])
    except (ValueError, csv.Error):
        return []


def _write_row(handle: Any, row: Sequence[Any], delimiter: str) -> None:
    handle.write(delimiter.join(csv_field(_plain(value), delimiter, keeps_numbers=True) for value in row) + "\n")


def _plain(value: Any) -> Any:
    """Return a value of JSON or Parquet as text or number: lists and objects as JSON, times as ISO 8601 writes them."""
    if value is None or isinstance(value, str | float) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def _in_words(skipped: dict[str, list[int]], origin: Origin) -> str:
    return ", ".join(f"{len(rows):,} {reason} ({origin.at(*rows)})" for reason, rows in skipped.items())
