"""Run one cell; it returns a record whatever happens."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data import training_order
from harness.features import FeatureDisk, FeatureStore, TokenStore
from harness.measure import (
    AttentiveClock,
    CudaTimer,
    Device,
    Leftovers,
    MemoryMeter,
    Meters,
    PhaseClock,
    Precision,
    Presence,
    Standing,
    Watch,
    counter,
    is_out_of_memory,
    matrix_rate,
    now,
    settle_for_good,
    show_progress,
    too_long,
    unevenness,
)
from harness.methods import Bench, Fitted, Ledger, Method, artifact_size_bytes
from harness.metrics import metrics
from harness.planning import PlannedCell
from harness.records import MAX_ERROR, Cost, Record, Score, Status
from harness.running import tuning
from harness.running.attempt import Attempt
from harness.support import OutOfMemoryError, OutOfTimeError, UnsupportedError, shortened, text_of
from harness.tasks import Answers, Ints, Labels, Rows, Task

if TYPE_CHECKING:
    from harness.backbones import Backbone, BackboneFiles
    from harness.measure import FlopsModel

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

    Attributes:
        is_spoilt: whether a method has left threads running, which would disturb the cells after it.
        on_change: called when the running cell enters another stage or phase, in no phase's time.
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
        self._running: Attempt | None = None
        self._presence = Presence()
        self._attention = AttentiveClock()
        self._watched: tuple[Attempt, Watch] | None = None
        self.is_spoilt = False
        self.on_change: Callable[[], None] = _nothing
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
        run = self._running = Attempt(
            planned, task, files, suite, attempt, started_at=now(), began=time.perf_counter(), hurried=hurried
        )
        leftovers = run.failures.guard("left_behind", Leftovers)
        try:
            if planned.unsupported is not None:
                raise UnsupportedError(planned.unsupported)
            self._measure(run, planned, task, files, report, save_to)
            status: Status = "ok"
        except UnsupportedError as error:
            status, run.error = "unsupported", text_of(error)
        except OutOfTimeError as error:
            status, run.error = "out_of_time", text_of(error)
        except (OutOfMemoryError, MemoryError) as error:
            status, run.error = "out_of_memory", text_of(error) or "The host had no more memory to give."
        except Exception as error:  # noqa: BLE001 - whatever a method raises is a result, and the other cells go on
            said = text_of(error)
            if is_out_of_memory(error):
                status, run.error = "out_of_memory", (said or type(error).__name__).splitlines()[0]
            else:
                said = shortened(said, MAX_ERROR // 2)  # the trace repeats it, and is worth keeping
                trace = shortened(traceback.format_exc(limit=-12), MAX_ERROR // 2)
                status, run.error = "failed", f"{type(error).__name__}: {said}\n{trace}"
        finally:
            self._running = None
        if leftovers is not None:
            run.left_behind = run.failures.guard("left_behind", leftovers.end)
            self.is_spoilt = leftovers.are_threads
        return run.record(status, self.device)

    def standing(self) -> Standing | None:
        """Return where the running cell stands; None where none runs. For another thread to ask."""
        run = self._running
        return None if run is None else run.standing()

    def look(self, grace: float) -> Record | None:
        """Judge the running cell; for another thread to call, a few times a second.

        Args:
            grace: seconds without progress, beyond twice the cell's budget, after which it is cut.

        Returns:
            The record of a cell that is to be cut: its fit has gone on for twice its budget's seconds, or it has shown
            no progress for longer. A cell that has its score keeps it. None where the cell may go on.
        """
        run, still = self._running, self._presence.look()
        if run is None:
            self._watched = None
            return None
        now = self._attention.look()
        if self._watched is None or self._watched[0] is not run:
            limit = run.planned.cell.budget.train_seconds
            self._watched = (run, Watch(now, limit, grace=grace, silence=math.inf))
        run.stood_still(still)
        standing, watch = run.standing(), self._watched[1]
        watch.hear(now, standing)
        why = watch.overdue(now)
        if standing.activity == "counted":
            try:
                _check_time(run)
            except OutOfTimeError as error:
                why = str(error)
        if why is None:
            return None
        if run.score is not None:  # measuring hangs, and must not cost the score
            run.failures.note("train_score", why)
            return run.record("ok", self.device)
        run.error = why
        run.measure_cost(None)
        return run.record("out_of_time", self.device)

    def _measure(
        self,
        run: Attempt,
        planned: PlannedCell,
        task: Task,
        files: BackboneFiles | None,
        report: Report,
        save_to: Path | None,
    ) -> None:
        from threadpoolctl import threadpool_limits

        from harness.backbones import load_backbone

        cell, method = planned.cell, planned.method
        tuning.seed_everything(cell.seed)
        run.clock = self._clock(run)
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
        run.doing = "warming up"
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
            report=_counted(report),
            counts_flops=not run.hurried,
            lone_classes=task.lone_classes,
        )
        rows = self.training_rows(task, cell.n_train, cell.seed, cell.draw)
        test = task.test_rows_to_predict
        fitted: Fitted | None = None
        with threadpool_limits(self.device.threads):
            try:
                with run.meters:
                    self._enter(run, "fitting")
                    fitted, chosen = tuning.fit(method, rows, bench)
                    run.meters.end_fit()
                    _check_time(run)
                    self._enter(run, "predicting")
                    answers = fitted.predict(test, bench)
                    task.kind.check(task, answers, len(test))
            finally:
                run.measure_cost(fitted)
                uneven = run.failures.guard("steadiness", lambda: unevenness(run.ledger.curve))
                run.unsteady = run.meters.disturbed_by or uneven
                run.judge_steadiness()
            _check_memory(run.cost, cell.budget.peak_memory_bytes)
            self._enter(run, "scoring")
            report("scoring", None, None)
            with run.clock.phase("measure"):
                run.predictions = task.kind.decode(task, answers)
                score = task.kind.score(task, run.predictions)
            check_score(score)
            if save_to is not None:
                from harness.saved import write_model

                self._enter(run, "saving")
                report("saving", None, None)
                write_model(save_to, fitted, chosen, planned, task, bench)
            run.score = score
            with run.clock.phase("measure"):
                if not run.hurried:
                    self._enter(run, "scoring training rows")
                    measure = functools.partial(_train_score, task, fitted, rows, bench)
                    run.train_score = run.failures.guard("train_score", measure)
        self._enter(run, "measuring")
        with run.clock.phase("measure"):
            size = run.failures.guard("artifact_bytes", lambda: artifact_size_bytes(fitted, chosen))
            if run.ledger.counted_flops and not run.hurried:
                precision = self.device.precision(cell.config.get("precision", "fp32"))
                run.matrix_rate = run.failures.guard("matrix_rate", lambda: self._matrix_rate(precision))
        measuring = run.clock.seconds("measure")
        run.cost = dataclasses.replace(run.cost, artifact_bytes=size, measure_seconds=measuring)

    def _enter(self, run: Attempt, doing: str) -> None:
        """Take note of the cell's next stage, and say so where somebody watches."""
        run.doing = doing
        show_progress()
        self.on_change()

    def _clock(self, run: Attempt) -> PhaseClock:
        # Cells that share a device cannot tell whose energy it is.
        energy = None
        if self.device.cells_at_a_time == 1:
            energy = run.failures.guard("energy", lambda: counter(self.device.kind))
        if self.device.kind == "cpu":
            return PhaseClock(energy=energy, on_change=self.on_change)
        return PhaseClock(self.device.synchronise, CudaTimer(), energy, self.on_change)

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
    run = Attempt(planned, task, files, suite, attempt, started_at=started_at or now(), error=why)
    return run.record(status, device)


def check_score(score: Score) -> None:
    """Refuse a score that is no number.

    Raises:
        FloatingPointError: the main metric is not finite.
    """
    if not math.isfinite(score.value):
        raise FloatingPointError(f"The metric {score.metric} of the predictions is {score.value}; expected a number.")


def _counted(report: Report) -> Report:
    """Return a report that counts as a sign of progress."""

    def reporting(doing: str, fraction: float | None, loss: float | None) -> None:
        show_progress()
        report(doing, fraction, loss)

    return reporting


def _nothing() -> None:
    """Do nothing: nobody watches."""


def _max_length(task: Task, backbone: Backbone | None) -> int:
    """Tokens of a text that are read: the task's limit, or the backbone's where that is lower."""
    return min(task.spec.max_length, backbone.max_length) if backbone else task.spec.max_length


def _train_score(task: Task, fitted: Fitted, rows: Rows, bench: Bench) -> float | None:
    """The main metric on the first training rows; its cost is nobody's, so it goes on a clock of its own."""
    if len(rows) == 0:
        return None
    most = TRAIN_SCORE_ROWS if task.kind.form != "text" else TRAIN_SCORE_TEXTS
    some = rows.take(np.arange(min(len(rows), most)))
    aside = dataclasses.replace(
        bench, clock=PhaseClock(), ledger=Ledger(), memory=MemoryMeter(), report=_counted(lambda *_: None)
    )
    answers = fitted.predict(some.without_labels(), aside)
    task.kind.check(task, answers, len(some))
    return task.kind.measure(task, answers, some.known_labels)


def measure_upwards(task: Task, answers: Answers, labels: Labels) -> float:
    """The task's main metric of any rows, turned so that higher is better: what a method may choose settings by."""
    value = task.kind.measure(task, answers, labels)
    return value if metrics.get(task.metric).higher_is_better else -value


def _check_time(run: Attempt) -> None:
    limit = run.planned.cell.budget.train_seconds
    seconds = run.standing().train_seconds
    if limit is not None and seconds > 2 * limit:
        raise OutOfTimeError(too_long(seconds, limit))


def _check_memory(cost: Cost, limit: int | None) -> None:
    peak = cost.peak_bytes
    if limit is not None and peak is not None and peak > limit:
        raise OutOfMemoryError(f"The cell needed {peak:,} bytes above the baseline; its budget is {limit:,}.")
