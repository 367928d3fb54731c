"""Compute what the page's scripts draw of each panel: rows, sizes with their tests, styles, curves during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness.report.answer import Size, sizes_of_panels
from harness.report.observations import Observations
from harness.report.panels import Panel
from harness.report.rows import columns_of, floors, rounded
from harness.report.styles import Style
from harness.report.tables import each
from harness.report.views.base import ReportData
from harness.support import text

_MOST_CURVE_POINTS = 40
_SYMBOLS = {
    **{"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross", "X": "x"},
    **{"<": "triangle-left", ">": "triangle-right", "p": "pentagon", "h": "hexagon", "*": "star"},
}
_DASHES = {"-": "solid", (0, (5, 1.5)): "dash", (0, (1.5, 1.2)): "dot", (0, (6, 1.5, 1.2, 1.5)): "dashdot"}


def panels_data(report: ReportData) -> list[dict[str, Any]]:
    """Return the data of each panel; `answer` reads the same rows and sizes."""
    drawn = report.styles
    curves = _anytime(report.observations)
    sizes = sizes_of_panels(report.observations, report.panels)
    of_floors = floors(report.observations)
    panels_of = []
    for panel in report.panels:
        rows = columns_of(panel, of_floors) | _marks(panel, report.standings_of(panel))
        names = list(dict.fromkeys(rows["line"]))
        key = (panel.task, panel.data, panel.device, panel.budget)
        uses_backbone = panel.rows["backbone"].notna()
        shown = [curve for of in (False, True) if (uses_backbone == of).any() for curve in curves.get((*key, of), [])]
        panels_of.append(
            {
                "title": panel.title,
                "heading": panel.heading,
                "chosen": panel.defaults_chosen_here,
                "device": text.plain(panel.device),
                "metric": text.plain(panel.metric or "score"),
                "higher": panel.higher_is_better,
                "rows": rows,
                "sizes": sizes[panel.title],
                "styles": {line: _style(drawn[line]) for line in names if line in drawn},
                "anytime": _own_curves(shown, [name for name in names if name in drawn]),
            }
        )
    return panels_of


def for_scripts(panel: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a panel as JSON values; `p` and `w` are the p-values and half widths of `Size`."""
    return {**panel, "sizes": [_size_values(size) for size in panel["sizes"]]}


def _size_values(size: Size) -> dict[str, Any]:
    return {"n_train": size.n_train, "rows": size.rows, "p": size.p_values, "w": size.half_widths}


def _marks(panel: Panel, ranked: pd.DataFrame) -> dict[str, list[bool]]:
    """Return for each row of a panel whether it is the best at its own size, and whether it is best or ties with it."""
    known = {(row.variant, row.n_train, row.draw): row for row in each(ranked)}
    marks = [known.get((row.variant, row.n_train, row.draw)) for row in each(panel.rows)]
    return {
        "best": [bool(mark is not None and mark.is_best) for mark in marks],
        "tied": [bool(mark is not None and not pd.isna(mark.is_tied) and mark.is_tied) for mark in marks],
    }


def _style(style: Style) -> dict[str, str]:
    group = {"group": style.group} if style.group is not None else {}
    return {"colour": style.colour, "symbol": _SYMBOLS[style.marker], "dash": _DASHES[style.dash], **group}


_Setting = tuple[str, str, str, str, bool]
"""Task, data, device and budget, and whether a backbone is used."""


def _own_curves(curves: list[dict[str, Any]], lines: Sequence[str]) -> list[dict[str, Any]]:
    """Return curves of these lines, each once: a method with and without a backbone may have two."""
    found: dict[str, dict[str, Any]] = {}
    for curve in curves:
        if curve["line"] in lines:
            found.setdefault(curve["line"], curve)
    return list(found.values())


def _anytime(observations: Observations) -> dict[_Setting, list[dict[str, Any]]]:
    """Return validation scores during training, by setting: one seed of each method at its largest size.

    Cells that shared their device are left out: their seconds include the work of others.
    """
    names = ("variant", "task", "data", "device", "budget", "backbone", "n_train", "draw", "seed", "status")
    columns = observations.columns(names)
    chosen: dict[tuple[_Setting, str], tuple[int, int, int]] = {}
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        row = dict(zip(names, values, strict=True))
        record = observations.records[i]
        points = [point for point in record.curve if point.validation is not None]
        shared = record.provenance.cells_at_a_time > 1
        if row["status"] != "ok" or len(points) < 2 or row["draw"] == "balanced" or shared:
            continue
        setting = (row["task"], row["data"], row["device"], row["budget"], row["backbone"] is not None)
        rank = (-row["n_train"], row["seed"], i)
        key = (setting, row["variant"])
        chosen[key] = min(rank, chosen.get(key, rank))
    found: dict[_Setting, list[dict[str, Any]]] = {}
    for (setting, variant), (n_train, _, i) in sorted(chosen.items(), key=str):
        points = [point for point in observations.records[i].curve if point.validation is not None]
        kept = points[:: max(1, len(points) // _MOST_CURVE_POINTS)]
        curve = {
            "line": text.plain(variant),
            "n_train": -n_train,
            "seconds": [rounded(point.seconds) for point in kept],
            "validation": [rounded(point.validation) for point in kept],
        }
        found.setdefault(setting, []).append(curve)
    return found
