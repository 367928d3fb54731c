"""Open databases by path or URL, and translate their errors into messages that say what to try."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, quote_plus

import sqlalchemy as sa

from harness.records import sentence_of
from harness.support import MASKED, StoreError, is_secret_name, mask_store, mask_text

_ADVICE = {
    "SQLITE_FULL": "the disk is full. Free some space and run the same command again: what was stored is safe.",
    "SQLITE_READONLY": "it is read-only. Check its permissions, or name another store with --store.",
    "SQLITE_CANTOPEN": "it cannot be opened. Check that its folder exists and can be written.",
    "SQLITE_PERM": "access was denied. Check its permissions, or name another store with --store.",
    "SQLITE_NOTADB": "it is not a SQLite database. Name another file with --store.",
    "SQLITE_CORRUPT": "it is damaged. Restore a copy, or salvage it with `sqlite3 FILE .recover`.",
    "SQLITE_BUSY": "another process has kept it locked for 60 s. Stop that process, or try again later.",
    "SQLITE_IOERR": "the disk reports an error. Check the disk; a network file system may not lock files as needed.",
}


_ALMOST_A_URL = re.compile(r"(?i)(postgres|mysql|sqlite|mariadb|oracle|mssql)[\w+]*:")
"""Name of a database followed by a colon, with which no store's path begins."""


def raise_translated(name: str, error: sa.exc.DBAPIError, secrets: tuple[str, ...] = ()) -> NoReturn:
    """Raise a database's error as a `StoreError` that says what to try.

    Args:
        name: name of the store, without its password.
        error: error of the database.
        secrets: passwords that a driver may repeat in its messages.
    """
    code = str(getattr(error.orig, "sqlite_errorname", ""))
    for prefix, advice in _ADVICE.items():
        if code.startswith(prefix):
            raise StoreError(f"The store {name} cannot be used: {advice} ({error.orig})") from error
    if isinstance(error.orig, sqlite3.Error):
        raise StoreError(f"The store {name} cannot be used: {sentence_of(error.orig)}") from error
    reason = mask_text(sentence_of(error.orig), secrets)
    # Without the cause, in which a driver may include the password.
    raise StoreError(
        f"The store {name} cannot be used: {reason} Check that the server runs and the URL is right."
    ) from None


def secrets_of(url: sa.URL) -> tuple[str, ...]:
    """Return the passwords of a URL, both plain and percent-encoded."""
    found = [str(url.password)] if url.password else []
    for name, value in url.query.items():
        if is_secret_name(name):
            found += [value] if isinstance(value, str) else list(value)
    return tuple(
        dict.fromkeys(text for secret in found for text in (secret, quote(secret, safe=""), quote_plus(secret)))
    )


def shown_url(url: sa.URL) -> str:
    """Return a URL for messages, with every password replaced by `***`."""
    shown = {name: MASKED if is_secret_name(name) else value for name, value in url.query.items()}
    return url.set(query=shown).render_as_string(hide_password=True)


def parse_url(url_or_path: str | Path) -> sa.URL:
    """Return the URL of a store named by a path or a URL.

    Raises:
        StoreError: the name is empty or an invalid URL. The message repeats no password.
    """
    text = str(url_or_path)
    if "://" not in text:
        if not text.strip():
            raise StoreError("The store's name is empty; expected a path or a URL such as sqlite:///records.sqlite.")
        if _ALMOST_A_URL.match(text) or mask_store(text) != text:
            raise StoreError(
                f"The store '{mask_store(text)}' is neither a path nor a URL; expected a URL with two slashes, such as "
                "postgresql+psycopg://USER@HOST/DATABASE. Begin the path of a file with ./ instead."
            )
        return sa.URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):  # their messages may contain a part of the password
        raise StoreError(
            f"The store's URL '{text.partition('://')[0]}://...' cannot be read; expected a path, sqlite:///FILE or "
            "postgresql+psycopg://USER@HOST/DATABASE, with signs such as @ : / in a password percent-encoded."
        ) from None
    if "@" in (url.host or ""):
        raise StoreError(
            "The store's URL has an '@' in its user name or password; expected it percent-encoded, as %40."
        )
    return url


def is_file(url: sa.URL) -> bool:
    """Return whether the URL names a file by its path, and not a database in memory or SQLite's `file:` form."""
    database = url.database or ""
    return url.drivername.startswith("sqlite") and database not in ("", ":memory:") and not database.startswith("file:")


def check_file(path: Path, *, create: bool) -> None:
    """Refuse a path that cannot be a store; with `create`, make its folder."""
    name = mask_store(path)
    if path.is_dir():
        raise StoreError(f"The store {name} is a folder; expected a file, such as {name}/harness.sqlite.")
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The folder of the store {name} cannot be made: {error.strerror}. Name another with --store."
            ) from None
    elif not path.exists():
        raise StoreError(f"There is no store at {name}. Run something first, or name another one.")


def set_pragmas(connection: Any, _: object) -> None:
    """Set up a new connection to SQLite: wait for locks, write ahead, lose nothing in a power cut."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 60000")
    cursor.execute("PRAGMA foreign_keys = ON")
    # A read-only file keeps its journal mode, and so does one on a file system without shared memory.
    with contextlib.suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode = WAL")
    # NORMAL survives kill -9, but may lose the last commits in a power cut. FULL costs one fsync, milliseconds against
    # the seconds of a cell.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()
