"""Write the report as one HTML file with its data: self-contained, or with shared scripts and pictures beside it."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from harness.report.answer import footnote, in_words, main_size
from harness.report.axes import look
from harness.report.blocks import Block, Picture, TableBlock
from harness.report.folder import REPORT_TITLE
from harness.report.measured import HOW_TO_READ, compared, measured
from harness.report.observations import RecordSource
from harness.report.page_data import for_scripts, panels_data
from harness.report.panels import Panel
from harness.report.rows import each_row
from harness.report.views.base import ReportData, Section, in_order, sections
from harness.support import replacing, text

_LONG = 40  # letters beyond which text in a table wraps
_SCRIPTS = ("words.js", "answer.js", "labels.js", "front.js", "figures.js", "table.js", "page.js")
"""Parts of the page's script, in their order; they share one scope."""


@dataclass(frozen=True)
class PageFiles:
    """Files beside a page that it refers to, in place of holding them.

    Attributes:
        styles: address of the style sheet, relative to the page.
        scripts: addresses of the scripts, in their order.
        picture: returns the address of a picture and that of its own page, given the panel or None.
        above: HTML above the heading of the page.
        title: title of the page.
    """

    styles: str
    scripts: tuple[str, ...]
    picture: Callable[[Panel | None, Picture], tuple[str, str]]
    above: str = ""
    title: str = REPORT_TITLE


FILES_POLICY = (
    "default-src 'none'; style-src 'self' file: 'unsafe-inline'; script-src 'self' file:; img-src 'self' file: data:"
)
"""Content security policy of pages that refer to files beside them, from a server or from a folder."""

_ALONE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page_styles() -> str:
    """Return the style sheet of the page."""
    return _asset(files("harness.report") / "assets", "page.css")


def page_scripts() -> tuple[str, str]:
    """Return Plotly's script and the page's own, which both run after the page's data."""
    from plotly.offline import get_plotlyjs

    assets = files("harness.report") / "assets"
    own = "\n".join(_asset(assets, name) for name in _SCRIPTS)
    return get_plotlyjs().replace("</script", "<\\/script"), f'"use strict";\n(() => {{\n{own}\n}})();'


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


def page_html(source: RecordSource | ReportData, beside: PageFiles | None = None) -> str:
    """Return the page as text.

    Args:
        source: records with their predictions, or what the rest of the report drew from.
        beside: files that the page refers to; None puts everything into the page.
    """
    report = source if isinstance(source, ReportData) else ReportData(source)
    data = panels_data(report)
    found = [(section, shown) for section, blocks in sections(report) if (shown := _blocks(blocks, beside))]
    views = _other_views(report, beside)
    return Template(_asset(files("harness.report") / "assets", "page.html")).substitute(
        title=html.escape(beside.title if beside else REPORT_TITLE),
        policy=FILES_POLICY if beside else _ALONE_POLICY,
        above=beside.above if beside else "",
        styles=_styles(beside),
        scripts=_scripts(beside),
        # Only "<" can end a script element, and JSON.parse takes U+2028 and the like.
        data=json.dumps(
            {"panels": [for_scripts(panel) for panel in data]}, separators=(",", ":"), allow_nan=False
        ).replace("<", "\\u003c"),
        lead=_lead(report),
        panel=html.escape(report.panels[0].heading),
        answer=_answer(data[0]),
        standings="\n".join(_standings(i, report, panel, data[i]) for i, panel in enumerate(report.panels)),
        views=views,
        compared=_list((name, ", ".join(values) or "none") for name, values in compared(report.observations)),
        links="\n".join(_link(section) for section in (*[_MORE] * bool(views), *(section for section, _ in found))),
        sections="\n".join(_part(section, shown) for section, shown in found),
        measured=_list(measured(report.observations)),
        reading=_reading(HOW_TO_READ),
    )


def _styles(beside: PageFiles | None) -> str:
    if beside is not None:
        return f'<link rel="stylesheet" href="{html.escape(beside.styles)}">'
    return f"<style>\n{page_styles()}\n</style>"


def _scripts(beside: PageFiles | None) -> str:
    if beside is not None:
        return "\n".join(f'<script src="{html.escape(one)}"></script>' for one in beside.scripts)
    plotly, own = page_scripts()
    return f"<script>{plotly}</script>\n<script>\n{own}\n</script>"


def _asset(folder: Any, name: str) -> str:
    content: str = (folder / name).read_text(encoding="utf-8")
    return content


# ---- parts that need no scripts


def _lead(report: ReportData) -> str:
    tasks = len({panel.task for panel in report.panels})
    methods = len(set(report.comparison["configuration"]))
    backbones = len({name for panel in report.panels for _, name in panel.backbones})
    n = len(report.observations.records)
    counts = [(methods, "method"), (backbones, "backbone"), (tasks, "task"), (n, "cell")]
    return html.escape(" · ".join(text.counted(count, noun) for count, noun in counts if count or noun != "backbone"))


def _answer(panel: dict[str, Any]) -> str:
    """Return the answer at a panel's main size without limits, and what it rests on."""
    if not panel["sizes"]:
        return '<p class="said">Nothing was scored.</p>'
    rows = each_row(panel["rows"])
    at = main_size(panel["sizes"], rows)
    spans = in_words(at, panel, rows, {})
    told = {row["name"]: row["settings"] for row in rows if row["settings"]}
    said = "".join(_method(words, kind, told) if kind else html.escape(_unbroken(words)) for kind, words in spans)
    note = html.escape(footnote(panel["sizes"][at], panel, rows, {}))
    return f'<p class="said">{said}</p>\n<p class="notes">{note}</p>'


def _unbroken(words: str) -> str:
    """Return a text in which numbers stay on one line with their units."""
    return re.sub(r"(\d) (s|ms|min|h|kB|MB|GB|%|labels?)(?![a-z])", "\\1\u00a0\\2", words)


def _method(name: str, kind: str, settings: dict[str, str]) -> str:
    """Return the name of a method, with its settings as a tooltip where they need saying."""
    title = f' title="{html.escape(settings[name])}" tabindex="0"' if name in settings else ""
    return f'<strong class="{kind}"{title}>{html.escape(_short(name))}</strong>'


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


_LONGEST_NAME = 30


def _standings(i: int, report: ReportData, panel: Panel, data: dict[str, Any]) -> str:
    view = dict(in_order())["standings"]
    shown = _blocks(view.in_panel(report, panel)) if view.in_panel is not None else ""
    heading = html.escape(panel.heading)
    return f'<div data-panel="{i}">\n<h3>{heading}</h3>\n<div class="of-panel">{_answer(data)}</div>\n{shown}\n</div>'


_MORE = Section("more", "Errors and other views")


def _other_views(report: ReportData, beside: PageFiles | None) -> str:
    """Return one part with the blocks of all views of each panel but the standings, or nothing where there are none."""
    shown = [
        _blocks(
            (
                block
                for name, view in in_order()
                if name != "standings" and view.in_panel is not None
                for block in view.in_panel(report, panel)
            ),
            beside,
            panel,
        )
        for panel in report.panels
    ]
    if not any(shown):
        return ""
    parts = [f'<div data-panel="{i}">\n{part or "<p>Nothing more here.</p>"}\n</div>' for i, part in enumerate(shown)]
    return _part(_MORE, "\n".join(parts))


def _link(section: Section) -> str:
    return f'<li><a href="#{section.anchor}">{html.escape(section.heading)}</a></li>'


def _part(section: Section, shown: str) -> str:
    heading = html.escape(section.page_heading or section.heading)
    return f'<details class="part" id="{section.anchor}"><summary><h2>{heading}</h2></summary>\n{shown}\n</details>'


def _blocks(blocks: Iterable[Block], beside: PageFiles | None = None, panel: Panel | None = None) -> str:
    """Return blocks of views in HTML."""
    shown = []
    for block in blocks:
        if isinstance(block, Picture):
            shown.append(_picture(block, beside, panel) if block.on_page else "")
        elif isinstance(block, TableBlock):
            shown.append(table_html(block) if block.on_page else "")
        else:
            shown.append(block.html)
    return "\n".join(part for part in shown if part)


def table_html(table: TableBlock) -> str:
    """Return a table of plain text in HTML."""
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


def _picture(picture: Picture, beside: PageFiles | None, panel: Panel | None) -> str:
    heading = f"<h3>{html.escape(picture.title)}</h3>\n" if picture.has_heading else ""
    alt = html.escape(picture.alt or picture.title)
    if beside is not None:
        source, page = map(html.escape, beside.picture(panel, picture))
        return f'{heading}<a href="{page}"><img class="picture" loading="lazy" alt="{alt}" src="{source}"></a>'
    file = io.BytesIO()
    figure = picture.draw()
    with look():
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    packed = base64.b64encode(file.getvalue()).decode("ascii")
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
