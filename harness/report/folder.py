"""The folder of a report: what `write_report` writes there, and whether a folder may be written to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.support import check_folder

NAMES = (
    "report.html",
    "report.md",
    *(f"{name}.csv" for name in ("comparison", "cells", "standings", "pairs", "across", "gaps", "transfer")),
    "failures.csv",
    "tables",
    "figures",
)
"""Files and folders that a report consists of."""

_TITLE = "Comparison of adaptation methods"


def check_report_folder(
    folder: Path, *, inputs: Iterable[str | Path] = (), overwrite: bool | None = None, option: str = "--out"
) -> None:
    """Refuse a folder in which a report would replace files that no report wrote.

    Args:
        folder: where the report goes.
        inputs: paths or URLs that the command reads.
        overwrite: whether the user allowed replacing other files; None where the command has no such option.
        option: how the user named the folder.

    Raises:
        UsageError: something would be lost.
    """
    check_folder(folder, NAMES, inputs=inputs, ours=_is_report, overwrite=overwrite, option=option)


def _is_report(folder: Path) -> bool:
    """Return whether version 0.1 wrote a report there, which it did not mark."""
    page = folder / "report.html"
    if not page.is_file():
        return False
    with page.open("rb") as file:
        return f"<title>{_TITLE}</title>".encode() in file.read(10_000)
