"""`harness forget`."""

from __future__ import annotations

from collections import Counter

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.as_json import print_json
from harness.store import Store, Wanted, find_records, forget_records
from harness.support import plain, text

_N_ROWS = 40
"""Largest number of rows of the preview."""


def forget_command(wanted: Wanted, store: str, *, yes: bool, as_json: bool = False) -> int:
    """List the records to delete, ask for confirmation, and delete them; return the exit code.

    As JSON, nothing is asked: the records are listed, and deleted only with `yes`.
    """
    if as_json:
        return _forget_as_json(wanted, store, yes=yes)
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
        n_records = text.counted(len(keys), "record")
        table = Table(title=Text(plain(f"{n_records} of {opened.name} to forget")), title_justify="left")
        for heading in ("suite", "task", "method", "device", "status", "records"):
            table.add_column(heading, overflow="fold", justify="right" if heading == "records" else "left")
        for parts, n in list(counts.items())[:_N_ROWS]:
            table.add_row(*(Text(plain(part)) for part in parts), str(n))
        if len(counts) > _N_ROWS:
            table.add_row(f"and {text.counted(len(counts) - _N_ROWS, 'more row')}")
        console.print(table)
        question = "Forget this record? It" if len(keys) == 1 else f"Forget these {n_records}? They"
        if not yes and not typer.confirm(f"{question} cannot be brought back"):
            say("Nothing was forgotten.")
            return 1
        n_deleted, n_claimed = forget_records(opened, keys)
        left = opened.count()
        is_left = "is" if left == 1 else "are"
        say(f"{text.counted(n_deleted, 'record')} forgotten; {left:,} {is_left} left in {opened.name}.")
        if n_claimed:
            stays = "record stays" if n_claimed == 1 else "records stay"
            say(f"{n_claimed:,} {stays}: a run is measuring the same cells. Try again after that run.")
    return 0


def _forget_as_json(wanted: Wanted, store: str, *, yes: bool) -> int:
    with Store.open(store, create=False) as opened:
        keys = find_records(opened, wanted)
        n_deleted, n_claimed = forget_records(opened, keys) if yes and keys else (0, 0)
        print_json(
            {
                "store": opened.name,
                "records": [key._asdict() for key in keys],
                "n_forgotten": n_deleted,
                "n_kept_because_running": n_claimed,
                "n_left": opened.count(),
            }
        )
    return 0
