"""The report as a folder: `report.html` to read and send on, `report.md`, figures, and tables as CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from harness.analysis import EXPORT_COLUMNS, write_csv
from harness.report import overview_plots, plots
from harness.report.across import Standing, across_frame, across_tasks, overfitting_gaps
from harness.report.caption import COSTS, cautions, coverage, scores_said
from harness.report.contrasts import all_pairs, not_known, standings, tied_with_best, transfer_gains
from harness.report.latex import latex_pivot
from harness.report.measured import HOW_TO_READ, how_it_was_measured, what_was_compared
from harness.report.observations import Source, observe
from harness.report.page import write_page
from harness.report.panels import Panel, panels
from harness.report.pivot import markdown_comparison, markdown_pivot, markdown_table
from harness.report.styles import Style, lines_in, styles
from harness.report.tables import comparison, each, failures
from harness.support import StoreError, mark_folder, replacing, text

_OF_CELLS = ("tune_seconds", "train_seconds", "train_rows_cut", "test_rows_cut", "unsteady")
"""Columns of cells.csv beyond those of `harness export`."""

_Draw = Callable[[Figure, str, str], str]
"""Writes a figure under a stem and returns the Markdown that shows it under a name."""


def write_report(source: Source, folder: Path, formats: Sequence[str] = plots.FORMATS) -> Path:
    """Write a report of records into a folder and return the path of its page, `report.html`.

    The page is one file and needs nothing beside it. Beside it lie report.md, comparison.csv (one row per method, size,
    task, backbone, device and budget), cells.csv (one row a cell: the columns of
    `harness export` and `_OF_CELLS`), standings.csv (who is best and who is tied with the best at each size), pairs.csv
    (every two methods), across.csv (ranks over tasks), gaps.csv (training less test score), transfer.csv (what
    pretraining buys) and failures.csv, each where there is something in it, tables/ (LaTeX) and figures/ (PNG, SVG,
    PDF). The same records give the same bytes.

    Args:
        source: records with their predictions; without them, intervals over several seeds know of seeds only.
        folder: made where it is missing; files of the same names are replaced, others are left alone.
        formats: of the figures; the first is the one that report.md shows.

    Raises:
        UsageError: if there is no record.
        StoreError: if the folder cannot be written.
    """
    observations = observe(source)
    table = comparison(observations)
    found = panels(table)
    failed = failures(observations)
    ranked = standings(observations)
    across = across_tasks(observations)
    figures = folder / "figures"
    try:
        figures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The folder {folder} cannot be made: {error.strerror}. Name another one.") from error
    mark_folder(folder)
    cells = observations.frame[[*(column.name for column in EXPORT_COLUMNS), *_OF_CELLS]]
    tables = {
        "comparison": table,
        "cells": cells.sort_values(["task", "method", "n_train", "seed", "id", "device"]),
        "standings": ranked,
        "pairs": all_pairs(observations),
        "across": across_frame(across),
        "gaps": overfitting_gaps(table),
        "transfer": transfer_gains(observations),
        "failures": failed,
    }
    written = [name for name, frame in tables.items() if _write_table(frame, folder / f"{name}.csv")]
    sections = ["# Comparison of adaptation methods", "## What was compared", what_was_compared(observations)]

    def draw(figure: Figure, stem: str, name: str) -> str:
        first, *others = (path.name for path in plots.save(figure, figures / stem, formats))
        links = ", ".join(f"[as {Path(other).suffix[1:].upper()}]({figures.name}/{other})" for other in others)
        return f"![{text.markdown(name)}]({figures.name}/{first})" + (f"\n\n{links}" if links else "")

    sections += _results(found, draw, folder / "tables", ranked)
    sections += _across(across, found, draw)
    sections += _failures(failed)
    sections += ["## How it was measured", how_it_was_measured(observations)]
    links = ", ".join(f"[{name}.csv]({name}.csv)" for name in written)
    sections += [f"The same as files: {links}.", "## How to read these numbers", HOW_TO_READ.strip()]
    with replacing(folder / "report.md") as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8", newline="\n")
    return write_page(observations, folder / "report.html")


def _write_table(frame: pd.DataFrame, path: Path) -> bool:
    """Whether there was something to write; an earlier report's table would belie this one."""
    if frame.empty:
        path.unlink(missing_ok=True)
        return False
    write_csv(frame, path)
    return True


def _results(found: list[Panel], draw: _Draw, tables: Path, ranked: pd.DataFrame) -> list[str]:
    """The sections of all panels; draws their figures and writes their tables on the way."""
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
        with replacing(tables / f"{stem}.tex") as temporary:
            marked = (_at_sizes(panel, ranked, "tied"), _at_sizes(panel, ranked, "not known"))
            temporary.write_text(latex_pivot(panel, *marked) + "\n", encoding="utf-8", newline="\n")
        sections += [_best(panel, ranked)]
        sections += _figures(panel, draw, stem, drawn)
        sections += ["### Every size", markdown_comparison(panel)]
    return sections


def _caption(panel: Panel) -> str:
    said = [f"{scores_said(panel)}, in brackets; the best at each size is bold", COSTS]
    return " ".join(f"{text.markdown(line)}." for line in (*said, *coverage(panel), *cautions(panel)))


def _at_sizes(panel: Panel, ranked: pd.DataFrame, mark: str) -> set[tuple[str, str]]:
    """(method, label of the size) of what is "tied" with the best, or of which that is "not known"."""
    tied = ranked["is_tied"]
    own = ranked[(ranked["panel"] == panel.title) & (tied.isna() if mark == "not known" else tied.fillna(False))]
    per_class = {(row.n_train, row.draw): row.n_per_class for row in each(panel.rows)}
    return {
        (text.plain(row.variant), text.size(row.n_train, row.draw, per_class.get((row.n_train, row.draw))))
        for row in each(own)
    }


def _best(panel: Panel, ranked: pd.DataFrame) -> str:
    """A line a size: who is best, and who is not shown to be worse."""
    own = ranked[ranked["panel"] == panel.title]
    lines = []
    for at_size in (group for _, group in own.groupby(["n_train", "draw"], sort=True)):
        n_train, draw = at_size["n_train"].iloc[0], at_size["draw"].iloc[0]
        best = at_size[at_size["is_best"]].iloc[0]
        tied = [text.markdown(name) for name in tied_with_best(at_size)]
        unknown = [text.markdown(name) for name in not_known(at_size)]
        said = f"; tied with it: {', '.join(tied)}" if tied else "; nothing is tied with it" if len(at_size) > 1 else ""
        if unknown:
            said = f"{said if tied else ''}; not known: {', '.join(unknown)}"
        lines.append(
            f"- {text.size(int(n_train), str(draw))} labels: **{text.markdown(best['variant'])}** "
            f"{text.score(best['score'])}{said}"
        )
    return "\n".join(["Best by number of labels (see below for what tied means):", "", *lines])


def _figures(panel: Panel, draw: _Draw, stem: str, drawn: dict[str, Style]) -> list[str]:
    seconds, memory, phases = plots.seconds_of(panel), overview_plots.memory_of(panel), overview_plots.phases_of(panel)
    made: list[tuple[str, str, Callable[[], Figure]]] = [
        (
            "learning-curves",
            "Score against training size",
            lambda: plots.draw_learning_curves(plots.curves_of(panel), drawn),
        ),
        ("seconds", "Score against seconds of training", lambda: plots.draw_score_against_seconds(seconds, drawn)),
    ]
    if phases["seconds"].notna().any():
        made.append(("phases", "Seconds by phase", lambda: overview_plots.draw_phases(phases, panel.title)))
    if memory["peak_bytes"].notna().any():
        made.append(("memory", "Peak memory against training size", lambda: overview_plots.draw_memory(memory, drawn)))
    return [draw(make(), f"{stem}-{ending}", f"{name}: {panel.title}") for ending, name, make in made]


def _across(found: list[Standing], of_panels: list[Panel], draw: _Draw) -> list[str]:
    if not found:
        return []
    sections = ["## Across tasks"]
    for i, standing in enumerate(found):
        note = f"{text.markdown(standing.title)}: {text.markdown(standing.said)}"
        figure = overview_plots.draw_critical_differences(standing)
        sections += [note, draw(figure, f"ranks-{i + 1}", f"Mean ranks: {standing.title}")]
    sizes = sorted({int(n) for panel in of_panels for n in panel.rows["n_train"] if n > 0})
    for n_train in sizes[-1:]:
        shown = overview_plots.one_setting(of_panels, n_train)
        data = overview_plots.heat_map_data(shown, n_train)
        if data["task"].nunique() > 1 and data["variant"].nunique() > 1:
            title = overview_plots.heat_map_title(shown, n_train)
            sections.append(draw(overview_plots.draw_heat_map(data, title), "heat-map", title))
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
