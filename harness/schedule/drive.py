"""Run the missing cells of a grid: claim, hand out, record. Only the driver writes the store."""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Protocol

from harness.backbones import BackboneFiles, ServedModel
from harness.cost import Estimator
from harness.measure import now
from harness.planning import PlannedCell
from harness.records import Record, Status, statuses_that_end
from harness.running import Job, unrun
from harness.schedule.forms import added_before, form_after, form_to_run, smaller_ids
from harness.schedule.messages import Begun, CellProgress, Done, Event, Lost, Stopped, Warned, Workers
from harness.schedule.pending import Claims, Pending
from harness.schedule.prepare import Prepared
from harness.store import Store
from harness.support import DuplicateError, UsageError

_MOST_DEATHS = 2
"""Number of workers that die over one cell before it counts as failed: the first death may be an accident."""

_POLL_SECONDS = 0.5


class Listener(Protocol):
    """Receiver of a run's progress."""

    def begin(self, n_cells: int, n_done: int) -> None:
        """Take note that the grid has `n_cells` cells, of which `n_done` need no run."""

    def cell_begins(self, planned: PlannedCell) -> None:
        """Take note that a cell starts."""

    def cell_goes_on(self, doing: str, fraction: float | None, loss: float | None) -> None:
        """Take note of the running cell's stage, the fraction of its budget that is spent, and its latest loss."""

    def cell_is_added(self) -> None:
        """Take note that the grid has one cell more."""

    def cell_ends(self, record: Record, seconds_left: float | None) -> None:
        """Take note of a cell's record, and of the expected seconds of the other cells; None if unknown."""

    def time_left(self, seconds: float | None) -> None:
        """Take note of the expected seconds until the last cell ends; None if unknown."""

    def remark(self, text: str) -> None:
        """Show a remark to the user; the run goes on."""


@dataclass(frozen=True)
class Policy:
    """Options of a run.

    Attributes:
        retry_failed: whether failed cells are run again.
        deadline: when the run must have ended, by `time.monotonic`; a cell that is running then is stopped and stays
            missing. None is never.
        halve_on_oom: whether a cell that ran out of memory is run again in the form that is expected to fit. That is
            another configuration, and so another cell.
        remeasure: whether cells that were disturbed while they were measured (`Record.unsteady`) are run again.
        price_per_hour: price of the device, for the records; None where it was not stated.
        inference: whether to measure the cost of using each fitted model, after the cell has its score.
        recorded: called with each record once it is stored; the run waits for it.
    """

    retry_failed: bool = False
    deadline: float | None = None
    halve_on_oom: bool = False
    remeasure: bool = False
    price_per_hour: float | None = None
    inference: bool = False
    recorded: Callable[[Record], None] | None = None


@dataclass(frozen=True)
class RunOutcome:
    """Result of a run.

    Attributes:
        ids: ids of the cells of the grid, and of those that were added to it.
        n_run: number of cells that this run recorded.
        n_failed: number of cells of the grid whose latest record is `failed`.
        n_elsewhere: number of cells without a record that another run on the same store was running.
        n_left: number of cells without a record that no run is running.
        interrupted: whether the user stopped it before its end.
        left_out: one message for each backbone that could not be loaded; its cells are no part of the counts.
        unreached: names of the backbones of which no cell has a record.
    """

    ids: frozenset[str]
    n_run: int
    n_failed: int
    n_elsewhere: int = 0
    n_left: int = 0
    interrupted: bool = False
    left_out: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()

    @property
    def n_cells(self) -> int:
        """Number of cells of the grid, with those that were added to it."""
        return len(self.ids)


def run_cells(
    prepared: Prepared, store: Store, listener: Listener, workers: Workers, policy: Policy | None = None
) -> RunOutcome:
    """Run the missing cells; each record is stored as soon as its cell ends.

    Stopping at any moment loses at most the running cells; another run goes on from there. The first Ctrl-C lets
    running cells finish, the second raises KeyboardInterrupt.

    A backbone that cannot be loaded is left out with its cells, if there are others.

    Raises:
        HarnessError: no backbone can be loaded, or the store cannot be written.
    """
    policy = policy or Policy()
    device = prepared.device.name
    statuses = store.statuses([planned.cell.id for planned in prepared.cells], device)
    estimator = Estimator(prepared.tasks, prepared.device)
    added = _added_before(prepared, store, statuses, estimator) if policy.halve_on_oom else []
    cells = [*prepared.cells, *added]
    accepted = statuses_that_end(retry_failed=policy.retry_failed)
    again = _disturbed(store, [planned.cell.id for planned in cells], device) if policy.remeasure else frozenset()
    missing = [p for p in cells if p.cell.id in again or statuses.get(p.cell.id) not in accepted]
    try:
        refused = _refused(workers, _backbones_of(missing), cells)
    except BaseException:
        workers.close()
        raise
    for why in refused.values():
        listener.remark(f"Left out: {why}")
    cells, missing = ([p for p in some if p.cell.weights not in refused] for some in (cells, missing))
    listener.begin(len(cells), len(cells) - len(missing))
    ids = [planned.cell.id for planned in cells]
    left_out = tuple(refused.values())
    if not missing:
        n_failed = _count((statuses[id_] for id_ in ids if id_ in statuses), "failed")
        return RunOutcome(frozenset(ids), 0, n_failed, left_out=left_out)
    known = [id_ for id_ in ids if statuses.get(id_) == "ok"]
    planned_by_id = {planned.cell.id: planned for planned in cells}
    estimator.add_records(store.records(ids=known, device=device), planned_by_id)
    with (
        Claims(store, device, retry_failed=policy.retry_failed, again=again) as claims,
        _Interrupts(listener.remark) as interrupts,
    ):
        pending = Pending(missing, estimator, policy.deadline, n_at_a_time=max(1, workers.n_free))
        run = _Run(prepared, store, listener, workers, policy, claims, pending, estimator)
        try:
            run.go_on(interrupts)
        finally:
            workers.close()
    ids += run.added
    statuses = store.statuses(ids, device)
    n_without = len(ids) - len(statuses)
    n_elsewhere = len(set(run.passed_over) - statuses.keys())
    return RunOutcome(
        frozenset(ids),
        run.n_run,
        _count(statuses.values(), "failed"),
        n_elsewhere=n_elsewhere,
        n_left=n_without - n_elsewhere,
        interrupted=interrupts.asked and n_without > n_elsewhere,
        left_out=left_out,
        unreached=_unreached(cells, statuses),
    )


def _refused(workers: Workers, backbones: Sequence[BackboneFiles], cells: Sequence[PlannedCell]) -> dict[str, str]:
    """Return why backbones cannot be loaded, by their fingerprints: one clear refusal before anything is trained.

    Raises:
        UsageError: no cell of the grid has another backbone.
    """
    refused: dict[str, str] = {}
    while backbones and (more := workers.refusals(backbones)):
        refused |= more
        backbones = [files for files in backbones if files.fingerprint not in refused]
    if refused and all(planned.cell.weights in refused for planned in cells if planned.files is not None):
        raise UsageError("\n".join(refused.values()))
    return refused


def _unreached(cells: Sequence[PlannedCell], statuses: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the backbones of which no cell has a record, where the grid has several."""
    reached: dict[str, bool] = {}
    for planned in cells:
        if planned.backbone_label is not None:
            has_record = reached.get(planned.backbone_label, False) or planned.cell.id in statuses
            reached[planned.backbone_label] = has_record
    return tuple(name for name, has_record in reached.items() if not has_record)


class _Interrupts:
    """Handling of Ctrl-C: the first sets `asked`, and running cells may finish; the second raises KeyboardInterrupt.

    Args:
        remark: called with a remark when the first one comes.
    """

    def __init__(self, remark: Callable[[str], None]) -> None:
        self.asked = False
        self._remark = remark
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
        self._remark("Stopping after the running cell; Ctrl-C again stops now.")


@dataclass
class _Running:
    """A cell that a worker runs: when it started, and how many workers have died over it."""

    started_at: str
    n_deaths: int = 0


@dataclass
class _Run:
    """One run of a grid: its pending and running cells, and those that are done.

    Attributes:
        passed_over: cells that another run has claimed.
        added: cells with smaller pieces that were added for those that ran out of memory.
        n_run: number of cells that were recorded.
    """

    _prepared: Prepared
    _store: Store
    _listener: Listener
    _workers: Workers
    _policy: Policy
    _claims: Claims
    _pending: Pending
    _estimator: Estimator
    _running: dict[str, _Running] = field(default_factory=dict)
    _halved: dict[str, str] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    n_run: int = 0

    def go_on(self, interrupts: _Interrupts) -> None:
        """Hand out cells and record their results until none are left, time is up, or the user asks to stop."""
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
                # Cells that cannot run are recorded at once, so nothing running means nothing to wait for.
                return
            for job, event in self._workers.events(min(_POLL_SECONDS, left)):
                self.take(job, event)

    def hand_out(self, planned: PlannedCell) -> None:
        """Claim a cell and start it, or record at once why it cannot run."""
        cell, prepared = planned.cell, self._prepared
        attempts = self._claims.claim([cell.id])
        if not attempts:
            self.passed_over.append(cell.id)  # another run on this store has done it or is doing it
            return
        planned = form_to_run(planned, self._estimator)
        inference = self._policy.inference
        job = Job(planned, planned.files, prepared.suite, attempts[cell.id], inference=inference)
        self._running[cell.id] = _Running(now())
        if planned.unsupported is not None:
            self._listener.cell_begins(planned)
            self._end(job, self._unrun(job, "unsupported", planned.unsupported))
            return
        self._workers.start(job, prepared.tasks[cell.task])

    def take(self, job: Job, event: Event) -> None:
        """React to an event of a running cell."""
        if isinstance(event, Begun):
            self._pending.begins(job.planned)
            self._listener.cell_begins(job.planned)
            self._listener.time_left(self._pending.seconds_left())
        elif isinstance(event, Warned):
            self._listener.remark(f"{job.planned.label()}: {event.text}")
        elif isinstance(event, CellProgress):
            self._pending.pace.goes_on(job.id, event.fraction)
            self._listener.cell_goes_on(event.doing, event.fraction, event.loss)
            self._listener.time_left(self._pending.seconds_left())
        elif isinstance(event, Done):
            self._end(job, event.record)
        elif isinstance(event, Stopped):
            self._end(job, self._unrun(job, event.status, event.why))
        elif isinstance(event, Lost):
            self._bury(job, event)

    def _bury(self, job: Job, lost: Lost) -> None:
        said = f"\nLast output:\n{lost.said}" if lost.said else ""
        if lost.of_memory:
            why = "The kernel killed the worker because memory was short."
            self._end(job, self._unrun(job, "out_of_memory", why + said))
            return
        running = self._running[job.id]
        running.n_deaths += 1
        if running.n_deaths < _MOST_DEATHS:
            self._listener.remark(f"{job.planned.label()}: the worker {lost.how}; trying once more.")
            self._workers.start(job, self._prepared.tasks[job.planned.cell.task])
            return
        times = (
            f"{running.n_deaths} workers died over this cell; the last one" if running.n_deaths > 1 else "The worker"
        )
        self._end(job, self._unrun(job, "failed", f"{times} {lost.how}.{said}"))

    def _unrun(self, job: Job, status: Status, why: str) -> Record:
        task, device = self._prepared.tasks[job.planned.cell.task], self._prepared.device
        return unrun(job, task, device, status, why, started_at=self._running[job.id].started_at)

    def _end(self, job: Job, record: Record) -> None:
        del self._running[job.id]
        self._pending.pace.ends(job.id)
        if job.id in self._halved:
            noted = dataclasses.replace(record.facts, on_oom=self._halved.pop(job.id))
            record = dataclasses.replace(record, facts=noted)
        if self._policy.price_per_hour is not None:
            priced = dataclasses.replace(record.provenance, price_per_hour=self._policy.price_per_hour)
            record = dataclasses.replace(record, provenance=priced)
        try:
            self._store.add(record, self._claims.owner)
        except DuplicateError:
            return  # the claim had expired, say on a machine that was asleep: the first record stays
        self.n_run += 1
        if self._policy.recorded is not None:
            self._policy.recorded(record)
        self._estimator.add(record, job.planned)
        if record.status == "out_of_memory" and self._policy.halve_on_oom:
            self._halve(job.planned, record)
        left = self._pending.seconds_left()
        self._listener.cell_ends(record, left or None)
        self._listener.time_left(left)

    def _halve(self, planned: PlannedCell, record: Record) -> None:
        """Run a cell that ran out of memory again in smaller pieces, if its method can."""
        again = form_after(planned, record, self._estimator)
        if again is None or self._store.done([again.cell.id], self._prepared.device.name):
            return
        settings = _pieces(planned), _pieces(again)
        self._halved[again.cell.id] = f"{settings[1]}, after {settings[0]} ran out of memory"
        self._listener.remark(f"{planned.label()}: ran out of memory; again with {settings[1]}.")
        self._listener.cell_is_added()
        self.added.append(again.cell.id)
        self._pending.put_first(again)


def _pieces(planned: PlannedCell) -> str:
    config = planned.method.config()
    again = " and gradient_checkpointing" if config.get("gradient_checkpointing") else ""
    return f"batch_size={config['batch_size']} in accumulation={config['accumulation']}{again}"


def _added_before(
    prepared: Prepared, store: Store, statuses: dict[str, str], estimator: Estimator
) -> list[PlannedCell]:
    """Return the cells in smaller forms for those that ran out of memory before; add their statuses to `statuses`.

    They are the forms that earlier runs added, and the next one where the smallest of these ran out too.
    """
    device, ids = prepared.device.name, {planned.cell.id for planned in prepared.cells}
    waiting = [planned for planned in prepared.cells if statuses.get(planned.cell.id) == "out_of_memory"]
    statuses.update(store.statuses(smaller_ids(waiting), device))
    found: list[PlannedCell] = []
    for planned in waiting:
        tried = added_before(planned, statuses)
        last = tried[-1] if tried else planned
        if statuses[last.cell.id] == "out_of_memory":
            (record,) = list(store.records(ids=[last.cell.id], device=device))[-1:]
            again = form_after(last, record, estimator)
            tried += [] if again is None else [again]
        found += [form for form in tried if form.cell.id not in ids]
        ids.update(form.cell.id for form in tried)
    return found


def _disturbed(store: Store, ids: Sequence[str], device: str) -> frozenset[str]:
    """Return the cells whose latest record says that something disturbed the machine."""
    return frozenset(record.id for record in store.records(ids=ids, device=device) if record.unsteady is not None)


def _count(statuses: Iterable[str], status: str) -> int:
    return sum(found == status for found in statuses)


def _backbones_of(cells: Sequence[PlannedCell]) -> list[BackboneFiles]:
    """Return the local backbones that cells will run on, each once, in the order of the cells."""
    used = {one.files.fingerprint: one.files for one in cells if one.files is not None and one.unsupported is None}
    return [files for files in used.values() if not isinstance(files, ServedModel)]
