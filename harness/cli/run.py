"""`harness run`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.durations import parse_duration
from harness.errors import UsageError
from harness.libraries import quiet_libraries
from harness.methods.configure import split_top_level
from harness.records import Budget, Record, parse_budget
from harness.suites import Suite, load_suite

if TYPE_CHECKING:
    from harness.schedule.local import LocalWorkers
    from harness.schedule.prepare import Request


def run_command(
    *,
    suite: str | None,
    data: Path | None,
    text: str,
    label: str,
    test: Path | None,
    tasks: str | None,
    methods: str | None,
    sizes: str | None,
    seeds: str | None,
    budgets: Sequence[str] | None,
    backbone: str | None,
    device: str,
    store: str,
    mirror: Path | None,
    reports: Path,
    retry_failed: bool,
    tune: int | None,
    cell_limit: str | None,
) -> int:
    """Run, print the table, write the report; returns the exit code."""
    quiet_libraries()
    from harness.schedule.prepare import Request

    seconds = None if cell_limit is None else parse_duration(cell_limit, "--cell-limit")
    chosen = _suite(suite, data, text, label, test)
    request = Request(
        suite=chosen,
        tasks=_names(tasks),
        methods=None if methods is None else split_top_level(methods),
        sizes=_names(sizes),
        seeds=_seeds(seeds),
        budgets=None if not budgets else [found for budget in budgets for found in _budgets(budget, chosen)],
        backbone=backbone,
        mirror=mirror,
        device=device,
        only_sizes_that_fit=data is not None,
        tune=tune,
    )
    console = make_console()
    from harness.features.disk import default_folder
    from harness.schedule.local import Limits, LocalWorkers, host_limit_bytes

    workers = LocalWorkers(device, default_folder(), limits=Limits(seconds, host_limit_bytes()))
    with workers:
        return _run(request, workers, console, store, reports, retry_failed=retry_failed)


def _run(
    request: Request, workers: LocalWorkers, console: Console, store: str, reports: Path, *, retry_failed: bool
) -> int:
    """Prepare while the worker starts; run; print and write what came of it."""
    from harness.schedule.prepare import prepare

    if request.device in ("auto", "cpu", "cuda"):  # else `prepare` says what is wrong with it
        workers.warm_up()
    with console.status("Loading data and checking the backbone"):
        prepared = prepare(request)
    of_tasks = [note for task in prepared.tasks.values() for note in _notes(task.name, task.provenance)]
    for note in [*prepared.notes, *of_tasks]:
        console.print(f"Note: {note}", highlight=False, markup=False)

    from harness.cli.progress import RunDisplay
    from harness.report.write import write_report
    from harness.schedule.drive import run_cells
    from harness.store import Store

    again = f"Run the same command again to go on; records are in {store}."
    with Store.open(store) as opened:
        try:
            with RunDisplay(console, prepared) as display:
                outcome = run_cells(prepared, opened, display, workers, retry_failed=retry_failed)
        except KeyboardInterrupt:
            outcome = None
        if outcome is None or outcome.interrupted:
            console.print(f"Stopped. {again}", highlight=False, markup=False)
            return 130
        ids = {planned.cell.id for planned in prepared.cells}
        records = list(opened.records(with_predictions=True, ids=ids, device=prepared.device.name))
    print_tables(console, records)
    written = write_report(records, reports / prepared.suite)
    console.print(
        f"{outcome.n_run} cells run, {outcome.n_cells - outcome.n_run - outcome.n_elsewhere} were there already. "
        f"Records: {store}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if outcome.n_elsewhere:
        console.print(
            f"{outcome.n_elsewhere} cells are being run by another run on this store. The same command again shows "
            "them, and runs what that one leaves.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"Report: {written}", highlight=False, markup=False, soft_wrap=True)
    if outcome.n_failed:
        console.print(
            f"{outcome.n_failed} cells failed; the report says why. --retry-failed runs them again.",
            style="red",
            highlight=False,
        )
        return 1
    return 0


def make_console() -> Console:
    """A console as wide as the terminal; where there is none, wide enough for the tables."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 100
    return console


def _suite(suite: str | None, data: Path | None, text: str, label: str, test: Path | None) -> Suite:
    if (suite is None) == (data is None):
        raise UsageError("Name either a suite (`harness run quickstart`) or your own file (`harness run --data FILE`).")
    if data is None:
        if test is not None or (text, label) != ("text", "label"):
            raise UsageError("--text, --label and --test go with --data; a suite names its own columns and test rows.")
        if str(suite).lower().endswith((".csv", ".tsv", ".jsonl", ".parquet")):
            raise UsageError(f"'{suite}' is a file of data: harness run --data {suite} --text COLUMN --label COLUMN.")
        return load_suite(str(suite))
    from harness.data.table import table_task

    spec = table_task(data, text, label, test)
    return Suite(name=spec.name, description=f"Your own data: {data.name}", tasks={spec.name: spec})


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _budgets(text: str, suite: Suite) -> list[Budget]:
    """What one `--budget` asks for: caps, or the name of a set of budgets."""
    return [parse_budget(text)] if "=" in text else suite.budget_set(text.strip())


def _seeds(text: str | None) -> list[int] | None:
    names = _names(text)
    if names is None:
        return None
    try:
        return [int(name) for name in names]
    except ValueError:
        raise UsageError(f"Seeds '{text}' were given; expected whole numbers separated by commas: 0,1,2.") from None


def _notes(name: str, provenance: dict[str, object]) -> list[str]:
    notes = []
    if provenance.get("n_dropped_from_training"):
        notes.append(f"{name}: {provenance['n_dropped_from_training']} training rows are copies of test rows: dropped.")
    if provenance.get("content_as_pinned") is False:
        notes.append(f"{name}: this copy of the data differs from the one that the suite was checked on.")
    return notes


def print_tables(console: Console, records: Sequence[Record]) -> None:
    """The comparison, one table for each task, backbone and device."""
    from harness.report.terminal import terminal_tables

    for table in terminal_tables(records):
        console.print(table)
