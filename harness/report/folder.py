"""The folder of a report: names of its files, and whether a report may be written there."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from harness.support import check_output_folder

REPORT_TITLE = "Comparison of adaptation methods"


def check_report_folder(
    folder: Path, *, inputs: Iterable[str | Path] = (), overwrite: bool | None = None, option: str = "--out"
) -> None:
    """Refuse a folder in which a report would replace files that no report wrote.

    Args:
        folder: folder of the report.
        inputs: paths or URLs that the command reads.
        overwrite: whether the user allowed replacing other files; None where the command has no such option.
        option: how the user named the folder.

    Raises:
        UsageError: something would be lost.
    """
    check_output_folder(folder, _names(), inputs=inputs, ours=_is_report, overwrite=overwrite, option=option)


def _names() -> list[str]:
    """Return files and folders that a report may consist of; a view's CSV file is named like the view's module."""
    found = files("harness.report.views").iterdir()
    tables = sorted(
        file.name.removesuffix(".py")
        for file in found
        if file.name.endswith(".py") and file.name not in ("__init__.py", "base.py")
    )
    return ["report.html", "report.md", *(f"{name}.csv" for name in tables), "tables", "figures"]


def _is_report(folder: Path) -> bool:
    """Return whether version 0.1 wrote a report there, which it did not mark."""
    page = folder / "report.html"
    if not page.is_file():
        return False
    with page.open("rb") as file:
        return f"<title>{REPORT_TITLE}</title>".encode() in file.read(10_000)
