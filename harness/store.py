"""Transactional storage of records: one file of SQLite by default, PostgreSQL by URL, and JSONL for exchange.

A record is committed the moment its cell ends, in one transaction with its predictions, so that a run that is killed
loses nothing that it had finished. Predictions lie in a table of their own: tables and plans never read them.

Nothing here is peculiar to SQLite but its pragmas and the names of its errors. "The latest attempt of each cell" is
no self-join: keys are small and lie in one covering index, so they are fetched whole and reduced in Python.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from harness.claims import Owner, break_stale, claims_table, renew, take
from harness.database import check_file, is_file, parse_url, raise_translated, set_pragmas
from harness.errors import DuplicateError, HarnessError, StoreError
from harness.jsonl import dump, payload_of, read_jsonl, reason_of, write_jsonl
from harness.records import Record, statuses_that_end

__all__ = ["STORE_SCHEMA", "Store", "read_jsonl", "write_jsonl"]

STORE_SCHEMA = 2
"""Version of the tables; the record inside a payload has a schema of its own (`records.SCHEMA`)."""

_UPGRADES: dict[int, Callable[[sa.Connection], None]] = {
    1: lambda connection: _claims.create(connection, checkfirst=True),  # version 2 has claims
}
"""From a version of the tables to what brings them to the next, in the transaction that raises the version."""

_CHUNK = 500  # identifiers per query: below every database's limit of parameters
_FETCH_ALL_ABOVE = 2000  # from here on one scan of the index costs less than many chunks
_metadata = sa.MetaData()
_meta = sa.Table(
    "meta",
    _metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
_records = sa.Table(
    "records",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("device", sa.String, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("suite", sa.String, nullable=False),
    sa.Column("task", sa.String, nullable=False),
    sa.Column("method", sa.String, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("created_at", sa.String, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    # Covers `_Key`, so that what is done is known without reading one payload.
    sa.Index("records_keys", "device", "id", "attempt", "status", "suite", "created_at"),
)
_predictions = sa.Table(
    "predictions",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("device", sa.String, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(["id", "device", "attempt"], ["records.id", "records.device", "records.attempt"]),
)

_claims: sa.Table = claims_table(_metadata)

T = TypeVar("T")


class _Key(NamedTuple):
    """What a query needs to know of a record to choose it."""

    id: str
    device: str
    attempt: int
    status: str
    suite: str
    created_at: str


class Store:
    """Records, keyed by (id, device, attempt); `Store.open` makes one. Several processes may share a store."""

    def __init__(self, engine: sa.Engine, name: str) -> None:
        self._engine = engine
        self.name = name

    @classmethod
    def open(cls, url_or_path: str | Path, *, create: bool = True) -> Store:
        """Open the store at a path (SQLite) or a URL (`sqlite:///file`, `postgresql+psycopg://user@host/name`).

        Args:
            url_or_path: where the records lie.
            create: make the file, its folder and the tables where they are missing; otherwise their absence is an
                error, as it should be for whoever only reads.

        Raises:
            StoreError: if it cannot be opened, is no store, or was written by a newer version of the harness.
        """
        url = parse_url(url_or_path)
        is_sqlite = url.drivername.startswith("sqlite")
        # A password may stand in the query too; no message repeats either.
        shown = url.difference_update_query(["password"]).render_as_string()
        name = url.database or ":memory:" if is_sqlite else shown
        if is_file(url):
            check_file(Path(str(url.database)), create=create)
        # A connection that has outlived a restart of the server is found out before a record is entrusted to it; and
        # claims rely on each statement seeing what was committed last.
        settings = {} if is_sqlite else {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}
        try:
            engine = sa.create_engine(url, **settings)
        except (ImportError, sa.exc.ArgumentError) as error:
            hint = " Try pip install 'adaptation-harness[postgres]'." if url.drivername.startswith("postgresql") else ""
            raise StoreError(f"The store {name} needs a database driver that is missing: {error}.{hint}") from error
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", set_pragmas)
        store = cls(engine, name)
        try:
            store._prepare(create=create)
        except BaseException:
            engine.dispose()
            raise
        return store

    def add(self, record: Record, owner: Owner | None = None) -> None:
        """Commit one record with its predictions: both are in the store when this returns, or neither.

        The claim of `owner` on the cell, if it has one, ends in the same transaction.

        Raises:
            StoreError: for a duplicate (id, device, attempt), a score that is no number, a store that is not writable.
        """
        row, predictions = _rows_of(record)
        key = {name: row[name] for name in ("id", "device", "attempt")}
        try:
            with self._errors(), self._engine.begin() as connection:
                connection.execute(_records.insert().values(row))
                if predictions is not None:
                    connection.execute(_predictions.insert().values(predictions))
                if owner is not None:
                    mine = (_claims.c.id == record.id) & (_claims.c.device == key["device"])
                    connection.execute(_claims.delete().where(mine, _claims.c.owner == owner.name))
        except sa.exc.IntegrityError as error:
            raise DuplicateError(
                f"Attempt {record.attempt} of cell {record.id} ({_column(record.cell.label())}) on '{key['device']}' "
                f"is in {self.name} already. Records are never overwritten: store the next attempt (`next_attempt`)."
            ) from error

    def add_all(self, records: Iterable[Record]) -> int:
        """Commit many records with their predictions, all or none; returns how many. For bringing results in.

        Raises:
            StoreError: as `add`; the message names no record where two bear one key.
        """
        n_added = 0
        try:
            with self._errors(), self._engine.begin() as connection:
                for chunk in _batched(records, _CHUNK):
                    rows = [_rows_of(record) for record in chunk]
                    connection.execute(_records.insert(), [row for row, _ in rows])
                    predictions = [found for _, found in rows if found is not None]
                    if predictions:
                        connection.execute(_predictions.insert(), predictions)
                    n_added += len(chunk)
        except sa.exc.IntegrityError as error:
            raise DuplicateError(f"Some of these records are in {self.name} already; none was added.") from error
        return n_added

    def latest(self, ids: Collection[str] | None = None, device: str | None = None) -> dict[tuple[str, str], Record]:
        """The latest attempt of each cell by (id, device), without predictions, in the order they were stored.

        Args:
            ids: only these cells; None is all of them.
            device: only this device; None is all of them.
        """
        return {(record.id, record.device): record for record in self.records(ids=ids, device=device)}

    def done(self, ids: Collection[str], device: str, *, retry_failed: bool = False) -> set[str]:
        """Those of `ids` that need no run on `device`: their latest attempt is final, or failed and not to be retried.

        Reads no payload: 100,000 cells take well under a second.
        """
        accepted = statuses_that_end(retry_failed=retry_failed)
        return {id_ for id_, status in self.statuses(ids, device).items() if status in accepted}

    def statuses(self, ids: Collection[str], device: str) -> dict[str, str]:
        """Status of the latest attempt on `device` of each of `ids` that has one; reads no payload."""
        return {key.id: key.status for key in self._keys(ids, device)}

    def summary(self) -> Counter[tuple[str, str, str, str]]:
        """How many cells there are of each (suite, task, method, status), by their latest attempts; no payload is read.

        They come in the order in which the first of each was stored.
        """
        names = ("id", "device", "attempt", "suite", "task", "method", "status", "created_at")
        with self._errors(), self._engine.connect() as connection:
            found = connection.execute(sa.select(*(_records.c[name] for name in names))).all()
        latest: dict[tuple[str, str], Any] = {}
        for row in found:
            best = latest.get((row.id, row.device))
            if best is None or row.attempt > best.attempt:
                latest[row.id, row.device] = row
        ordered = sorted(latest.values(), key=lambda row: row.created_at)
        return Counter((row.suite, row.task, row.method, row.status) for row in ordered)

    def failed(self) -> Iterator[Record]:
        """Stream the records of cells whose latest attempt failed, in the order they were stored."""
        keys = [key for key in self._keys(None, None) if key.status == "failed"]
        yield from self._stream(keys, with_predictions=False)

    def claim(
        self,
        ids: Sequence[str],
        device: str,
        owner: Owner,
        *,
        retry_failed: bool = False,
        again: Collection[str] = (),
    ) -> dict[str, int]:
        """Claim those of `ids` that nobody else has claimed and that still need a run; those of `again` always do.

        Returns:
            The number that the next record of each should bear, by id, in the order given. They are the owner's until
            its record is added, it releases them, or its lease ends unrenewed (`renew`).
        """
        if not ids:
            return {}
        device = _column(device)
        with self._errors(), self._engine.begin() as connection:
            taken = take(connection, _claims, ids, device, owner)
            if len(taken) < len(ids):  # somebody holds the others: dead, perhaps
                held = [id_ for id_ in ids if id_ not in taken]
                break_stale(connection, _claims, held, device, owner)
                taken += take(connection, _claims, held, device, owner)
            if not taken:
                return {}
            # Read after the claims are made: who held one before has stored its record in the same transaction.
            query = sa.select(_records.c.id, _records.c.attempt, _records.c.status)
            known = connection.execute(query.where(_records.c.device == device, _records.c.id.in_(taken))).all()
            latest = {row.id: row for row in sorted(known, key=lambda row: row.attempt)}
            accepted = statuses_that_end(retry_failed=retry_failed)
            done = [i for i in taken if i in latest and i not in again and latest[i].status in accepted]
            if done:
                mine = (_claims.c.device == device) & (_claims.c.owner == owner.name)
                connection.execute(_claims.delete().where(mine, _claims.c.id.in_(done)))
        return {id_: latest[id_].attempt + 1 if id_ in latest else 1 for id_ in taken if id_ not in done}

    def renew(self, owner: Owner) -> None:
        """Have all claims of `owner` hold for another `LEASE_SECONDS`."""
        with self._errors(), self._engine.begin() as connection:
            renew(connection, _claims, owner)

    def release(self, owner: Owner, ids: Collection[str] | None = None) -> None:
        """Give up the owner's claims on these cells; None is all of them."""
        mine = _claims.c.owner == owner.name
        with self._errors(), self._engine.begin() as connection:
            for chunk in _chunks(sorted(ids), _CHUNK) if ids is not None else [None]:
                chosen = mine if chunk is None else mine & _claims.c.id.in_(chunk)
                connection.execute(_claims.delete().where(chosen))

    def claimed(self, device: str | None = None) -> set[str]:
        """Ids of cells that some run has claimed and not given up; leases that have expired are not looked at."""
        query = sa.select(_claims.c.id)
        if device is not None:
            query = query.where(_claims.c.device == _column(device))
        with self._errors(), self._engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def next_attempt(self, id: str, device: str) -> int:
        """The number that the next record of this cell on this device should bear; 1 for the first."""
        return max((key.attempt for key in self._keys([id], device)), default=0) + 1

    def records(
        self,
        *,
        with_predictions: bool = False,
        suite: str | None = None,
        latest_only: bool = True,
        ids: Collection[str] | None = None,
        device: str | None = None,
    ) -> Iterator[Record]:
        """Stream records in the order they were stored; what is added meanwhile is not seen.

        Args:
            with_predictions: read the predictions too; `Record.predictions` is None otherwise.
            suite: only records that were run under this label. A cell that another suite ran first bears that
                suite's label; to have every cell of a suite, pass its `ids`.
            latest_only: only the latest attempt of each cell on each device.
            ids: only these cells.
            device: only this device.
        """
        keys = [key for key in self._keys(ids, device, latest_only=latest_only) if suite in (None, key.suite)]
        yield from self._stream(keys, with_predictions=with_predictions)

    def _stream(self, keys: list[_Key], *, with_predictions: bool) -> Iterator[Record]:
        keys.sort(key=lambda key: (key.created_at, key.id, key.device, key.attempt))
        for chunk in _chunks(keys, _CHUNK):
            wanted = {key[:3] for key in chunk}
            payloads = self._payloads(_records, wanted)
            predictions = self._payloads(_predictions, wanted) if with_predictions else {}
            for key in chunk:
                yield self._read(key, payloads[key[:3]], predictions.get(key[:3]))

    def count(self) -> int:
        """How many records there are, all attempts counted."""
        with self._errors(), self._engine.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(_records)).scalar_one()

    def close(self) -> None:
        """Release the connections; SQLite folds its log back into the one file."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keys(self, ids: Collection[str] | None, device: str | None, *, latest_only: bool = True) -> list[_Key]:
        """Keys of the records asked for; of each cell and device the latest attempt, or all attempts."""
        query = sa.select(*(_records.c[name] for name in _Key._fields))
        if device is not None:
            query = query.where(_records.c.device == _column(device))
        chunks = _chunks(sorted(ids), _CHUNK) if ids is not None and len(ids) <= _FETCH_ALL_ABOVE else None
        queries = [query] if chunks is None else [query.where(_records.c.id.in_(chunk)) for chunk in chunks]
        with self._errors(), self._engine.connect() as connection:
            found = [_Key(*row) for query in queries for row in connection.execute(query).all()]
        if ids is not None:
            asked = frozenset(ids)
            found = [key for key in found if key.id in asked]
        if not latest_only:
            return found
        latest: dict[tuple[str, str], _Key] = {}
        for key in found:
            best = latest.get((key.id, key.device))
            if best is None or key.attempt > best.attempt:
                latest[key.id, key.device] = key
        return list(latest.values())

    def _payloads(self, table: sa.Table, keys: Collection[tuple[str, str, int]]) -> dict[tuple[str, str, int], str]:
        columns = [table.c[name] for name in ("id", "device", "attempt", "payload")]
        query = sa.select(*columns).where(table.c.id.in_(sorted({key[0] for key in keys})))
        with self._errors(), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return {(id_, device, attempt): payload for id_, device, attempt, payload in rows}

    def _read(self, key: _Key, payload: str, predictions: str | None) -> Record:
        try:
            value = json.loads(payload)
            value["predictions"] = None if predictions is None else json.loads(predictions)
            return Record.from_json(value)
        except (HarnessError, ValueError, KeyError, TypeError) as error:
            where = f"Record {key.id} (attempt {key.attempt}) in {self.name}"
            hint = "Upgrade the harness if a newer one wrote it; restore a copy if the store was damaged."
            raise StoreError(f"{where} cannot be read: {reason_of(error)} {hint}") from error

    def _prepare(self, *, create: bool) -> None:
        """Make the tables of a new store, bring old ones up to date, refuse what is newer or something else."""
        with self._errors():
            inspector = sa.inspect(self._engine)
            tables = set(inspector.get_table_names())
            ours = "meta" in tables and {column["name"] for column in inspector.get_columns("meta")} == {
                "name",
                "value",
            }
            # A shared PostgreSQL database may well hold other tables; a file of SQLite is a store or it is not.
            clash = tables if self._engine.dialect.name == "sqlite" else tables & set(_metadata.tables)
            if clash and not ours:
                raise StoreError(
                    f"{self.name} is a database, but not a store of records: it holds {', '.join(sorted(clash)[:5])}. "
                    "Name another file or database."
                )
            version = self._version() if ours else None
            if version is None:
                if not create:
                    raise StoreError(f"{self.name} holds no records yet. Run something first, or name another store.")
                self._create()
            elif version > STORE_SCHEMA:
                raise StoreError(
                    f"{self.name} was written by a newer version of the harness (tables of version {version}; this one "
                    f"reads up to {STORE_SCHEMA}). Upgrade adaptation-harness, or name another store."
                )
            elif version < STORE_SCHEMA:
                self._upgrade(version)

    def _version(self) -> int | None:
        with self._engine.connect() as connection:
            value = connection.execute(sa.select(_meta.c.value).where(_meta.c.name == "schema")).scalar()
        if value is None:
            return None  # another process is making the tables, or was killed while it did
        try:
            return int(value)
        except ValueError:
            raise StoreError(f"{self.name} has the schema version {value!r}; expected a whole number.") from None

    def _create(self) -> None:
        # Each step leaves alone what is there, so that two processes may create one store at the same time and a
        # creation that was killed half-way is finished by the next; the version comes last. PostgreSQL refuses the
        # second of two simultaneous CREATE ... IF NOT EXISTS once the first has committed: then there is no more to do.
        with contextlib.suppress(sa.exc.IntegrityError):
            self._create_tables()
        self._create_tables()
        with contextlib.suppress(sa.exc.IntegrityError), self._engine.begin() as connection:
            connection.execute(_meta.insert().values(name="schema", value=str(STORE_SCHEMA)))

    def _create_tables(self) -> None:
        with self._engine.begin() as connection:
            for table in (_meta, _records, _predictions, _claims):
                connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
            for index in (*_records.indexes, *_claims.indexes):
                connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))

    def _upgrade(self, version: int) -> None:
        with self._engine.begin() as connection:
            for step in range(version, STORE_SCHEMA):
                _UPGRADES[step](connection)
            connection.execute(_meta.update().where(_meta.c.name == "schema").values(value=str(STORE_SCHEMA)))

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the database's errors into a `StoreError` that says what to try; a duplicate key passes through."""
        try:
            yield
        except sa.exc.IntegrityError:
            raise
        except sa.exc.DBAPIError as error:
            raise_translated(self.name, error)


def _column(text: str) -> str:  # the payload keeps the original
    """A text that every database stores: no NUL, no lone surrogate."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def _rows_of(record: Record) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The row of a record, and that of its predictions if it has some."""
    payload = payload_of(record)
    predictions = payload.pop("predictions")
    key = {"id": record.id, "device": _column(record.device), "attempt": record.attempt}
    row = {
        **key,
        "suite": _column(record.suite),
        "task": _column(record.cell.task),
        "method": _column(record.cell.method),
        "status": record.status,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        "payload": dump(payload),
    }
    return row, None if predictions is None else {**key, "payload": dump(predictions)}


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
