"""Run the missing cells of a grid: claim, hand out, record. The driver alone writes the store."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, cast

from harness.backbones import BackboneFiles
from harness.cost import Estimator, halved
from harness.measure import Device, now
from harness.planning import PlannedCell
from harness.records import Record, Status, statuses_that_end
from harness.running import unrun
from harness.schedule.claiming import Claims
from harness.schedule.interrupts import Interrupts
from harness.schedule.job import Begun, Cut, Done, Event, Job, Lost, Progress, Warned
from harness.schedule.pending import Pending
from harness.schedule.prepare import Prepared
from harness.store import Store
from harness.support import DuplicateError, UsageError
from harness.tasks import Task

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

    def cell_is_added(self) -> None:
        """The grid has one cell more."""

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


class Executor(Workers, Protocol):
    """Workers as a command has them: started ahead of the first cell, and ended with it.

    Attributes:
        remarks: what the user should know of machines that are not used.
    """

    remarks: list[str]

    @property
    def device(self) -> Device:
        """Where cells run; starts the workers, and waits for one."""

    def warm_up(self) -> None:
        """Start the workers now: they import what they need while the driver gets ready."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True)
class Policy:
    """How a run goes about its cells.

    Attributes:
        retry_failed: whether cells that have failed are run again.
        deadline: when the run must have ended, by `time.monotonic`; a cell that is running then is stopped, and is
            missing like those that were not begun. None is never.
        halve_on_oom: whether a cell that ran out of memory is run again in half of it: the same steps in twice as many
            pieces, which is a configuration, and so a cell, of its own.
        remeasure: whether cells that were disturbed while they were measured (`Record.unsteady`) are run again.
        price_per_hour: of the device, for the records; None where it was not stated.
    """

    retry_failed: bool = False
    deadline: float | None = None
    halve_on_oom: bool = False
    remeasure: bool = False
    price_per_hour: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        ids: of the cells of the grid, and of those that were added to it.
        n_run: cells that this run recorded.
        n_failed: cells of the grid whose latest record is `failed`.
        n_elsewhere: cells that another run on the same store was running, and that have no record yet.
        n_left: cells that are still to be run, by nobody now.
        interrupted: whether it was asked to stop before it was through.
    """

    ids: frozenset[str]
    n_run: int
    n_failed: int
    n_elsewhere: int = 0
    n_left: int = 0
    interrupted: bool = False

    @property
    def n_cells(self) -> int:
        """Cells of the grid, those that were added to it included."""
        return len(self.ids)


def run_cells(
    prepared: Prepared, store: Store, listener: Listener, workers: Workers, policy: Policy | None = None
) -> Outcome:
    """Run what is missing; each record is stored the moment its cell ends.

    Stopping at any moment, by whatever means, loses the running cells at most: run again to go on. The first Ctrl-C
    lets running cells finish, the second raises KeyboardInterrupt.

    Raises:
        HarnessError: a backbone that cannot be loaded, a store that cannot be written.
    """
    policy = policy or Policy()
    device = prepared.device.name
    statuses = store.statuses([planned.cell.id for planned in prepared.cells], device)
    added = _halved_before(prepared, store, statuses) if policy.halve_on_oom else []
    cells = [*prepared.cells, *added]
    accepted = statuses_that_end(retry_failed=policy.retry_failed)
    again = _disturbed(store, [planned.cell.id for planned in cells], device) if policy.remeasure else frozenset()
    missing = [p for p in cells if p.cell.id in again or statuses.get(p.cell.id) not in accepted]
    listener.begin(len(cells), len(cells) - len(missing))
    ids = [planned.cell.id for planned in cells]
    if not missing:
        return Outcome(frozenset(ids), 0, _count(statuses.values(), "failed"))
    estimator = Estimator(prepared.tasks, prepared.backbones, prepared.device)
    if policy.deadline is not None:  # what is expected of a cell decides whether it is begun
        known = [id_ for id_ in ids if statuses.get(id_) == "ok"]
        planned_by_id = {planned.cell.id: planned for planned in cells}
        estimator.add_records(store.records(ids=known, device=device), planned_by_id)
    with (
        Claims(store, device, retry_failed=policy.retry_failed, again=again) as claims,
        Interrupts(listener.remark) as interrupts,
    ):
        pending = Pending(missing, estimator, policy.deadline)
        run = _Run(prepared, store, listener, workers, claims, pending, estimator, policy)
        try:
            # One clear refusal before anything is trained, and not a failed record a cell.
            refusals = workers.refusals(_backbones_of(missing, prepared))
            if refusals:
                raise UsageError("\n".join(refusals))
            run.go_on(interrupts)
        finally:
            workers.close()
    ids += run.added
    statuses = store.statuses(ids, device)
    n_without = len(ids) - len(statuses)
    n_elsewhere = len(set(run.passed_over) - statuses.keys())
    return Outcome(
        frozenset(ids),
        run.n_run,
        _count(statuses.values(), "failed"),
        n_elsewhere=n_elsewhere,
        n_left=n_without - n_elsewhere,
        interrupted=interrupts.asked and n_without > n_elsewhere,
    )


@dataclass
class _Running:
    """A cell that has been handed out."""

    planned: PlannedCell
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
        pending: Pending,
        estimator: Estimator,
        policy: Policy,
    ) -> None:
        self.passed_over: list[str] = []
        self.added: list[str] = []
        self.n_run = 0
        self._pending = pending
        self._estimator = estimator
        self._policy = policy
        self._prepared = prepared
        self._store = store
        self._listener = listener
        self._workers = workers
        self._claims = claims
        self._running: dict[str, _Running] = {}
        self._halved: dict[str, str] = {}

    def go_on(self, interrupts: Interrupts) -> None:
        """Hand out cells and take what comes of them, until there are none, time is up, or the user asks to stop."""
        while True:
            left = math.inf if self._policy.deadline is None else self._policy.deadline - time.monotonic()
            if left <= 0:
                return
            while self._workers.n_free and not interrupts.asked:
                planned = self._pending.take()
                if planned is None:
                    break
                self.hand_out(planned)
            if not self._workers.n_running:
                # Cells that cannot run come to their records at once; nothing running then means nothing to wait for.
                return
            for job, event in self._workers.events(min(_POLL_SECONDS, left)):
                self.take(job, event)

    def hand_out(self, planned: PlannedCell) -> None:
        """Claim a cell and start it, or record at once why it cannot run."""
        cell, prepared = planned.cell, self._prepared
        attempts = self._claims.claim([cell.id])
        if not attempts:
            self.passed_over.append(cell.id)  # another run on this store has done it meanwhile, or is doing it
            return
        job = Job(planned, prepared.backbones.get(cell.task), prepared.suite, attempts[cell.id])
        self._running[cell.id] = _Running(planned, now())
        if planned.unsupported is not None:
            self._listener.cell_begins(planned)
            self._end(job, self._unrun(job, "unsupported", planned.unsupported))
            return
        self._workers.start(job, prepared.tasks[cell.task])

    def take(self, job: Job, event: Event) -> None:
        """Do what an event asks for."""
        if isinstance(event, Begun):
            self._listener.cell_begins(job.planned)
        elif isinstance(event, Warned):
            self._listener.remark(f"{job.planned.label()}: {event.text}")
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
        del self._running[job.id]
        if job.id in self._halved:
            noted = dataclasses.replace(record.facts, on_oom=self._halved.pop(job.id))
            record = dataclasses.replace(record, facts=noted)
        if self._policy.price_per_hour is not None:
            priced = dataclasses.replace(record.provenance, price_per_hour=self._policy.price_per_hour)
            record = dataclasses.replace(record, provenance=priced)
        try:
            self._store.add(record, self._claims.owner)
        except DuplicateError:
            return  # the lease had ended unrenewed, on a machine that was asleep, say: what is stored first stays
        self.n_run += 1
        self._estimator.add(record, job.planned)
        if record.status == "out_of_memory" and self._policy.halve_on_oom:
            self._halve(job.planned)
        self._listener.cell_ends(record, self._pending.seconds_left())

    def _halve(self, planned: PlannedCell) -> None:
        """Have a cell that ran out of memory run again in less, where its method can."""
        again = halved(planned)
        if again is None or self._store.done([again.cell.id], self._prepared.device.name):
            return
        settings = _pieces(planned), _pieces(again)
        self._halved[again.cell.id] = f"{settings[1]}, after {settings[0]} ran out of memory"
        self._listener.remark(f"{planned.label()}: ran out of memory; again with {settings[1]}.")
        self._listener.cell_is_added()
        self.added.append(again.cell.id)
        self._pending.put_first(again)


def _pieces(planned: PlannedCell) -> str:
    config = planned.cell.config
    again = " and gradient_checkpointing" if config.get("gradient_checkpointing") else ""
    return f"batch_size={config['batch_size']} in accumulation={config['accumulation']}{again}"


def _halved_before(prepared: Prepared, store: Store, statuses: dict[str, str]) -> list[PlannedCell]:
    """Cells that stand for those that have run out of memory before, added to the grid; `statuses` gets theirs."""
    found: list[PlannedCell] = []
    waiting = [planned for planned in prepared.cells if statuses.get(planned.cell.id) == "out_of_memory"]
    ids = {planned.cell.id for planned in prepared.cells}
    while waiting:
        smaller = [again for planned in waiting if (again := halved(planned)) is not None and again.cell.id not in ids]
        ids.update(again.cell.id for again in smaller)
        statuses.update(store.statuses([again.cell.id for again in smaller], prepared.device.name))
        found += smaller
        waiting = [again for again in smaller if statuses.get(again.cell.id) == "out_of_memory"]
    return found


def _disturbed(store: Store, ids: Sequence[str], device: str) -> frozenset[str]:
    """Cells whose latest record says that something disturbed the machine."""
    return frozenset(record.id for record in store.records(ids=ids, device=device) if record.unsteady is not None)


def _count(statuses: Iterable[str], status: str) -> int:
    return sum(found == status for found in statuses)


def _backbones_of(cells: Sequence[PlannedCell], prepared: Prepared) -> list[BackboneFiles]:
    used = {planned.cell.task for planned in cells if planned.cell.backbone and planned.unsupported is None}
    return list({prepared.backbones[task].fingerprint: prepared.backbones[task] for task in sorted(used)}.values())
