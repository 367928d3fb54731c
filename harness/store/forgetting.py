"""Find and delete records in a store; records of claimed cells stay."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from harness.records import STATUSES
from harness.store.claims import current_time, is_stale
from harness.store.rows import column_text
from harness.store.store import Store
from harness.store.tables import claims, predictions_table, records_table
from harness.support import UsageError

_NO_BACKBONE = "none"
"""Name that selects records of methods without a backbone."""

_CHUNK = 200
_COLUMNS = ("id", "device", "attempt", "suite", "task", "method", "status", "created_at")


@dataclass(frozen=True)
class Wanted:
    """Conditions on the records to forget; all conditions other than None must hold.

    Attributes:
        task, method, device, suite, status: values in the record.
        backbone: name of the backbone, or `none`.
        id: first characters of a cell's identity.
        before, after: limits on the time of storing, as an ISO date or time, in UTC unless it has a time zone.
    """

    task: str | None = None
    method: str | None = None
    backbone: str | None = None
    device: str | None = None
    suite: str | None = None
    status: str | None = None
    id: str | None = None
    before: str | None = None
    after: str | None = None

    def __post_init__(self) -> None:
        if not self.stated():
            raise UsageError("Nothing says which records to forget. Give at least one of --task, --method, --id, ...")
        if self.status is not None and self.status not in STATUSES:
            raise UsageError(f"--status '{self.status}' was given; expected one of {', '.join(STATUSES)}.")
        if self.id is not None and not re.fullmatch("[0-9a-f]{1,32}", self.id):
            raise UsageError(f"--id '{self.id}' was given; expected the first of a cell's 32 hexadecimal digits.")
        for name in ("before", "after"):
            if (text := getattr(self, name)) is not None:
                _utc(text, f"--{name}")

    def stated(self) -> dict[str, str]:
        """Return the conditions that are set, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


class StoredRecord(NamedTuple):
    """Key and labels of a record in a store."""

    id: str
    device: str
    attempt: int
    suite: str
    task: str
    method: str
    status: str
    created_at: str


def find_records(store: Store, wanted: Wanted) -> list[StoredRecord]:
    """Return all attempts that fulfil the conditions; payloads are read only for a condition on the backbone."""
    table = records_table.c
    query = sa.select(*(table[name] for name in _COLUMNS))
    for name in ("task", "method", "device", "suite", "status"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(table[name] == column_text(value))
    if wanted.id is not None:
        query = query.where(table.id.startswith(wanted.id))
    if wanted.before is not None:
        query = query.where(table.created_at < _utc(wanted.before, "--before"))
    if wanted.after is not None:
        query = query.where(table.created_at >= _utc(wanted.after, "--after"))
    found = store.read(lambda connection: [StoredRecord(*row) for row in connection.execute(query).all()])
    found.sort(key=lambda key: (key.created_at, key.id, key.device, key.attempt))
    return found if wanted.backbone is None else list(_of_backbone(store, found, wanted.backbone))


def _of_backbone(store: Store, keys: Sequence[StoredRecord], backbone: str) -> Iterator[StoredRecord]:
    name = None if backbone == _NO_BACKBONE else backbone
    for chunk in _chunks(keys):
        query = sa.select(*(records_table.c[part] for part in ("id", "device", "attempt", "payload")))
        query = query.where(records_table.c.id.in_([key.id for key in chunk]))
        rows = store.read(_all_of(query))
        by_key = {(row.id, row.device, row.attempt): row.payload for row in rows}
        for key in chunk:
            try:
                cell = json.loads(by_key[key.id, key.device, key.attempt])["cell"]
                if cell["backbone"] == name:
                    yield key
            except (ValueError, KeyError, TypeError):
                continue  # a damaged record, which other conditions can still select


def forget_records(store: Store, keys: Sequence[StoredRecord]) -> tuple[int, int]:
    """Delete records with their predictions, all or none.

    Args:
        store: store opened for writing.
        keys: result of `find_records`; records that are gone since are no error.

    Returns:
        Number of deleted records, and number of records that stay because a run has claimed their cell.
    """
    n_deleted = n_claimed = 0
    with store.transaction() as connection:
        now = current_time(connection)
        held = {(row.id, row.device) for row in connection.execute(sa.select(claims)).all() if not is_stale(row, now)}
        for chunk in _chunks(keys):
            free = [key for key in chunk if (key.id, key.device) not in held]
            n_claimed += len(chunk) - len(free)
            for key in free:
                for table in (predictions_table, records_table):  # predictions refer to their record
                    deleted = connection.execute(
                        table.delete().where(
                            table.c.id == key.id, table.c.device == key.device, table.c.attempt == key.attempt
                        )
                    ).rowcount
                n_deleted += deleted
    return n_deleted, n_claimed


def _utc(text: str, option: str) -> str:
    """Return a moment in the store's format.

    Raises:
        UsageError: the text is no ISO date or time.
    """
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} '{text}' was given; expected a date or time such as 2025-06-30T12:00.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.astimezone(datetime.UTC).isoformat(timespec="microseconds")


def _all_of(query: sa.Select[Any]) -> Callable[[sa.Connection], Sequence[sa.Row[Any]]]:
    return lambda connection: connection.execute(query).all()


def _chunks(keys: Sequence[StoredRecord]) -> Iterator[Sequence[StoredRecord]]:
    for start in range(0, len(keys), _CHUNK):
        yield keys[start : start + _CHUNK]
