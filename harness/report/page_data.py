"""Compute what the page's scripts draw of each panel: rows, sizes with their tests, styles, curves during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness.report.answer import Size, sizes_of_panels
from harness.report.observations import Observations
from harness.report.panels import Panel
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
    floors = _floors(report.observations)
    panels_of = []
    for panel in report.panels:
        rows = _rows(panel, report.standings_of(panel), floors)
        names = list(dict.fromkeys(rows["line"]))
        key = (panel.task, panel.data, panel.device, panel.budget)
        shown = [*curves.get((*key, None, None), []), *curves.get((*key, panel.backbone, panel.weights), [])]
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


def each_row(panel: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a panel's data, one dictionary each."""
    names = list(panel["rows"])
    return [dict(zip(names, values, strict=True)) for values in zip(*panel["rows"].values(), strict=True)]


def _floors(observations: Observations) -> set[str]:
    """Return the methods that predict without looking at the text."""
    variants = observations.columns(("variant",))["variant"]
    return {
        str(variant)
        for variant, record in zip(variants, observations.records, strict=True)
        if record.facts.role == "floor"
    }


def _rows(panel: Panel, ranked: pd.DataFrame, floors: set[str]) -> dict[str, list[Any]]:
    """Columns of the panel's rows, rounded to what a reader can use."""
    marks = {(row.variant, row.n_train, row.draw): row for row in each(ranked)}
    columns: dict[str, list[Any]] = {}
    for row in each(panel.rows):
        mark = marks.get((row.variant, row.n_train, row.draw))
        name = text.plain(row.variant)
        n_test = None if pd.isna(row.n_test) else row.n_test
        predict = None if pd.isna(row.predict_seconds) or not n_test else row.predict_seconds / n_test * 1000
        gap = None
        if not (pd.isna(row.train_score) or pd.isna(row.score)):
            gap = (row.train_score - row.score) * (1 if panel.higher_is_better else -1)
        values = {
            "line": name + (", balanced" if row.draw == "balanced" else ""),
            "name": name,
            "settings": getattr(row, "settings", None),
            "family": text.plain(row.family),
            "floor": row.variant in floors,
            "n_train": row.n_train,
            "draw": row.draw,
            "label": text.size(row.n_train, row.draw, row.n_per_class),
            "score": row.score,
            "low": row.score_low,
            "high": row.score_high,
            "n_seeds": row.n_seeds,
            "basis": row.basis,
            "gap": gap,
            "train": row.train_seconds,
            "predict": predict,
            "memory": row.peak_bytes,
            "trainable": row.n_trainable,
            "stored": row.artifact_bytes,
            "note": row.note,
            "best": bool(mark is not None and mark.is_best),
            "tied": bool(mark is not None and not pd.isna(mark.is_tied) and mark.is_tied),
        }
        for column, value in values.items():
            columns.setdefault(column, []).append(_rounded(value))
    return columns or {"line": []}


def _rounded(value: Any) -> Any:
    if isinstance(value, str):
        return text.plain(value)
    if value is None or pd.isna(value):
        return None
    if isinstance(value, bool):
        return value
    number = float(value)
    return int(number) if number.is_integer() else float(f"{number:.5g}")


def _style(style: Style) -> dict[str, str]:
    return {"colour": style.colour, "symbol": _SYMBOLS[style.marker], "dash": _DASHES[style.dash]}


_Setting = tuple[str, str, str, str, str | None, str | None]
"""Task, data, device, budget, backbone and weights."""


def _own_curves(curves: list[dict[str, Any]], lines: Sequence[str]) -> list[dict[str, Any]]:
    """Return curves of these lines, each once: a panel without a backbone finds its own under both of its keys."""
    found: dict[str, dict[str, Any]] = {}
    for curve in curves:
        if curve["line"] in lines:
            found.setdefault(curve["line"], curve)
    return list(found.values())


def _anytime(observations: Observations) -> dict[_Setting, list[dict[str, Any]]]:
    """Return validation scores during training, by setting: one seed of each method at its largest size.

    Cells that shared their device are left out: their seconds include the work of others.
    """
    names = ("variant", "task", "data", "device", "budget", "backbone", "weights", "n_train", "draw", "seed", "status")
    columns = observations.columns(names)
    chosen: dict[tuple[_Setting, str], tuple[int, int, int]] = {}
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        row = dict(zip(names, values, strict=True))
        record = observations.records[i]
        points = [point for point in record.curve if point.validation is not None]
        shared = record.provenance.cells_at_a_time > 1
        if row["status"] != "ok" or len(points) < 2 or row["draw"] == "balanced" or shared:
            continue
        setting = (row["task"], row["data"], row["device"], row["budget"], row["backbone"], row["weights"])
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
            "seconds": [_rounded(point.seconds) for point in kept],
            "validation": [_rounded(point.validation) for point in kept],
        }
        found.setdefault(setting, []).append(curve)
    return found
