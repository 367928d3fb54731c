"""Turn records into one tidy DataFrame by the list of columns; `export` writes it to a file.

One row is one record. An absent figure is null in pandas' nullable types, never NaN, -1 or 0.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.analysis.columns import EXPORT_COLUMNS, EXTRA_COLUMNS, Column, Dtype, label_of
from harness.analysis.naming import FullName, full_names
from harness.records import Cell, Record, storable

_BATCH = 500
"""Records that are read at a time, so that their predictions are dropped as soon as their rows are made."""


def export_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return one row per record, with exactly the columns of `EXPORT_COLUMNS`, in the order given."""
    return _build(EXPORT_COLUMNS, _batches(records))


def tidy_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return one row per record: the columns of `export_frame`, `EXTRA_COLUMNS`, `variant` and `settings`.

    `variant` is the name of the configuration, with its backbone where a table holds several; `settings` is what
    distinguishes it in full (see `full_names`).
    """
    kept: list[_Named] = []

    def noted() -> Iterator[list[Record]]:
        for batch in _batches(records):
            kept.extend(map(_Named.of, batch))
            yield batch

    frame = _build(EXPORT_COLUMNS + EXTRA_COLUMNS, noted())
    names = _names(kept)
    for name in ("variant", "settings"):
        frame[name] = _array("string", [getattr(found, name) for found in names])
    return frame


def tidy_columns(records: Sequence[Record], names: Iterable[str]) -> dict[str, list[Any]]:
    """Return some columns of `tidy_frame`, or parts of `FullName`, as plain values; fast enough for 100,000 records."""
    names = list(names)
    columns = [column for column in EXPORT_COLUMNS + EXTRA_COLUMNS if column.name in names]
    found = dict(zip((column.name for column in columns), _read(columns, [records]), strict=True))
    plain = {column.name: _plain(column.dtype, found[column.name]) for column in columns}
    named = _names(map(_Named.of, records)) if set(names) & set(_OF_NAMES) else []
    return {name: [getattr(one, name) for one in named] if name in _OF_NAMES else plain[name] for name in names}


_OF_NAMES = FullName._fields
"""Columns of the parts of a `FullName`."""


class _Named(NamedTuple):
    """The parts of a record that name its configuration."""

    cell: Cell
    defaults: dict[str, Any]
    device: str
    is_evidence: bool

    @classmethod
    def of(cls, record: Record) -> _Named:
        """Return the parts of one record."""
        return cls(record.cell, record.facts.defaults, record.device, record.facts.is_evidence)


def _names(kept: Iterable[_Named]) -> list[FullName]:
    kept = list(kept)
    return full_names(
        [one.cell for one in kept],
        [one.defaults for one in kept],
        tables=[(one.cell.task, one.cell.data, one.device, label_of(one.cell.budget)) for one in kept],
        devices=[one.device for one in kept],
        is_evidence=[one.is_evidence for one in kept],
    )


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    stream = iter(records)
    while batch := list(itertools.islice(stream, _BATCH)):
        yield batch


def _build(columns: Sequence[Column], batches: Iterable[Sequence[Record]]) -> pd.DataFrame:
    pairs = zip(columns, _read(columns, batches), strict=True)
    return pd.DataFrame({column.name: _array(column.dtype, values) for column, values in pairs})


def _read(columns: Sequence[Column], batches: Iterable[Sequence[Record]]) -> list[list[Any]]:
    """Return the values of each column; all attributes of one part of a record are read in one call."""
    found: list[list[Any]] = [[] for _ in columns]
    attributes: defaultdict[_Part, list[tuple[str, int]]] = defaultdict(list)
    functions: defaultdict[_Part, list[tuple[Callable[[Any], Any], int]]] = defaultdict(list)
    for i, column in enumerate(columns):
        if isinstance(column.get, str):
            attributes[column.part].append((column.get, i))
        else:
            functions[column.part].append((column.get, i))
    for batch in batches:
        for part in {**attributes, **functions}:
            objects = batch if part is None else list(map(part, batch))
            if named := attributes[part]:
                read, absent = _reader(*(name for name, _ in named)), (None,) * len(named)
                rows = (absent if one is None else read(one) for one in objects)
                for (_, i), values in zip(named, zip(*rows, strict=True), strict=True):
                    found[i].extend(values)
            for get, i in functions[part]:
                found[i].extend(None if one is None else get(one) for one in objects)
    return found


_Part = Callable[[Record], Any] | None


@functools.cache
def _reader(*names: str) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function of an object to some of its attributes."""
    read = attrgetter(*names)
    return read if len(names) > 1 else lambda value: (read(value),)


def _plain(dtype: Dtype, values: list[Any]) -> list[Any]:
    """Return values as pandas keeps them: texts without lone surrogates, numbers as fractions where it has these."""
    if dtype == "string":
        return [value if value is None or value.isascii() else storable(value) for value in values]
    if dtype == "Float64":
        return [None if value is None else float(value) for value in values]
    return values


def _array(dtype: Dtype, values: list[Any]) -> Any:
    """Return `pd.array(values, dtype)`, several times as fast for the values that records hold."""
    types = set(map(type, values))
    if types <= {type(None), str} and dtype == "string":
        import pyarrow as pa

        return pd.array(pa.array(_plain(dtype, values), pa.large_string()), dtype=dtype)  # type: ignore[call-overload]
    if types <= {type(None), int, float} and dtype == "Float64":
        numbers = np.array(values, dtype=np.float64)
        return pd.arrays.FloatingArray(numbers, np.isnan(numbers))
    if types <= {type(None), int} and dtype == "Int64":
        missing = np.array([value is None for value in values], dtype=bool)
        whole = np.array([0 if value is None else value for value in values], dtype=np.int64)
        return pd.arrays.IntegerArray(whole, missing)
    return pd.array(_plain(dtype, values), dtype=dtype)
