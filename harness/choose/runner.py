"""Run one cell after another on a warm worker, record each, and stop one that would miss the deadline."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from harness.backbones import BackboneFiles
from harness.cost import LIGHT_STEP_SECONDS, Estimate, Estimator
from harness.data import Size
from harness.methods import Method
from harness.planning import PlannedCell, plan_cells
from harness.records import Budget, Record
from harness.running import unrun
from harness.schedule import Claims, Cut, Done, Executor, Job, Lost
from harness.store import Store
from harness.support import DuplicateError
from harness.tasks import Task

SUITE: Final = "choose"
"""Label of the records."""

_POLL_SECONDS = 0.2


class Runner:
    """Cells of one user's data on one device.

    Args:
        workers: with one free.
        store: where records go.
        claims: of this process on the store.
        tasks: by name.
        files: the backbone; None where there is none.
    """

    def __init__(
        self, workers: Executor, store: Store, claims: Claims, tasks: Mapping[str, Task], files: BackboneFiles | None
    ) -> None:
        self._workers = workers
        self._store = store
        self._claims = claims
        self._files = files
        self.device = workers.device
        backbones = {} if files is None else dict.fromkeys(tasks, files)
        self._estimator = Estimator(tasks, backbones, self.device)

    def plan(self, task: Task, method: Method, n_train: int | None = None, budget: Budget | None = None) -> PlannedCell:
        """A cell on `n_train` rows of a task (None is all) with seed 0."""
        (planned,) = plan_cells(
            tasks=[task],
            backbones={} if self._files is None else {task.name: self._files},
            methods=[method],
            sizes=[Size(n_train)],
            seeds=[0],
            budgets=[budget or Budget()],
            device=self.device.kind,
        )
        return planned

    def estimate(self, planned: PlannedCell) -> Estimate:
        """What it is expected to take, by all that has run so far."""
        return self._estimator.estimate(planned)

    def light_seconds(self, planned: PlannedCell) -> float:
        """What the steps of a small network on frozen features are expected to take; 0 where there are none."""
        return self._estimator.amount(planned).light_steps * LIGHT_STEP_SECONDS

    def run(self, planned: PlannedCell, task: Task, until: float, save_to: Path | None = None) -> Record | None:
        """The record of a cell; None where time was up (`time.monotonic`) before it had ended.

        A cell that was recorded before is not run again, unless its fitted method is to be saved.
        """
        id_, device = planned.cell.id, self.device.name
        attempts = self._claims.claim([id_])
        is_recorded = not attempts and self._store.statuses([id_], device).get(id_) == "ok"
        if is_recorded and save_to is None:
            return self._remember(next(iter(self._store.records(ids=[id_], device=device))), planned)
        attempt = attempts.get(id_) or self._store.next_attempt(id_, device)
        files = self._files if planned.cell.backbone is not None else None
        job = Job(planned, files, SUITE, attempt, save_to, hurried=True)
        self._workers.start(job, task)
        while (left := until - time.monotonic()) > 0:
            for _, event in self._workers.events(min(_POLL_SECONDS, left)):
                if isinstance(event, Done):
                    return self._keep(event.record, planned, store=not is_recorded)
                if isinstance(event, Lost):
                    status, why = "out_of_memory" if event.of_memory else "failed", f"The worker {event.how}."
                elif isinstance(event, Cut):
                    status, why = event.status, event.why
                else:
                    continue
                record = unrun(planned, task, files, SUITE, self.device, status, why, attempt=attempt)  # type: ignore[arg-type]
                return self._keep(record, planned, store=not is_recorded)
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
