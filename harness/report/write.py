"""The report as a folder: `report.md`, its figures and its tables as CSV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from harness.errors import StoreError
from harness.frame import EXPORT_COLUMNS, write_csv
from harness.jsonl import replacing
from harness.report import plots, text
from harness.report.measured import HOW_TO_READ, how_it_was_measured, what_was_compared
from harness.report.observations import Source, observe
from harness.report.styles import Style, lines_in, styles
from harness.report.tables import (
    Panel,
    comparison,
    each,
    failures,
    markdown_comparison,
    markdown_pivot,
    markdown_table,
    panels,
)

_Draw = Callable[[pd.DataFrame, dict[str, Style]], Figure]


def write_report(source: Source, folder: Path) -> Path:
    """Write a report of records into a folder and return the path of its index, `report.md`.

    Beside the index lie comparison.csv (one row per method, size, task, backbone, device and budget), cells.csv (one
    row a cell, as `harness export` writes it), failures.csv where there are any, and figures/ (PNG and SVG). The same
    records give the same bytes.

    Args:
        source: records with their predictions; without them, intervals over several seeds know of seeds only.
        folder: made where it is missing; files of the same names are replaced, others are left alone.

    Raises:
        UsageError: if there is no record.
        StoreError: if the folder cannot be written.
    """
    observations = observe(source)
    table = comparison(observations)
    failed = failures(observations)
    figures = folder / "figures"
    try:
        figures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The folder {folder} cannot be made: {error.strerror}. Name another one.") from error
    write_csv(table, folder / "comparison.csv")
    cells = observations.frame[[column.name for column in EXPORT_COLUMNS]]
    write_csv(cells.sort_values(["task", "method", "n_train", "seed", "id", "device"]), folder / "cells.csv")
    if len(failed):
        write_csv(failed, folder / "failures.csv")
    else:
        (folder / "failures.csv").unlink(missing_ok=True)  # an earlier report's would belie this one
    sections = ["# Comparison of adaptation methods", "## What was compared", what_was_compared(observations)]
    sections += _results(panels(table), figures)
    sections += _failures(failed)
    sections += ["## How it was measured", how_it_was_measured(observations)]
    files = "[comparison.csv](comparison.csv), [cells.csv](cells.csv)"
    files += ", [failures.csv](failures.csv)" if len(failed) else ""
    sections += [f"The same as files: {files}.", "## How to read these numbers", HOW_TO_READ.strip()]
    index = folder / "report.md"
    with replacing(index) as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8", newline="\n")
    return index


def _results(found: list[Panel], figures: Path) -> list[str]:
    """The sections of all panels; draws their figures on the way."""
    drawn = styles({pair for panel in found for pair in lines_in(plots.curves_of(panel))})
    taken: set[str] = set()
    sections = []
    for panel in found:
        stem = text.slug(panel.task)
        n = 2
        while stem in taken:
            stem, n = f"{text.slug(panel.task)}-{n}", n + 1
        taken.add(stem)
        sections += [f"## {text.markdown(panel.heading)}", markdown_pivot(panel), _caption(panel)]
        if panel.metric is None:
            sections.append("Nothing was scored, so there is nothing to draw.")
            continue
        sections += _figures(panel, figures, stem, drawn)
        sections += ["### Every size", markdown_comparison(panel)]
    return sections


def _caption(panel: Panel) -> str:
    metric = text.markdown(panel.metric or "score")
    lines = [f"{metric}: mean over seeds [95 % interval]; the best at each size is bold."]
    lines.append("Fit, peak memory and trainable parameters are those at the largest size that a method has.")
    bases = set(panel.rows["basis"].dropna())
    if "test rows only" in bases:
        lines.append(
            "Where there is one seed, the interval knows of test rows only, and is narrower than it should be."
        )
    if "seeds only" in bases:
        lines.append("Some intervals know of seeds only: see `basis` in comparison.csv.")
    if (panel.rows["n_missing"] > 0).any():
        lines.append("Some seeds are missing: those means are over fewer seeds than others at the same size.")
    lines += [f"{text.markdown(footnote)}." for footnote in panel.footnotes]
    return " ".join(lines)


def _figures(panel: Panel, figures: Path, stem: str, drawn: dict[str, Style]) -> list[str]:
    made: tuple[tuple[str, str, pd.DataFrame, _Draw], ...] = (
        ("learning-curves", "Score against training size", plots.curves_of(panel), plots.draw_learning_curves),
        ("seconds", "Score against seconds of training", plots.seconds_of(panel), plots.draw_score_against_seconds),
    )
    sections = []
    for ending, name, data, draw in made:
        png, svg = plots.save(draw(data, drawn), figures / f"{stem}-{ending}")
        link = f"{figures.name}/{png.name}"
        sections.append(f"![{name}: {text.markdown(panel.title)}]({link})\n\n[as SVG]({figures.name}/{svg.name})")
    return sections


def _failures(failed: pd.DataFrame) -> list[str]:
    if failed.empty:
        return []
    header = ["status", "method", "labels", "task", "backbone", "device", "seeds", "reason"]
    rows = [
        [
            text.markdown(row.status.replace("_", " ")),
            text.markdown(row.variant),
            text.size(row.n_train, row.draw),
            text.markdown(row.task),
            text.markdown(row.backbone) if text.present(row.backbone) else text.ABSENT,
            text.markdown(row.device),
            row.seeds,
            text.markdown(row.reason[:300]),
        ]
        for row in each(failed)
    ]
    return ["## What did not work", markdown_table(header, rows, n_left=len(header))]
