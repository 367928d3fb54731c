"""`harness status`, `report`, `export` and `import`: read stores and add to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.api import read_status, report
from harness.cli.as_json import print_json
from harness.cli.console import make_console, open_page, print_tables, say
from harness.cli.options import names_a_run
from harness.store import Store, pack
from harness.support import (
    UsageError,
    check_output_folder,
    mark_folder,
    plain,
    text,
)


def show_status(store: str, *, as_json: bool = False, **grid: Any) -> None:
    """Print counts by suite, task and method; with the options of a run, of the cells of that run on this device."""
    found = read_status(store, grid if names_a_run(grid) else None)
    if as_json:
        print_json(found)
        return
    console = Console()
    table = Table(title=Text(plain(f"Records in {found.store}")), title_justify="left")
    for heading in ("suite", "task", "method"):
        table.add_column(heading)
    for heading in found.statuses:
        table.add_column(heading, justify="right")
    for row in found.rows:
        counts = (str(row.counts.get(name) or "") for name in found.statuses)
        table.add_row(*(Text(plain(part)) for part in (row.suite, row.task, row.method)), *counts)
    if found.rows:
        console.print(table)
    else:
        console.print(f"No records in {found.store} yet; `harness run quickstart` makes some.", markup=False)
    for failed in found.failed:
        line = plain(f"failed: {failed.cell}: {failed.error}")
        console.print(line, markup=False, highlight=False, style="red")


def write_report_command(
    suite: str | None,
    out: Path | None,
    store: str,
    figures: str,
    *,
    prices: Path | None = None,
    overwrite: bool = False,
    show: bool = False,
    as_json: bool = False,
) -> None:
    """Write page, tables and figures of the latest records; `show` opens the page in the browser."""
    written = report(store, out, suite=suite, formats=figures, prices=prices, overwrite=overwrite)
    if as_json:
        opened = show and written.report is not None and open_page(written.report, Console(stderr=True))
        print_json({**written.to_dict(), "opened": opened})
        return
    console = make_console()
    if written.observations is not None:
        print_tables(console, written.observations)
    say(f"Report: {written.report}", console)
    if show and written.report is not None:
        open_page(written.report, console)


def export_command(
    file: Path,
    store: str,
    *,
    form: str = "table",
    instances: bool = False,
    overwrite: bool = False,
    as_json: bool = False,
) -> None:
    """Write one row per cell into a table, or one file per record in the format of Every Eval Ever."""
    if form not in ("table", "eee"):
        raise UsageError(f"Format '{form}' was given; expected table or eee.")
    if form == "eee":
        _export_eee(file, store, instances=instances, overwrite=overwrite, as_json=as_json)
        return
    if instances:
        raise UsageError("--instances was given with a table; it applies only to --format eee.")
    from harness.analysis import check_export, export_records

    check_export(file, inputs=[store], overwrite=overwrite)
    with Store.open(store, read_only=True) as opened:
        n_rows = export_records(opened.records(), file)
    if as_json:
        print_json({"file": file, "n_rows": n_rows})
        return
    say(f"{text.counted(n_rows, 'row')} written to {file}.")


def _export_eee(folder: Path, store: str, *, instances: bool, overwrite: bool, as_json: bool) -> None:
    from harness.store import export_eee

    check_output_folder(folder, ["data"], inputs=[store], overwrite=overwrite, option="The export")
    with Store.open(store, read_only=True) as opened:
        mark_folder(folder)
        found = export_eee(opened.records(with_predictions=instances), folder, instances=instances)
    if as_json:
        print_json({"folder": folder, **found._asdict()})
        return
    left = (
        f" {text.counted(found.n_without_score, 'record')} without a score left out." if found.n_without_score else ""
    )
    rows = f", {found.n_with_instances:,} of them with the answers to single rows" if instances else ""
    say(f"{text.counted(found.n_files, 'file')} written to {folder / 'data'}{rows}.{left}")


def import_command(
    files: list[Path],
    form: str,
    mapping: list[str],
    store: str,
    *,
    scale: str | None = None,
    ignore: list[str] | None = None,
    as_json: bool = False,
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
        name = opened.name
    if as_json:
        print_json({"store": name, **added._asdict()})
        return
    known = f", {_were(added.n_known)} there already" if added.n_known else ""
    repeated = f", {_were(added.n_repeated)} repeated and taken once" if added.n_repeated else ""
    say(f"{text.counted(added.n_added, 'record')} imported into {name}{known}{repeated}.")


def _were(n: int) -> str:
    return f"{n:,} {'was' if n == 1 else 'were'}"
