"""Read records, tabulate them, compare them and write reports."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.api.reading import stream_records
from harness.records import Record
from harness.store import of_suite
from harness.support import (
    UsageError,
    checked_path,
    checked_text,
    find_store,
    given,
    several,
    spelt_for_caller,
    uncollected,
    wrong_argument,
)

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from harness.report import Observations

_WIDTH = 100
"""Columns of a table in a notebook."""

_SOURCE = "a store, a .jsonl file of records, or a folder of such files"

Records: TypeAlias = "str | Path | Results | Iterable[Record]"
"""Records to read: a store, a .jsonl file, a folder of such files, results of a call, or the records themselves."""


@dataclass(frozen=True, eq=False)
class Results:
    """Records of cells, with their tables and report.

    Attributes:
        observations: the latest record of each cell, and its scores by test row; None without records.
        report: the report's page; None where none was written.
    """

    observations: Observations | None = field(repr=False)
    report: Path | None

    @property
    def records(self) -> tuple[Record, ...]:
        """Records without predictions, one per cell."""
        return () if self.observations is None else self.observations.records

    @property
    def table(self) -> Table | None:
        """Comparison of methods and sizes, for `rich`; None without records."""
        from harness.report import terminal_table

        return None if self.observations is None else terminal_table(self.observations)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per record: cell, score, costs, provenance (columns: `docs/reference/report-files.md`)."""
        from harness.analysis import tidy_frame

        return tidy_frame(self.records)

    def to_dict(self) -> dict[str, Any]:
        """Return the report's path and the number of records by status."""
        return {
            "report": self.report,
            "n_records": len(self.records),
            "statuses": dict(Counter(record.status for record in self.records)),
        }

    def _repr_html_(self) -> str:
        return html_of(self.table) if self.observations is not None else "<p>No record.</p>"


@spelt_for_caller
def read_records(
    source: str | Path | None = None, *, suite: str | None = None, with_predictions: bool = True
) -> list[Record]:
    """Return the latest record of each cell.

    Args:
        source: a store, a .jsonl file of records, or a folder of such files; None takes the default store.
        suite: only records that a run of this suite made.
        with_predictions: whether to read the predictions, which take most of the memory.

    Raises:
        StoreError: the store, file or folder does not exist, or holds something else.
        UsageError: a folder without records, or a suite that no record names.
    """
    given(checked_text, "suite", suite)
    if source is not None:
        checked_path("source", source, _SOURCE)
    return list(of_suite(stream_records(find_store(source), with_predictions=with_predictions), suite))


@uncollected()
@spelt_for_caller
def report(
    source: Records | None = None,
    out: str | Path | None = None,
    *,
    suite: str | None = None,
    formats: str | Sequence[str] = ("png", "svg", "pdf"),
    prices: str | Path | None = None,
    overwrite: bool = False,
) -> Results:
    """Write a report of the records: a page (HTML), tables (Markdown, CSV, LaTeX) and figures.

    Args:
        source: records; None takes the default store.
        out: folder to write to; None takes `reports/SUITE`, or `reports/all`.
        suite: only records that a run of this suite made.
        formats: formats of the figures: some of `png`, `svg` and `pdf`.
        prices: YAML file of prices of machines and served models; None takes the file that HARNESS_PRICES names.
        overwrite: whether to replace files that no report wrote.

    Returns:
        The records, and the path of the page.

    Raises:
        UsageError: there is no record, an unknown format, or a folder with other files.
        StoreError: the records cannot be read, or the folder cannot be written.
    """
    from harness.analysis import asked_prices
    from harness.report import FIGURE_FORMATS, check_report_folder, observe, write_report

    given(checked_text, "suite", suite)
    listed = several("formats", formats, (str,), "a list of texts", split=lambda text: text.split(",")) or []
    names = [name.strip().lower() for name in listed if name.strip()]
    if not names or set(names) - set(FIGURE_FORMATS):
        known = ", ".join(FIGURE_FORMATS)
        raise UsageError(f"--figures '{','.join(listed)}' was given; expected some of {known}, separated by commas.")
    costs = asked_prices(path=prices)
    folder = Path(checked_path("out", out, "a folder")) if out is not None else Path("reports") / (suite or "all")
    if source is None or isinstance(source, str | Path):
        source = find_store(source)
        check_report_folder(folder, inputs=[source], overwrite=overwrite)
    else:
        check_report_folder(folder, overwrite=overwrite)
    # Observations keep their scores by test row, so they are not read again.
    whole = isinstance(source, Results) and suite is None and source.observations
    observed = whole or observe(of_suite(records_of("source", source), suite))
    return Results(observed, write_report(observed, folder, names, prices=costs))


def html_of(table: Table | None) -> str:
    """Return a table of the terminal as HTML, for a notebook."""
    from rich.console import Console

    console = Console(record=True, file=io.StringIO(), width=_WIDTH)
    console.print(table)
    code = '<pre style="font-family:monospace;line-height:1.2">{code}</pre>'
    return console.export_html(inline_styles=True, code_format=code)


def records_of(name: str, source: Records) -> Iterable[Record]:
    """Return the records of an argument; an iterable is checked as it is read."""
    if isinstance(source, Results):
        return source.records
    if isinstance(source, str | Path):
        return stream_records(str(source))
    if not isinstance(source, Iterable):
        raise wrong_argument(name, source, f"{_SOURCE}, results of a call, or records")
    return _checked_records(name, source)


def _checked_records(name: str, records: Iterable[Record]) -> Iterator[Record]:
    for record in records:
        if not isinstance(record, Record):
            raise wrong_argument(name, records, f"{_SOURCE}, results of a call, or records")
        yield record
