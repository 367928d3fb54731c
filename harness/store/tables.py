"""Define, create and upgrade the tables of a store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import sqlalchemy as sa

from harness.store.claims import claims_table
from harness.support import StoreError

STORE_SCHEMA = 2
"""Version of the tables; the record inside a payload has its own schema (`records.SCHEMA`)."""

CLAIMS_SINCE = 2
"""First version of the tables with claims."""

metadata = sa.MetaData()
_meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
records_table = sa.Table(
    "records",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("device", sa.String, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("suite", sa.String, nullable=False),
    sa.Column("task", sa.String, nullable=False),
    sa.Column("method", sa.String, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("created_at", sa.String, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    # Covers all columns by which queries choose records, so that no payload is read for them.
    sa.Index("records_keys", "device", "id", "attempt", "status", "suite", "created_at"),
)
predictions_table = sa.Table(
    "predictions",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("device", sa.String, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(["id", "device", "attempt"], ["records.id", "records.device", "records.attempt"]),
)
claims: sa.Table = claims_table(metadata)

UPGRADES: dict[int, Callable[[sa.Connection], None]] = {
    1: lambda connection: claims.create(connection, checkfirst=True),  # version 2 has claims
}
"""Upgrades from each version of the tables to the next, run in the transaction that raises the version."""


def find_version(connection: sa.Connection, name: str) -> int | None:
    """Return the version of a store's tables; None if the database contains no store yet.

    Args:
        connection: connection to the database.
        name: name of the store, for messages.

    Raises:
        StoreError: the database contains something else, or a newer version of the harness wrote it.
    """
    inspector = sa.inspect(connection)
    tables = set(inspector.get_table_names())
    ours = "meta" in tables and {column["name"] for column in inspector.get_columns("meta")} == {"name", "value"}
    # A shared PostgreSQL database may contain other tables; a SQLite file may not.
    clash = tables if connection.dialect.name == "sqlite" else tables & set(metadata.tables)
    if clash and not ours:
        raise StoreError(
            f"{name} is a database, but not a store of records: it holds {', '.join(sorted(clash)[:5])}. "
            "Name another file or database."
        )
    value = connection.execute(sa.select(_meta.c.value).where(_meta.c.name == "schema")).scalar() if ours else None
    if value is None:
        return None  # empty, or another process is making the tables or was killed meanwhile
    try:
        version = int(value)
    except ValueError:
        raise StoreError(f"{name} has the schema version {value!r}; expected a whole number.") from None
    if version > STORE_SCHEMA:
        raise StoreError(
            f"{name} was written by a newer version of the harness (tables of version {version}; this one reads up "
            f"to {STORE_SCHEMA}). Upgrade adaptation-harness, or name another store."
        )
    return version


def create_tables(engine: sa.Engine) -> None:
    """Make the tables of a new store."""
    # Each step keeps existing tables, so two processes may create one store at the same time, and the next process
    # completes an interrupted creation; the version comes last. PostgreSQL refuses the second of two simultaneous
    # CREATE ... IF NOT EXISTS once the first has committed, and nothing is left to do.
    with contextlib.suppress(sa.exc.IntegrityError):
        _create_tables(engine)
    _create_tables(engine)
    with contextlib.suppress(sa.exc.IntegrityError), engine.begin() as connection:
        connection.execute(_meta.insert().values(name="schema", value=str(STORE_SCHEMA)))


def _create_tables(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        for table in (_meta, records_table, predictions_table, claims):
            connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
        for index in (*records_table.indexes, *claims.indexes):
            connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))


def is_old(version: int) -> bool:
    """Return whether tables of this version need an upgrade before they are written to."""
    return version < STORE_SCHEMA


def upgrade_tables(engine: sa.Engine, version: int) -> None:
    """Upgrade tables of an older version, in one transaction."""
    with engine.begin() as connection:
        for step in range(version, STORE_SCHEMA):
            UPGRADES[step](connection)
        connection.execute(_meta.update().where(_meta.c.name == "schema").values(value=str(STORE_SCHEMA)))
