"""Columns of records in a file beside a store, so that records that were read once need not be parsed again.

A row is found by the hash of the record's JSON. A changed record therefore has no row, and a deleted one has a row that
nobody finds and that the next file lacks. The file is an Arrow table behind its own hash; a damaged one, or one of
other code, is ignored and replaced.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.resources
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.analysis.columns import EXPORT_COLUMNS, EXTRA_COLUMNS, Column, plain_values, read_values
from harness.records import Budget, Cell, Record, Score, canonical_of, dump, made, once_for_each, storable
from harness.support import StoreError, replacing

if TYPE_CHECKING:
    import pyarrow as pa

_FORMAT: Final = 1
_LEAST_ROWS: Final = 1000
_MOST_BYTES: Final = 2**30
"""Largest table that is kept, before it is compressed."""

_SHARE_NEW: Final = 0.05
"""Share of rows that must be new before the file is written again."""

_BATCH: Final = 500
_DIGEST_BYTES: Final = 16

_text_of = once_for_each(dump)  # with the names in their own order, unlike `canonical_of`


def _json_of_budget(record: Record) -> str:
    return canonical_of(record.cell.budget, Budget.to_json)


def _json_of_config(record: Record) -> str:
    return _text_of(record.cell.config)


def _json_of_defaults(record: Record) -> str:
    return _text_of(record.facts.defaults)


def _json_of_others(score: Score) -> str | None:
    return dump(score.others) if score.others else None


def _score(record: Record) -> Score | None:
    return record.score


_FURTHER: Final = (
    Column("_budget", "string", "the budget, as JSON", _json_of_budget),
    Column("_config", "string", "the configuration, as JSON", _json_of_config),
    Column("_defaults", "string", "defaults of unstated settings, as JSON", _json_of_defaults),
    Column("_is_evidence", "boolean", "whether the score is evidence about methods", "facts.is_evidence"),
    Column("_others", "string", "further metrics, as JSON", _json_of_others, _score),
    Column("_highest", "Float64", "upper end of the metric's range", "highest", _score),
)
"""Columns that cells, scores and names of configurations need beyond those of the frame."""

_COLUMNS: Final = (*EXPORT_COLUMNS, *EXTRA_COLUMNS, *_FURTHER)
_KNOWN: Final = ("suite", "device", "kind", "family", "status", "attempt")
"""Columns that are fields of a record, and that an unread record has."""

_PLACES: Final = {column.name: i for i, column in enumerate(_COLUMNS)}
_OF_SCORE: Final = {
    **{name: name for name in ("metric", "higher_is_better", "n_test", "n_test_available")},
    **{"value": "score", "low": "score_low", "high": "score_high", "others": "_others", "highest": "_highest"},
}
"""Columns by the fields of a score."""

_OF_CELL: Final = ("task", "data", "backbone", "weights", "method", "version", "n_train", "seed", "draw")


class KeptColumns:
    """The columns of records, by the hash of their JSON (see `records.KnownTexts`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._table = _load(path)
        digests = self._table.column("_digest").to_pylist() if self._table is not None else []
        whole = self._table.column("_whole").to_pylist() if self._table is not None else []
        self._n_loaded = len(digests)
        self._digests: list[bytes] = digests
        self._whole: list[bool] = whole
        self._rows = {digest: row for row, digest in enumerate(digests)}
        self._used = bytearray(len(digests))
        self._new: list[list[Any]] = [[] for _ in _COLUMNS]
        self._waiting: list[Record] = []
        self._last: tuple[str | bytes, bytes] = ("", b"")
        self._decoded: dict[str, list[Any]] = {}

    def find(self, text: str | bytes, *, whole: bool) -> int | None:
        """Return the row of a record's JSON, and note that the record is still there; None without a row.

        Args:
            text: the JSON.
            whole: whether the predictions in the text must have been checked too.
        """
        row = self._rows.get(self._digest(text))
        if row is None or (whole and not self._whole[row]):
            return None
        self._used[row] = 1
        return row

    def unread(self, text: str, row: int) -> Record:
        """Return the record of a row, which parses its JSON when somebody asks for more than its columns."""
        ids, known = self._lists
        return Record.unread(text, ids[row], dict(zip(_KNOWN, known[row], strict=True)), (self, row))

    def keep(self, record: Record, row: int) -> None:
        """Note the row of a record that was parsed."""
        record.keep_row((self, row))

    def add(self, text: str | bytes, record: Record, *, whole: bool) -> None:
        """Add the row of a record that was parsed from a text and found valid."""
        if not _holds_texts(record):
            return
        row = len(self._digests)
        self._digests.append(self._digest(text))
        self._whole.append(whole)
        self._waiting.append(record.replaced(predictions=None))  # the frame is made without predictions
        record.keep_row((self, row))
        if len(self._waiting) >= _BATCH:
            self._flush()

    def take(self, name: str, rows: Sequence[int]) -> list[Any]:
        """Return the values of a column in some rows."""
        loaded, n_loaded = self._loaded(name), self._n_loaded
        if not self._new[0] and not self._waiting:
            return [loaded[row] for row in rows]
        self._flush()
        new = self._new[_PLACES[name]]
        return [loaded[row] if row < n_loaded else new[row - n_loaded] for row in rows]

    def cells(self, rows: Sequence[int]) -> list[Cell]:
        """Return the cells of rows."""
        n_loaded = self._n_loaded
        if not self._new[0] and not self._waiting:
            return [self._cells[row] for row in rows]
        new = [row for row in rows if row >= n_loaded]
        made_now = dict(zip(new, self._make_cells(new), strict=True))
        return [self._cells[row] if row < n_loaded else made_now[row] for row in rows]

    def cell(self, row: int) -> Cell:
        """Return the cell of a row of the file."""
        return self._cells[row]

    def score(self, row: int) -> Score | None:
        """Return the score of a row of the file."""
        return self._scores[row]

    def defaults(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return the defaults of unstated settings of rows."""
        return list(map(_object_of, self.take("_defaults", rows)))

    def save(self) -> None:
        """Write the file where enough rows are new or gone; leave it as it is where it cannot be written."""
        self._flush()
        n_new = len(self._digests) - self._n_loaded
        n_used = sum(self._used)
        n_gone = self._n_loaded - n_used
        if n_new + n_used < _LEAST_ROWS or n_new + n_gone < _SHARE_NEW * (n_new + n_used):
            return
        import pyarrow as pa

        with contextlib.suppress(StoreError, OSError, OverflowError, pa.ArrowException):
            _write(self._path, self._as_table())

    def _as_table(self) -> pa.Table:
        import pyarrow as pa

        types = {"string": pa.string(), "Int64": pa.int64(), "Float64": pa.float64(), "boolean": pa.bool_()}
        arrays: dict[str, Any] = {
            "_digest": pa.array(self._digests[self._n_loaded :], pa.binary(_DIGEST_BYTES)),
            "_whole": pa.array(self._whole[self._n_loaded :], pa.bool_()),
        }
        for column, values in zip(_COLUMNS, self._new, strict=True):
            array = pa.array(plain_values(column.dtype, values), types[column.dtype])
            arrays[column.name] = array.dictionary_encode() if column.dtype == "string" else array
        table = pa.table(arrays)
        if self._table is not None:
            used = [row for row, is_used in enumerate(self._used) if is_used]
            table = pa.concat_tables([self._table.take(used), table]).unify_dictionaries()
        return table.combine_chunks()

    def _digest(self, text: str | bytes) -> bytes:
        if self._last[0] is not text:
            raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            self._last = text, hashlib.blake2b(raw, digest_size=_DIGEST_BYTES).digest()
        return self._last[1]

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            read_values(_COLUMNS, [waiting], self._new)

    def _make_cells(self, rows: Sequence[int]) -> list[Cell]:
        budgets = map(_budget_of, self.take("_budget", rows))
        configs = map(_object_of, self.take("_config", rows))
        parts = [self.take(name, rows) for name in _OF_CELL]
        names = (*_OF_CELL, "budget", "config")
        return [
            made(Cell, dict(zip(names, values, strict=True))) for values in zip(*parts, budgets, configs, strict=True)
        ]

    @functools.cached_property
    def _cells(self) -> list[Cell]:
        return self._make_cells(range(self._n_loaded))

    @functools.cached_property
    def _scores(self) -> list[Score | None]:
        parts = [self._loaded(name) for name in _OF_SCORE.values()]
        return [_score_of(dict(zip(_OF_SCORE, values, strict=True))) for values in zip(*parts, strict=True)]

    @functools.cached_property
    def _lists(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        return self._loaded("id"), list(zip(*map(self._loaded, _KNOWN), strict=True))

    def _loaded(self, name: str) -> list[Any]:
        if name not in self._decoded:
            self._decoded[name] = [] if self._table is None else decode(self._table.column(name))
        return self._decoded[name]


def _holds_texts(record: Record) -> bool:
    """Return whether columns hold a record's own texts: they escape lone surrogates."""
    cell = record.cell
    texts = (record.suite, record.device, record.kind, record.family, cell.task, cell.data, cell.method)
    optional = (cell.backbone, cell.weights)
    return all(text.isascii() or storable(text) == text for text in (*texts, *(one for one in optional if one)))


def _score_of(values: dict[str, Any]) -> Score | None:
    if values["metric"] is None:
        return None
    others = values["others"]
    return made(
        Score, {**values, "n_test": values["n_test"] or 0, "others": {} if others is None else json.loads(others)}
    )


@functools.lru_cache(maxsize=4096)
def _object_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


@functools.lru_cache(maxsize=4096)
def _budget_of(text: str) -> Budget:
    return Budget(**json.loads(text))


@functools.cache
def _code() -> bytes:
    """Return a hash of the code that reads records and makes columns of them, and of the facts that come with it."""
    hashed = hashlib.blake2b(str(_FORMAT).encode(), digest_size=_DIGEST_BYTES)
    for room in ("harness.records", "harness.analysis"):
        for file in sorted(importlib.resources.files(room).iterdir(), key=lambda file: file.name):
            if file.name.endswith((".py", ".json")):
                hashed.update(file.name.encode() + file.read_bytes())
    return hashed.digest()


def _load(path: Path) -> pa.Table | None:
    """Return the table of a file; None where there is none, it is damaged, or other code wrote it."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head, rest = content[: 2 * _DIGEST_BYTES], content[2 * _DIGEST_BYTES :]
    if head != _code() + hashlib.blake2b(rest, digest_size=_DIGEST_BYTES).digest():
        return None
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(pa.py_buffer(rest)).read_all()
    except (OSError, pa.ArrowException):
        return None
    return table if table.column_names == ["_digest", "_whole", *_PLACES] else None


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow as pa

    if table.nbytes > _MOST_BYTES:
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as file:
        file.write_table(table)
    content = sink.getvalue().to_pybytes()
    with replacing(path) as temporary:
        temporary.write_bytes(_code() + hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest() + content)


def decode(column: pa.ChunkedArray) -> list[Any]:
    """Return `column.to_pylist()`, several times as fast."""
    import pyarrow as pa

    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        texts = [*array.dictionary.to_pylist(), None]
        return [texts[code] for code in array.indices.fill_null(-1).to_pylist()]
    if not array.null_count:
        found: list[Any] = array.to_numpy(zero_copy_only=False).tolist()
        return found
    empty = False if pa.types.is_boolean(array.type) else 0
    objects = array.fill_null(empty).to_numpy(zero_copy_only=False).astype(object)
    objects[array.is_null().to_numpy(zero_copy_only=False)] = None
    values: list[Any] = objects.tolist()
    return values
