"""`harness status`, `report`, `export`, `import` and `compare`: read stores and add to them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.console import make_console, print_tables, say
from harness.cli.options import names_a_run
from harness.records import STATUSES
from harness.store import Store, pack
from harness.support import (
    UsageError,
    check_output,
    csv_starts_with,
    first_line,
    mask_store,
    plain,
    quiet_libraries,
)


def show_status(store: str, **grid: Any) -> None:
    """Print counts by suite, task and method; with the options of a run, of the cells of that run on this device."""
    console = Console()
    quiet_libraries()
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    errors: list[str] = []
    prepared = None
    if names_a_run(grid):
        from harness.api import read_request
        from harness.schedule import prepare_plan

        prepared = prepare_plan(read_request(**grid))
    known: dict[str, str] = {}
    if prepared is None or "://" in store or Path(store).exists():  # a suite's missing cells need no store
        with Store.open(store, read_only=True) as opened:
            if prepared is None:
                for (label, task, method, status), n in opened.summary().items():
                    counts.setdefault((label, task, method), Counter())[status] += n
                failed = list(opened.failed())
            else:  # whichever suite ran them first
                ids = {planned.cell.id for planned in prepared.cells}
                known = opened.statuses(ids, prepared.device.name)
                wanted = [id_ for id_, status in known.items() if status == "failed"]
                failed = list(opened.latest(wanted, prepared.device.name).values())
        errors = [f"{r.cell.label()}: {first_line(r.error)}" for r in failed if r.error]
    if prepared is not None:
        for planned in prepared.cells:
            key = (prepared.suite, planned.cell.task, planned.cell.method)
            counts.setdefault(key, Counter())[known.get(planned.cell.id, "missing")] += 1
    shown = [name for name in (*STATUSES, "missing") if any(counter[name] for counter in counts.values())]
    table = Table(title=Text(plain(f"Records in {mask_store(store)}")), title_justify="left")
    for heading in ("suite", "task", "method"):
        table.add_column(heading)
    for heading in shown:
        table.add_column(heading, justify="right")
    for key, counter in counts.items():
        table.add_row(*(Text(plain(part)) for part in key), *(str(counter[name] or "") for name in shown))
    if counts:
        console.print(table)
    else:
        console.print(f"No records in {mask_store(store)} yet; `harness run quickstart` makes some.", markup=False)
    for line in errors:
        console.print(plain(f"failed: {line}"), markup=False, highlight=False, style="red")


def write_report_command(
    suite: str | None, out: Path | None, store: str, figures: str, *, overwrite: bool = False
) -> None:
    """Write page, tables and figures of the latest records."""
    from harness.api import report

    console = make_console()
    written = report(store, out, suite=suite, formats=figures, overwrite=overwrite)
    if written.observations is not None:
        print_tables(console, written.observations)
    say(f"Report: {written.report}", console)


def export_command(file: Path, store: str, *, overwrite: bool = False) -> None:
    """Write one row per cell."""
    from harness.analysis import check_export, export_records

    check_export(file, inputs=[store], overwrite=overwrite)
    with Store.open(store, read_only=True) as opened:
        n_rows = export_records(opened.records(), file)
    say(f"{n_rows} rows written to {file}.")


def import_command(
    files: list[Path],
    form: str,
    mapping: list[str],
    store: str,
    *,
    scale: str | None = None,
    ignore: list[str] | None = None,
) -> None:
    """Store results that others measured, all of them or none."""
    from harness.store import locate_results

    named: dict[str, str] = {}
    for part in mapping:
        field, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column:
            raise UsageError(
                f"--map {part} was given; expected FIELD=COLUMN, or FIELD==VALUE for one value in all rows."
            )
        if field in named:
            raise UsageError(f"--map {field} was given twice; expected one column, or several joined by '+'.")
        named[field] = column
    packed = pack(locate_results(files, form, named, scale=scale, ignore=ignore or ()))
    with Store.open(store) as opened:
        added = opened.add_new(packed)
        known = f", {added.n_known} were there already" if added.n_known else ""
        repeated = f", {added.n_repeated} come twice and were taken once" if added.n_repeated else ""
        say(f"{added.n_added} records imported into {opened.name}{known}{repeated}.")


def compare_command(a: str, b: str, out: Path | None, *, overwrite: bool = False) -> int:
    """Print the configurations that are better or worse in `b` than in `a`; return 1 if any is worse."""
    from harness.analysis import write_csv
    from harness.api import compare
    from harness.report import terminal_compared

    if out is not None:
        check_output(out, inputs=[a, b], ours=csv_starts_with(*COMPARED), overwrite=overwrite)
    console = make_console()
    found = compare(a, b)
    console.print(terminal_compared(found))
    counts = found.rows["verdict"].value_counts()
    said = ", ".join(
        f"{counts.get(name, 0)} {name}" for name in ("worse", "better", "no difference shown", "not known")
    )
    say(f"{len(found.rows)} in common: {said}.")
    if found.only_a or found.only_b:
        say(
            f"Not compared: {found.only_a} that only {mask_store(a)} has, {found.only_b} that only {mask_store(b)} has."
        )
    if out is not None:
        write_csv(found.rows, out)
        say(f"Written to {out}.")
    return 1 if counts.get("worse", 0) else 0


COMPARED = ("task", "backbone", "method", "variant", "draw", "budget", "n_train", "metric", "score_a", "score_b")
"""First columns of the file that `harness compare --out` writes; they identify an earlier output."""
