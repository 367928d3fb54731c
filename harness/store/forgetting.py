"""Remove records from a store, chosen by what they are of. Records of cells that are being run stay."""

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

NO_BACKBONE = "none"
"""Stands for the records of methods that use no backbone."""

_CHUNK = 200
_COLUMNS = ("id", "device", "attempt", "suite", "task", "method", "status", "created_at")


@dataclass(frozen=True)
class Wanted:
    """Which records to forget: those of which every part that is not None holds.

    Attributes:
        task, method, device, suite, status: as records state them.
        backbone: its name, or `none`.
        id: the first characters of a cell's identity.
        before, after: when the record was stored, as an ISO date or time; without a time zone it is UTC.
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
        """Return the parts that are set, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


class Key(NamedTuple):
    """A record that a store holds, and what it is of."""

    id: str
    device: str
    attempt: int
    suite: str
    task: str
    method: str
    status: str
    created_at: str


def find(store: Store, wanted: Wanted) -> list[Key]:
    """Return the records, all attempts, that are wanted; reads no payload unless a backbone is."""
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
    found = store.read(lambda connection: [Key(*row) for row in connection.execute(query).all()])
    found.sort(key=lambda key: (key.created_at, key.id, key.device, key.attempt))
    return found if wanted.backbone is None else list(_of_backbone(store, found, wanted.backbone))


def _of_backbone(store: Store, keys: Sequence[Key], backbone: str) -> Iterator[Key]:
    name = None if backbone == NO_BACKBONE else backbone
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
                continue  # a damaged record, which can be forgotten by its other parts


def forget(store: Store, keys: Sequence[Key]) -> tuple[int, int]:
    """Delete records with their predictions, all or none.

    Args:
        store: opened for writing.
        keys: what `find` returned. A record that is gone since is no error.

    Returns:
        How many records were deleted, and how many stay because a run has claimed their cell.
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
    """Return a moment as the store writes it.

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


def _chunks(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    for start in range(0, len(keys), _CHUNK):
        yield keys[start : start + _CHUNK]
