"""Count the records of a store, and the cells of a run that have none yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api.requests import read_request
from harness.records import STATUSES, Record
from harness.support import find_store, first_line, mask_store, quiet_libraries, spelt_for_caller

MISSING = "missing"
"""Status of a cell of a run without a record."""


@dataclass(frozen=True)
class StatusRow:
    """Cells of one method on one task.

    Attributes:
        suite: label of the run that made the records; or of the run asked about.
        task, method: names.
        counts: number of cells by status.
    """

    suite: str
    task: str
    method: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class FailedCell:
    """A failed cell.

    Attributes:
        cell: its label.
        id: its identity.
        error: first line of its error.
    """

    cell: str
    id: str
    error: str


@dataclass(frozen=True)
class StoreStatus:
    """Cells by suite, task, method and status.

    Attributes:
        store: name of the store, without a password.
        rows: the counts.
        failed: cells whose latest attempt failed.
    """

    store: str
    rows: tuple[StatusRow, ...]
    failed: tuple[FailedCell, ...]

    @property
    def statuses(self) -> list[str]:
        """Statuses that occur, in a fixed order."""
        return [name for name in (*STATUSES, MISSING) if any(row.counts.get(name) for row in self.rows)]


@spelt_for_caller
def read_status(store: str | Path | None = None, grid: Mapping[str, Any] | None = None) -> StoreStatus:
    """Return counts by suite, task, method and status.

    Args:
        store: path or URL of the records; None takes HARNESS_STORE, or `results/harness.sqlite`.
        grid: arguments of `run` that name its cells; None counts all records. Cells are those of this device.

    Raises:
        UsageError: an argument cannot be read.
        StoreError: the store is missing or cannot be read. A run's store may be missing.
    """
    from harness.store import Store

    quiet_libraries()
    source = find_store(store)
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    if grid is None:
        with Store.open(source, read_only=True) as opened:
            for (label, task, method, status), n in opened.summary().items():
                counts.setdefault((label, task, method), Counter())[status] += n
            return _status(source, counts, list(opened.failed()))
    from harness.schedule import prepare_plan

    prepared = prepare_plan(read_request(**grid, store=source))
    known: dict[str, str] = {}
    failed: list[Record] = []
    if "://" in source or Path(source).exists():  # a suite's missing cells need no store
        with Store.open(source, read_only=True) as opened:  # whichever suite ran them first
            known = opened.statuses({planned.cell.id for planned in prepared.cells}, prepared.device.name)
            wanted = [id_ for id_, status in known.items() if status == "failed"]
            failed = list(opened.latest(wanted, prepared.device.name).values())
    for planned in prepared.cells:
        key = (prepared.suite, planned.cell.task, planned.cell.method)
        counts.setdefault(key, Counter())[known.get(planned.cell.id, MISSING)] += 1
    return _status(source, counts, failed)


def _status(source: str, counts: Mapping[tuple[str, str, str], Counter[str]], failed: list[Record]) -> StoreStatus:
    return StoreStatus(
        store=mask_store(source),
        rows=tuple(StatusRow(*key, counts=dict(counter)) for key, counter in counts.items()),
        failed=tuple(FailedCell(one.cell.label(), one.cell.id, first_line(one.error)) for one in failed if one.error),
    )
