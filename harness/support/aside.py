"""Memory that belongs to no cell: what stays for later cells is put aside while it is made or dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class AsideMeter(Protocol):
    """A meter of memory that leaves out what changes between two calls."""

    def begin_aside(self) -> None:
        """Note the level before memory is put aside."""

    def end_aside(self) -> None:
        """Move the baseline by the difference to that level, and forget peaks in between."""


aside_meters: list[AsideMeter] = []
"""The meters that run."""

_depth = 0


@contextmanager
def put_aside() -> Iterator[None]:
    """Leave memory that a block takes or frees out of all meters that run; a block inside another adds nothing."""
    global _depth
    running = list(aside_meters) if _depth == 0 else []
    for meter in running:
        meter.begin_aside()
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        for meter in running:
            meter.end_aside()
