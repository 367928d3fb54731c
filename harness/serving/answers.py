"""The file of stored answers: every answer of a served model is kept as it comes, and read instead of asked again."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.support import StoreError, cache_folder

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, answer TEXT NOT NULL, seconds REAL NOT NULL, n_tries INTEGER NOT NULL,
    prompt_tokens INTEGER, cached_prompt_tokens INTEGER, completion_tokens INTEGER, price REAL, currency TEXT,
    stored_at REAL NOT NULL, n_beside INTEGER
);
CREATE TABLE IF NOT EXISTS totals (
    model TEXT NOT NULL, currency TEXT NOT NULL, price REAL NOT NULL, prompt_tokens INTEGER NOT NULL,
    cached_prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, n_answers INTEGER NOT NULL,
    PRIMARY KEY (model, currency)
);
"""

_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class StoredAnswer:
    """An answer with what it cost when it was sent; None is unknown.

    Attributes:
        content: the parts of the answer that are used.
        seconds: seconds from the request to its answer, without failed tries.
        n_tries: number of times that the request was sent.
        prompt_tokens, cached_prompt_tokens, completion_tokens: tokens that the server counted.
        price: price of these tokens.
        currency: currency of `price`.
        n_beside: number of requests that were sent at a time, with this one; earlier versions did not store it.
    """

    content: Mapping[str, Any]
    seconds: float
    n_tries: int = 1
    prompt_tokens: int | None = None
    cached_prompt_tokens: int | None = None
    completion_tokens: int | None = None
    price: float | None = None
    currency: str | None = None
    n_beside: int | None = None


@dataclass(frozen=True)
class Total:
    """Sum over the answers of one model in one currency; the currency is empty where no price was known."""

    model: str
    currency: str
    price: float
    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int
    n_answers: int


class AnswerFile:
    """Stored answers in an SQLite file, which several threads and processes may use at once.

    Args:
        path: the file, which is made where it is missing; None keeps the answers in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._name = "memory" if path is None else str(path)
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                ":memory:" if path is None else path,
                timeout=_WAIT_SECONDS,
                check_same_thread=False,
                isolation_level=None,
            )
            with contextlib.suppress(sqlite3.OperationalError):  # another process switches just now
                self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_TABLES)
            columns = [row[1] for row in self._connection.execute("PRAGMA table_info(answers)")]
            if "n_beside" not in columns:  # a file of an earlier version
                with contextlib.suppress(sqlite3.OperationalError):  # another process adds it just now
                    self._connection.execute("ALTER TABLE answers ADD COLUMN n_beside INTEGER")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"The file of answers {self._name} cannot be opened: {error}.") from None

    def get(self, key: str) -> StoredAnswer | None:
        """Return the answer to a request; None where none is stored."""
        with self._working() as connection:
            row = connection.execute(
                "SELECT answer, seconds, n_tries, prompt_tokens, cached_prompt_tokens, completion_tokens, price, "
                "currency, n_beside FROM answers WHERE key = ?",
                (key,),
            ).fetchone()
        return None if row is None else StoredAnswer(json.loads(row[0]), *row[1:])

    def add(self, key: str, model: str, answer: StoredAnswer) -> None:
        """Store an answer and add it to the totals; an answer that is there already stays."""
        content = json.dumps(answer.content, ensure_ascii=False)
        with self._working() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                added = connection.execute(
                    "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(key, model, content, answer.seconds, answer.n_tries, answer.prompt_tokens),
                        *(answer.cached_prompt_tokens, answer.completion_tokens, answer.price, answer.currency),
                        *(time.time(), answer.n_beside),
                    ),
                ).rowcount
                if added:
                    connection.execute(
                        "INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?, 1) ON CONFLICT (model, currency) DO UPDATE SET "
                        "price = price + excluded.price, prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
                        "cached_prompt_tokens = cached_prompt_tokens + excluded.cached_prompt_tokens, "
                        "completion_tokens = completion_tokens + excluded.completion_tokens, "
                        "n_answers = n_answers + 1",
                        (
                            *(model, answer.currency or "", answer.price or 0.0, answer.prompt_tokens or 0),
                            *(answer.cached_prompt_tokens or 0, answer.completion_tokens or 0),
                        ),
                    )
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def totals(self) -> list[Total]:
        """Return the sums over all answers, by model and currency."""
        with self._working() as connection:
            rows = connection.execute("SELECT * FROM totals").fetchall()
        return [Total(*row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _working(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise StoreError(f"The file of answers {self._name} cannot be used: {error}.") from None


def answers_beside(store: str) -> Path:
    """Return the file of answers that belongs to a store: beside its file, or in the cache folder for a database."""
    if "://" in store or "=" in store.split("/")[-1]:
        return cache_folder() / "served.answers.sqlite"
    path = Path(store).expanduser()
    stem = path.name.removesuffix(".sqlite").removesuffix(".db")
    return path.with_name(f"{stem}.answers.sqlite").absolute()
