"""`harness run`."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.cli.request import Asked, read_request
from harness.report import check_report_folder
from harness.support import UsageError, parse_duration, quiet_libraries

if TYPE_CHECKING:
    from harness.backbones import BackboneFiles
    from harness.report import Observations, Source
    from harness.schedule import Executor, Limits, Outcome, Prepared, Request
    from harness.tasks import Task

EXECUTORS = ("local", "ray")
ON_OOM = ("record", "halve")


@dataclass(frozen=True)
class RunOptions:
    """How `harness run` goes about the cells that were asked for.

    Attributes:
        store: a path or URL.
        reports: folder for the report.
        retry_failed: run cells again that have failed.
        remeasure: run cells again that were disturbed.
        cell_limit: longest that a cell may take, as text; None is no limit.
        within: longest that the whole command may take, as text; None is no limit.
        on_oom: `record`, or `halve`.
        throughput: cells at a time on one device.
        executor: `local` or `ray`.
        price_per_hour: of the device, for the records.
        ray_address: of a cluster; None starts one on this machine.
        ray_workers, ray_cores: of a cluster: workers, and cores of each; None is what there is.
    """

    store: str
    reports: Path
    retry_failed: bool = False
    remeasure: bool = False
    cell_limit: str | None = None
    within: str | None = None
    on_oom: str = "record"
    throughput: int = 1
    price_per_hour: float | None = None
    executor: str = "local"
    ray_address: str | None = None
    ray_workers: int | None = None
    ray_cores: int | None = None


def run_command(asked: Asked, options: RunOptions) -> int:
    """Run, print the table, write the report; returns the exit code."""
    began = time.monotonic()
    quiet_libraries()
    seconds = None if options.cell_limit is None else parse_duration(options.cell_limit, "--cell-limit")
    within = None if options.within is None else parse_duration(options.within, "--within")
    if options.on_oom not in ON_OOM:
        raise UsageError(f"--on-oom '{options.on_oom}' was given; expected {' or '.join(ON_OOM)}.")
    if options.throughput < 1:
        raise UsageError(f"--throughput {options.throughput} was given; expected how many cells to run at a time.")
    if options.price_per_hour is not None and not 0 <= options.price_per_hour < float("inf"):
        raise UsageError(f"--price-per-hour {options.price_per_hour:g} was given; expected a number from 0 on.")
    request = read_request(asked)
    check_report_folder(options.reports / request.suite.name, inputs=[options.store], option="--reports")
    console = make_console()
    from harness.measure import host_limit_bytes
    from harness.schedule import Limits

    with _workers(options, request.device, Limits(seconds, host_limit_bytes())) as workers:
        return _run(request, workers, console, options, None if within is None else (began, within))


def _workers(options: RunOptions, device: str, limits: Limits) -> Executor:
    from harness.support import cache_folder

    if options.executor == "local":
        of_ray = {"address": options.ray_address, "workers": options.ray_workers, "cores": options.ray_cores}
        for name, value in of_ray.items():
            if value is not None:
                raise UsageError(f"--ray-{name} goes with --executor ray.")
        from harness.schedule import LocalWorkers

        return LocalWorkers(device, cache_folder(), n_workers=options.throughput, limits=limits)
    if options.executor != "ray":
        raise UsageError(f"--executor '{options.executor}' was given; expected {' or '.join(EXECUTORS)}.")
    if options.throughput != 1:
        raise UsageError("--throughput goes with --executor local; Ray runs one cell a worker (--ray-workers).")
    for name, value in (("--ray-workers", options.ray_workers), ("--ray-cores", options.ray_cores)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value} was given; expected a whole number above 0.")
    from harness.schedule import RayWorkers

    return RayWorkers(
        device,
        cache_folder(),
        address=options.ray_address,
        n_workers=options.ray_workers,
        cores_per_worker=options.ray_cores,
        limits=limits,
    )


def _run(
    request: Request,
    workers: Executor,
    console: Console,
    options: RunOptions,
    time_given: tuple[float, float] | None,
) -> int:
    """Prepare while the worker starts; run; print and write what came of it."""
    from harness.schedule import prepare_plan

    workers.warm_up()
    with console.status("Loading data and checking the backbone"):
        prepared = prepare_plan(request, lambda _: workers.device)
    print_notes(console, prepared)
    said = _print_remarks(console, workers, 0)

    from harness.cli.progress import RunDisplay
    from harness.schedule import Policy, run_cells
    from harness.store import Store

    policy = Policy(
        retry_failed=options.retry_failed,
        deadline=None if time_given is None else _deadline(*time_given, prepared),
        halve_on_oom=options.on_oom == "halve",
        remeasure=options.remeasure,
        price_per_hour=options.price_per_hour,
    )
    with Store.open(options.store) as opened:
        try:
            with RunDisplay(console, prepared) as display:
                outcome = run_cells(prepared, opened, display, workers, policy)
        except KeyboardInterrupt:
            outcome = None
        _print_remarks(console, workers, said)
        if outcome is None or outcome.interrupted:
            console.print(f"Stopped. {_how_to_go_on(opened.name)}", highlight=False, markup=False)
            return 130
        from harness.report import observe

        # Read as a stream: predictions of many cells do not fit in memory.
        stream = opened.records(with_predictions=True, ids=outcome.ids, device=prepared.device.name)
        first = next(stream, None)
        observed = None if first is None else observe(itertools.chain([first], stream))
        store = opened.name
    return _conclude(console, prepared, outcome, observed, options, store)


def _print_remarks(console: Console, workers: Executor, n_said: int) -> int:
    """What an executor has to say of machines that it does not use, from the one after `n_said` on; how many in all."""
    for remark in workers.remarks[n_said:]:
        console.print(f"Note: {remark}", highlight=False, markup=False)
    return len(workers.remarks)


def _how_to_go_on(store: str) -> str:
    return f"Run the same command again to go on; records are in {store}."


def _conclude(
    console: Console,
    prepared: Prepared,
    outcome: Outcome,
    observed: Observations | None,
    options: RunOptions,
    store: str,
) -> int:
    from harness.report import write_report

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    if observed is not None:
        print_tables(console, observed)
        written = write_report(observed, options.reports / prepared.suite, formats=("png",))
    n_before = outcome.n_cells - outcome.n_run - outcome.n_elsewhere - outcome.n_left
    say(f"{outcome.n_run} cells run, {n_before} were there already. Records: {store}")
    if outcome.n_left:
        say(f"{outcome.n_left} cells did not fit into {options.within}. {_how_to_go_on(store)}")
    if outcome.n_elsewhere:
        say(
            f"{outcome.n_elsewhere} cells are being run by another run on this store. The same command again shows "
            "them, and runs what that one leaves."
        )
    if observed is not None:
        say(f"Report: {written}")
    disturbed = [record for record in observed.records if record.unsteady is not None] if observed is not None else []
    if disturbed:
        say(
            f"{len(disturbed)} cells are unsteady ({disturbed[0].unsteady}): their seconds are not to be trusted. "
            "--remeasure runs them again."
        )
    if outcome.n_failed:
        say(f"{outcome.n_failed} cells failed; the report says why. --retry-failed runs them again.", style="red")
        return 1
    return 0


_REPORT_SECONDS = 5.0
_REPORT_SECONDS_PER_TASK = 3.0
_MOST_OF_TIME_FOR_REPORT = 0.3


def _deadline(began: float, within: float, prepared: Prepared) -> float:
    """When cells must have ended, so that tables and report are done in time too."""
    reporting = _REPORT_SECONDS + _REPORT_SECONDS_PER_TASK * len(prepared.tasks)
    return began + within - min(reporting, _MOST_OF_TIME_FOR_REPORT * within)


def make_console() -> Console:
    """A console as wide as the terminal; where there is none, wide enough for the tables."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 100
    return console


def print_notes(console: Console, prepared: Prepared) -> None:
    """Print what each task's data are, and what of the request could not be followed."""
    for task in prepared.tasks.values():
        print_data(console, task, prepared.backbones.get(task.name))
    differing = [task.name for task in prepared.tasks.values() if task.provenance.get("content_as_pinned") is False]
    others = [
        f"{name}: this copy of the data differs from the one that the suite was checked on." for name in differing
    ]
    for note in [*prepared.notes, *others]:
        console.print(f"Note: {note}", highlight=False, markup=False)


def print_data(console: Console, task: Task, files: BackboneFiles | None) -> None:
    """Print one line on a task's data, and what looks wrong with them to stderr.

    Args:
        console: for the line.
        task: prepared.
        files: the backbone that reads the texts; None where no method uses one.
    """
    from harness.support import plain
    from harness.tasks import summarise_data

    with console.status("Reading the texts"):
        summary = summarise_data(task, files)
    console.print(plain(summary.line()), highlight=False, markup=False, soft_wrap=True)
    problems = Console(stderr=True)
    for warning in summary.warnings:
        problems.print(plain(f"Warning: {warning}"), style="yellow", highlight=False, markup=False, soft_wrap=True)


def print_tables(console: Console, records: Source) -> None:
    """The comparison, one table for each task, backbone and device."""
    from harness.report import terminal_tables

    for table in terminal_tables(records):
        console.print(table)
