"""Who runs which cell: claims that several runs on one store respect, so that no cell is run twice.

A claim is a row with a lease: its owner renews it while it lives, and once it has expired anybody may take the cell.
On the same host, the process itself decides: the claim of one that is dead is broken at once, so that a restart never
waits, and that of one that runs holds whatever the clock says. A claim is no result: it is deleted in the transaction
that stores the record.
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
"""How long a claim holds without being renewed. A step of the clock by less than three quarters of it ends none."""

RENEW_SECONDS = LEASE_SECONDS / 4


_TOLERANCE_SECONDS = 30.0
"""How far two readings of one process's start may differ without Linux: other systems give a time of day, and a clock
that is set moves it. A number that is used again within that time is taken for the same process until its lease ends.
"""


@dataclass(frozen=True)
class Owner:
    """One run, as claims name it.

    Attributes:
        name: unlike any other's.
        host: where process numbers and starts mean the same: `host_name`.
        pid: number of the process.
        born: when the process started: numbers are used again. Seconds since the machine started on Linux, whose
            clock nobody sets; seconds since the epoch elsewhere.
    """

    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=lambda: host_name())
    pid: int = field(default_factory=os.getpid)
    born: float = field(default_factory=lambda: _look_up(os.getpid()).born)

    def is_dead(self) -> bool:
        """Return whether the process is known to be gone; False where that cannot be known from here."""
        return self._is_here() and self._found() is None

    def is_running(self) -> bool:
        """Return whether the process is known to be there and not stopped; False where that cannot be known."""
        found = self._found() if self._is_here() else None
        return found is not None and found.is_known and not found.is_stopped

    def _is_here(self) -> bool:
        return self.host == host_name()

    def _found(self) -> _Process | None:
        """Return the process as it is now; None where it has ended, or another has its number."""
        found = _look_up(self.pid)
        if not found.is_known:
            return found
        tolerance = 0.5 / _TICKS if _TICKS is not None else _TOLERANCE_SECONDS
        return None if found.has_ended or abs(found.born - self.born) > tolerance else found


@dataclass(frozen=True)
class _Process:
    """State of a process; `is_known` is False where the system does not tell."""

    born: float = math.nan
    has_ended: bool = False
    is_stopped: bool = False
    is_known: bool = True


_TICKS: Final = float(os.sysconf("SC_CLK_TCK")) if Path("/proc/self/stat").exists() else None
"""Ticks in which Linux counts the starts of processes, per second; None on other systems."""


def _look_up(pid: int) -> _Process:
    """Return what the system says of the process with a number."""
    if _TICKS is not None:
        try:
            # Field 22 (proc(5)) counts from the machine's start. What psutil makes of it moves with the clock.
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

    It ends with how processes' starts are told. A version that tells them otherwise takes these owners for another
    host's, and leaves them their leases.
    """
    parts = [socket.gethostname()]
    for name in ("sys/kernel/random/boot_id", "self/ns/pid", "self/ns/time"):
        path = Path("/proc") / name
        try:
            parts.append(str(path.readlink()) if path.is_symlink() else path.read_text().strip())
        except OSError:
            continue  # no Linux: the host's name has to do
    return "/".join([*parts, "epoch" if _TICKS is None else "ticks"])


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
    now = current_time(connection)
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
        "expires_at": current_time(connection) + LEASE_SECONDS,
    }
    taken: set[str] = set()
    for id_ in sorted(ids):  # in one order, whoever asks: two that wait for each other's rows would be a deadlock
        # What comes back is what was inserted: drivers need not say how many rows that was.
        statement = insert(table).values(id=id_, **claim).on_conflict_do_nothing().returning(table.c.id)
        taken.update(connection.execute(statement).scalars())
    return [id_ for id_ in ids if id_ in taken]


def renew(connection: sa.Connection, table: sa.Table, owner: Owner) -> None:
    """Have all claims of an owner hold for another `LEASE_SECONDS`, in the caller's transaction."""
    until = current_time(connection) + LEASE_SECONDS
    connection.execute(table.update().where(table.c.owner == owner.name).values(expires_at=until))


def current_time(connection: sa.Connection) -> float:
    """Return the time that leases go by, in seconds since the epoch: the server's where hosts share one."""
    if connection.dialect.name == "postgresql":
        return float(connection.execute(sa.select(sa.extract("epoch", sa.func.clock_timestamp()))).scalar_one())
    return time.time()


def is_stale(row: Any, now: float) -> bool:
    """Return whether a claim may be broken.

    A process that is seen to run renews its claims. Its lease seems to have ended only because a clock was set.
    """
    owner = Owner(row.owner, row.host, row.pid, row.born)
    return owner.is_dead() or (row.expires_at < now and not owner.is_running())
