"""`harness status`, `harness report` and `harness export`: what is in a store."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.bulk import uncollected
from harness.errors import UsageError
from harness.libraries import quiet_libraries
from harness.records import STATUSES
from harness.sources import of_suite, stream_source
from harness.store import Store


def show_status(suite: str | None, store: str, mirror: Path | None) -> None:
    """Counts by suite, task and method; with a suite, what is missing of its defaults on this device."""
    console = Console()
    quiet_libraries()
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    errors: list[str] = []
    prepared = None
    if suite is not None:
        from harness.schedule.prepare import Request, prepare
        from harness.suites import load_suite

        prepared = prepare(Request(suite=load_suite(suite), mirror=mirror))
    known: dict[str, str] = {}
    if prepared is None or "://" in store or Path(store).exists():  # a suite's missing cells need no store
        with Store.open(store, create=False) as opened:
            if prepared is None:
                for (label, task, method, status), n in opened.summary().items():
                    counts.setdefault((label, task, method), Counter())[status] += n
                failed = list(opened.failed())
            else:  # whichever suite ran them first
                ids = {planned.cell.id for planned in prepared.cells}
                known = opened.statuses(ids, prepared.device.name)
                wanted = [id_ for id_, status in known.items() if status == "failed"]
                failed = list(opened.latest(wanted, prepared.device.name).values())
        errors = [f"{r.cell.label()}: {r.error.splitlines()[0]}" for r in failed if r.error]
    if prepared is not None:
        for planned in prepared.cells:
            key = (str(suite), planned.cell.task, planned.cell.method)
            counts.setdefault(key, Counter())[known.get(planned.cell.id, "missing")] += 1
    shown = [name for name in (*STATUSES, "missing") if any(counter[name] for counter in counts.values())]
    table = Table(title=f"Records in {store}", title_justify="left")
    for heading in ("suite", "task", "method"):
        table.add_column(heading)
    for heading in shown:
        table.add_column(heading, justify="right")
    for key, counter in counts.items():
        table.add_row(*map(Text, key), *(str(counter[name] or "") for name in shown))
    if counts:
        console.print(table)
    else:
        console.print(f"No records in {store} yet; `harness run quickstart` makes some.", markup=False)
    for line in errors:
        console.print(f"failed: {line}", markup=False, highlight=False, style="red")


@uncollected()
def write_report_command(suite: str | None, out: Path | None, store: str, figures: str) -> None:
    """Page, tables and plots of the latest records."""
    from harness.cli.run import make_console, print_tables
    from harness.report.observations import observe
    from harness.report.plots import FORMATS
    from harness.report.write import write_report

    console = make_console()
    formats = [name.strip().lower() for name in figures.split(",") if name.strip()]
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise UsageError(f"--figures {figures} was given; expected some of {', '.join(FORMATS)}, separated by commas.")
    records = observe(of_suite(stream_source(store), suite))
    written = write_report(records, out or Path("reports") / (suite or "all"), formats)
    print_tables(console, records)
    console.print(f"Report: {written}", markup=False, highlight=False, soft_wrap=True)


def export_command(file: Path, store: str) -> None:
    """One row a cell."""
    from harness.frame import export

    with Store.open(store, create=False) as opened:
        n_rows = export(opened.records(), file)
    Console().print(f"{n_rows} rows written to {file}.", markup=False, highlight=False, soft_wrap=True)


def import_command(files: list[Path], form: str, mapping: list[str], store: str) -> None:
    """Results that others measured, into the store."""
    from harness.importing import read_results

    named: dict[str, str] = {}
    for part in mapping:
        field, equals, column = part.partition("=")
        if not equals or not column:
            raise UsageError(
                f"--map {part} was given; expected FIELD=COLUMN, or FIELD==VALUE for one value in all rows."
            )
        named[field.strip()] = column.strip()
    records = read_results(files, form, named)
    with Store.open(store) as opened:
        by_device: defaultdict[str, list[str]] = defaultdict(list)
        for record in records:
            by_device[record.device].append(record.id)
        known_ids = {(id_, device) for device, ids in by_device.items() for id_ in opened.statuses(ids, device)}
        n_new = opened.add_all(record for record in records if (record.id, record.device) not in known_ids)
    n_known = len(records) - n_new
    known = f", {n_known} were there already" if n_known else ""
    Console().print(f"{n_new} records imported into {store}{known}.", markup=False, highlight=False, soft_wrap=True)


@uncollected()
def compare_command(a: str, b: str, out: Path | None) -> int:
    """What is better or worse in `b` than in `a`; 1 where something is worse."""
    from harness.cli.run import make_console
    from harness.frame import write_csv
    from harness.report.compare import compare
    from harness.report.terminal import terminal_compared

    console = make_console()
    found = compare(stream_source(a), stream_source(b))
    console.print(terminal_compared(found))
    counts = found.rows["verdict"].value_counts()
    said = ", ".join(
        f"{counts.get(name, 0)} {name}" for name in ("worse", "better", "no difference shown", "not known")
    )
    console.print(f"{len(found.rows)} in common: {said}.", markup=False, highlight=False, soft_wrap=True)
    if found.only_a or found.only_b:
        console.print(
            f"Not compared: {found.only_a} that only {a} has, {found.only_b} that only {b} has.", markup=False
        )
    if out is not None:
        write_csv(found.rows, out)
        console.print(f"Written to {out}.", markup=False, highlight=False, soft_wrap=True)
    return 1 if counts.get("worse", 0) else 0
