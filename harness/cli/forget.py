"""`harness forget`."""

from __future__ import annotations

from collections import Counter

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.store import Store, Wanted, find_records, forget_records
from harness.support import plain

_N_ROWS = 40
"""Largest number of rows of the preview."""


def forget_command(wanted: Wanted, store: str, *, yes: bool) -> int:
    """List the records to delete, ask for confirmation, and delete them; return the exit code."""
    console = Console()

    def say(line: str) -> None:
        console.print(plain(line), markup=False, highlight=False, soft_wrap=True)

    with Store.open(store, create=False) as opened:
        keys = find_records(opened, wanted)
        if not keys:
            said = ", ".join(f"{name} {value}" for name, value in wanted.stated().items())
            say(f"No record in {opened.name} has {said}.")
            return 0
        counts = Counter((key.suite, key.task, key.method, key.device, key.status) for key in keys)
        table = Table(title=Text(plain(f"{len(keys)} records of {opened.name} to forget")), title_justify="left")
        for heading in ("suite", "task", "method", "device", "status", "records"):
            table.add_column(heading, overflow="fold", justify="right" if heading == "records" else "left")
        for parts, n in list(counts.items())[:_N_ROWS]:
            table.add_row(*(Text(plain(part)) for part in parts), str(n))
        if len(counts) > _N_ROWS:
            table.add_row(f"and {len(counts) - _N_ROWS} more rows")
        console.print(table)
        if not yes and not typer.confirm(f"Forget these {len(keys)} records? They cannot be brought back"):
            say("Nothing was forgotten.")
            return 1
        n_deleted, n_claimed = forget_records(opened, keys)
        say(f"{n_deleted} records forgotten; {opened.count()} are left in {opened.name}.")
        if n_claimed:
            say(f"{n_claimed} records stay: their cells are being run. Try again after that run.")
    return 0
