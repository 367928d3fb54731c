"""Run one cell; it returns a record whatever happens."""

from __future__ import annotations

import dataclasses
import functools
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import tuning
from harness.data.sampling import training_order
from harness.errors import OutOfMemoryError, OutOfTimeError, UnsupportedError
from harness.features.disk import FeatureDisk
from harness.features.encode import FeatureStore
from harness.features.tokens import TokenStore
from harness.measure.clock import CudaTimer, PhaseClock
from harness.measure.device import Device, Precision
from harness.measure.energy import counter
from harness.measure.exhausted import is_out_of_memory
from harness.measure.memory import MemoryMeter, settle_for_good
from harness.measure.meters import Meters
from harness.measure.provenance import describe, now
from harness.measure.rate import matrix_rate
from harness.measure.steadiness import unevenness
from harness.methods import artifact
from harness.methods.base import Bench, Fitted, Ledger, Method
from harness.metrics import metrics
from harness.plan import PlannedCell
from harness.records import UNSTEADY, Cost, Predictions, Record, Score, Status
from harness.tasks.base import Answers, Ints, Labels, Rows, Task

if TYPE_CHECKING:
    from harness.backbones.locate import BackboneFiles
    from harness.backbones.model import Backbone
    from harness.measure.flops import FlopsModel

Report = Callable[[str, float | None, float | None], None]
"""Called with (what runs, fraction of the budget spent, loss)."""

TRAIN_SCORE_ROWS = 500
"""Training rows that the training score is taken over, at most: it shows overfitting and need not cost an epoch."""


TRAIN_SCORE_TEXTS = 50
"""The same where answers are texts, which take long to write."""


class Worker:
    """Runs cells one after another on one device, and keeps backbones, tokens and features warm between them.

    Args:
        device: where cells run.
        cache: folder of the feature cache; None keeps features in memory only.
    """

    def __init__(self, device: Device, cache: Path | None) -> None:
        import torch

        torch.set_num_threads(device.threads)
        self.device = device
        self._tokens = TokenStore()
        self._features = FeatureStore(device, FeatureDisk(cache) if cache is not None else None)
        self._cache = cache
        self._rates: dict[Precision, float] = {}
        self._flops_models: dict[str, FlopsModel] = {}
        self._loaded: set[str] = set()
        self._warm: set[type[Method]] = set()
        self._tuning_is_warm = False
        self._running: _Run | None = None
        self._orders: dict[tuple[str, int, str], Ints] = {}

    def run(
        self,
        planned: PlannedCell,
        task: Task,
        files: BackboneFiles | None,
        suite: str,
        report: Report,
        *,
        attempt: int = 1,
        save_to: Path | None = None,
        hurried: bool = False,
    ) -> Record:
        """Run a cell to its record. Only KeyboardInterrupt and SystemExit pass through.

        Args:
            planned: the cell and its method.
            task: its task.
            files: its backbone; None for methods that use none.
            suite: a label for the record.
            report: is told how it goes on.
            attempt: number that the record bears.
            save_to: folder that the fitted method is written into (`saved.write_model`); None keeps its record alone.
            hurried: whether what is no part of any cost, but takes time, is left out: the training score, counting
                operations, and the rate that utilisation is measured against.
        """
        run = self._running = _Run(
            planned, task, files, suite, attempt, started_at=now(), began=time.perf_counter(), hurried=hurried
        )
        try:
            if planned.unsupported is not None:
                raise UnsupportedError(planned.unsupported)
            self._measure(run, planned, task, files, report, save_to)
            status: Status = "ok"
        except UnsupportedError as error:
            status, run.error = "unsupported", str(error)
        except OutOfTimeError as error:
            status, run.error = "out_of_time", str(error)
        except (OutOfMemoryError, MemoryError) as error:
            status, run.error = "out_of_memory", str(error) or "The host had no more memory to give."
        except Exception as error:  # noqa: BLE001 - whatever a method raises is a result, and the other cells go on
            if is_out_of_memory(error):
                status, run.error = "out_of_memory", (str(error) or type(error).__name__).splitlines()[0]
            else:
                status = "failed"
                run.error = f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-12)}"
        finally:
            self._running = None
        return _record(run, status, self.device)

    def overrun(self) -> Record | None:
        """The record of the running cell, if its training has gone on for twice its budget's seconds; None otherwise.

        For another thread to ask, while a fit runs that looks at no clock.
        """
        run = self._running
        if run is None:
            return None
        try:
            _check_time(run.clock, run.planned.cell.budget.train_seconds)
        except OutOfTimeError as error:
            run.error = str(error)
            run.cost = _cost(run, None)
            return _record(run, "out_of_time", self.device)
        return None

    def _measure(
        self,
        run: _Run,
        planned: PlannedCell,
        task: Task,
        files: BackboneFiles | None,
        report: Report,
        save_to: Path | None,
    ) -> None:
        from threadpoolctl import threadpool_limits

        from harness.backbones.model import load_backbone

        cell, method = planned.cell, planned.method
        tuning.seed_everything(cell.seed)
        run.clock = self._clock()
        backbone = None
        if cell.backbone is not None and files is not None:
            report("loading", None, None)
            n_read = load_backbone.cache_info().misses
            with run.clock.phase("warmup"):  # importing the architecture and reading its files
                backbone = load_backbone(files)
            if load_backbone.cache_info().misses > n_read:  # charged below, as to those who find it read
                run.clock.charge("warmup", -backbone.load_seconds)
            if files.fingerprint in self._loaded:
                run.ledger.reused.add("backbone")
            self._loaded.add(files.fingerprint)
            run.clock.charge("load", backbone.load_seconds)
            self._tokens.tokens(task.train, task.kind, backbone, _max_length(task, backbone))
        with run.clock.phase("warmup"):
            self._warm_up(method, backbone, report)
        run.meters = Meters(self.device)
        bench = Bench(
            kind=task.kind,
            n_outputs=task.n_outputs,
            n_strata=task.n_strata,
            max_length=_max_length(task, backbone),
            label_words=task.label_words,
            prompt=task.prompt,
            reply=task.reply,
            measure=functools.partial(measure_upwards, task),
            backbone=backbone,
            tokens=self._tokens,
            features=self._features,
            flops_models=self._flops_models,
            clock=run.clock,
            memory=run.meters.memory,
            ledger=run.ledger,
            budget=cell.budget,
            seed=cell.seed,
            device=self.device,
            report=report,
            counts_flops=not run.hurried,
            lone_classes=task.lone_classes,
        )
        rows = self.training_rows(task, cell.n_train, cell.seed, cell.draw)
        test = task.test_rows_to_predict
        fitted: Fitted | None = None
        with threadpool_limits(self.device.threads):
            try:
                with run.meters:
                    fitted, chosen = tuning.fit(method, rows, bench)
                    run.meters.end_fit()
                    _check_time(run.clock, cell.budget.train_seconds)
                    answers = fitted.predict(test, bench)
                    task.kind.check(task, answers, len(test))
            finally:
                run.cost = _cost(run, fitted)
                run.unsteady = run.meters.disturbed_by or unevenness(run.ledger.curve)
            _check_memory(run.cost, cell.budget.peak_memory_bytes)
            report("scoring", None, None)
            with run.clock.phase("measure"):
                run.predictions = task.kind.decode(task, answers)
                run.score = task.kind.score(task, run.predictions)
                if not run.hurried:
                    run.train_score = _train_score(task, fitted, rows, bench)
            if save_to is not None:
                from harness.saved.write import write_model

                report("saving", None, None)
                write_model(save_to, fitted, chosen, planned, task, bench)
        with run.clock.phase("measure"):
            size = artifact.size_bytes(fitted, chosen)
            if run.ledger.counted_flops and not run.hurried:
                run.matrix_rate = self._matrix_rate(self.device.precision(cell.config.get("precision", "fp32")))
        measuring = run.clock.seconds("measure")
        run.cost = dataclasses.replace(run.cost, artifact_bytes=size, measure_seconds=measuring)

    def _clock(self) -> PhaseClock:
        # Cells that share a device cannot tell whose energy it is.
        energy = counter(self.device.kind) if self.device.cells_at_a_time == 1 else None
        if self.device.kind == "cpu":
            return PhaseClock(energy=energy)
        return PhaseClock(self.device.synchronise, CudaTimer(), energy)

    def _warm_up(self, method: Method, backbone: Backbone | None, report: Report) -> None:
        """What a process does once: importing a library is no method's cost."""
        if backbone is not None:
            self._features.warm_up(backbone)
        if type(method) not in self._warm:
            report("warming up", None, None)
            method.warm_up()
            self._warm.add(type(method))
            settle_for_good()
        if method.tune is not None and not self._tuning_is_warm:
            tuning.warm_up()
            self._tuning_is_warm = True
            settle_for_good()

    def _matrix_rate(self, precision: Precision) -> float | None:
        """What utilisation is measured against; None where cells share the device, and nothing can be."""
        if self.device.cells_at_a_time > 1:
            return None
        if precision not in self._rates:
            rate = matrix_rate(self.device, precision, self._cache)
            if rate is None:  # another time, perhaps
                return None
            self._rates[precision] = rate
        return self._rates[precision]

    def training_rows(self, task: Task, n_train: int, seed: int, draw: Any) -> Rows:
        """The draw of a cell: the first n_train rows of the seed's order, so that sizes are nested."""
        key = (task.data, seed, draw)
        if key not in self._orders:
            self._orders[key] = training_order(task.train_strata, task.train_digests, seed, draw)
        index = self._orders[key][:n_train]
        return Rows(task.train, task.pool_index[index], task.train_labels[index], task.train_strata[index])


def unrun(
    planned: PlannedCell,
    task: Task,
    files: BackboneFiles | None,
    suite: str,
    device: Device,
    status: Status,
    why: str,
    *,
    attempt: int,
    started_at: str | None = None,
) -> Record:
    """The record of a cell of which nothing was measured: it was refused, or whoever ran it died.

    `status` is what became of it, `why` the record's error, `started_at` when it began (`provenance.now`; None is now).
    """
    run = _Run(planned, task, files, suite, attempt, started_at=started_at or now(), error=why)
    return _record(run, status, device)


def _record(run: _Run, status: Status, device: Device) -> Record:
    cell, files, measured = run.planned.cell, run.files, dict[str, str]()
    if run.meters.memory.method:
        measured["peak_rss"] = run.meters.memory.method
    if run.cost.energy_joules is not None and run.clock.energy_source is not None:
        measured["energy"] = run.clock.energy_source
    if run.unsteady is not None and device.cells_at_a_time == 1:  # else it is known to have shared its processors
        measured[UNSTEADY] = run.unsteady
    measured.update({name: str(value) for name, value in run.ledger.notes.items()})
    return Record(
        suite=run.suite,
        device=device.name,
        kind=run.task.kind.name,
        family=run.planned.method.family,
        cell=cell,
        status=status,
        score=run.score if status == "ok" else None,
        train_score=run.train_score if status == "ok" else None,
        cost=run.cost,
        curve=tuple(run.ledger.curve),
        provenance=describe(
            device,
            device.precision(cell.config.get("precision", "fp32")),
            started_at=run.started_at,
            wall_seconds=None if run.began is None else time.perf_counter() - run.began,
            backbone={"origin": files.origin, "revision": files.revision} if files and cell.backbone else {},
            dataset=run.task.provenance,
            measured=measured,
            matrix_flops_per_second=run.matrix_rate,
        ),
        error=run.error,
        attempt=run.attempt,
        predictions=run.predictions if status == "ok" else None,
    )


@dataclass
class _Run:
    """What is known of a cell while it runs."""

    planned: PlannedCell
    task: Task
    files: BackboneFiles | None
    suite: str
    attempt: int
    started_at: str
    began: float | None = None
    hurried: bool = False
    clock: PhaseClock = field(default_factory=PhaseClock)
    meters: Meters = field(default_factory=Meters)
    matrix_rate: float | None = None
    ledger: Ledger = field(default_factory=Ledger)
    cost: Cost = field(default_factory=Cost)
    score: Score | None = None
    train_score: float | None = None
    predictions: Predictions | None = None
    error: str | None = None
    unsteady: str | None = None


def _max_length(task: Task, backbone: Backbone | None) -> int:
    """Tokens of a text that are read: the task's limit, or the backbone's where that is lower."""
    return min(task.spec.max_length, backbone.max_length) if backbone else task.spec.max_length


def _cost(run: _Run, fitted: Fitted | None) -> Cost:
    memory = run.meters.memory
    return Cost(
        **run.clock.by_phase(),  # type: ignore[arg-type]
        device_fit_seconds=run.clock.device_seconds("fit"),
        train_flops=None if run.hurried else run.ledger.counted_flops,
        train_tokens=run.ledger.train_tokens,
        peak_device_bytes=memory.peak_device_bytes,
        peak_reserved_bytes=memory.peak_reserved_bytes,
        peak_driver_bytes=run.meters.peak_driver_bytes,
        peak_rss_bytes=memory.peak_rss_bytes,
        peak_rss_above_baseline_bytes=memory.peak_rss_above_baseline_bytes,
        fit_peak_bytes=memory.by_part.get("fit"),
        predict_peak_bytes=memory.by_part.get("predict"),
        energy_joules=run.clock.train_joules if run.ledger.computed_all else None,
        n_parameters=fitted.n_parameters if fitted else None,
        n_trainable=fitted.n_trainable if fitted else None,
        stopped_by=run.ledger.stopped_by,
        reused=tuple(sorted(run.ledger.reused)),
    )


def _train_score(task: Task, fitted: Fitted, rows: Rows, bench: Bench) -> float | None:
    """The main metric on the first training rows; its cost is nobody's, so it goes on a clock of its own."""
    if len(rows) == 0:
        return None
    most = TRAIN_SCORE_ROWS if task.kind.form != "text" else TRAIN_SCORE_TEXTS
    some = rows.take(np.arange(min(len(rows), most)))
    aside = dataclasses.replace(
        bench, clock=PhaseClock(), ledger=Ledger(), memory=MemoryMeter(), report=lambda *_: None
    )
    answers = fitted.predict(some.without_labels(), aside)
    task.kind.check(task, answers, len(some))
    return task.kind.measure(task, answers, some.known_labels)


def measure_upwards(task: Task, answers: Answers, labels: Labels) -> float:
    """The task's main metric of any rows, turned so that higher is better: what a method may choose settings by."""
    value = task.kind.measure(task, answers, labels)
    return value if metrics.get(task.metric).higher_is_better else -value


def _check_time(clock: PhaseClock, limit: float | None) -> None:
    if limit is not None and clock.train_seconds > 2 * limit:
        raise OutOfTimeError(
            f"Training took {clock.train_seconds:.1f} s against a budget of {limit:g} s, and cannot be interrupted."
        )


def _check_memory(cost: Cost, limit: int | None) -> None:
    peak = cost.peak_bytes
    if limit is not None and peak is not None and peak > limit:
        raise OutOfMemoryError(f"The cell needed {peak:,} bytes above the baseline; its budget is {limit:,}.")
