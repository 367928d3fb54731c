"""Who runs which cell: claims that several runs on one store respect, so that no cell is run twice.

A claim is a row with a lease: its owner renews it while it lives, and once it has expired anybody may take the cell.
The claim of an owner that is dead is broken at once where that can be known, on the same host, so that a restart never
waits. A claim is no result: it is deleted in the transaction that stores the record.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

LEASE_SECONDS = 60.0
"""How long a claim holds without being renewed; clocks of hosts that share a store may differ by less than that."""

RENEW_SECONDS = LEASE_SECONDS / 4


@dataclass(frozen=True)
class Owner:
    """One run, as claims name it.

    Attributes:
        name: unlike any other's.
        host: where process numbers mean the same: host, boot and, on Linux, namespace of processes.
        pid: of the process.
        born: when the process started, seconds since the epoch: numbers are used again.
    """

    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=lambda: host_name())
    pid: int = field(default_factory=os.getpid)
    born: float = field(default_factory=lambda: psutil.Process().create_time())

    def is_dead(self) -> bool:
        """Whether the process is known to be gone; False where that cannot be known from here."""
        if self.host != host_name():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.born) > 1.0 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def host_name() -> str:
    """A name of this host, this boot and this namespace of processes."""
    parts = [socket.gethostname()]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        try:
            parts.append(str(path.readlink()) if path.is_symlink() else path.read_text().strip())
        except OSError:
            continue  # no Linux: the host's name has to do
    return "/".join(parts)


def claims_table(metadata: sa.MetaData) -> sa.Table:
    """The table of claims: at most one on a cell and device."""
    return sa.Table(
        "claims",
        metadata,
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("device", sa.String, primary_key=True),
        sa.Column("owner", sa.String(32), nullable=False, index=True),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("born", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )


def break_stale(connection: sa.Connection, table: sa.Table, ids: Sequence[str], device: str, owner: Owner) -> None:
    """Delete claims on these cells whose lease has expired, or whose owner is dead, in the caller's transaction."""
    theirs = (table.c.device == device) & table.c.id.in_(ids) & (table.c.owner != owner.name)
    now = time.time()
    for row in connection.execute(sa.select(table).where(theirs)).all():
        if is_stale(row, now):
            # As it was read: a lease that has been renewed since holds.
            same = (table.c.owner == row.owner) & (table.c.expires_at == row.expires_at)
            connection.execute(table.delete().where(table.c.id == row.id, table.c.device == device, same))


def take(connection: sa.Connection, table: sa.Table, ids: Sequence[str], device: str, owner: Owner) -> list[str]:
    """Claim what nobody holds, in a transaction that the caller commits; returns what was got."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    claim = {
        "device": device,
        "owner": owner.name,
        "host": owner.host,
        "pid": owner.pid,
        "born": owner.born,
        "expires_at": time.time() + LEASE_SECONDS,
    }
    taken: set[str] = set()
    for id_ in sorted(ids):  # in one order, whoever asks: two that wait for each other's rows would be a deadlock
        # What comes back is what was inserted: drivers need not say how many rows that was.
        statement = insert(table).values(id=id_, **claim).on_conflict_do_nothing().returning(table.c.id)
        taken.update(connection.execute(statement).scalars())
    return [id_ for id_ in ids if id_ in taken]


def is_stale(row: Any, now: float) -> bool:
    """Return whether a claim no longer holds: its lease has expired, or its owner is known to be dead."""
    return row.expires_at < now or Owner(row.owner, row.host, row.pid, row.born).is_dead()
