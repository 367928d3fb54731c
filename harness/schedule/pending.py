"""Cells that wait to be run: in which order, which of them still fit in the time left, how long all will take."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence

from harness.cost import Estimator
from harness.planning import PlannedCell

_REFRESH_SECONDS = 1.0


class Pending:
    """A queue of cells.

    Without a deadline they keep their order. With one, small sizes come before large ones at all seeds, one seed before
    the next, and cheap cells first among those, so that whatever is cut leaves the most useful table; a cell that is
    expected to take longer than there is time is passed over.

    Args:
        cells: in the order of the plan.
        estimator: says what a cell is expected to take.
        deadline: until when cells may run, by `time.monotonic`; None is for ever.
    """

    def __init__(self, cells: Sequence[PlannedCell], estimator: Estimator, deadline: float | None = None) -> None:
        self._estimator = estimator
        self._deadline = deadline
        self._queue = deque(cells if deadline is None else _by_use(cells, estimator))
        self._counts = Counter(estimator.group(planned) for planned in self._queue)
        self._examples = {estimator.group(planned): planned for planned in self._queue}
        self._left: tuple[float, float] | None = None  # (estimate, when it was made)

    def __len__(self) -> int:
        return len(self._queue)

    def take(self) -> PlannedCell | None:
        """The next cell to run; None where none is left, or none that fits in the time left."""
        if self._deadline is None:
            return self._taken(self._queue.popleft()) if self._queue else None
        left = self._deadline - time.monotonic()
        for position, planned in enumerate(self._queue):
            if self._estimator.estimate(planned).seconds <= left:
                del self._queue[position]
                return self._taken(planned)
        return None

    def put_first(self, planned: PlannedCell) -> None:
        """Add a cell that is to be run next."""
        self._queue.appendleft(planned)
        group = self._estimator.group(planned)
        self._counts[group] += 1
        self._examples.setdefault(group, planned)
        self._left = None

    def seconds_left(self) -> float | None:
        """What the cells that wait are expected to take, or what time there is; None where none waits.

        Worked out anew once a second at most, so that a run of very many, very short cells does not dwell on it.
        """
        if not self._queue:
            return None
        now = time.monotonic()
        if self._left is None or now - self._left[1] > _REFRESH_SECONDS:
            groups = ((self._examples[group], count) for group, count in self._counts.items() if count)
            total = sum(count * self._estimator.estimate(planned).seconds for planned, count in groups)
            self._left = (total, now)
        return self._left[0] if self._deadline is None else max(0.0, min(self._left[0], self._deadline - now))

    def _taken(self, planned: PlannedCell) -> PlannedCell:
        self._counts[self._estimator.group(planned)] -= 1
        return planned


def _by_use(cells: Sequence[PlannedCell], estimator: Estimator) -> list[PlannedCell]:
    """Every method at small sizes and one seed first, then more seeds, then larger sizes."""
    seeds: dict[int, int] = {}
    for planned in cells:
        seeds.setdefault(planned.cell.seed, len(seeds))

    def use(planned: PlannedCell) -> tuple[int, int, float]:
        return planned.cell.n_train, seeds[planned.cell.seed], estimator.estimate(planned).seconds

    return sorted(cells, key=use)
