"""Convert records to rows of a store's tables."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.records import Record, dump, payload_of
from harness.support import DuplicateError

ColumnValues = dict[str, Any]
"""Values of a row by column."""

RecordKey = tuple[str, str, int]
"""Id, device and attempt of a record."""


def column_text(text: str) -> str:  # the payload keeps the original
    """Return a text that every database can store, without NUL and lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def row_values(record: Record) -> tuple[ColumnValues, ColumnValues | None]:
    """Return the row of a record, and the row of its predictions, if any.

    Raises:
        StoreError: the score is not finite.
    """
    payload = payload_of(record)
    predictions = payload.pop("predictions")
    key = {"id": record.id, "device": column_text(record.device), "attempt": record.attempt}
    row = {
        **key,
        "suite": column_text(record.suite),
        "task": column_text(record.cell.task),
        "method": column_text(record.cell.method),
        "status": record.status,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        "payload": dump(payload),
    }
    return row, None if predictions is None else {**key, "payload": dump(predictions)}


@dataclass(frozen=True)
class Packed:
    """Records as rows, which take far less memory than records with predictions.

    Attributes:
        rows: rows by the record's key, in the given order.
        n_repeated: number of exact repetitions among the records.
        imported: keys of results of others, whose attempts state the times of runs.
    """

    rows: dict[RecordKey, tuple[ColumnValues, ColumnValues | None]]
    n_repeated: int = 0
    imported: frozenset[RecordKey] = frozenset()


def pack(located: Iterable[tuple[str, Record]]) -> Packed:
    """Convert records, given with the places they come from, to rows, before any is stored.

    Raises:
        DuplicateError: two records are the same attempt of a cell but differ; the message names both places.
        StoreError: a score is not finite.
    """
    rows: dict[RecordKey, tuple[ColumnValues, ColumnValues | None]] = {}
    places: dict[RecordKey, str] = {}
    n_repeated = 0
    imported: set[RecordKey] = set()
    for place, record in located:
        row, predictions = row_values(record)
        key = (row["id"], row["device"], row["attempt"])
        if key not in rows:
            rows[key], places[key] = (row, predictions), place
            if record.facts.imported_from is not None:
                imported.add(key)
        elif (rows[key][0]["payload"], rows[key][1]) == (row["payload"], predictions):
            n_repeated += 1
        else:
            raise DuplicateError(
                f"{place} and {places[key]} hold different results of attempt {key[2]} of one cell "
                f"({column_text(record.cell.label())} on '{key[1]}'). Remove one of them; nothing was imported."
            )
    return Packed(rows, n_repeated, frozenset(imported))
