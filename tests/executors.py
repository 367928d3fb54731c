"""Ways to run cells in tests: a listener, and whether Ray is there."""

from __future__ import annotations

import importlib.util

import pytest

from harness.planning.plan import PlannedCell
from harness.records.record import Record

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'adaptation-harness[ray]'"
)


class Quiet:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self.ended: list[str] = []

    def begin(self, n_cells: int, n_done: int) -> None: ...

    def cell_begins(self, planned: PlannedCell) -> None: ...

    def cell_goes_on(self, doing: str, fraction: float | None, loss: float | None) -> None: ...

    def cell_is_added(self) -> None: ...

    def cell_ends(self, record: Record, seconds_left: float | None) -> None:
        self.ended.append(record.id)

    def time_left(self, seconds: float | None) -> None: ...

    def remark(self, text: str) -> None:
        self.remarks.append(text)
