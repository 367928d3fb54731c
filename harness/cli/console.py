"""Print for several commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.api import TerminalDisplay
from harness.support import plain

if TYPE_CHECKING:
    from harness.report import RecordSource


def make_console() -> Console:
    """Return a console as wide as the terminal; where there is none, wide enough for the tables."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 100
    return console


def say(line: str, console: Console | None = None) -> None:
    """Print one line as it is, without control characters and without wrapping."""
    (console or Console()).print(plain(line), markup=False, highlight=False, soft_wrap=True)


def print_tables(console: Console, records: RecordSource) -> None:
    """Print the comparison: one table for each task, backbone and device."""
    from harness.report import terminal_tables

    for table in terminal_tables(records, console.width):
        console.print(table)


def open_page(page: Path, console: Console) -> bool:
    """Open a page in the browser; where there is none, say so. Return whether it was opened."""
    import webbrowser

    try:
        opened = webbrowser.open(page.absolute().as_uri())
    except (webbrowser.Error, OSError):
        opened = False
    if not opened:
        say("No browser could be opened here. Open the file by hand, or copy it to a machine that has one.", console)
    return opened


class CommandDisplay(TerminalDisplay):
    """Progress of a command, on standard output; warnings go to standard error."""

    def warn(self, text: str) -> None:
        """Print a warning about a user's data."""
        Console(stderr=True).print(f"Warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)
