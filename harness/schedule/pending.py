"""The cells that a run still has to do, in order, and its claims on those that it has taken."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Hashable, Sequence
from types import TracebackType

from harness.cost import Estimator
from harness.planning import PlannedCell
from harness.schedule.pace import Pace
from harness.store import RENEW_SECONDS, Owner, Store
from harness.support import StoreError

_REFRESH_SECONDS = 1.0


class Pending:
    """A queue of cells.

    Without a deadline they keep their order. With one, they are sorted by part of the suite, then size, then seed, then
    backbone, then expected cost, so that the cells done by the deadline make the most useful table. A cell that is
    expected to miss it is passed over.

    Args:
        cells: in the order of the plan.
        estimator: expected seconds of a cell.
        deadline: when cells must have ended, by `time.monotonic`; None is never.
        n_at_a_time: number of cells that run at a time.

    Attributes:
        pace: the speed of the cells that have run, compared with their forecasts.
    """

    def __init__(
        self,
        cells: Sequence[PlannedCell],
        estimator: Estimator,
        deadline: float | None = None,
        *,
        n_at_a_time: int = 1,
    ) -> None:
        self.pace = Pace(n_at_a_time)
        self._estimator = estimator
        self._deadline = deadline
        self._queue = deque(cells if deadline is None else _by_use(cells, estimator))
        self._counts = Counter(estimator.group(planned) for planned in self._queue)
        self._examples = {estimator.group(planned): planned for planned in self._queue}
        self._first: dict[Hashable, float] = {}
        self._left: tuple[dict[bool, float], float] | None = None  # (forecasts, when they were made)

    def __len__(self) -> int:
        return len(self._queue)

    def take(self) -> PlannedCell | None:
        """Return the next cell to run; None where none is left, or none that fits in the time left."""
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

    def begins(self, planned: PlannedCell) -> None:
        """Take note that a cell starts."""
        seconds, is_measured = self._forecast(self._estimator.group(planned), planned)
        self.pace.begins(planned.cell.id, seconds, is_measured=is_measured)

    def seconds_left(self) -> float | None:
        """Return the expected seconds of the waiting and running cells, at most the time left; None if unknown.

        Waiting cells are forecast at most once a second, since a run may have very many, very short cells.
        """
        now = time.monotonic()
        if self._left is None or now - self._left[1] > _REFRESH_SECONDS:
            totals = {True: 0.0, False: 0.0}
            for group, count in self._counts.items():
                if count:
                    seconds, is_measured = self._forecast(group, self._examples[group])
                    totals[is_measured] += count * seconds
            self._left = (totals, now)
        measured, by_arithmetic = (self._left[0][True], self._left[0][False]) if self._queue else (0.0, 0.0)
        left = self.pace.seconds_left(measured, by_arithmetic)
        return left if left is None or self._deadline is None else max(0.0, min(left, self._deadline - now))

    def _forecast(self, group: Hashable, planned: PlannedCell) -> tuple[float, bool]:
        """Return the forecast seconds of a cell, and whether they are from measurements.

        Forecasts by arithmetic stay as they were first made. The estimator adapts them to the speed of the cells that
        have run, and so does `pace`: together they would correct twice.
        """
        found = self._estimator.estimate(planned)
        if found.basis != "formula":
            return found.seconds, True
        return self._first.setdefault(group, found.seconds), False

    def _taken(self, planned: PlannedCell) -> PlannedCell:
        self._counts[self._estimator.group(planned)] -= 1
        return planned


def _by_use(cells: Sequence[PlannedCell], estimator: Estimator) -> list[PlannedCell]:
    """Return the cells by part of the suite: in each, small sizes first, then more seeds, then larger sizes.

    All backbones of one size and seed come before the next, so that they can be compared wherever the time ends. Every
    other block of them is in reverse order: its first backbone is the one that a worker has. Methods without a backbone
    are sorted among the cells of a block's first backbone.
    """
    seeds: dict[int, int] = {}
    backbones: dict[str, int] = {}
    for planned in cells:
        seeds.setdefault(planned.cell.seed, len(seeds))
        if planned.cell.weights is not None:
            backbones.setdefault(planned.cell.weights, len(backbones))

    def block(planned: PlannedCell) -> tuple[int, int, int]:
        return planned.part, planned.cell.n_train, seeds[planned.cell.seed]

    blocks = {key: i for i, key in enumerate(sorted({block(p) for p in cells if p.cell.weights is not None}))}

    def use(planned: PlannedCell) -> tuple[int, int, int, int, float]:
        is_turned = blocks.get(block(planned), 0) % 2 == 1
        first = len(backbones) - 1 if is_turned else 0
        place = first if planned.cell.weights is None else backbones[planned.cell.weights]
        return *block(planned), -place if is_turned else place, estimator.estimate(planned).seconds

    return sorted(cells, key=use)


class Claims:
    """Claims of this process on cells: they hold within the context, and are given up after it.

    Args:
        store: where claims and records are kept.
        device: where cells run.
        retry_failed: whether a cell whose latest record is `failed` is run again.
        again: cells that are run again whatever their records say.
    """

    def __init__(self, store: Store, device: str, *, retry_failed: bool = False, again: Collection[str] = ()) -> None:
        self.owner = Owner()
        self._store = store
        self._device = device
        self._retry_failed = retry_failed
        self._again = frozenset(again)
        self._over = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="renews claims", daemon=True)

    def claim(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the number of the attempt of each of `ids` that is claimed now; others are done or another run's."""
        return self._store.claim(ids, self._device, self.owner, retry_failed=self._retry_failed, again=self._again)

    def __enter__(self) -> Claims:
        self._renewing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._renewing.join()
        with contextlib.suppress(StoreError):  # they expire by themselves; an earlier error matters more
            self._store.release(self.owner)

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            with contextlib.suppress(StoreError):  # a store that is busy or full now may not be in a while
                self._store.renew(self.owner)
