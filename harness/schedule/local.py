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
from harness.schedule.claiming import Claims
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
        n_elsewhere: cells that another run on the same store was running, and that have no record yet.
    """

    n_cells: int
    n_run: int
    n_failed: int
    n_elsewhere: int = 0


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
    if not missing:
        return Outcome(len(prepared.cells), 0, _count_failed(prepared, store))
    worker = Worker(prepared.device, cache)
    passed_over: list[str] = []
    with Claims(store, prepared.device.name, retry_failed=retry_failed) as claims:
        for position, planned in enumerate(missing):
            cell = planned.cell
            attempts = claims.claim([cell.id])
            if not attempts:
                passed_over.append(cell.id)  # another run on this store has done it meanwhile, or is doing it
                continue
            listener.cell_begins(planned)
            started = time.perf_counter()
            record = worker.run(
                planned,
                prepared.tasks[cell.task],
                prepared.backbones.get(cell.task),
                prepared.suite,
                listener.cell_goes_on,
                attempt=attempts[cell.id],
            )
            try:
                store.add(record, claims.owner)
            except DuplicateError:
                continue  # the lease had ended unrenewed, on a machine that was asleep, say: what is stored first stays
            n_run += 1
            remaining.add(cell.task, cell.method, cell.n_train, time.perf_counter() - started)
            listener.cell_ends(record, remaining.estimate(_sizes(missing[position + 1 :])))
    recorded = store.done(passed_over, prepared.device.name) if passed_over else set()
    return Outcome(
        len(prepared.cells), n_run, _count_failed(prepared, store), n_elsewhere=len(set(passed_over) - recorded)
    )


def _sizes(cells: Sequence[PlannedCell]) -> list[tuple[str, str, int]]:
    return [(planned.cell.task, planned.cell.method, planned.cell.n_train) for planned in cells]


def _count_failed(prepared: Prepared, store: Store) -> int:
    ids = {planned.cell.id for planned in prepared.cells}
    latest = store.latest(ids, prepared.device.name)
    return sum(record.status not in FINAL_STATUSES for record in latest.values())
