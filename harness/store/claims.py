"""Claim cells, so that several runs on one store run no cell twice.

A claim is a row with a lease. Its owner renews the lease while it runs; after expiry any run may take the cell. On the
same host, the state of the process decides instead. The claim of a dead process is broken at once, so a restart never
waits; that of a running process holds whatever the clock says. A claim is deleted in the transaction that stores the
record.
"""

from __future__ import annotations

import math
import os
import socket
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

LEASE_SECONDS = 60.0
"""Seconds that a claim holds without renewal. A clock step of less than three quarters of it ends no claim."""

RENEW_SECONDS = LEASE_SECONDS / 4
"""Seconds between two renewals."""

_TOLERANCE_SECONDS = 30.0
"""Maximum difference between two readings of one process's start outside Linux, where setting the clock moves it.

A process number that is reused within this time counts as the same process until its lease ends.
"""


@dataclass(frozen=True)
class Owner:
    """A run that owns claims.

    Attributes:
        name: unique name.
        host: scope in which process numbers and start times are comparable (`host_name`).
        pid: number of the process.
        born: start of the process, since numbers are reused. On Linux, seconds since the machine started, which no
            clock change affects; elsewhere, seconds since the epoch.
    """

    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=lambda: host_name())
    pid: int = field(default_factory=os.getpid)
    born: float = field(default_factory=lambda: _look_up(os.getpid()).born)

    def is_dead(self) -> bool:
        """Return whether the process is known to have ended; False if that cannot be known on this host."""
        return self._is_here() and self._found() is None

    def is_running(self) -> bool:
        """Return whether the process is known to exist and not to be stopped; False if that cannot be known."""
        found = self._found() if self._is_here() else None
        return found is not None and found.is_known and not found.is_stopped

    def _is_here(self) -> bool:
        return self.host == host_name()

    def _found(self) -> _Process | None:
        """Return the state of the process; None if it has ended, or another process has its number."""
        found = _look_up(self.pid)
        if not found.is_known:
            return found
        tolerance = 0.5 / _TICKS if _TICKS is not None else _TOLERANCE_SECONDS
        return None if found.has_ended or abs(found.born - self.born) > tolerance else found


@dataclass(frozen=True)
class _Process:
    """State of a process; `is_known` is False if the system does not reveal it."""

    born: float = math.nan
    has_ended: bool = False
    is_stopped: bool = False
    is_known: bool = True


_TICKS: Final = float(os.sysconf("SC_CLK_TCK")) if Path("/proc/self/stat").exists() else None
"""Linux's clock ticks per second, the unit of process start times; None on other systems."""


def _look_up(pid: int) -> _Process:
    """Return the state of the process with a number."""
    if _TICKS is not None:
        try:
            # Field 22 (proc(5)) counts from the machine's start; psutil's value moves with the clock.
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            return _Process(int(fields[19]) / _TICKS, has_ended=fields[0] in "ZX", is_stopped=fields[0] in "Tt")
        except FileNotFoundError:
            return _Process(has_ended=True)
        except ProcessLookupError:
            return _Process(has_ended=True)
        except (OSError, ValueError, IndexError):
            return _Process(is_known=False)
    try:
        process = psutil.Process(pid)
        status = process.status()
        return _Process(process.create_time(), status == psutil.STATUS_ZOMBIE, status == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return _Process(has_ended=True)
    except psutil.AccessDenied:
        return _Process(is_known=False)


def host_name() -> str:
    """Return a name of this host, this boot, and this namespace of processes and of time.

    It ends with the unit of processes' start times. A version of the harness with another unit therefore treats these
    owners as another host's, and respects their leases.
    """
    parts = [socket.gethostname()]
    for name in ("sys/kernel/random/boot_id", "self/ns/pid", "self/ns/time"):
        path = Path("/proc") / name
        try:
            parts.append(str(path.readlink()) if path.is_symlink() else path.read_text().strip())
        except OSError:
            continue  # not Linux: the host's name suffices
    return "/".join([*parts, "epoch" if _TICKS is None else "ticks"])


def claims_table(metadata: sa.MetaData) -> sa.Table:
    """Return the table of claims, with at most one claim per cell and device."""
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
    """Delete claims on these cells with an expired lease or a dead owner, in the caller's transaction."""
    theirs = (table.c.device == device) & table.c.id.in_(ids) & (table.c.owner != owner.name)
    now = current_time(connection)
    for row in connection.execute(sa.select(table).where(theirs)).all():
        if is_stale(row, now):
            # Only if unchanged since it was read: a lease renewed meanwhile holds.
            same = (table.c.owner == row.owner) & (table.c.expires_at == row.expires_at)
            connection.execute(table.delete().where(table.c.id == row.id, table.c.device == device, same))


def take(connection: sa.Connection, table: sa.Table, ids: Sequence[str], device: str, owner: Owner) -> list[str]:
    """Claim the free cells among `ids`, in a transaction that the caller commits, and return them."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    claim = {
        "device": device,
        "owner": owner.name,
        "host": owner.host,
        "pid": owner.pid,
        "born": owner.born,
        "expires_at": current_time(connection) + LEASE_SECONDS,
    }
    taken: set[str] = set()
    for id_ in sorted(ids):  # one order for all runs, or two could wait for each other's rows (deadlock)
        # `returning` lists the inserted rows; not every driver reports their number.
        statement = insert(table).values(id=id_, **claim).on_conflict_do_nothing().returning(table.c.id)
        taken.update(connection.execute(statement).scalars())
    return [id_ for id_ in ids if id_ in taken]


def renew(connection: sa.Connection, table: sa.Table, owner: Owner) -> None:
    """Extend all claims of an owner by `LEASE_SECONDS` from now, in the caller's transaction."""
    until = current_time(connection) + LEASE_SECONDS
    connection.execute(table.update().where(table.c.owner == owner.name).values(expires_at=until))


def current_time(connection: sa.Connection) -> float:
    """Return the reference time of leases, in seconds since the epoch: the server's if hosts share one."""
    if connection.dialect.name == "postgresql":
        return float(connection.execute(sa.select(sa.extract("epoch", sa.func.clock_timestamp()))).scalar_one())
    return time.time()


def is_stale(row: Any, now: float) -> bool:
    """Return whether a claim may be broken.

    A running process renews its claims, so an expired lease of one only means that a clock was set.
    """
    owner = Owner(row.owner, row.host, row.pid, row.born)
    return owner.is_dead() or (row.expires_at < now and not owner.is_running())
