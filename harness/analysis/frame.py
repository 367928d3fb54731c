"""Turn records into one tidy DataFrame by the list of columns; `export` writes it to a file.

One row is one record. An absent figure is null in pandas' nullable types, never NaN, -1 or 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.analysis.columns import (
    EXPORT_COLUMNS,
    EXTRA_COLUMNS,
    Column,
    Dtype,
    label_of,
    plain_values,
    read_values,
    rows_of,
)
from harness.analysis.naming import FullName, full_names
from harness.records import Cell, Record

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
            kept.extend(_named(batch))
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
    found: list[list[Any]] = [[] for _ in columns]
    read_values(columns, _batches(records), found)
    plain = {column.name: plain_values(column.dtype, values) for column, values in zip(columns, found, strict=True)}
    named = _names(_named(records)) if set(names) & set(_OF_NAMES) else []
    return {name: [getattr(one, name) for one in named] if name in _OF_NAMES else plain[name] for name in names}


_OF_NAMES = FullName._fields
"""Columns of the parts of a `FullName`."""


class _Named(NamedTuple):
    """The parts of a record that name its configuration."""

    cell: Cell
    defaults: dict[str, Any]
    device: str
    is_evidence: bool


def _named(records: Sequence[Record]) -> list[_Named]:
    if (kept := rows_of(records)) is not None:
        table, rows = kept
        parts = (table.cells(rows), table.defaults(rows), table.take("device", rows), table.take("_is_evidence", rows))
        return list(map(_Named, *parts))
    return [_Named(r.cell, r.facts.defaults, r.device, r.facts.is_evidence) for r in records]


def _names(kept: Sequence[_Named]) -> list[FullName]:
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
    found: list[list[Any]] = [[] for _ in columns]
    read_values(columns, batches, found)
    pairs = zip(columns, found, strict=True)
    return pd.DataFrame({column.name: _array(column.dtype, values) for column, values in pairs})


def _array(dtype: Dtype, values: list[Any]) -> Any:
    """Return `pd.array(values, dtype)`, several times as fast for the values that records hold."""
    types = set(map(type, values))
    if types <= {type(None), str} and dtype == "string":
        import pyarrow as pa

        return pd.array(pa.array(plain_values(dtype, values), pa.large_string()), dtype=dtype)
    if types <= {type(None), int, float} and dtype == "Float64":
        numbers = np.array(values, dtype=np.float64)
        return pd.arrays.FloatingArray(numbers, np.isnan(numbers))
    if types <= {type(None), int} and dtype == "Int64":
        missing = np.array([value is None for value in values], dtype=bool)
        whole = np.array([0 if value is None else value for value in values], dtype=np.int64)
        return pd.arrays.IntegerArray(whole, missing)
    return pd.array(plain_values(dtype, values), dtype=dtype)
