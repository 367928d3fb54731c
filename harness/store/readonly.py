"""Read SQLite files without writing anything to them or beside them.

Before SQLite reads a database in write-ahead mode, it makes two files beside it. On a read-only disk this fails;
elsewhere the files stay behind.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from harness.support import StoreError

_T = TypeVar("_T")
_TRIES = 5
_State = tuple[int, int, int]


class ReadOnlyFile:
    """A SQLite file that `engine` reads.

    A file without a log is opened as immutable, which takes no lock and makes no file; `read` then checks that it did
    not change meanwhile. A file with a log is opened normally for reading. If that is impossible, because the log
    lacks its index or the disk is read-only, file and log are copied to a temporary folder and read there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._copied: object = None
        self.engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=sa.pool.NullPool)

    def read(self, work: Callable[[sa.Connection], _T]) -> _T:
        """Return the result of `work`, which sees one state of the file.

        Raises:
            StoreError: the file changes each time it is read.
        """
        for _ in range(_TRIES):
            try:
                before = self._state()
                with self.engine.connect() as connection:
                    found = work(connection)
            except sa.exc.DBAPIError:
                if before is None or self._state() == before:
                    raise
                continue
            except OSError as error:
                raise StoreError(f"The store {self._path} cannot be read: {error.strerror or error}.") from error
            if before is None or self._state() == before:
                return found
        raise StoreError(f"The store {self._path} is being written to so fast that it cannot be read. Try again later.")

    def close(self) -> None:
        """Release the connections and the copy, if one was made."""
        self.engine.dispose()
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = self._copied = None

    def _beside(self, ending: str) -> Path:
        return self._path.with_name(self._path.name + ending)

    def _has_log(self) -> bool:
        return any(_size(self._beside(ending)) for ending in ("-wal", "-journal"))

    def _state(self) -> _State | None:
        """Return values that change with the file's content; None if a log is in use and SQLite's locks apply."""
        if self._has_log():
            return None
        found = self._path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _connect(self) -> sqlite3.Connection:
        if not self._has_log():
            return _open(self._path, "mode=ro&immutable=1")
        if not _size(self._beside("-wal")) or self._beside("-shm").exists():
            with contextlib.suppress(sqlite3.OperationalError):
                return _open(self._path, "mode=ro")
        return _open(self._copied_to(), "mode=rw")

    def _copied_to(self) -> Path:
        """Copy the file and its log, unless an up-to-date copy exists; return the copy."""
        sources = [self._path, *(beside for beside in map(self._beside, ("-wal", "-journal")) if beside.exists())]
        state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
        if self._copy is None or self._copied != state:
            self._copy = tempfile.TemporaryDirectory(prefix="harness-store-")
            for path in sources:
                shutil.copyfile(path, Path(self._copy.name) / path.name)
            self._copied = state
        return Path(self._copy.name) / self._path.name


def _open(path: Path, how: str) -> sqlite3.Connection:
    uri = f"file:{urllib.parse.quote(str(path.absolute()))}?{how}"
    connection = sqlite3.connect(uri, uri=True, timeout=60, check_same_thread=False)
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()  # opens the file
        connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
