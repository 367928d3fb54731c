"""Store records in transactions: one SQLite file by default, PostgreSQL by URL, and JSONL for exchange.

A record is committed as soon as its cell ends, in one transaction with its predictions, so a killed run loses no
finished cell. Predictions have their own table, which reports and plans never read.

The latest attempt of each cell is found without a self-join: keys are small and in one covering index, so all of them
are fetched and reduced in Python.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from harness.records import (
    KnownTexts,
    Predictions,
    Record,
    parse_json,
    parse_record,
    read_jsonl,
    sentence_of,
    statuses_that_end,
    write_jsonl,
)
from harness.store.claims import Owner, break_stale, renew, take
from harness.store.database import check_file, is_file, parse_url, raise_translated, secrets_of, set_pragmas, shown_url
from harness.store.readonly import ReadOnlyFile
from harness.store.rows import ColumnValues, Packed, column_text, row_values
from harness.store.tables import CLAIMS_SINCE, STORE_SCHEMA, create_tables, find_version, is_old, upgrade_tables
from harness.store.tables import claims as _claims
from harness.store.tables import predictions_table as _predictions
from harness.store.tables import records_table as _records
from harness.support import DuplicateError, HarnessError, StoreError, mask_store, mask_text

__all__ = ["STORE_SCHEMA", "Store", "read_jsonl", "write_jsonl"]

_CHUNK = 500
"""Identifiers per query, below every database's limit of parameters."""

_FETCH_ALL_ABOVE = 2000
"""Number of identifiers above which one scan of the index costs less than many chunks."""

_T = TypeVar("_T")


class _Key(NamedTuple):
    """Columns of the covering index, by which queries choose records."""

    id: str
    device: str
    attempt: int
    status: str
    suite: str
    created_at: str
    place: int | None = None
    """Number of the row in SQLite; None in another database."""


class Added(NamedTuple):
    """Numbers of records that `Store.add_new` added, already had, and found repeated among the new ones."""

    n_added: int
    n_known: int
    n_repeated: int


class Store:
    """Records, keyed by (id, device, attempt); `Store.open` makes one. Several processes may share a store."""

    def __init__(self, engine: sa.Engine, name: str, *, file: ReadOnlyFile | None = None, version: int = 0) -> None:
        self._engine = engine
        self._file = file
        self._version = version
        self._secrets: tuple[str, ...] = ()
        self.on_added: Callable[[Record], object] | None = None
        """Function that is called with each record that `add` has committed."""
        self.name = name
        """Path or URL of the store, without its password."""

    @classmethod
    def open(cls, url_or_path: str | Path, *, create: bool = True, read_only: bool = False) -> Store:
        """Open the store at a path (SQLite) or a URL (`sqlite:///file`, `postgresql+psycopg://user@host/name`).

        Args:
            url_or_path: path or URL of the store.
            create: make the file, its folder and the tables if missing; otherwise a missing store is an error.
            read_only: only read. Nothing is made, upgraded or written, so a read-only disk is sufficient.

        Raises:
            StoreError: the store cannot be opened, is no store, or was written by a newer version of the harness.
        """
        url = parse_url(url_or_path)
        create = create and not read_only
        is_sqlite = url.drivername.startswith("sqlite")
        name = mask_store(url.database or ":memory:") if is_sqlite else shown_url(url)
        if is_file(url):
            check_file(Path(str(url.database)), create=create)
        if read_only and is_file(url):
            file = ReadOnlyFile(Path(str(url.database)))
            store = cls(file.engine, name, file=file)
        else:
            store = cls(_make_engine(url, name, read_only=read_only), name)
        store._secrets = secrets_of(url)
        try:
            store._prepare(create=create, read_only=read_only)
        except BaseException:
            store.close()
            raise
        return store

    def add(self, record: Record, owner: Owner | None = None) -> None:
        """Commit one record with its predictions, both or neither.

        A claim of `owner` on the cell ends in the same transaction.

        Raises:
            StoreError: the (id, device, attempt) exists, the score is not finite, or the store is not writable.
        """
        row, predictions = row_values(record)
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
                f"Attempt {record.attempt} of cell {record.id} ({column_text(record.cell.label())}) on "
                f"'{key['device']}' is in {self.name} already. Records are never overwritten: store the next "
                "attempt (`next_attempt`)."
            ) from error
        if self.on_added is not None:
            self.on_added(record)

    def add_new(self, packed: Packed) -> Added:
        """Commit the records of cells that are not in the store on their device, all or none.

        Of results of others, further runs of a cell are added too: their attempts tell the runs apart.

        Raises:
            StoreError: the store cannot be written.
        """
        by_device: dict[str, list[str]] = {}
        for id_, device, _ in packed.rows:
            by_device.setdefault(device, []).append(id_)
        keys = [key for device, ids in by_device.items() for key in self._keys(ids, device, latest_only=False)]
        attempts = {(key.id, key.device, key.attempt) for key in keys}
        cells = {key[:2] for key in attempts}
        n_added = self._insert(
            [
                row
                for key, row in packed.rows.items()
                if (key not in attempts if key in packed.imported else key[:2] not in cells)
            ]
        )
        return Added(n_added, len(packed.rows) - n_added, packed.n_repeated)

    def _insert(self, rows: Sequence[tuple[ColumnValues, ColumnValues | None]]) -> int:
        try:
            with self.transaction() as connection:
                for chunk in _chunks(rows, _CHUNK):
                    connection.execute(_records.insert(), [row for row, _ in chunk])
                    predictions = [found for _, found in chunk if found is not None]
                    if predictions:
                        connection.execute(_predictions.insert(), predictions)
        except sa.exc.IntegrityError as error:
            raise DuplicateError(f"Some of these records are in {self.name} already; none was added.") from error
        return len(rows)

    def latest(self, ids: Collection[str] | None = None, device: str | None = None) -> dict[tuple[str, str], Record]:
        """Return the latest attempt of each cell by (id, device), without predictions, in the order of storing.

        Args:
            ids: cells to return; None for all.
            device: device to return; None for all.
        """
        return {(record.id, record.device): record for record in self.records(ids=ids, device=device)}

    def done(self, ids: Collection[str], device: str, *, retry_failed: bool = False) -> set[str]:
        """Return the `ids` that need no run on `device`: their latest attempt is final, or failed without a retry.

        No payload is read: 100,000 cells take well under a second.
        """
        accepted = statuses_that_end(retry_failed=retry_failed)
        return {id_ for id_, status in self.statuses(ids, device).items() if status in accepted}

    def statuses(self, ids: Collection[str], device: str) -> dict[str, str]:
        """Return the status of the latest attempt on `device` by id, for `ids` with one; no payload is read."""
        return {key.id: key.status for key in self._keys(ids, device)}

    def summary(self) -> Counter[tuple[str, str, str, str]]:
        """Count cells by (suite, task, method, status) of their latest attempts; no payload is read.

        The order is that of storing the first cell of each group.
        """
        names = ("id", "device", "attempt", "suite", "task", "method", "status", "created_at")
        query = sa.select(*(_records.c[name] for name in names))
        found = self.read(lambda connection: connection.execute(query).all())
        latest: dict[tuple[str, str], Any] = {}
        for row in found:
            best = latest.get((row.id, row.device))
            if best is None or row.attempt > best.attempt:
                latest[row.id, row.device] = row
        ordered = sorted(latest.values(), key=lambda row: row.created_at)
        return Counter((row.suite, row.task, row.method, row.status) for row in ordered)

    def failed(self) -> Iterator[Record]:
        """Stream the records of cells whose latest attempt failed, in the order of storing."""
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
        """Claim the free cells among `ids` that still need a run; those in `again` always need one.

        Returns:
            Attempt number of the next record by id, in the given order. A claim ends when the owner adds the record or
            releases it, or when its lease expires (`renew`).
        """
        if not ids:
            return {}
        device = column_text(device)
        with self._errors(), self._engine.begin() as connection:
            taken = take(connection, _claims, ids, device, owner)
            if len(taken) < len(ids):  # other owners, possibly dead, hold the rest
                held = [id_ for id_ in ids if id_ not in taken]
                break_stale(connection, _claims, held, device, owner)
                taken += take(connection, _claims, held, device, owner)
            if not taken:
                return {}
            # Read after claiming: a previous owner stored its record in the transaction that ended its claim.
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
        """Extend all claims of `owner` by `LEASE_SECONDS` from now."""
        with self._errors(), self._engine.begin() as connection:
            renew(connection, _claims, owner)

    def release(self, owner: Owner, ids: Collection[str] | None = None) -> None:
        """Give up the owner's claims on these cells; None for all."""
        mine = _claims.c.owner == owner.name
        with self._errors(), self._engine.begin() as connection:
            for chunk in _chunks(sorted(ids), _CHUNK) if ids is not None else [None]:
                chosen = mine if chunk is None else mine & _claims.c.id.in_(chunk)
                connection.execute(_claims.delete().where(chosen))

    def claimed(self, device: str | None = None) -> set[str]:
        """Return the ids of claimed cells, including claims with an expired lease."""
        query = sa.select(_claims.c.id)
        if device is not None:
            query = query.where(_claims.c.device == column_text(device))
        if self._version < CLAIMS_SINCE:
            return set()
        return self.read(lambda connection: set(connection.execute(query).scalars()))

    def next_attempt(self, id: str, device: str) -> int:
        """Return the attempt number of the next record of this cell on this device; 1 for the first."""
        return max((key.attempt for key in self._keys([id], device)), default=0) + 1

    def records(
        self,
        *,
        with_predictions: bool = False,
        suite: str | None = None,
        latest_only: bool = True,
        ids: Collection[str] | None = None,
        device: str | None = None,
        known: KnownTexts | None = None,
    ) -> Iterator[Record]:
        """Stream records in the order of storing, without those added meanwhile.

        Args:
            with_predictions: read the predictions too; otherwise `Record.predictions` is None.
            suite: label of the records to return. A cell keeps the label of the suite that ran it first; to get every
                cell of a suite, pass its `ids`.
            latest_only: return only the latest attempt of each cell on each device.
            ids: cells to return; None for all.
            device: device to return; None for all.
            known: records that were read before; new ones are added.
        """
        keys = [key for key in self._keys(ids, device, latest_only=latest_only) if suite in (None, key.suite)]
        yield from self._stream(keys, with_predictions=with_predictions, known=known)

    def _stream(self, keys: list[_Key], *, with_predictions: bool, known: KnownTexts | None = None) -> Iterator[Record]:
        keys.sort(key=lambda key: (key.created_at, key.id, key.device, key.attempt))
        for chunk in _chunks(keys, _CHUNK):
            payloads = self._payloads_at(chunk)
            predictions = self._payloads(_predictions, payloads.keys()) if with_predictions else {}
            for key in chunk:
                if (payload := payloads.get(key[:3])) is None:
                    continue  # forgotten meanwhile
                row = None if known is None else known.find(payload, whole=False)
                if known is not None and row is not None:
                    record = known.unread(payload, row)
                else:
                    record = self._parse(key, payload)
                    if known is not None:
                        known.add(payload, record, whole=False)
                packed = predictions.get(key[:3])
                yield record if packed is None else self._with_predictions(key, record, packed)

    def count(self) -> int:
        """Return the number of records, with all attempts."""
        query = sa.select(sa.func.count()).select_from(_records)
        return self.read(lambda connection: connection.execute(query).scalar_one())

    def close(self) -> None:
        """Release the connections; SQLite then merges its log into the file."""
        self._engine.dispose()
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keys(self, ids: Collection[str] | None, device: str | None, *, latest_only: bool = True) -> list[_Key]:
        """Return the keys of the requested records: the latest attempt per cell and device, or all attempts."""
        query = sa.select(*(_records.c[name] for name in _Key._fields[:-1]))
        if self._engine.dialect.name == "sqlite":
            query = query.add_columns(sa.literal_column("rowid"))
        if device is not None:
            query = query.where(_records.c.device == column_text(device))
        chunks = _chunks(sorted(ids), _CHUNK) if ids is not None and len(ids) <= _FETCH_ALL_ABOVE else None
        queries = [query] if chunks is None else [query.where(_records.c.id.in_(chunk)) for chunk in chunks]
        found = self.read(
            lambda connection: [_Key(*row) for query in queries for row in connection.execute(query).all()]
        )
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
        rows = self.read(lambda connection: connection.execute(query).all())
        return {(id_, device, attempt): payload for id_, device, attempt, payload in rows}

    def _payloads_at(self, keys: Sequence[_Key]) -> dict[tuple[str, str, int], str]:
        """Return the payloads of records; SQLite finds them by their place twice as fast as by their keys."""
        wanted = {key[:3] for key in keys}
        places = [key.place for key in keys if key.place is not None]
        if not places:
            return self._payloads(_records, wanted)
        columns = ", ".join(("id", "device", "attempt", "payload"))
        query = f"SELECT {columns} FROM records WHERE rowid IN ({', '.join(map(str, places))})"
        rows = self.read(lambda connection: connection.exec_driver_sql(query).cursor.fetchall())
        found = {(id_, device, attempt): payload for id_, device, attempt, payload in rows}
        moved = wanted - found.keys()  # VACUUM moves rows, and the place of a deleted record may be used again
        return {**found, **self._payloads(_records, moved)} if moved else found

    def _parse(self, key: _Key, payload: str) -> Record:
        with self._damage(key):
            return Record.from_json({**parse_record(payload), "predictions": None})

    def _with_predictions(self, key: _Key, record: Record, packed: str) -> Record:
        with self._damage(key):
            return record.replaced(predictions=Predictions.from_json(parse_json(packed)))

    @contextlib.contextmanager
    def _damage(self, key: _Key) -> Iterator[None]:
        """Turn an error while a record is read into a `StoreError` that says what to try."""
        try:
            yield
        except (HarnessError, ValueError, KeyError, TypeError) as error:
            where = f"Record {key.id} (attempt {key.attempt}) in {self.name}"
            hint = f"Upgrade the harness if a newer one wrote it, or remove it: `harness forget --id {key.id}`."
            raise StoreError(f"{where} cannot be read: {sentence_of(error)} {hint}") from error

    def _prepare(self, *, create: bool, read_only: bool) -> None:
        """Make the tables of a new store and upgrade old ones; refuse newer tables and other databases."""
        version = self.read(lambda connection: find_version(connection, self.name))
        if version is None and not create:
            raise StoreError(f"{self.name} holds no records yet. Run something first, or name another store.")
        with self._errors():
            if version is None:
                create_tables(self._engine)
            elif is_old(version) and not read_only:
                upgrade_tables(self._engine, version)
        self._version = version if version is not None and read_only else STORE_SCHEMA

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Yield a connection whose changes are committed together at the end of the block, or not at all.

        Raises:
            StoreError: the database cannot be written.
        """
        with self._errors(), self._engine.begin() as connection:
            yield connection

    def read(self, work: Callable[[sa.Connection], _T]) -> _T:
        """Return the result of `work` on a connection, and translate the database's errors."""
        with self._errors():
            if self._file is not None:
                return self._file.read(work)
            with self._engine.connect() as connection:
                return work(connection)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the database's errors into a `StoreError` that says what to try; a duplicate key passes through."""
        try:
            yield
        except sa.exc.IntegrityError:
            raise
        except sa.exc.DBAPIError as error:
            raise_translated(self.name, error, self._secrets)


def _make_engine(url: sa.URL, name: str, *, read_only: bool) -> sa.Engine:
    """Return an engine that sets up its connections for stores."""
    settings: dict[str, Any] = {}
    if not url.drivername.startswith("sqlite"):
        # The ping detects connections from before a restart of the server. Claims need each statement to see the
        # latest commits.
        settings = {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}
    try:
        engine = sa.create_engine(url, **settings)
    except (ImportError, sa.exc.ArgumentError) as error:
        hint = " Try pip install 'adaptation-harness[postgres]'." if url.drivername.startswith("postgresql") else ""
        reason = mask_text(str(error), secrets_of(url))
        raise StoreError(f"The store {name} needs a database driver that is missing: {reason}.{hint}") from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", set_pragmas)
    if read_only and engine.dialect.name == "postgresql":
        return engine.execution_options(postgresql_readonly=True)
    return engine


def _chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
