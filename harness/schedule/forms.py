"""Choose the form of a cell by arithmetic, so that it fits: whole batches, pieces, or blocks computed again.

A cell that is not expected to fit runs in the least changed form that does. It stays the same cell: the steps are the
same up to rounding and the numbers that dropout draws, and its record says how it ran (`Facts.run_as`). A cell that
ran out of memory all the same keeps its record, and `--on-oom halve` adds another cell
(docs/decisions/0019-halving-makes-another-cell.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from harness.cost import Estimator, after_out_of_memory, ever_smaller, first_that_fits, usable_bytes
from harness.measure import Device, host_limit_bytes, memory_bytes_of
from harness.planning import PlannedCell
from harness.records import Record


def memory_for(planned: PlannedCell, device: Device, there: float | None = None) -> float:
    """Return the bytes that a cell may take: its budget, or what the device has if that is less.

    Args:
        planned: the cell.
        device: device that it runs on.
        there: bytes that a cell may take there; None asks the device.
    """
    if there is None:
        there = usable_bytes(device, memory_bytes_of(device, host_limit_bytes()))
    asked = planned.cell.budget.peak_memory_bytes
    return there if asked is None else min(there, float(asked))


def form_to_run(planned: PlannedCell, estimator: Estimator) -> PlannedCell:
    """Return the cell with the method in the form that is expected to fit; unchanged if it fits, or if nothing does."""
    if planned.unsupported is not None or planned.method.halved() is None:
        return planned
    found = first_that_fits(planned, estimator, memory_for(planned, estimator.device))
    return planned if found is None else dataclasses.replace(planned, method=found.planned.method)


def form_after(planned: PlannedCell, record: Record, estimator: Estimator) -> PlannedCell | None:
    """Return the cell to add for one that ran out of memory; None if the form that it ran in has no smaller one."""
    if record.facts.run_as:
        ran = planned.method.model_copy(update=record.facts.run_as)
        planned = dataclasses.replace(planned, method=ran)
    return after_out_of_memory(
        planned, estimator, memory_for(planned, estimator.device), float(record.memory_bytes or 0)
    )


def added_before(planned: PlannedCell, statuses: dict[str, str]) -> list[PlannedCell]:
    """Return the smaller forms of a cell that have a record, by the statuses of all its forms."""
    return [form for form in ever_smaller(planned) if form.cell.id in statuses]


def smaller_ids(cells: Iterable[PlannedCell]) -> list[str]:
    """Return the ids of all smaller forms of some cells."""
    return [form.cell.id for planned in cells for form in ever_smaller(planned)]
