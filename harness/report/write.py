"""Write the report as a folder: the page, report.md, figures, and tables as CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from harness.analysis import NO_PRICES, Prices, write_csv
from harness.report.axes import FIGURE_FORMATS, save_figure
from harness.report.blocks import Block, Picture, TableBlock, markdown_table
from harness.report.folder import REPORT_TITLE
from harness.report.known_rows import KnownTexts
from harness.report.measured import HOW_TO_READ, how_it_was_measured, what_was_compared
from harness.report.observations import RecordSource
from harness.report.page import write_page
from harness.report.panels import Panel
from harness.report.views.base import ReportData, in_order, panel_blocks, sections
from harness.support import StoreError, mark_folder, replacing, text


def write_report(
    source: RecordSource,
    folder: Path,
    formats: Sequence[str] = FIGURE_FORMATS,
    texts: KnownTexts | None = None,
    prices: Prices = NO_PRICES,
) -> Path:
    """Write a report of records into a folder and return the path of its page, `report.html`.

    The page is one self-contained file. Beside it lie report.md, figures/ (PNG, SVG, PDF), tables/ (LaTeX) and a CSV
    file of each view in `views/` that has a table, unless it is empty. The same records give the same bytes.

    Args:
        source: records with their predictions; without them, intervals over several seeds cover seeds only.
        folder: made where it is missing; files of the same names are replaced, others are left alone.
        formats: formats of the figures; report.md shows the first.
        texts: texts of test rows, by the fingerprint of the rows; without them, errors are shown by row number.
        prices: the user's prices of machines and served models, for the costs of predictions.

    Raises:
        UsageError: there is no record.
        StoreError: the folder cannot be written.
    """
    report = ReportData(source, texts, prices)
    figures = folder / "figures"
    try:
        figures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The folder {folder} cannot be made: {error.strerror}. Name another one.") from error
    mark_folder(folder)
    written = [
        name
        for name, view in in_order()
        if view.csv is not None and _write_table(view.csv(report), folder / f"{name}.csv")
    ]
    parts = [f"# {REPORT_TITLE}", "## What was compared", what_was_compared(report.observations)]
    for panel, stem in zip(report.panels, _stems(panel.task for panel in report.panels), strict=True):
        if panel.metric is not None:
            _write_latex(report, panel, folder / "tables" / f"{stem}.tex")
        parts += [f"## {text.markdown(panel.heading)}"]
        parts += _markdown(panel_blocks(report, panel), figures, f"{stem}-", formats)
    for section, blocks in sections(report):
        if shown := _markdown(blocks, figures, "", formats):
            parts += [f"## {text.markdown(section.heading)}", *shown]
    parts += ["## How it was measured", how_it_was_measured(report.observations)]
    links = ", ".join(f"[{name}.csv]({name}.csv)" for name in written)
    parts += [f"The same as files: {links}.", "## How to read these numbers", HOW_TO_READ.strip()]
    with replacing(folder / "report.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8", newline="\n")
    return write_page(report, folder / "report.html")


def _write_table(frame: pd.DataFrame, path: Path) -> bool:
    """Write a table, or remove an earlier one where it is empty; return whether it was written."""
    if frame.empty:
        path.unlink(missing_ok=True)
        return False
    write_csv(frame, path)
    return True


def _write_latex(report: ReportData, panel: Panel, path: Path) -> None:
    tables = [table for _, view in in_order() if view.latex is not None and (table := view.latex(report, panel))]
    with replacing(path) as temporary:
        temporary.write_text("\n\n".join(tables) + "\n", encoding="utf-8", newline="\n")


def _stems(tasks: Iterable[str]) -> list[str]:
    """Return a name for the files of each panel, numbered where panels share a task."""
    taken: list[str] = []
    for task in tasks:
        stem = text.slug(task)
        n = 2
        while stem in taken:
            stem, n = f"{text.slug(task)}-{n}", n + 1
        taken.append(stem)
    return taken


def _markdown(blocks: Iterable[Block], figures: Path, prefix: str, formats: Sequence[str]) -> list[str]:
    """Return blocks in Markdown; save their pictures."""
    shown = []
    for block in blocks:
        if isinstance(block, Picture):
            shown.append(_picture(block, figures / f"{prefix}{block.stem}", formats))
        elif isinstance(block, TableBlock):
            shown.append(markdown_table(block) if block.in_markdown else "")
        else:
            shown.append(block.markdown)
    return [part for part in shown if part]


def _picture(picture: Picture, stem: Path, formats: Sequence[str]) -> str:
    first, *others = (path.name for path in save_figure(picture.draw(), stem, formats))
    folder = stem.parent.name
    links = ", ".join(f"[as {Path(other).suffix[1:].upper()}]({folder}/{other})" for other in others)
    return f"![{text.markdown(picture.title)}]({folder}/{first})" + (f"\n\n{links}" if links else "")
