"""Go on with half the rows of a batch where memory runs out, and say so in the record.

Encoding, predicting, validating and scoring give a row the same answer in any batch, up to rounding. A batch that does
not fit therefore costs a second try, not the cell.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.measure.failures import is_out_of_memory
from harness.measure.memory import release
from harness.support import OutOfMemoryError

_active: list[Halvings] = []


@dataclass(eq=False)
class Halvings:
    """The batches of one cell that did not fit in memory.

    Attributes:
        rows: for each kind of work (`predict`), the rows of a batch at first and in the end.
    """

    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    _note: Callable[[float], None] | None = None

    @contextmanager
    def active(self, note: Callable[[float], None]) -> Iterator[None]:
        """Receive the halvings of a block; `note` is called after each with the seconds of the failed try."""
        self._note = note
        _active.append(self)
        try:
            yield
        finally:
            _active.pop()

    @property
    def remarks(self) -> dict[str, str]:
        """Remarks for the ledger, by subject, such as `predict_rows: 256 -> 64, out of memory`."""
        return {f"{work}_rows": halved_remark(*rows) for work, rows in self.rows.items()}

    def _add(self, work: str, before: int, after: int, seconds: float) -> None:
        self.rows[work] = (self.rows.get(work, (before, after))[0], after)
        if self._note is not None:
            self._note(seconds)


def halved_remark(first: int, last: int) -> str:
    """Return the remark about batches that were halved from `first` to `last` rows."""
    return f"{first} -> {last}, out of memory"


class BatchLimit:
    """Maximum number of rows of a batch, halved each time memory runs out.

    Use it in a loop: take at most `rows` rows, and go on to the next rows where `holds` returns True.

    Args:
        work: kind of work, one word that names the remark (`predict`, `validate`, `score`).
        rows: rows at first; fewer if this cell has halved batches of the same work before.

    Attributes:
        rows: maximum number of rows now.
    """

    def __init__(self, work: str, rows: int) -> None:
        self._work = work
        known = _active[-1].rows.get(work) if _active else None
        self.rows = rows if known is None else min(rows, known[1])

    def holds(self, n_rows: int, run: Callable[[], object]) -> bool:
        """Run a batch of `n_rows`; return whether it fitted. Otherwise free its memory and halve the limit.

        `run` may be called again for a part of the same rows: it must only write its results at the end.

        Raises:
            OutOfMemoryError: a single row does not fit.
        """
        started = time.perf_counter()
        if fits(run):
            return True
        if n_rows <= 1:
            raise too_large(self._work)
        before, self.rows = max(n_rows, self.rows), max(1, n_rows // 2)
        if _active:
            _active[-1]._add(self._work, before, self.rows, time.perf_counter() - started)
        return False


def fits(run: Callable[[], object]) -> bool:
    """Call `run`; return False, with its memory freed, if the device or the host has no more memory.

    A budget of memory that is exceeded is raised, as is any other error.
    """
    try:
        run()
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
    else:
        return True
    # Only here, where the error and with it the frames that hold the batch's tensors are gone.
    free()
    return False


def free() -> None:
    """Return memory that no tensor uses to the device and the system."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    release()


def too_large(work: str) -> OutOfMemoryError:
    """Return the error for a single row that does not fit."""
    return OutOfMemoryError(
        f"A batch of one row does not fit in memory ({work}). Try shorter texts (`max_length` of the task), "
        "precision=bf16, a smaller backbone, or a device with more memory."
    )
