"""Read records, those of large stores and files with the columns that are kept beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from harness.records import Record
from harness.store import stream_source

_ENDING: Final = ".columns"
"""Ending of the file of columns, after the name of the store."""

_LEAST_BYTES: Final = 2**21
"""Smallest store that columns are kept for; a smaller one is read faster than pyarrow is imported."""


def stream_records(source: str, *, with_predictions: bool = True) -> Iterator[Record]:
    """Yield the records of a store, a file or a folder (`stream_source`), a large one with its kept columns.

    The columns are written when all records were read and enough of them were new. Nothing is written on a read-only
    disk.
    """
    path = Path(source)
    if "://" in source or not path.is_file() or path.stat().st_size < _LEAST_BYTES:
        yield from stream_source(source, with_predictions=with_predictions)
        return
    from harness.analysis import KeptColumns

    kept = KeptColumns(path.with_name(path.name + _ENDING))
    yield from stream_source(source, with_predictions=with_predictions, known=kept)
    kept.save()
