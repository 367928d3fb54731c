"""Run the missing cells of a grid: claim, hand out, record. The driver alone writes the store."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Protocol, cast

from harness.backbones.locate import BackboneFiles
from harness.errors import DuplicateError, UsageError
from harness.execute import unrun
from harness.measure.provenance import now
from harness.plan import PlannedCell
from harness.records import FINAL_STATUSES, Record, Status
from harness.schedule.claiming import Claims
from harness.schedule.job import Begun, Cut, Done, Event, Job, Lost, Progress
from harness.schedule.prepare import Prepared
from harness.schedule.remaining import RemainingTime
from harness.store import Store
from harness.tasks.base import Task

MOST_DEATHS = 2
"""Workers that may die over one cell before it counts as failed: the first may have been an accident."""

_POLL_SECONDS = 0.5


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

    def remark(self, text: str) -> None:
        """Something happened that the user should know of, and the run goes on."""


class Workers(Protocol):
    """Where cells run. What `schedule.local` and other executors offer."""

    @property
    def n_free(self) -> int:
        """How many cells could be started now."""

    @property
    def n_running(self) -> int:
        """How many cells are running."""

    def refusals(self, backbones: Sequence[BackboneFiles]) -> list[str]:
        """Why backbones cannot be loaded, of those that cannot."""

    def start(self, job: Job, task: Task) -> None:
        """Run a cell; `events` tells what becomes of it."""

    def events(self, timeout: float) -> list[tuple[Job, Event]]:
        """What has happened to running cells; waits up to `timeout` seconds for something to happen."""

    def close(self) -> None:
        """End all workers now; what they were running is lost."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        n_cells: cells of the grid.
        n_run: cells that this run recorded.
        n_failed: cells of the grid whose latest record is `failed`.
        n_elsewhere: cells that another run on the same store was running, and that have no record yet.
        interrupted: whether it was asked to stop before it was through.
    """

    n_cells: int
    n_run: int
    n_failed: int
    n_elsewhere: int = 0
    interrupted: bool = False


def missing_cells(prepared: Prepared, store: Store, *, retry_failed: bool = False) -> list[PlannedCell]:
    """Cells of the grid without a record that ends the matter, in the order to run them."""
    ids = [planned.cell.id for planned in prepared.cells]
    done = store.done(ids, prepared.device.name, retry_failed=retry_failed)
    return [planned for planned, id_ in zip(prepared.cells, ids, strict=True) if id_ not in done]


def run_cells(
    prepared: Prepared, store: Store, listener: Listener, workers: Workers, *, retry_failed: bool = False
) -> Outcome:
    """Run what is missing; each record is stored the moment its cell ends.

    Stopping at any moment, by whatever means, loses the running cells at most: run again to go on. The first Ctrl-C
    lets running cells finish, the second raises KeyboardInterrupt.

    Raises:
        HarnessError: a backbone that cannot be loaded, a store that cannot be written.
    """
    missing = missing_cells(prepared, store, retry_failed=retry_failed)
    listener.begin(len(prepared.cells), len(prepared.cells) - len(missing))
    if not missing:
        return Outcome(len(prepared.cells), 0, _count_failed(prepared, store))
    with (
        Claims(store, prepared.device.name, retry_failed=retry_failed) as claims,
        _Interrupts(listener) as interrupts,
    ):
        run = _Run(prepared, store, listener, workers, claims, deque(missing))
        try:
            # One clear refusal before anything is trained, and not a failed record a cell.
            refusals = workers.refusals(_backbones_of(missing, prepared))
            if refusals:
                raise UsageError("\n".join(refusals))
            while (run.pending and not interrupts.asked) or workers.n_running:
                while run.pending and workers.n_free and not interrupts.asked:
                    run.hand_out(run.pending.popleft())
                for job, event in workers.events(_POLL_SECONDS):
                    run.take(job, event)
        finally:
            workers.close()
    recorded = store.done(run.passed_over, prepared.device.name) if run.passed_over else set()
    return Outcome(
        len(prepared.cells),
        run.n_run,
        _count_failed(prepared, store),
        n_elsewhere=len(set(run.passed_over) - recorded),
        interrupted=interrupts.asked and bool(run.pending),
    )


@dataclass
class _Running:
    """A cell that has been handed out."""

    planned: PlannedCell
    started: float
    started_at: str
    n_deaths: int = 0


class _Run:
    """One run of a grid: what is pending, what is running, what becomes of it."""

    def __init__(
        self,
        prepared: Prepared,
        store: Store,
        listener: Listener,
        workers: Workers,
        claims: Claims,
        pending: deque[PlannedCell],
    ) -> None:
        self.pending = pending
        self.passed_over: list[str] = []
        self.n_run = 0
        self._prepared = prepared
        self._store = store
        self._listener = listener
        self._workers = workers
        self._claims = claims
        self._running: dict[str, _Running] = {}
        self._remaining = RemainingTime()

    def hand_out(self, planned: PlannedCell) -> None:
        """Claim a cell and start it, or record at once why it cannot run."""
        cell, prepared = planned.cell, self._prepared
        attempts = self._claims.claim([cell.id])
        if not attempts:
            self.passed_over.append(cell.id)  # another run on this store has done it meanwhile, or is doing it
            return
        job = Job(planned, prepared.backbones.get(cell.task), prepared.suite, attempts[cell.id])
        self._running[cell.id] = _Running(planned, time.perf_counter(), now())
        if planned.unsupported is not None:
            self._listener.cell_begins(planned)
            self._end(job, self._unrun(job, "unsupported", planned.unsupported))
            return
        self._workers.start(job, prepared.tasks[cell.task])

    def take(self, job: Job, event: Event) -> None:
        """Do what an event asks for."""
        if isinstance(event, Begun):  # what came before was the worker's start, not the cell
            self._running[job.id].started = time.perf_counter()
            self._listener.cell_begins(job.planned)
        elif isinstance(event, Progress):
            self._listener.cell_goes_on(event.doing, event.fraction, event.loss)
        elif isinstance(event, Done):
            self._end(job, event.record)
        elif isinstance(event, Cut):
            self._end(job, self._unrun(job, cast("Status", event.status), event.why))
        elif isinstance(event, Lost):
            self._bury(job, event)

    def _bury(self, job: Job, lost: Lost) -> None:
        said = f"\nIts last words:\n{lost.said}" if lost.said else ""
        if lost.of_memory:
            self._end(job, self._unrun(job, "out_of_memory", f"The kernel killed the worker for want of memory.{said}"))
            return
        running = self._running[job.id]
        running.n_deaths += 1
        if running.n_deaths < MOST_DEATHS:
            self._listener.remark(f"{job.planned.label()}: the worker {lost.how}; trying once more.")
            self._workers.start(job, self._prepared.tasks[job.planned.cell.task])
            return
        times = (
            f"{running.n_deaths} workers died over this cell; the last one" if running.n_deaths > 1 else "The worker"
        )
        self._end(job, self._unrun(job, "failed", f"{times} {lost.how}.{said}"))

    def _unrun(self, job: Job, status: Status, why: str) -> Record:
        return unrun(
            job.planned,
            self._prepared.tasks[job.planned.cell.task],
            job.files,
            job.suite,
            self._prepared.device,
            status,
            why,
            attempt=job.attempt,
            started_at=self._running[job.id].started_at,
        )

    def _end(self, job: Job, record: Record) -> None:
        running = self._running.pop(job.id)
        try:
            self._store.add(record, self._claims.owner)
        except DuplicateError:
            return  # the lease had ended unrenewed, on a machine that was asleep, say: what is stored first stays
        self.n_run += 1
        cell = job.planned.cell
        self._remaining.add(cell.task, cell.method, cell.n_train, time.perf_counter() - running.started)
        self._listener.cell_ends(record, self._remaining.estimate(_sizes(self.pending)))


class _Interrupts:
    """Ctrl-C once asks a run to end after the cells that are running; twice raises KeyboardInterrupt."""

    def __init__(self, listener: Listener) -> None:
        self.asked = False
        self._listener = listener
        self._before: Any = None

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, _: int, __: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._listener.remark("Stopping after the running cell; Ctrl-C again stops now.")


def _backbones_of(cells: Sequence[PlannedCell], prepared: Prepared) -> list[BackboneFiles]:
    used = {planned.cell.task for planned in cells if planned.cell.backbone and planned.unsupported is None}
    return list({prepared.backbones[task].fingerprint: prepared.backbones[task] for task in sorted(used)}.values())


def _sizes(cells: Sequence[PlannedCell] | deque[PlannedCell]) -> list[tuple[str, str, int]]:
    return [(planned.cell.task, planned.cell.method, planned.cell.n_train) for planned in cells]


def _count_failed(prepared: Prepared, store: Store) -> int:
    ids = {planned.cell.id for planned in prepared.cells}
    latest = store.latest(ids, prepared.device.name)
    return sum(record.status not in FINAL_STATUSES for record in latest.values())
