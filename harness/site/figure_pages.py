"""Write the pages of figures and tables: one for each, and the list of all of a report."""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from harness.report import TableBlock, table_html
from harness.site.facts import Facts, Listed
from harness.site.items import FORMATS, Item
from harness.site.pages import bar, frame
from harness.support import text

_MOST_ROWS = 100
"""Largest number of rows of a CSV file that its page shows."""

GONE = "No longer in the report"
"""Heading of the figures and tables that an earlier report had."""


def figures_page(facts: Facts, styles: str) -> str:
    """Return the list of all figures and tables of a report."""
    parts: dict[str, list[Listed]] = {}
    for one in facts.listed:
        parts.setdefault(one.part if one.is_current else GONE, []).append(one)
    links = "".join(f'<li><a href="#part-{i}">{_escaped(part)}</a></li>' for i, part in enumerate(parts))
    shown = "\n".join(_part(i, part, own) for i, (part, own) in enumerate(parts.items()))
    lead = (
        "Each figure and table has a page of its own. Its address stays the same when the report is published again, "
        "with more records or other views."
    )
    content = (
        f'<h1>Figures and tables</h1>\n<p class="lead">{lead}</p>\n'
        f"<details class='contents'><summary>{text.counted(len(parts), 'part')}</summary><ul>{links}</ul></details>\n"
        f"{shown}"
    )
    return frame(f"Figures and tables: {facts.title}", styles, bar(facts, here="figures.html"), content)


def _part(i: int, part: str, listed: Iterable[Listed]) -> str:
    figures, tables = [], []
    for one in listed:
        page = f"f/{one.address}.html"
        if one.is_figure:
            figures.append(
                f'<figure id="{one.address}"><a href="{page}"><img loading="lazy" alt="{_escaped(one.title)}" '
                f'src="f/{one.address}.png"></a><figcaption><a href="{page}">{_escaped(one.title)}</a> '
                f'<span class="files">{_files(one, "f/")}</span></figcaption></figure>'
            )
        else:
            tables.append(
                f'<li id="{one.address}"><a href="{page}">{_escaped(one.title)}</a> '
                f'<span class="files">{_files(one, "f/")}</span></li>'
            )
    shown = f'<div class="gallery">{"".join(figures)}</div>' if figures else ""
    shown += f'<ul class="tables">{"".join(tables)}</ul>' if tables else ""
    return f'<section id="part-{i}"><h2>{_escaped(part)}</h2>\n{shown}</section>'


def item_page(facts: Facts, one: Listed, item: Item | None, csv_file: Path, styles: str) -> str:
    """Return the page of a figure or table.

    Args:
        facts: its report.
        one: its entry in the list of the report.
        item: the figure or table; None where the report no longer has it.
        csv_file: its numbers.
        styles: address of the style sheet.
    """
    parts = [f'<h1>{_escaped(one.title)}</h1>\n<p class="lead">{_escaped(one.part)}</p>']
    if not one.is_current:
        parts.append(
            '<p class="warning">The report no longer has this. It is shown as it was when it was published last.</p>'
        )
    if one.is_figure:
        alt = getattr(item.block, "alt", "") if item is not None else ""
        source = f"{one.address}.svg"
        parts.append(
            f'<div class="whole"><a href="{source}"><img class="picture" alt="{_escaped(alt or one.title)}" '
            f'src="{source}"></a></div>'
        )
    parts.append(
        f'<p class="files">{_files(one, "")} <a rel="bookmark" href="{one.address}.html">Permanent link</a> '
        f'<a href="../figures.html#{one.address}">All figures and tables</a></p>'
    )
    if item is not None and isinstance(item.block, TableBlock):
        best = re.sub(r"<td>\*\*([-\d.,]+)\*\*", r"<td><strong>\1</strong>", table_html(item.block))
        parts.append(f'{best}\n<p class="notes">{_escaped(item.block.note)}</p>')
    else:
        numbers = _numbers(csv_file, one.title)
        open_ = "" if one.is_figure else " open"
        parts.append(f"<details class='part'{open_}><summary><h2>The numbers</h2></summary>\n{numbers}</details>")
    return frame(f"{one.title}: {one.part}", styles, bar(facts, up="../"), "\n".join(parts))


def _files(one: Listed, folder: str) -> str:
    formats = (*FORMATS, "csv") if one.is_figure else ("csv",)
    return " ".join(f'<a href="{folder}{one.address}.{name}">{name.upper()}</a>' for name in formats)


def _numbers(path: Path, title: str) -> str:
    """Return the first rows of a CSV file as a table."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = [*islice(csv.reader(file), _MOST_ROWS + 2)] or [[]]
    if not rows:
        return "<p>None.</p>"
    said = f'<p class="notes">The first {_MOST_ROWS} rows; the CSV file has all.</p>' if len(rows) > _MOST_ROWS else ""
    shown = rows[:_MOST_ROWS]
    n_names = next((i for i in range(len(header)) if _are_numbers(row[i] for row in shown)), len(header))
    return said + table_html(TableBlock(title, header, shown, n_names=n_names))


def _are_numbers(fields: Iterable[str]) -> bool:
    return all(re.fullmatch(r"(-?\d+(\.\d+)?(e[+-]?\d+)?)?", field) for field in fields)


def _escaped(words: str) -> str:
    return html.escape(text.plain(words))
