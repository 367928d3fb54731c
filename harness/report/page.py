"""The report as one HTML file that asks nothing of anybody: its data, its scripts and its pictures are in it."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from harness.report.across import Standing, across_tasks
from harness.report.caption import cautions, coverage, scores_said
from harness.report.contrasts import not_known, standings, tied_with_best
from harness.report.measured import HOW_TO_READ, compared, measured
from harness.report.observations import Observations, Source, observe
from harness.report.overview_plots import (
    draw_critical_differences,
    draw_heat_map,
    heat_map_data,
    heat_map_title,
    one_setting,
)
from harness.report.panels import Panel, panels
from harness.report.plots import curves_of, look
from harness.report.styles import Style, lines_in, styles
from harness.report.tables import comparison, each, failures
from harness.support import replacing, text

MOST_FAILURES = 200
MOST_CURVE_POINTS = 40
MOST_PICTURES = 8

_SYMBOLS = {
    **{"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross", "X": "x"},
    **{"<": "triangle-left", ">": "triangle-right", "p": "pentagon", "h": "hexagon", "*": "star"},
}
_DASHES = {"-": "solid", (0, (5, 1.5)): "dash", (0, (1.5, 1.2)): "dot", (0, (6, 1.5, 1.2, 1.5)): "dashdot"}


def write_page(source: Source, path: Path) -> Path:
    """Write the report as one self-contained HTML file; the same records give the same bytes.

    Args:
        source: records with their predictions.
        path: the file to make or replace.

    Raises:
        UsageError: if there is no record.
        StoreError: if the file cannot be written.
    """
    content = page_html(source)
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8", newline="\n")
    return path


def page_html(source: Source) -> str:
    """The page as a text."""
    from plotly.offline import get_plotlyjs

    observations = observe(source)
    table = comparison(observations)
    found = panels(table)
    ranked = standings(observations)
    assets = files("harness.report") / "assets"
    data = {"panels": panels_data(found, ranked, observations)}
    return Template(_asset(assets, "page.html")).substitute(
        css=_asset(assets, "page.css"),
        js=_asset(assets, "page.js"),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
        # Within a script element only "<" can end it; U+2028 and the like are no trouble to JSON.parse.
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        lead=_lead(observations, found),
        compared=_list((name, ", ".join(values) or "none") for name, values in compared(observations)),
        answers="\n".join(_answer(i, panel, ranked) for i, panel in enumerate(found)),
        across=_across(across_tasks(observations), found),
        failures=_failures(failures(observations), table),
        measured=_list(measured(observations)),
        reading=_reading(HOW_TO_READ),
    )


def _asset(folder: Any, name: str) -> str:
    content: str = (folder / name).read_text(encoding="utf-8")
    return content


# ---- data for the scripts


def panels_data(found: Sequence[Panel], ranked: pd.DataFrame, observations: Observations) -> list[dict[str, Any]]:
    """What the scripts draw, a dictionary a panel: its rows by column, its styles, its curves during training."""
    drawn = styles({pair for panel in found for pair in lines_in(curves_of(panel))})
    curves = _anytime(observations)
    panels_of = []
    for panel in found:
        rows = _rows(panel, ranked[ranked["panel"] == panel.title])
        names = list(dict.fromkeys(rows["line"]))
        key = (panel.task, panel.data, panel.device, panel.budget)
        shown = [*curves.get((*key, None, None), []), *curves.get((*key, panel.backbone, panel.weights), [])]
        panels_of.append(
            {
                "title": panel.title,
                "size": len(panel.rows),
                "device": text.plain(panel.device),
                "metric": text.plain(panel.metric or "score"),
                "higher": panel.higher_is_better,
                "rows": rows,
                "styles": {line: _style(drawn[line]) for line in names if line in drawn},
                "anytime": _own_curves(shown, [name for name in names if name in drawn]),
            }
        )
    return panels_of


def _rows(panel: Panel, ranked: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns of the panel's rows, rounded to what a reader can use."""
    marks = {(row.variant, row.n_train, row.draw): row for row in each(ranked)}
    columns: dict[str, list[Any]] = {}
    for row in each(panel.rows):
        mark = marks.get((row.variant, row.n_train, row.draw))
        line = text.plain(row.variant) + (", balanced" if row.draw == "balanced" else "")
        n_test = None if pd.isna(row.n_test) else row.n_test
        predict = None if pd.isna(row.predict_seconds) or not n_test else row.predict_seconds / n_test * 1000
        gap = None
        if not (pd.isna(row.train_score) or pd.isna(row.score)):
            gap = (row.train_score - row.score) * (1 if panel.higher_is_better else -1)
        values = {
            "line": line,
            "family": text.plain(row.family),
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
        for name, value in values.items():
            columns.setdefault(name, []).append(_rounded(value))
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
    """Validation scores as training went on, of each method's lowest seed at its largest size, by setting.

    Cells that shared their device are left out: their seconds are no method's.
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
        kept = points[:: max(1, len(points) // MOST_CURVE_POINTS)]
        curve = {
            "line": text.plain(variant),
            "n_train": -n_train,
            "seconds": [_rounded(point.seconds) for point in kept],
            "validation": [_rounded(point.validation) for point in kept],
        }
        found.setdefault(setting, []).append(curve)
    return found


# ---- what is said without scripts


def _lead(observations: Observations, found: Sequence[Panel]) -> str:
    tasks = len({panel.task for panel in found})
    methods = len(set(observations.columns(["variant"])["variant"]))
    n = len(observations.records)
    return _escape(
        f"{methods} {'method' if methods == 1 else 'methods'} on {tasks} {'task' if tasks == 1 else 'tasks'}, "
        f"{n:,} {'cell' if n == 1 else 'cells'}. Every figure is measured; seconds and memory are those of the machine "
        "that is named beside them and are never pooled."
    )


def _answer(i: int, panel: Panel, ranked: pd.DataFrame) -> str:
    own = ranked[ranked["panel"] == panel.title]
    shown = f'<div data-panel="{i}">\n<h3>{_escape(panel.heading)}</h3>\n'
    if own.empty:
        return f"{shown}<p>Nothing was scored.</p>\n</div>"
    rows = []
    for at_size in (group for _, group in own.groupby(["n_train", "draw"], sort=True)):
        n_train, draw = at_size["n_train"].iloc[0], at_size["draw"].iloc[0]
        best = at_size[at_size["is_best"]].iloc[0]
        of_best = panel.rows[panel.rows["variant"] == best["variant"]]
        here = (of_best["n_train"] == n_train) & (of_best["draw"] == draw)
        line = of_best[here if here.any() else of_best["n_train"] == 0].iloc[0]
        interval = text.interval(line["score_low"], line["score_high"])
        tied = [text.plain(name) for name in tied_with_best(at_size)]
        unknown = [text.plain(name) for name in not_known(at_size)]
        said = ", ".join(_short(name) for name in tied) or "none"
        if unknown:
            said += f" (not known: {', '.join(_short(name) for name in unknown)})"
        rows.append(
            f'<tr><th scope="row">{_escape(text.size(int(n_train), str(draw), line["n_per_class"]))}</th>'
            f'<td class="name best">{_escape(text.plain(str(best["variant"]))[:120])}</td>'
            f'<td>{text.score(best["score"])} <span class="interval">{interval}</span></td>'
            f'<td class="words">{_escape(said)}</td><td>{len(at_size)}</td></tr>'
        )
    columns = {"labels": "", "best": "name", f"{_escape(panel.metric or 'score')}, 95 % interval": ""}
    columns |= {"tied with it": "words", "compared": ""}
    head = "".join(f'<th scope="col" class="{of}">{name}</th>' for name, of in columns.items())
    notes = [scores_said(panel), *coverage(panel), *cautions(panel)]
    if (own["n_rows"] == 0).fillna(False).any():
        notes.append("Some of these have no predictions by test row here: they are compared without pairing")
    return (
        f'{shown}<div class="scroll" tabindex="0" role="region" aria-label="Best methods by number of labels">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>\n"
        f'<p class="notes">{_escape(" ".join(f"{note}." for note in notes))}</p>\n</div>'
    )


def _across(found: list[Standing], of_panels: Sequence[Panel]) -> str:
    if not found:
        return "<p>No two methods ran on the same two tasks at the same size, so there is nothing to rank.</p>"
    parts = [
        "<p>Mean ranks (1 is best) over the tasks that all ranked methods ran on. Methods joined by a bar are not "
        "shown to differ (Nemenyi's test, 5 % level, after Friedman's). With few tasks hardly anything "
        "can be shown.</p>"
    ]
    pictures = 0
    for standing in found:
        parts.append(f"<h3>{_escape(standing.title)}</h3>\n<p class='notes'>{_escape(standing.said)}</p>")
        if pictures < MOST_PICTURES and len(standing.methods) <= 24:
            pictures += 1
            ranks = zip(standing.methods, standing.ranking.mean_ranks, strict=True)
            said = "Mean ranks: " + ", ".join(f"{text.plain(name)} {rank:.2f}" for name, rank in ranks)
            said += f"; critical difference {standing.ranking.critical_difference:.2f}."
            parts.append(_picture(draw_critical_differences(standing), said))
    sizes = sorted({int(row) for panel in of_panels for row in panel.rows["n_train"] if row > 0})
    for n_train in sizes[-1:]:
        shown = one_setting(list(of_panels), n_train)
        data = heat_map_data(shown, n_train)
        if data["task"].nunique() > 1 and data["variant"].nunique() > 1:
            title = heat_map_title(shown, n_train)
            parts += [
                f"<h3>{_escape(title)}</h3>",
                _picture(draw_heat_map(data, title), f"{title}, a method a row, a task a column"),
            ]
    return "\n".join(parts)


def _picture(figure: Figure, said: str) -> str:
    file = io.BytesIO()
    with look():
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    packed = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img class="picture" alt="{_escape(said)}" src="data:image/svg+xml;base64,{packed}">'


def _failures(failed: pd.DataFrame, table: pd.DataFrame) -> str:
    parts = []
    missing = int(table["n_missing"].fillna(0).sum())
    if missing:
        parts.append(
            f"<p>{missing} cells are missing: other methods have those seeds at those sizes. Means are over the seeds "
            "that are there.</p>"
        )
    if failed.empty:
        return "\n".join([*parts, "<p>Everything that was tried ended with a score.</p>"])
    head = "".join(f'<th scope="col">{name}</th>' for name in ("method", "what", "labels", "task", "seeds", "reason"))
    rows = [
        f'<tr><th scope="row">{_escape(text.plain(row.variant)[:120])}</th>'
        f"<td>{_escape(row.status.replace('_', ' '))}</td><td>{_escape(text.size(row.n_train, row.draw))}</td>"
        f"<td>{_escape(text.plain(row.task)[:60])}</td><td>{_escape(row.seeds[:40])}</td>"
        f'<td class="words">{_escape(row.reason[:300])}</td></tr>'
        for row in each(failed.head(MOST_FAILURES))
    ]
    more = len(failed) - len(rows)
    if more > 0:
        parts.append(f"<p>The first {len(rows)} of {len(failed)} kinds; failures.csv has all of them.</p>")
    parts.append(
        '<div class="scroll tall" tabindex="0" role="region" aria-label="What did not work"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    return "\n".join(parts)


def _list(items: Iterable[tuple[str, str]]) -> str:
    lines = [
        f"<li>{f'<strong>{_escape(name)}:</strong> ' if name else ''}{_escape(text.plain(said))}</li>"
        for name, said in items
    ]
    return f"<ul>{''.join(lines)}</ul>"


def _reading(markdown: str) -> str:
    """The project's own list of Markdown, which knows of bold and code only."""
    lines = [" ".join(item.split()) for item in re.split(r"^- ", markdown, flags=re.MULTILINE) if item.strip()]
    shown = [
        re.sub(r"`(.+?)`", r"<code>\1</code>", re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", _escape(line)))
        for line in lines
    ]
    return f"<ul>{''.join(f'<li>{line}</li>' for line in shown)}</ul>"


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:79]}…"


def _escape(value: str) -> str:
    return html.escape(value, quote=True)
