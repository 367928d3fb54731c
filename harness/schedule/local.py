"""Run the missing cells of a grid here, one at a time: timed cells never share the machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.backbones.model import load_backbone
from harness.errors import DuplicateError
from harness.execute import Worker
from harness.plan import PlannedCell
from harness.records import FINAL_STATUSES, Record
from harness.schedule.prepare import Prepared
from harness.schedule.remaining import RemainingTime
from harness.store import Store


class Listener(Protocol):
    """Who is told how a run goes on."""

    def begin(self, n_cells: int, n_done: int) -> None:
        """The grid has `n_cells` cells, of which `n_done` need no run."""

    def cell_begins(self, planned: PlannedCell) -> None:
        """A cell starts."""

    def cell_goes_on(self, doing: str, fraction: float | None, loss: float | None) -> None:
        """What the running cell does, how much of its budget is spent, its latest loss."""

    def cell_ends(self, record: Record, seconds_left: float | None) -> None:
        """A cell has been recorded; about so many seconds are left for the others."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        n_cells: cells of the grid.
        n_run: cells that this run recorded.
        n_failed: cells of the grid whose latest record is `failed`.
    """

    n_cells: int
    n_run: int
    n_failed: int


def missing_cells(prepared: Prepared, store: Store, *, retry_failed: bool = False) -> list[PlannedCell]:
    """Cells of the grid without a record that ends the matter, in the order to run them."""
    ids = [planned.cell.id for planned in prepared.cells]
    done = store.done(ids, prepared.device.name, retry_failed=retry_failed)
    return [planned for planned, id_ in zip(prepared.cells, ids, strict=True) if id_ not in done]


def run_cells(
    prepared: Prepared, store: Store, listener: Listener, *, cache: Path | None, retry_failed: bool = False
) -> Outcome:
    """Run what is missing; each record is stored the moment its cell ends.

    Stopping at any moment, by whatever means, loses the running cell at most: run again to go on.
    """
    missing = missing_cells(prepared, store, retry_failed=retry_failed)
    listener.begin(len(prepared.cells), len(prepared.cells) - len(missing))
    remaining = RemainingTime()
    n_run = 0
    for task in {planned.cell.task for planned in missing if planned.cell.backbone and planned.unsupported is None}:
        load_backbone(prepared.backbones[task])  # one clear refusal, and not a failed record a cell
    worker = Worker(prepared.device, cache) if missing else None
    for position, planned in enumerate(missing):
        assert worker is not None
        id_ = planned.cell.id
        if store.done([id_], prepared.device.name, retry_failed=retry_failed):
            continue  # another run on this store has done it meanwhile
        listener.cell_begins(planned)
        started = time.perf_counter()
        record = worker.run(
            planned,
            prepared.tasks[planned.cell.task],
            prepared.backbones.get(planned.cell.task),
            prepared.suite,
            listener.cell_goes_on,
            attempt=store.next_attempt(id_, prepared.device.name),
        )
        try:
            store.add(record)
        except DuplicateError:
            continue  # the same, while this one ran: what is stored first stays
        n_run += 1
        cell = planned.cell
        remaining.add(cell.task, cell.method, cell.n_train, time.perf_counter() - started)
        left = missing[position + 1 :]
        listener.cell_ends(record, remaining.estimate(_sizes(left)))
    failed = _count_failed(prepared, store)
    return Outcome(len(prepared.cells), n_run, failed)


def _sizes(cells: Sequence[PlannedCell]) -> list[tuple[str, str, int]]:
    return [(planned.cell.task, planned.cell.method, planned.cell.n_train) for planned in cells]


def _count_failed(prepared: Prepared, store: Store) -> int:
    ids = {planned.cell.id for planned in prepared.cells}
    latest = store.latest(ids, prepared.device.name)
    return sum(record.status not in FINAL_STATUSES for record in latest.values())
