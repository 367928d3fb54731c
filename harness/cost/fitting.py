"""Find smaller forms of a cell that does not fit into memory: the same steps in less memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from harness.cost.estimate import Estimator
from harness.planning import PlannedCell


@dataclass(frozen=True)
class Smaller:
    """A cell that needs less memory.

    Attributes:
        planned: the cell.
        peak_bytes: expected peak memory.
    """

    planned: PlannedCell
    peak_bytes: float


def halved(planned: PlannedCell) -> PlannedCell | None:
    """Return the cell with the same steps in about half the memory; None if the method has no such form."""
    method = planned.method.halved()
    if method is None or planned.unsupported is not None:
        return None
    return PlannedCell(dataclasses.replace(planned.cell, config=method.config()), method)


def first_that_fits(planned: PlannedCell, estimator: Estimator, memory_bytes: float) -> Smaller | None:
    """Return the least changed form of a cell that is expected to fit; None if none does, or if the cell itself fits.

    The closed form's ratio carries the cell's own measured or estimated memory over to the smaller form.
    """
    needed = estimator.estimate(planned).peak_bytes
    if needed <= memory_bytes:
        return None
    whole = estimator.amount(planned).peak_bytes
    for smaller in _ever_smaller(planned):
        expected = needed * estimator.amount(smaller).peak_bytes / whole
        if expected <= memory_bytes:
            return Smaller(smaller, expected)
    return None


def _ever_smaller(planned: PlannedCell) -> Iterator[PlannedCell]:
    smaller = halved(planned)
    while smaller is not None:
        yield smaller
        smaller = halved(smaller)
