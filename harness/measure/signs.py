"""Signs of progress: long work counts them, and a watch on another thread sees that the work goes on.

One process runs one cell at a time, so one count serves all of its code. Loops over batches and rows call
`show_progress` once a turn; it costs less than a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_n_signs = 0
_n_long_steps = 0


def show_progress() -> None:
    """Say that the running cell has got on with its work."""
    global _n_signs
    _n_signs += 1


@contextmanager
def long_step() -> Iterator[None]:
    """Mark one call that may take long and can show no progress meanwhile: no watch counts its seconds."""
    global _n_long_steps
    _n_long_steps += 1
    try:
        yield
    finally:
        _n_long_steps -= 1
        show_progress()


def is_in_long_step() -> bool:
    """Return whether such a call is running."""
    return _n_long_steps > 0


def n_signs() -> int:
    """Return how many signs this process has shown so far."""
    return _n_signs
