"""Run cells one after another; each returns a record, whatever happens."""

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
    CudaTimer,
    Device,
    Meters,
    PhaseClock,
    Precision,
    device_failure,
    energy_counter,
    failure_of,
    is_out_of_memory,
    matrix_rate,
    now,
    set_numerics,
    settle_for_good,
    show_progress,
    unevenness,
)
from harness.methods import Bench, Fitted, Method, Rung, Rungs, artifact_size_bytes
from harness.metrics import metrics
from harness.records import MAX_ERROR, Cost, Record, Status
from harness.running import tuning
from harness.running.attempt import Attempt, Job
from harness.running.forgetting import ForgettingMeter
from harness.running.leftovers import Leftovers
from harness.running.scores import Report, check_score, measure_upwards, showing_progress, train_score
from harness.running.watch import AttentiveClock, Presence, Standing, Watch, too_long
from harness.serving import ServedError
from harness.support import (
    DeviceFailedError,
    HarnessError,
    OutOfMemoryError,
    OutOfTimeError,
    SmallerBatchesError,
    UnsupportedError,
    shortened,
    text_of,
)
from harness.tasks import Ints, Rows, Task

if TYPE_CHECKING:
    from harness.backbones import Backbone, ServedModel
    from harness.measure import FlopsModel
    from harness.saved import BothForms
    from harness.serving import Connection


_DISTURBED_FEATURES = "other work took processors while its features were encoded"


def _nothing(*_: object) -> None:
    """Do nothing."""


def _go_on(_: Rung) -> bool:
    """Let every fit go on."""
    return True


class Worker:
    """Runs cells one after another on one device, and keeps backbones, tokens and features warm between them.

    Args:
        device: where cells run.
        cache: folder of the feature cache; None keeps features in memory only.
        deterministic: whether only kernels that repeat their results run.

    Attributes:
        is_spoilt: whether this process must run no other cell: a method has left threads running or has written to
            weights that cells share, or the device has failed.
        on_change: called when the running cell enters another stage or phase; its time is not measured.
    """

    def __init__(self, device: Device, cache: Path | None, *, deterministic: bool = False) -> None:
        import torch

        torch.set_num_threads(device.threads)
        set_numerics(deterministic=deterministic)
        self.device = device
        self._tokens = TokenStore()
        self._forgetting = ForgettingMeter(device)
        self._features = FeatureStore(device, FeatureDisk(cache) if cache is not None else None)
        self._cache = cache
        self._rates: dict[Precision, float] = {}
        self._flops_models: dict[str, FlopsModel] = {}
        self._loaded: set[str] = set()
        self._warm: set[type[Method]] = set()
        self._tuning_is_warm = False
        self._running: Attempt | None = None
        self._backbone: Backbone | None = None
        self._connections: dict[ServedModel, Connection] = {}
        self._presence = Presence()
        self._attention = AttentiveClock()
        self._watched: tuple[Attempt, Watch] | None = None
        self.is_spoilt = False
        self._device_failure: str | None = None
        self.on_change: Callable[[], None] = _nothing
        self._orders: dict[tuple[str, int, str], Ints] = {}

    def run(self, job: Job, task: Task, report: Report = _nothing, decide: Callable[[Rung], bool] = _go_on) -> Record:
        """Run a cell and return its record. Only KeyboardInterrupt and SystemExit pass through.

        Args:
            job: the cell, and how it is run.
            task: its task.
            report: called with the cell's progress.
            decide: called at the job's rungs; returns whether the fit goes on.
        """
        run = self._running = Attempt(job, task, started_at=now(), began=time.perf_counter())
        leftovers = run.failures.guard("left_behind", Leftovers)
        try:
            if job.planned.unsupported is not None:
                raise UnsupportedError(job.planned.unsupported)
            if self._device_failure is not None:
                raise DeviceFailedError(f"{self._device_failure} Start a new process.")
            while True:
                try:
                    self._measure(run, report, decide)
                    break
                except SmallerBatchesError:  # the store has halved its batches: that happens a few times at most
                    run = self._running = Attempt(job, task, run.started_at, run.began, failures=run.failures)
            status: Status = "ok"
        except UnsupportedError as error:
            status, run.error = "unsupported", text_of(error)
        except OutOfTimeError as error:
            status, run.error = "out_of_time", text_of(error)
        except (OutOfMemoryError, MemoryError) as error:
            status, run.error = "out_of_memory", text_of(error) or "The host had no more memory."
        except ServedError as error:
            status, run.error = "failed", text_of(error)
        except Exception as error:  # noqa: BLE001 - an error of a method is a result, and the other cells go on
            said = text_of(error)
            if is_out_of_memory(error):
                status, run.error = "out_of_memory", (said or type(error).__name__).splitlines()[0]
            elif run.score is not None and (failure := device_failure(error)) is not None:
                run.failures.note(run.measured, failure)  # a later measurement meets the failure: the score stays
                status = "ok"
                self._note_failure(run, failure)
            else:
                said = shortened(said, MAX_ERROR // 2)  # the trace repeats it
                trace = shortened(traceback.format_exc(limit=-12), MAX_ERROR // 2)
                status, run.error = "failed", f"{type(error).__name__}: {said}\n{trace}"
                self._note_failure(run, device_failure(error))
        finally:
            self._running = None
        self._note_failure(run, failure_of(self.device))
        if leftovers is not None:
            run.left_behind = run.failures.guard("left_behind", leftovers.end)
            self.is_spoilt = leftovers.are_threads or self._device_failure is not None
        self.is_spoilt |= self._has_written_weights()
        return run.record(status, self.device)

    def _has_written_weights(self) -> bool:
        """Return whether the last cell has written to weights that later cells would read, whatever came of it."""
        backbone, self._backbone = self._backbone, None
        if backbone is None or self._device_failure is not None:
            return False
        try:
            backbone.check_untouched()
        except HarnessError:
            return True
        return False

    def _note_failure(self, run: Attempt, failure: str | None) -> None:
        """Keep that the device has failed: this process can run nothing more on it, and a failed cell says so."""
        if failure is None or self._device_failure is not None:
            return
        self._device_failure = f"The device failed in an earlier cell of this process: {failure.rstrip('.')}."
        if run.error is not None:
            what = "Nothing more can run on it in this process, which a run replaces."
            run.error = f"The device failed: {failure.rstrip('.')}. {what}\n{run.error}"

    def standing(self) -> Standing | None:
        """Return the progress of the running cell; None where none runs. Another thread may call it."""
        run = self._running
        return None if run is None else run.standing()

    def look(self, grace: float) -> Record | None:
        """Check the running cell's time; another thread calls this a few times a second.

        Args:
            grace: seconds without progress, beyond twice the cell's budget, after which it is stopped.

        Returns:
            The record of a cell that has to stop: its fit has taken twice its budget's seconds, or it shows no
            progress. A cell that has its score keeps it. None where the cell may go on.
        """
        run, still = self._running, self._presence.look()
        if run is None:
            self._watched = None
            return None
        now = self._attention.look()
        if self._watched is None or self._watched[0] is not run:
            limit = run.job.planned.cell.budget.train_seconds
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
        if run.score is not None:  # a later measurement hangs: the score stays
            run.failures.note(run.measured, why)
            return run.record("ok", self.device)
        run.error = why
        run.measure_cost(None)
        return run.record("out_of_time", self.device)

    def _measure(self, run: Attempt, report: Report, decide: Callable[[Rung], bool]) -> None:
        from threadpoolctl import threadpool_limits

        from harness.backbones import ServedModel, load_backbone, make_room

        job, task, files = run.job, run.task, run.job.files
        cell, method = job.planned.cell, job.planned.method
        tuning.seed_everything(cell.seed)
        run.clock = self._clock(run)
        backbone, served = None, None
        if cell.backbone is not None and isinstance(files, ServedModel):
            with run.clock.phase("warmup"):
                served = self._connection(files)
        elif cell.backbone is not None and files is not None:
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
            self._backbone = backbone
            backbone.check_untouched()
            self._tokens.tokens(task.train, task.kind, backbone, _max_length(task, backbone))
        run.doing = "warming up"
        with run.clock.phase("warmup"):
            self._warm_up(method, backbone, report)
        if job.attempt > 1:  # `--remeasure`: a cached price that is unreliable would make this attempt unreliable too
            self._features.forget_disturbed()
        with run.clock.phase("warmup"):
            make_room(self.device.torch_device(), backbone)  # an earlier cell's weights are no part of this one
        run.meters = Meters(self.device)
        bench = Bench(
            kind=task.kind,
            n_outputs=task.n_outputs,
            n_strata=task.n_strata,
            max_length=_max_length(task, backbone),
            label_words=task.label_words,
            prompt=task.prompt,
            ending=task.test.ending,
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
            report=showing_progress(report),
            counts_flops=not job.hurried,
            lone_classes=task.lone_classes,
            ranks_by_scores=metrics.get(task.metric).inputs[0] == "scores",
            served=served,
            rungs=_rungs(job, task, decide),
        )
        rows = self.training_rows(task, cell.n_train, cell.seed, cell.draw)
        run.ledger.remarks.update(task.kind.remarks(rows, task.n_outputs))
        test = task.test_rows_to_predict
        fitted: Fitted | None = None
        with threadpool_limits(self.device.threads):
            try:
                with run.meters:
                    self._enter(run, "fitting")
                    fitted, chosen = tuning.fit(method, rows, bench)
                    if served is not None:
                        served.end_fit()
                    run.meters.end_fit()
                    _check_time(run)
                    self._enter(run, "predicting")
                    answers = fitted.predict(test, bench)
                    if backbone is not None:
                        backbone.check_untouched()
                    task.kind.check(task, answers, task.kind.n_answers(test))
            finally:
                if served is not None:
                    run.ledger.state(served=served.facts(scores=task.kind.form in ("classes", "choices")))
                run.measure_cost(fitted)
                uneven = run.failures.guard("steadiness", lambda: unevenness(run.ledger.curve))
                reused = _DISTURBED_FEATURES if run.ledger.has_disturbed_features else None
                run.unsteady = run.meters.disturbed_by or uneven or reused
                run.judge_steadiness()
            _check_memory(run.cost, cell.budget.peak_memory_bytes)
            self._enter(run, "scoring")
            report("scoring", None, None)
            with run.clock.phase("measure"):
                run.predictions = task.kind.decode(task, answers)
                score = task.kind.score(task, run.predictions)
            check_score(score)
            if job.save_to is not None:
                from harness.saved import write_model

                self._enter(run, "saving")
                report("saving", None, None)
                write_model(job.save_to, fitted, chosen, job.planned, task, bench)
            if job.answers_to is not None and isinstance(answers, np.ndarray):
                np.save(job.answers_to, np.asarray(answers, dtype=np.float32))
            run.score = score
            with run.clock.phase("measure"):
                if not job.hurried and served is None:  # each training row would cost a request
                    self._enter(run, "scoring training rows")
                    measure = functools.partial(train_score, task, fitted, rows, bench)
                    run.train_score = run.failures.guard("train_score", measure)
                if not job.hurried and served is None:
                    self._enter(run, "measuring forgetting")
                    run.forgetting = self._forgetting.measure(method, fitted, backbone, run.failures)
            if job.inference:
                self._enter(run, "measuring inference")
                report("measuring inference", None, None)
                started = time.perf_counter()
                run.used = run.failures.guard("inference", lambda: _inference(fitted, chosen, test, bench))
                run.inference_seconds = time.perf_counter() - started
        self._enter(run, "measuring")
        with run.clock.phase("measure"):
            size = run.failures.guard("artifact_bytes", lambda: artifact_size_bytes(fitted, chosen))
            if run.ledger.counted_flops and not job.hurried:
                precision = self.device.precision(cell.config.get("precision", "fp32"))
                run.matrix_rate = run.failures.guard("matrix_rate", lambda: self._matrix_rate(precision))
        measuring = run.clock.seconds("measure")
        run.cost = dataclasses.replace(run.cost, artifact_bytes=size, measure_seconds=measuring)

    def _enter(self, run: Attempt, doing: str) -> None:
        """Enter the cell's next stage, and report that."""
        run.doing = doing
        show_progress()
        self.on_change()

    def _clock(self, run: Attempt) -> PhaseClock:
        # Cells that share a device cannot tell their energy apart.
        energy = None
        if self.device.cells_at_a_time == 1:
            energy = run.failures.guard("energy", lambda: energy_counter(self.device.kind))
        if self.device.kind == "cpu":
            return PhaseClock(energy=energy, on_change=self.on_change)
        return PhaseClock(self.device.synchronise, CudaTimer(), energy, self.on_change)

    def _connection(self, files: ServedModel) -> Connection:
        """Return the connection to a served model, which begins a cell."""
        from harness.serving import Connection

        if files not in self._connections:
            self._connections[files] = Connection(files)
        self._connections[files].begin()
        return self._connections[files]

    def _warm_up(self, method: Method, backbone: Backbone | None, report: Report) -> None:
        """Do what a process does only once: importing a library is not part of a method's cost."""
        if backbone is not None:
            self._features.warm_up(backbone)
        if type(method) not in self._warm:
            report("warming up", None, None)
            method.warm_up()
            self._warm.add(type(method))
            settle_for_good()
        if method.tune is not None and not self._tuning_is_warm:
            tuning.warm_up_sampler()
            self._tuning_is_warm = True
            settle_for_good()

    def _matrix_rate(self, precision: Precision) -> float | None:
        """Return the rate that utilisation is measured against; None where cells share the device."""
        if self.device.cells_at_a_time > 1:
            return None
        if precision not in self._rates:
            rate = matrix_rate(self.device, precision, self._cache)
            if rate is None:  # another time, perhaps
                return None
            self._rates[precision] = rate
        return self._rates[precision]

    def training_rows(self, task: Task, n_train: int, seed: int, draw: Any) -> Rows:
        """Return a cell's training rows: the first n_train of the seed's order, so that sizes are nested."""
        key = (task.data, seed, draw)
        if key not in self._orders:
            self._orders[key] = training_order(task.train_strata, task.train_digests, seed, draw)
        index = self._orders[key][:n_train]
        return Rows(task.train, task.pool_index[index], task.train_labels[index], task.train_strata[index])


def _inference(fitted: Fitted, method: Method, rows: Rows, bench: Bench) -> BothForms:
    from harness.saved import measure_fitted

    return measure_fitted(fitted, method, rows, bench)


def unrun(job: Job, task: Task, device: Device, status: Status, why: str, *, started_at: str | None = None) -> Record:
    """Return the record of a cell without measurements: it was refused, or its worker died.

    Args:
        job: the cell, and how it would have been run.
        task: its task.
        device: where it would have run.
        status: status of the record.
        why: error of the record.
        started_at: when it began (`measure.now`); None is now.
    """
    return Attempt(job, task, started_at=started_at or now(), error=why).record(status, device)


def _rungs(job: Job, task: Task, decide: Callable[[Rung], bool]) -> Rungs | None:
    """Return where the job's fit is scored; None where nowhere. The method sees no label of a test row."""
    if not job.rungs:
        return None
    score = functools.partial(measure_upwards, task, labels=task.test_labels)
    return Rungs(job.rungs, task.test_rows_to_predict, score, decide)


def _max_length(task: Task, backbone: Backbone | None) -> int:
    """Return the most tokens of a text that are read: the task's limit, or the backbone's if that is lower."""
    return min(task.spec.max_length, backbone.max_length) if backbone else task.spec.max_length


def _check_time(run: Attempt) -> None:
    limit = run.job.planned.cell.budget.train_seconds
    seconds = run.standing().train_seconds
    if limit is not None and seconds > 2 * limit:
        raise OutOfTimeError(too_long(seconds, limit))


def _check_memory(cost: Cost, limit: int | None) -> None:
    needed, shared = cost.memory_bytes, cost.shared_weights_bytes or 0
    if limit is not None and needed is not None and needed > limit:
        parts = f" ({needed - shared:,} above the baseline, {shared:,} for weights that cells share)" if shared else ""
        what = parts or " above the baseline"
        raise OutOfMemoryError(f"The cell needed {needed:,} bytes{what}; its budget is {limit:,}.")
