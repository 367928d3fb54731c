"""`harness break-even`: print after how many predictions training pays."""

from __future__ import annotations

from typing import Any

from harness.api import break_even
from harness.cli.as_json import print_json
from harness.cli.console import make_console
from harness.report import terminal_pairs


def break_even_command(store: str, *, as_json: bool, **asked: Any) -> int:
    """Print the pairs of `harness.break_even(store, **asked)`, and what they rest on."""
    found = break_even(store, **asked)
    if as_json:
        print_json(found.to_dict())
        return 0
    console = make_console()
    for table in terminal_pairs(found.table):
        console.print(table)
    for note in found.notes:
        console.print(f"{note}.", markup=False, highlight=False, style="dim")
    return 0
