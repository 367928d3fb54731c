"""Find the form of a cell that fits into memory: the same steps in pieces, and at last with blocks computed again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from harness.cost.estimate import Estimator
from harness.cost.memory import Memory
from harness.measure import Device
from harness.planning import PlannedCell

_MORE_THAN_SEEN = 1.05
"""Least ratio of the memory that a cell needed to the memory that it ran out of."""

_USABLE = {"cpu": 1.0, "cuda": 0.94}
"""Share of a device's memory that tensors may take; the rest is the driver's, or lost between blocks."""


@dataclass(frozen=True)
class Smaller:
    """A cell that needs less memory.

    Attributes:
        planned: the cell.
        peak_bytes: memory that it is expected to need.
    """

    planned: PlannedCell
    peak_bytes: float


def usable_bytes(device: Device, memory_bytes: float) -> float:
    """Return the part of a device's memory that a cell may take."""
    return _USABLE[device.kind] * memory_bytes


def halved(planned: PlannedCell) -> PlannedCell | None:
    """Return the cell with the same steps in about half the memory; None if the method has no such form."""
    method = planned.method.halved()
    if method is None or planned.unsupported is not None:
        return None
    cell = dataclasses.replace(planned.cell, config=method.config())
    return dataclasses.replace(planned, cell=cell, method=method)


def ever_smaller(planned: PlannedCell) -> Iterator[PlannedCell]:
    """Yield the smaller forms of a cell, the least changed first."""
    smaller = halved(planned)
    while smaller is not None:
        yield smaller
        smaller = halved(smaller)


def first_that_fits(planned: PlannedCell, estimator: Estimator, memory_bytes: float) -> Smaller | None:
    """Return the least changed form of a cell that is expected to fit; None if none does, or if the cell itself fits.

    The closed form carries the cell's own measured or estimated memory over to the smaller form.
    """
    needed = estimator.estimate(planned).least_bytes
    return None if needed <= memory_bytes else _fitting(planned, estimator, memory_bytes, needed)


def after_out_of_memory(
    planned: PlannedCell, estimator: Estimator, memory_bytes: float, seen_bytes: float
) -> PlannedCell | None:
    """Return the form of a cell to try after it ran out of memory; None if there is no smaller one.

    The cell is known to need more than there was. The arithmetic is scaled by that, and the least changed form that
    fits is chosen at once. If none is expected to fit, it is the smallest one. Where the arithmetic cannot tell the
    forms apart, it is the next one.

    Args:
        planned: the cell that ran out of memory.
        estimator: knows the arithmetic and what was measured.
        memory_bytes: memory that the cell may take.
        seen_bytes: the most that it was seen to take; 0 if that is unknown.
    """
    forms = list(ever_smaller(planned))
    if not forms:
        return None
    if estimator.amount(forms[-1]).least_bytes >= estimator.amount(planned).least_bytes:
        return forms[0]
    needed = max(estimator.estimate(planned).least_bytes, _MORE_THAN_SEEN * max(seen_bytes, memory_bytes))
    found = _fitting(planned, estimator, memory_bytes, needed)
    return forms[-1] if found is None else found.planned


def _fitting(planned: PlannedCell, estimator: Estimator, memory_bytes: float, needed: float) -> Smaller | None:
    whole = estimator.amount(planned).least
    for smaller in ever_smaller(planned):
        expected = _carried_over(needed, whole, estimator.amount(smaller).least)
        if expected <= memory_bytes:
            return Smaller(smaller, expected)
    return None


def _carried_over(needed: float, whole: Memory, smaller: Memory) -> float:
    """Return the bytes of a smaller form: weights stay as they are, and the rest errs by the same factor."""
    step = whole.peak_bytes - whole.fixed_bytes
    if step <= 0 or needed <= whole.fixed_bytes:
        return needed * smaller.peak_bytes / whole.peak_bytes
    return smaller.fixed_bytes + (needed - whole.fixed_bytes) / step * (smaller.peak_bytes - smaller.fixed_bytes)
