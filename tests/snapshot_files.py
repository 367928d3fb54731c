"""Compare texts with the files of tests/snapshots/, or write these files."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "snapshots"

Snapshot = Callable[[str, str], None]
"""Compares a text with the file of a name, or writes the file with --update-snapshots."""


def compare_with_file(name: str, shown: str, *, update: bool) -> None:
    """Fail if a text is not that of a file; write the file instead if told to."""
    path = FOLDER / name
    shown = "\n".join(line.rstrip() for line in shown.splitlines()) + "\n"
    if update:
        path.parent.mkdir(exist_ok=True)
        path.write_text(shown, encoding="utf-8", newline="\n")
        return
    expected = path.read_text(encoding="utf-8") if path.exists() else ""
    if shown != expected:
        lines = (expected.splitlines(), shown.splitlines())
        diff = "\n".join(difflib.unified_diff(*lines, f"snapshots/{name}", "now", lineterm=""))
        pytest.fail(f"{name} has changed (--update-snapshots accepts it):\n{diff}", pytrace=False)
