"""Rows of a store's tables, made of records."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.records import Record, dump, payload_of
from harness.support import DuplicateError

Row = dict[str, Any]
Key = tuple[str, str, int]
"""A record's id, device and attempt."""


def column_text(text: str) -> str:  # the payload keeps the original
    """Return a text that every database stores: no NUL, no lone surrogate."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def rows_of(record: Record) -> tuple[Row, Row | None]:
    """Return the row of a record, and that of its predictions if it has some.

    Raises:
        StoreError: the score is no finite number.
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
    """Records as rows, which take far less memory than records with predictions do.

    Attributes:
        rows: by the record's key, in the order given.
        n_repeated: records that came a second time, exactly alike.
    """

    rows: dict[Key, tuple[Row, Row | None]]
    n_repeated: int = 0


def pack(located: Iterable[tuple[str, Record]]) -> Packed:
    """Read all records, each with the place that it comes from, before any of them is stored.

    Raises:
        DuplicateError: two of them are the same attempt of the same cell and differ; both places are named.
        StoreError: a score is no finite number.
    """
    rows: dict[Key, tuple[Row, Row | None]] = {}
    places: dict[Key, str] = {}
    n_repeated = 0
    for place, record in located:
        row, predictions = rows_of(record)
        key = (row["id"], row["device"], row["attempt"])
        if key not in rows:
            rows[key], places[key] = (row, predictions), place
        elif (rows[key][0]["payload"], rows[key][1]) == (row["payload"], predictions):
            n_repeated += 1
        else:
            raise DuplicateError(
                f"{place} and {places[key]} hold different results of attempt {key[2]} of one cell "
                f"({column_text(record.cell.label())} on '{key[1]}'). Remove one of them; nothing was imported."
            )
    return Packed(rows, n_repeated)
