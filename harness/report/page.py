"""Write the report as one self-contained HTML file with its data, scripts and pictures."""

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

from harness.report.axes import look
from harness.report.blocks import Block, Picture, TableBlock
from harness.report.folder import REPORT_TITLE
from harness.report.measured import HOW_TO_READ, compared, measured
from harness.report.observations import Observations, RecordSource
from harness.report.panels import Panel
from harness.report.styles import Style
from harness.report.tables import each
from harness.report.views.base import ReportData, Section, panel_blocks, sections
from harness.support import replacing, text

_MOST_CURVE_POINTS = 40
_LONG = 40  # letters beyond which text in a table wraps
_SYMBOLS = {
    **{"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross", "X": "x"},
    **{"<": "triangle-left", ">": "triangle-right", "p": "pentagon", "h": "hexagon", "*": "star"},
}
_DASHES = {"-": "solid", (0, (5, 1.5)): "dash", (0, (1.5, 1.2)): "dot", (0, (6, 1.5, 1.2, 1.5)): "dashdot"}


def write_page(source: RecordSource | ReportData, path: Path) -> Path:
    """Write the report as one self-contained HTML file; the same records give the same bytes.

    Args:
        source: records with their predictions, or what the rest of the report drew from.
        path: the file to make or replace.

    Raises:
        UsageError: there is no record.
        StoreError: the file cannot be written.
    """
    content = page_html(source)
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8", newline="\n")
    return path


def page_html(source: RecordSource | ReportData) -> str:
    """Return the page as text."""
    from plotly.offline import get_plotlyjs

    report = source if isinstance(source, ReportData) else ReportData(source)
    assets = files("harness.report") / "assets"
    found = [(section, shown) for section, blocks in sections(report) if (shown := _blocks(blocks))]
    return Template(_asset(assets, "page.html")).substitute(
        title=REPORT_TITLE,
        css=_asset(assets, "page.css"),
        js=_asset(assets, "page.js"),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
        # Only "<" can end a script element, and JSON.parse takes U+2028 and the like.
        data=json.dumps({"panels": _panels_data(report)}, separators=(",", ":"), allow_nan=False).replace(
            "<", "\\u003c"
        ),
        lead=_lead(report),
        compared=_list((name, ", ".join(values) or "none") for name, values in compared(report.observations)),
        answers="\n".join(_answer(i, report, panel) for i, panel in enumerate(report.panels)),
        links="\n".join(_link(section) for section, _ in found),
        sections="\n".join(_section(section, shown) for section, shown in found),
        measured=_list(measured(report.observations)),
        reading=_reading(HOW_TO_READ),
    )


def _asset(folder: Any, name: str) -> str:
    content: str = (folder / name).read_text(encoding="utf-8")
    return content


# ---- data for the scripts


def _panels_data(report: ReportData) -> list[dict[str, Any]]:
    """Return what the scripts draw of each panel: its rows by column, its styles, its curves during training."""
    drawn = report.styles
    curves = _anytime(report.observations)
    panels_of = []
    for panel in report.panels:
        rows = _rows(panel, report.standings_of(panel))
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


# ---- parts that need no scripts


def _lead(report: ReportData) -> str:
    tasks = len({panel.task for panel in report.panels})
    methods = len(set(report.comparison["variant"]))
    n = len(report.observations.records)
    return html.escape(
        f"{methods} {'method' if methods == 1 else 'methods'} on {tasks} {'task' if tasks == 1 else 'tasks'}, "
        f"{n:,} {'cell' if n == 1 else 'cells'}. Every figure is measured; seconds and memory are those of the machine "
        "that is named beside them and are never pooled."
    )


def _answer(i: int, report: ReportData, panel: Panel) -> str:
    shown = _blocks(panel_blocks(report, panel))
    return f'<div data-panel="{i}">\n<h3>{html.escape(panel.heading)}</h3>\n{shown}\n</div>'


def _link(section: Section) -> str:
    return f'<li><a href="#{section.anchor}">{html.escape(section.heading)}</a></li>'


def _section(section: Section, shown: str) -> str:
    name, heading = section.anchor, html.escape(section.page_heading or section.heading)
    return f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{heading}</h2>\n{shown}\n</section>'


def _blocks(blocks: Iterable[Block]) -> str:
    """Return blocks of views in HTML."""
    shown = []
    for block in blocks:
        if isinstance(block, Picture):
            shown.append(_picture(block) if block.on_page else "")
        elif isinstance(block, TableBlock):
            shown.append(_table(block) if block.on_page else "")
        else:
            shown.append(block.html)
    return "\n".join(part for part in shown if part)


def _table(table: TableBlock) -> str:
    head = "".join(f'<th scope="col"{_class(table, i)}>{html.escape(name)}</th>' for i, name in enumerate(table.header))
    rows = []
    for first, *others in table.rows:
        fields = "".join(
            f"<td{_class(table, i)}>{html.escape(text.plain(field))}</td>" for i, field in enumerate(others, 1)
        )
        rows.append(f'<tr><th scope="row">{html.escape(text.plain(first))}</th>{fields}</tr>')
    label = html.escape(table.title)
    return (
        f'<div class="scroll tall" tabindex="0" role="region" aria-label="{label}"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _class(table: TableBlock, column: int) -> str:
    """Return the HTML class of a column: long text wraps, other text is set left, figures are set right."""
    if column >= table.n_names:
        return ""
    is_long = max((len(row[column]) for row in table.rows), default=0) > _LONG
    return ' class="words"' if is_long else ' class="name"'


def _picture(picture: Picture) -> str:
    file = io.BytesIO()
    figure = picture.draw()
    with look():
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    packed = base64.b64encode(file.getvalue()).decode("ascii")
    heading = f"<h3>{html.escape(picture.title)}</h3>\n" if picture.has_heading else ""
    alt = html.escape(picture.alt or picture.title)
    return f'{heading}<img class="picture" alt="{alt}" src="data:image/svg+xml;base64,{packed}">'


def _list(items: Iterable[tuple[str, str]]) -> str:
    lines = [
        f"<li>{f'<strong>{html.escape(name)}:</strong> ' if name else ''}{html.escape(text.plain(said))}</li>"
        for name, said in items
    ]
    return f"<ul>{''.join(lines)}</ul>"


def _reading(markdown: str) -> str:
    """Return a list in Markdown as HTML; it may hold bold text and code only."""
    lines = [" ".join(item.split()) for item in re.split(r"^- ", markdown, flags=re.MULTILINE) if item.strip()]
    shown = [
        re.sub(r"`(.+?)`", r"<code>\1</code>", re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(line)))
        for line in lines
    ]
    return f"<ul>{''.join(f'<li>{line}</li>' for line in shown)}</ul>"
