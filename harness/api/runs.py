"""Run the missing cells of a grid, and report them."""

from __future__ import annotations

import functools
import html
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.display import Display, make_display
from harness.api.known_rows import known_texts
from harness.api.requests import Several, read_request, read_seconds
from harness.api.results import Results
from harness.api.tracking import recorder, show_tracked
from harness.support import (
    UsageError,
    cache_folder,
    checked_path,
    find_store,
    given,
    quiet_libraries,
    real_number,
    spelt_for_caller,
    whole_number,
)
from harness.support import text as text_of

if TYPE_CHECKING:
    from harness.data import TextColumns, UserData
    from harness.records import Budget, Record
    from harness.report import Observations, Observer
    from harness.schedule import Executor, Limits, Prepared
    from harness.serving import EndpointOptions
    from harness.store import Store
    from harness.tasks import LabelColumns
    from harness.tracking import Tracked

EXECUTORS = ("local", "ray")
_ON_OOM = ("record", "halve")

_REPORT_SECONDS = 5.0
_REPORT_SECONDS_PER_TASK = 3.0
_REPORT_SHARE = 0.3
"""Maximum share of a run's time that is reserved for tables and report."""


@dataclass(frozen=True, eq=False)
class RunResult(Results):
    """Outcome of a run.

    Attributes:
        store: name of the store, without a password.
        n_cells: cells of the grid.
        n_run: cells that this run recorded.
        n_failed: cells of the grid whose latest record is `failed`.
        n_elsewhere: cells without a record that another run on the same store was running.
        n_left: cells without a record that no run is running.
        interrupted: whether Ctrl-C ended it early, without a table and a report.
        left_out: one message for each backbone that was asked for and could not be used; the others ran.
        unreached: names of the backbones of which no cell has a record, for want of time.
        tracked: what each tracker has kept.
    """

    store: str
    n_cells: int
    n_run: int
    n_failed: int
    n_elsewhere: int = 0
    n_left: int = 0
    interrupted: bool = False
    left_out: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()
    tracked: tuple[Tracked, ...] = ()

    @property
    def n_before(self) -> int:
        """Cells that had a record before."""
        return self.n_cells - self.n_run - self.n_elsewhere - self.n_left

    @functools.cached_property
    def answer(self) -> str | None:
        """The result in one sentence, which claims no more than was tested; None if nothing was scored."""
        from harness.report import conclude

        return None if self.observations is None else conclude(self.observations)

    @property
    def disturbed(self) -> tuple[Record, ...]:
        """Records of cells that something disturbed while they were measured; `unsteady` says what."""
        return tuple(record for record in self.records if record.unsteady is not None)

    @property
    def busy(self) -> str | None:
        """The meaning of disturbances for scores and seconds, and the remedy; None without any."""
        return _said_of_disturbed(self.disturbed, len(self.records)) if self.disturbed else None

    def _repr_html_(self) -> str:
        said = [f"<p>{html.escape(line)}</p>" for line in (self.answer,) if line]
        warned = [f"<p>{html.escape(line)}</p>" for line in (self.busy,) if line]
        return "".join([*warned, super()._repr_html_(), *said])


def _said_of_disturbed(disturbed: Sequence[Record], n_records: int) -> str:
    timed = sum(record.cell.budget.train_seconds is not None for record in disturbed)
    scores = (
        "Scores are unaffected"
        if not timed
        else f"{text_of.counted(timed, 'cell')} had a budget in seconds, so that "
        f"{'its score' if timed == 1 else 'their scores'} may be too low; other scores are unaffected"
    )
    which = f"{len(disturbed)} of {text_of.counted(n_records, 'cell')}"
    were = "was" if len(disturbed) == 1 else "were"
    return (
        f"The machine was busy: {which} {were} disturbed (the first: {disturbed[0].unsteady}). {scores}; seconds are "
        "unreliable. To measure again, run the same command with --remeasure on a quiet machine."
    )


@spelt_for_caller
def run(
    suite: str | Path | None = None,
    *,
    data: UserData | None = None,
    text: TextColumns | None = None,
    label: LabelColumns | None = None,
    kind: str | None = None,
    label_separator: str | None = None,
    prompt: str | None = None,
    test: UserData | None = None,
    name: str | None = None,
    metric: str | None = None,
    max_length: int | None = None,
    strict: bool = False,
    tasks: Several[str] | None = None,
    methods: Several[str] | None = None,
    sizes: Several[str | int] | int | None = None,
    seeds: Several[int] | int | None = None,
    budgets: Several[str | Budget] | Budget | None = None,
    backbone: str | Path | None = None,
    backbones: Several[str | Path] | Path | None = None,
    endpoint: EndpointOptions | Mapping[str, Any] | None = None,
    tune: int | None = None,
    device: str = "auto",
    store: str | Path | None = None,
    mirror: str | Path | None = None,
    reports: str | Path | None = "reports",
    retry_failed: bool = False,
    remeasure: bool = False,
    within: str | float | None = None,
    cell_limit: str | float | None = None,
    on_oom: str = "record",
    throughput: int = 1,
    deterministic: bool = False,
    price_per_hour: float | None = None,
    inference: bool = False,
    executor: str = "local",
    ray_address: str | None = None,
    ray_workers: int | None = None,
    ray_cores: int | None = None,
    track: Several[str] | None = None,
    progress: bool | Display = True,
) -> RunResult:
    """Run the missing cells of a suite, or of your own data, and write a report.

    Every cell is stored as soon as it ends, so the same call continues where an interrupted one stopped.

    Args:
        suite: name of a suite, or path of its YAML file; None with `data`.
        data: your labelled texts: a data frame, or the path of a CSV, TSV, JSON, JSONL or Parquet file.
        text: column of `data` that holds the texts; several go in the order of the kind's roles, such as
            `premise,hypothesis` or `question,context`. None takes the kind's own names, such as `text`.
        label: column of `data` that holds the labels, or several columns of 0 and 1 such as `["billing", "post"]`. None
            takes the kind's own name, such as `label`.
        kind: kind of the task, such as `regression`; None guesses it from the values of the columns.
        label_separator: text between the labels of a row, such as `|`, for the kind `multi-label`.
        prompt: question to a language model, with the columns' names in braces, such as `Review: {text} Sentiment:`;
            None takes the kind's own wordings.
        test: rows to test on, of the same sort as `data`; None holds out a quarter of them, of each class.
        name: name of the task; None takes the file's, or `data`. The same rows under one name are the same cells.
        metric: main metric, one of the kind's (`harness kinds`); None is the kind's first, such as accuracy.
        max_length: tokens of a text that are read; None is 128.
        strict: whether to refuse rows without a text or a label, and classes that cannot be scored.
        tasks: only these tasks of the suite.
        methods: such as `["linear-probe", "lora[rank=4]"]`; None takes the suite's.
        sizes: training sizes, such as `[32, "8/class", "all"]`; None takes the suite's.
        seeds: whole numbers from 0; None takes the suite's.
        budgets: limits of each fit, such as `["epochs=3"]`, or the name of a set of budgets.
        backbone: a hub id, `ID@REVISION` or a local folder; None takes the suite's.
        endpoint: served models, such as `{"url": "http://127.0.0.1:8000/v1", "model": "NAME"}`; they are the only
            backbones unless others are named. Further keys: `revision`, `api`, `scoring`, `key` (the name of an
            environment variable), `concurrency`, `timeout`, `max_cost`, `max_tokens`, `prices`.
        backbones: one such or several, as an axis of the grid; one that cannot be used is left out, and the rest runs.
        tune: number of settings that each method tries within a cell's budget; None tries none.
        device: `auto`, `cpu`, `cuda` (all GPUs of one model), or GPUs by number, such as `cuda:1` or `cuda:0,2`.
        store: path or URL of the records; None takes HARNESS_STORE, or `results/harness.sqlite`.
        mirror: folder with datasets/ and models/, searched first; None takes HARNESS_MIRROR.
        reports: folder of reports; this report gets a subfolder. None writes none.
        retry_failed: whether to run failed cells again.
        remeasure: whether to run cells again if the machine was disturbed while they ran.
        within: time for everything, such as `30m`, or in seconds; the most useful cells come first.
        cell_limit: longest time of one cell, such as `90s`, or in seconds.
        on_oom: when a cell runs out of memory, `record` it only, or `halve`: run it again in the form that
            is expected to fit, in pieces or with `gradient_checkpointing`.
        throughput: number of cells to run at a time on one device; their times are in no cost table.
        deterministic: whether a GPU uses only kernels that repeat their results bit for bit; they may be slower, and an
            operation without one fails its cell.
        price_per_hour: price of the device, kept in the records.
        inference: whether to measure the use of each fitted model too: seconds for one text, texts a second, memory,
            bytes on disk, seconds to load. It takes about five seconds a cell, which no cost contains. Cells that have
            a record are not run again for it.
        executor: `local` or `ray`.
        ray_address: with Ray, `auto` or a cluster's address; None starts a cluster here.
        ray_workers: with Ray, number of workers; None is one per GPU, or one per node.
        ray_cores: with Ray, cores of each worker; None shares all of them.
        track: trackers that get each new record too: some of `mlflow`, `trackio`, `wandb` and `tensorboard`. A tracker
            that is slow or dead holds up nothing; `harness export --track` sends what is missing.
        progress: whether to show progress (on standard error, or in the notebook); or a display of your own.

    Returns:
        Records, table, report and counts of the grid.

    Raises:
        UsageError: an invalid argument; the message says what was expected.
        DataError: the data cannot be used.
        MissingResourceError: a data set or backbone is not available.
        StoreError: the store or the report cannot be written.

    Warns:
        DataWarning: labels or texts of `data` look wrong.
    """
    began = time.monotonic()
    quiet_libraries()
    from harness.measure import Steadiness
    from harness.tracking import read_trackers

    start = Steadiness(with_children=True)
    cell_seconds = read_seconds(cell_limit, "--cell-limit")
    seconds = read_seconds(within, "--within")
    if on_oom not in _ON_OOM:
        raise UsageError(f"--on-oom '{on_oom}' was given; expected {' or '.join(_ON_OOM)}.")
    throughput = whole_number("throughput", throughput)
    ray_workers = given(whole_number, "ray_workers", ray_workers)
    ray_cores = given(whole_number, "ray_cores", ray_cores)
    price_per_hour = given(real_number, "price_per_hour", price_per_hour)
    if throughput < 1:
        raise UsageError(f"--throughput {throughput} was given; expected how many cells to run at a time.")
    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise UsageError(f"--price-per-hour {price_per_hour:g} was given; expected a number from 0 on.")
    trackers = read_trackers(track)
    request = read_request(
        suite, data, text, label, test, name, metric, max_length, strict, tasks, methods, sizes, seeds, budgets,
        backbone, backbones, tune, device, mirror, kind=kind, label_separator=label_separator, prompt=prompt,
        endpoint=endpoint, store=store,
    )  # fmt: skip
    from harness.analysis import asked_prices
    from harness.measure import host_limit_bytes
    from harness.report import check_report_folder
    from harness.schedule import Limits, Policy, prepare_plan, run_cells
    from harness.store import Store
    from harness.tracking import Sending

    folder = None if reports is None else Path(checked_path("reports", reports, "a folder")) / request.suite.name
    source = find_store(store)
    costs = asked_prices(path=None if request.suite.endpoint is None else request.suite.endpoint.prices)
    if folder is not None:
        check_report_folder(folder, inputs=[source], option="--reports")
    display = make_display(progress)
    limits = Limits(cell_seconds, host_limit_bytes())
    with (
        Sending(trackers) as sending,
        _executor(
            executor, device, limits, throughput, ray_address, ray_workers, ray_cores, deterministic=deterministic
        ) as workers,
    ):
        workers.warm_up()  # it imports torch while this process imports what plots and reads the data
        from harness.report import Observer, write_report

        with display.working("Loading data and checking the backbone"):
            prepared = prepare_plan(request, lambda _: workers.device, on_backbone=workers.preload)
        display.notes(prepared)
        disturbance = start.disturbance() if executor == "local" else None
        n_said = _say_remarks(display, workers, 0)
        policy = Policy(
            retry_failed=retry_failed,
            deadline=None if seconds is None else _deadline(began, seconds, prepared),
            halve_on_oom=on_oom == "halve",
            remeasure=remeasure,
            price_per_hour=price_per_hour,
            inference=inference,
            recorded=recorder(sending, display),
        )
        sending.give_way()  # they have started meanwhile; the cells are measured
        with Store.open(source) as opened:
            if disturbance is not None and _has_work(prepared, opened):
                display.say(f"Note: the machine is busy: {disturbance}. {_meaning_of_busy(prepared)}")
            observer = Observer()
            opened.on_added = observer.add
            try:
                with display.running(prepared):
                    outcome = run_cells(prepared, opened, display, workers, policy)
            finally:
                _say_remarks(display, workers, n_said)
            sending.hurry()
            observed = (
                None if outcome.interrupted else _observed_cells(opened, outcome.ids, prepared.device.name, observer)
            )
            where = opened.name
    page = None
    if observed is not None and folder is not None:
        page = write_report(
            observed, folder, formats=("png",), texts=known_texts(prepared.tasks.values()), prices=costs
        )
    tracked = sending.finish()
    show_tracked(tracked, display, source, request.suite.name)
    return RunResult(
        observed,
        page,
        where,
        n_cells=outcome.n_cells,
        n_run=outcome.n_run,
        n_failed=outcome.n_failed,
        n_elsewhere=outcome.n_elsewhere,
        n_left=outcome.n_left,
        interrupted=outcome.interrupted,
        left_out=(*prepared.left_out, *outcome.left_out),
        unreached=outcome.unreached,
        tracked=tracked,
    )


def _has_work(prepared: Prepared, store: Store) -> bool:
    ids = [planned.cell.id for planned in prepared.cells]
    return len(store.statuses(ids, prepared.device.name)) < len(ids)


def _meaning_of_busy(prepared: Prepared) -> str:
    if any(planned.cell.budget.train_seconds is not None for planned in prepared.cells):
        return "Fits with a budget in seconds do less work than on a quiet machine, and may score lower."
    return "Scores will be the same as on a quiet machine; seconds will not."


def _observed_cells(store: Store, ids: Collection[str], device: str, observer: Observer) -> Observations | None:
    """Return the observations of some cells; None if the store holds none of them.

    Predictions are read only of cells that this run has not recorded itself.
    """
    records = list(store.records(ids=ids, device=device))
    before = [record.id for record in records if not observer.knows(record)]
    if before:
        for record in store.records(with_predictions=True, ids=before, device=device):  # too large to be read at once
            observer.add(record)
    known = [record for record in records if observer.knows(record)]
    return observer.observations(known) if known else None


def _executor(
    executor: str,
    device: str,
    limits: Limits,
    throughput: int,
    ray_address: str | None,
    ray_workers: int | None,
    ray_cores: int | None,
    *,
    deterministic: bool,
) -> Executor:
    if executor == "local":
        for option, value in (("address", ray_address), ("workers", ray_workers), ("cores", ray_cores)):
            if value is not None:
                raise UsageError(f"--ray-{option} goes with --executor ray.")
        from harness.schedule import LocalWorkers

        return LocalWorkers(
            device, cache_folder(), n_workers=throughput, all_gpus=True, deterministic=deterministic, limits=limits
        )
    if executor != "ray":
        raise UsageError(f"--executor '{executor}' was given; expected {' or '.join(EXECUTORS)}.")
    if throughput != 1:
        raise UsageError("--throughput goes with --executor local; Ray runs one cell a worker (--ray-workers).")
    if ":" in device:
        raise UsageError(f"--device {device} goes with --executor local; Ray gives each worker a GPU.")
    for option, number in (("--ray-workers", ray_workers), ("--ray-cores", ray_cores)):
        if number is not None and number < 1:
            raise UsageError(f"{option} {number} was given; expected a whole number above 0.")
    from harness.schedule import RayWorkers

    return RayWorkers(
        device,
        cache_folder(),
        address=ray_address,
        n_workers=ray_workers,
        cores_per_worker=ray_cores,
        deterministic=deterministic,
        limits=limits,
    )


def _say_remarks(display: Display, workers: Executor, n_said: int) -> int:
    """Show an executor's remarks after the first `n_said`; return their total number."""
    for remark in workers.remarks[n_said:]:
        display.say(f"Note: {remark}")
    return len(workers.remarks)


def _deadline(began: float, within: float, prepared: Prepared) -> float:
    """Return the time by which cells must end, so that tables and report are also done in time."""
    reporting = _REPORT_SECONDS + _REPORT_SECONDS_PER_TASK * len(prepared.tasks)
    return began + within - min(reporting, _REPORT_SHARE * within)
