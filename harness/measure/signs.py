"""Count signs of progress of the running cell.

One process runs one cell at a time, so one count serves all of its code. Loops over batches and rows call
`show_progress` once per turn; it costs less than a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_n_signs = 0
_n_long_steps = 0


def show_progress() -> None:
    """Count a sign of progress of the running cell."""
    global _n_signs
    _n_signs += 1


@contextmanager
def long_step() -> Iterator[None]:
    """Mark a call that may take long without signs of progress: no watch counts its seconds."""
    global _n_long_steps
    _n_long_steps += 1
    try:
        yield
    finally:
        _n_long_steps -= 1
        show_progress()


def is_in_long_step() -> bool:
    """Return whether a call under `long_step` is running."""
    return _n_long_steps > 0


def n_signs() -> int:
    """Return the number of signs of progress in this process so far."""
    return _n_signs
