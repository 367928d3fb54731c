"""Convert records to JSON for stores, and to files of one record per line for exchange and reference results.

Everything written is plain ASCII JSON without NaN, so that any reader takes it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np

from harness.records.known import KnownTexts
from harness.records.parsing import parse_json, parse_record
from harness.records.record import Record
from harness.records.validation import check_predictions, check_record
from harness.support import StoreError, first_line, reason_of, replacing, text_of

MAX_LINE_BYTES = 2**25
"""Longest line that is read as a record."""


def payload_of(record: Record) -> dict[str, Any]:
    """Return the record's JSON, with null for side figures that are not finite, such as a diverged loss.

    Raises:
        StoreError: the score is not finite; such a record is not `ok`, and null would hide it.
    """
    value = record.to_json()
    if record.score is not None and not math.isfinite(record.score.value):
        raise StoreError(
            f"The score of {record.cell.label()} is {record.score.value}; expected a number. "
            "Store the record as 'failed', with the reason in `error`."
        )
    for name in ("score", "train_score", "cost", "curve", "provenance", "facts"):
        value[name] = _finite(value[name])
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def dump(value: Any) -> str:
    """Return compact JSON in ASCII; refuse NaN and infinities."""
    # ASCII only: no database or encoding then fails on a lone surrogate or a NUL in an error message.
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def sentence_of(error: BaseException | None) -> str:
    """Return the first line of an error's message as a sentence; with its type where the message needs it."""
    if error is None or isinstance(error, (KeyError, TypeError)):
        return f"{'None' if error is None else reason_of(error)}."
    return f"{first_line(text_of(error)).rstrip('.') or type(error).__name__}."


def write_jsonl(records: Iterable[Record], path: str | Path) -> int:
    """Write records, predictions included, one JSON object per line; return their number.

    The file is replaced whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    n_written = 0
    with replacing(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(dump(payload_of(record)) + "\n")
            n_written += 1
    return n_written


def read_jsonl(
    path: str | Path | Traversable,
    *,
    with_predictions: bool = True,
    checked: bool = True,
    known: KnownTexts | None = None,
) -> Iterator[Record]:
    """Stream the records that `write_jsonl` wrote; empty lines are skipped.

    Args:
        path: the file.
        with_predictions: unpack the predictions too; `Record.predictions` is None otherwise.
        checked: check every field. Files that come with the package are checked when they are made.
        known: lines that were checked before; new ones are added.

    Raises:
        StoreError: a line is no record; the message names the file, the line and the field. Raised while reading.
    """
    numbered = read_numbered(path, with_predictions=with_predictions, checked=checked, known=known)
    return (record for _, record in numbered)


def read_numbered(
    path: str | Path | Traversable,
    *,
    with_predictions: bool = True,
    checked: bool = True,
    known: KnownTexts | None = None,
) -> Iterator[tuple[int, Record]]:
    """Stream the records of a file like `read_jsonl`, each with the number of its line from 1."""
    source = Path(path) if isinstance(path, str) else path
    try:
        with source.open("rb") as file:
            for number in itertools.count(1):
                line = file.readline(MAX_LINE_BYTES + 1)
                if not line:
                    return
                if not line.isspace():
                    where = f"{source}, line {number}"
                    row = None if known is None else known.find(line, whole=with_predictions)
                    if row is not None and known is not None and not with_predictions:
                        yield number, known.unread(line.decode("utf-8"), row)
                        continue
                    checks = checked and row is None
                    record = _parse_line(line, where, with_predictions=with_predictions, checked=checks)
                    if known is not None and row is not None:
                        known.keep(record, row)
                    elif known is not None and checked:
                        known.add(line, record, whole=with_predictions)
                    yield number, record
    except OSError as error:
        raise StoreError(f"{source} cannot be read: {error.strerror or error}.") from error


def _parse_line(line: bytes, where: str, *, with_predictions: bool, checked: bool) -> Record:
    try:
        if len(line) > MAX_LINE_BYTES:
            raise StoreError(f"it is longer than {MAX_LINE_BYTES:,} bytes")
        value = (parse_json if checked else parse_record)(line.decode("utf-8"))
        if checked:
            check_record(value)
        if not with_predictions:
            value["predictions"] = None
        record = Record.from_json(value)
        if checked:
            check_predictions(record)
        return record
    except Exception as error:  # any fault of a foreign line gives the same message
        raise StoreError(
            f"{where} is not a record: {sentence_of(error)} Expected a line as `write_jsonl` writes it."
        ) from error
