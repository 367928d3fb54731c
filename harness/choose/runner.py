"""Run one cell after another on a warm worker, record each, and stop one that would miss the deadline."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from harness.backbones import BackboneFiles
from harness.cost import LIGHT_STEP_SECONDS, Estimate, Estimator
from harness.data import Size
from harness.methods import Method, Rung
from harness.planning import PlannedCell, plan_cells
from harness.records import Budget, Record, Status
from harness.running import HALVING, Job, unrun
from harness.schedule import AtRung, Claims, Done, Executor, Lost, Stopped
from harness.store import Store
from harness.support import DuplicateError
from harness.tasks import Task

_POLL_SECONDS = 0.2

RUNGS: Final = (1 / HALVING**2, 1 / HALVING)
"""Shares of a fit's steps at which it is scored."""


def answers_of(folder: Path, cell: str) -> Path:
    """Return the file of the class probabilities of a cell's test rows in a folder."""
    return folder / f"{cell}.npy"


class Runs(Protocol):
    """Plans, estimates and runs the cells of a search: for real (`Runner`), or from recorded fits."""

    def now(self) -> float:
        """Return the time on the search's clock, in seconds."""

    def plan(
        self,
        task: Task,
        method: Method,
        n_train: int | None = None,
        budget: Budget | None = None,
        *,
        files: BackboneFiles | None = None,
    ) -> PlannedCell:
        """Return a cell on `n_train` rows of a task (None is all) with seed 0, on a backbone if the method uses one."""

    def estimate(self, planned: PlannedCell) -> Estimate:
        """Return the expected cost of a cell, from all that has run so far."""

    def light_seconds(self, planned: PlannedCell) -> float:
        """Return the expected seconds of the steps of a small network on frozen features; 0 where there are none."""

    def run(
        self,
        planned: PlannedCell,
        task: Task,
        until: float,
        save_to: Path | None = None,
        *,
        must_save: bool = True,
        is_kept: bool = True,
        at_rung: Callable[[Rung], bool] | None = None,
    ) -> Record | None:
        """Run a cell and return its record; None where it had not ended by `until` on the search's clock.

        Args:
            planned: the cell, as `plan` made it.
            task: its task.
            until: time after which it is stopped.
            save_to: folder for the fitted model; None saves none.
            must_save: whether a cell with a record is run again to have its model; if not, the folder may be missing.
            is_kept: whether the record is kept; its score says nothing where test rows were trained on.
            at_rung: called with the score on the test rows at each share of `RUNGS` of the steps of a fit inside the
                transformer. Returns whether the fit goes on; one that does not ends with the status `out_of_time`.
                None scores no rung.
        """


class Runner:
    """Runs the cells of one user's data on one device.

    Args:
        workers: workers, of which one is free.
        store: where records go.
        claims: claims of this process on the store.
        tasks: tasks by name.
        files: the backbones.
        suite: label of the records.

    Attributes:
        answers: folder for the class probabilities of the test rows of each cell, in a file that `answers_of` names;
            None keeps none.
    """

    def __init__(
        self,
        workers: Executor,
        store: Store,
        claims: Claims,
        tasks: Mapping[str, Task],
        files: Sequence[BackboneFiles] = (),
        suite: str = "choose",
    ) -> None:
        self._workers = workers
        self._store = store
        self._suite = suite
        self._claims = claims
        self._files = {one.fingerprint: one for one in files}
        self.device = workers.device
        self._estimator = Estimator(tasks, self.device)
        self.answers: Path | None = None

    def now(self) -> float:
        """Return the time by `time.monotonic`."""
        return time.monotonic()

    def plan(
        self,
        task: Task,
        method: Method,
        n_train: int | None = None,
        budget: Budget | None = None,
        *,
        files: BackboneFiles | None = None,
    ) -> PlannedCell:
        """Return a cell on `n_train` rows of a task (None is all) with seed 0, on a backbone if the method uses one."""
        (planned,) = plan_cells(
            tasks=[task],
            backbones={} if files is None else {task.name: (files,)},
            methods=[method],
            sizes=[Size(n_train)],
            seeds=[0],
            budgets=[budget or Budget()],
            device=self.device.kind,
        )
        return planned

    def estimate(self, planned: PlannedCell) -> Estimate:
        """Return the expected cost of a cell, from all that has run so far."""
        return self._estimator.estimate(planned)

    def light_seconds(self, planned: PlannedCell) -> float:
        """Return the expected seconds of the steps of a small network on frozen features; 0 where there are none."""
        return self._estimator.amount(planned).light_steps * LIGHT_STEP_SECONDS

    def run(
        self,
        planned: PlannedCell,
        task: Task,
        until: float,
        save_to: Path | None = None,
        *,
        must_save: bool = True,
        is_kept: bool = True,
        at_rung: Callable[[Rung], bool] | None = None,
    ) -> Record | None:
        """Run a cell and return its record; None where it had not ended by `until` (`time.monotonic`).

        A cell that was recorded before is not run again, unless its fitted method must be saved to a folder. A fit that
        is dropped at a rung is not recorded.
        """
        id_, device = planned.cell.id, self.device.name
        if not is_kept:
            return self._finish(planned, task, until, save_to, None, attempt=1, store=False)
        attempts = self._claims.claim([id_])
        is_recorded = not attempts and self._store.statuses([id_], device).get(id_) == "ok"
        if is_recorded and (save_to is None or not must_save):
            return self._remember(next(iter(self._store.records(ids=[id_], device=device))), planned)
        attempt = attempts.get(id_) or self._store.next_attempt(id_, device)
        return self._finish(planned, task, until, save_to, at_rung, attempt=attempt, store=not is_recorded)

    def _finish(
        self,
        planned: PlannedCell,
        task: Task,
        until: float,
        save_to: Path | None,
        at_rung: Callable[[Rung], bool] | None,
        *,
        attempt: int,
        store: bool,
    ) -> Record | None:
        """Run a cell on a worker, and return its record; None where it had not ended in time."""
        files = None if planned.cell.weights is None else self._files[planned.cell.weights]
        rungs = () if at_rung is None else RUNGS
        answers = None if self.answers is None else answers_of(self.answers, planned.cell.id)
        job = Job(planned, files, self._suite, attempt, save_to, answers_to=answers, hurried=True, rungs=rungs)
        is_dropped = False
        self._workers.start(job, task)
        while (left := until - self.now()) > 0:
            for _, event in self._workers.events(min(_POLL_SECONDS, left)):
                if isinstance(event, AtRung) and at_rung is not None:
                    is_dropped = not at_rung(event.rung)
                    self._workers.decide(job, goes_on=not is_dropped)
                    continue
                if isinstance(event, Done) and is_dropped:
                    self._store.release(self._claims.owner)  # a fit that nobody saw to its end is no result
                    return event.record
                if isinstance(event, Done):
                    return self._keep(event.record, planned, store=store)
                if isinstance(event, Lost):
                    status: Status = "out_of_memory" if event.of_memory else "failed"
                    record = unrun(job, task, self.device, status, f"The worker {event.how}.")
                elif isinstance(event, Stopped):
                    record = unrun(job, task, self.device, event.status, event.why)
                else:
                    continue
                return self._keep(record, planned, store=store)
        self._workers.close()  # the next cell starts another
        self._store.release(self._claims.owner)
        return None

    def _keep(self, record: Record, planned: PlannedCell, *, store: bool) -> Record:
        record = dataclasses.replace(record, facts=dataclasses.replace(record.facts, is_evidence=False))
        if store:
            with contextlib.suppress(DuplicateError):  # another run was quicker
                self._store.add(record, self._claims.owner)
        return self._remember(record, planned)

    def _remember(self, record: Record, planned: PlannedCell) -> Record:
        self._estimator.add(record, planned)
        return record
