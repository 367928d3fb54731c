"""One attempt to run a cell: what is known while it runs, and the record that comes of it."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.measure import TRAIN_PHASES, Device, Failures, Meters, PhaseClock, is_in_long_step, n_signs, provenance_of
from harness.methods import FineTuning, Fitted, Ledger, Method, methods
from harness.metrics import metrics
from harness.planning import PlannedCell
from harness.records import (
    ROLES,
    Cell,
    Cost,
    Facts,
    FitLength,
    Forgetting,
    Predictions,
    Record,
    Role,
    Score,
    Status,
    Workload,
)
from harness.running.watch import Activity, Standing
from harness.tasks import Task, kinds

if TYPE_CHECKING:
    from harness.backbones import BackboneFiles
    from harness.saved import BothForms

_MOST_STILL = 0.05
"""Share of a cell's seconds that its process may stand still before the cell counts as unsteady."""


AFTER_THE_SCORE = {
    "scoring training rows": "train_score",
    "measuring forgetting": "forgetting",
    "measuring inference": "inference",
}
"""Stages that run the fitted model once the cell has its score, and so may hang, with the figure that each measures."""


@dataclass(frozen=True)
class Job:
    """One cell to run.

    Attributes:
        planned: the cell and its method.
        files: its backbone; None for methods that use none.
        suite: label of the record.
        attempt: number of the attempt at this cell, from 1.
        save_to: folder for the fitted method (`saved.write_model`); None keeps its record only.
        answers_to: file for the class probabilities of the test rows, shape (rows, classes), float32 (`numpy.save`);
            None keeps the predicted classes only.
        inference: whether to measure the cost of using the fitted model.
        hurried: whether to skip measurements that are not part of any cost: the training score, forgetting, counts of
            operations, and the rate that utilisation is measured against.
        rungs: shares of a fit's steps at which it is scored on the test rows, and may be dropped.
    """

    planned: PlannedCell
    files: BackboneFiles | None
    suite: str
    attempt: int = 1
    save_to: Path | None = None
    answers_to: Path | None = None
    inference: bool = False
    hurried: bool = False
    rungs: tuple[float, ...] = ()

    @property
    def id(self) -> str:
        """The cell's identity."""
        return self.planned.cell.id

    @property
    def key(self) -> tuple[str, int]:
        """The cell's identity and the number of the attempt: a late message may be about the one before."""
        return self.id, self.attempt


@dataclass
class Attempt:
    """A cell while it runs.

    Attributes:
        job: the cell, and how it is run.
        task: its task.
        began: when it began, by `time.perf_counter`; None where it never ran.
        doing: the stage: `loading`, `fitting`, `predicting`, `scoring`, `scoring training rows`,
            `measuring forgetting`, `measuring inference`, `measuring`.
        used: cost of using the fitted model; None where it was not measured.
        inference_seconds: seconds of measuring that cost, which are no part of the cell's.
        still_seconds: seconds that its process stood still, stopped or starved.
        still_train_seconds: the same while seconds were counted against the budget.
        failures: measurements that failed, beside those of the clock and the meters.
        left_behind: what the method had not ended when it returned; None for nothing.
    """

    job: Job
    task: Task
    started_at: str
    began: float | None = None
    doing: str = "loading"
    clock: PhaseClock = field(default_factory=PhaseClock)
    meters: Meters = field(default_factory=Meters)
    matrix_rate: float | None = None
    ledger: Ledger = field(default_factory=Ledger)
    cost: Cost = field(default_factory=Cost)
    score: Score | None = None
    train_score: float | None = None
    forgetting: Forgetting | None = None
    predictions: Predictions | None = None
    error: str | None = None
    unsteady: str | None = None
    used: BothForms | None = None
    inference_seconds: float = 0.0
    still_seconds: float = 0.0
    still_train_seconds: float = 0.0
    failures: Failures = field(default_factory=Failures)
    left_behind: str | None = None

    @property
    def measured(self) -> str:
        """The figure that the present stage behind the score measures."""
        return AFTER_THE_SCORE.get(self.doing, "train_score")

    @property
    def uses_backbone(self) -> bool:
        """Whether the cell's method uses a backbone."""
        return self.job.planned.cell.backbone is not None

    def standing(self) -> Standing:
        """Return where the cell stands; for another thread to ask."""
        seconds, phase = self.clock.standing()
        activity: Activity = "watched"
        if phase in TRAIN_PHASES:
            activity = "counted"
        elif self.doing in ("fitting", "predicting"):
            if phase in ("load", "warmup", "measure") or is_in_long_step():
                activity = "exempt"
        elif self.doing not in AFTER_THE_SCORE or is_in_long_step():
            activity = "exempt"
        counted = max(0.0, seconds - self.still_train_seconds)
        return Standing(self.doing, activity, counted, n_signs(), self.job.key)

    def stood_still(self, seconds: float) -> None:
        """Take in that the process did not run for a while: nobody's method took that long."""
        if seconds > 0:
            self.still_seconds += seconds
            if self.standing().activity == "counted":
                self.still_train_seconds += seconds

    def judge_steadiness(self) -> None:
        """Keep what disturbed the cell, if anything did."""
        wall = 0.0 if self.began is None else time.perf_counter() - self.began
        if self.still_seconds > _MOST_STILL * wall:
            self.unsteady = f"its process stood still for {self.still_seconds:.0f} s"

    def measure_cost(self, fitted: Fitted | None) -> None:
        """Keep what the cell has cost so far; a figure that is not known is None."""
        memory, clock = self.meters.memory, self.clock
        self.cost = Cost(
            **clock.by_phase(),  # type: ignore[arg-type]
            device_fit_seconds=clock.device_seconds("fit"),
            train_flops=None if self.job.hurried else self.ledger.counted_flops,
            train_tokens=self.ledger.train_tokens,
            peak_device_bytes=memory.peak_device_bytes,
            peak_reserved_bytes=memory.peak_reserved_bytes,
            peak_driver_bytes=self.meters.peak_driver_bytes,
            peak_rss_bytes=memory.peak_rss_bytes,
            peak_rss_above_baseline_bytes=memory.peak_rss_above_baseline_bytes,
            fit_peak_bytes=memory.by_part.get("fit"),
            predict_peak_bytes=memory.by_part.get("predict"),
            weights_bytes=self.ledger.weights_bytes if self.uses_backbone else 0,
            shared_weights_bytes=self.ledger.shared_weights_bytes if self.uses_backbone else 0,
            energy_joules=clock.train_joules if self.ledger.computed_all else None,
            n_parameters=fitted.n_parameters if fitted else None,
            n_trainable=fitted.n_trainable if fitted else None,
            stopped_by=self.ledger.stopped_by,
            reused=tuple(sorted(self.ledger.reused)),
        )

    def record(self, status: Status, device: Device) -> Record:
        """Return the record of what became of the cell."""
        job, files = self.job, self.job.files
        cell = job.planned.cell
        failures = Failures({**self.meters.failures, **self.clock.failures, **self.failures})
        provenance = provenance_of(
            device,
            device.precision(cell.config.get("precision", "fp32")),
            started_at=self.started_at,
            wall_seconds=None if self.began is None else time.perf_counter() - self.began - self.inference_seconds,
            backbone={"origin": files.origin, "revision": files.revision} if files and cell.backbone else {},
            dataset=self.task.provenance,
            matrix_flops_per_second=self.matrix_rate,
            failures=failures,
        )
        is_ok = status == "ok"
        return Record(
            suite=job.suite,
            device=device.name,
            kind=self.task.kind.name,
            family=failures.guard("family", lambda: job.planned.method.family) or "unknown",
            cell=cell,
            status=status,
            score=self.score if is_ok else None,
            train_score=self.train_score if is_ok else None,
            cost=self.cost,
            curve=tuple(self.ledger.curve),
            provenance=provenance,
            error=self.error,
            attempt=job.attempt,
            predictions=self.predictions if is_ok else None,
            facts=self._facts(device, failures),
        )

    def _facts(self, device: Device, failures: Failures) -> Facts:
        planned, files, stated = self.job.planned, self.job.files, self.ledger.facts
        method, cell = planned.method, planned.cell
        n_blocks = None if files is None or cell.backbone is None else files.n_blocks
        workload = failures.guard(
            "workload",
            lambda: _expected(Workload, method.workload(cell.n_train, cell.budget, n_blocks or 1)),
        )
        registered = ((methods, cell.method), (kinds, self.task.kind.name), (metrics, self.task.metric))
        origins = {registry.kind: registry.origin(name) for registry, name in registered}
        return dataclasses.replace(
            stated,
            role=failures.guard("role", lambda: _known_role(method)),
            workload=workload,
            fit_length=failures.guard("fit_length", lambda: _expected((FitLength, type(None)), method.fit_length())),
            defaults=failures.guard("defaults", method.defaults) or {},
            at_defaults=failures.guard("at_defaults", lambda: _at_defaults(method, cell)),
            learning_rate=failures.guard("learning_rate", lambda: _scaled_rate(method, files)),
            is_evidence=not self.task.spec.chooses,
            # Cells that share a device are known to have shared its processors.
            unsteady=self.unsteady if device.cells_at_a_time == 1 else None,
            left_behind=self.left_behind,
            run_as=failures.guard("run_as", lambda: _run_as(method, cell)),
            peak_rss_source=self.meters.memory.method or None,
            energy_source=self.clock.energy_source if self.cost.energy_joules is not None else None,
            forgetting=self.forgetting,
            packages={kind: package for kind, package in origins.items() if package is not None},
            missing={**stated.missing, **failures},
            inference=None if self.used is None else self.used.as_fitted,
            merged_inference=None if self.used is None else self.used.merged,
        )


def _at_defaults(method: Method, cell: Cell) -> bool | None:
    """Return whether a cell has the default settings of its method; None for a method without defaults."""
    cls = type(method)
    if any(setting.is_required() for setting in cls.model_fields.values()):
        return None
    return cell.config == cls().config()


def _scaled_rate(method: Method, files: BackboneFiles | None) -> float | None:
    """Return the peak learning rate on a backbone where it is not the setting's value."""
    if not isinstance(method, FineTuning):
        return None
    share = method.rate_share(files)
    return None if share == 1.0 else method.learning_rate * share


def _run_as(method: Method, cell: Cell) -> dict[str, Any] | None:
    """Return the settings in which the method that runs differs from the cell's; None for none."""
    return {name: value for name, value in method.config().items() if cell.config.get(name, value) != value} or None


def _known_role(method: Method) -> Role:
    """Return a method's role; ValueError for one that records cannot hold."""
    if method.role not in ROLES:
        raise ValueError(f"the role is {method.role!r}; expected one of {', '.join(ROLES)}")
    return method.role


def _expected(types: type | tuple[type, ...], declared: Any) -> Any:
    """Return what a method declares of its fits; TypeError where records cannot hold it."""
    if not isinstance(declared, types):
        raise TypeError(f"the method declares {declared!r:.80}, which is of type {type(declared).__name__}")
    return declared
