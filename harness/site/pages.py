"""Write the index of a site, and the frame of all pages that are no report."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from harness.report import FILES_POLICY
from harness.site.facts import Facts
from harness.support import text

SITE_TITLE = "Adaptation methods compared"
"""Heading of the index."""

_MOST_NAMED = 6
_PAGES = (("index.html", "Report"), ("figures.html", "Figures"), ("changes.html", "What changed"))


def site_styles() -> str:
    """Return the style sheet of the pages of a site, which follows that of a report."""
    return _asset("site.css")


def _asset(name: str) -> str:
    return (files("harness.site") / "assets" / name).read_text(encoding="utf-8")


def frame(title: str, styles: str, bar_html: str, content: str) -> str:
    """Return a page as HTML.

    Args:
        title: its title, not yet escaped.
        styles: address of the style sheet, relative to the page.
        bar_html: links above the heading.
        content: HTML of the rest.
    """
    return Template(_asset("site.html")).substitute(
        title=html.escape(text.plain(title)),
        policy=FILES_POLICY,
        styles=html.escape(styles),
        bar=bar_html,
        content=content,
    )


def bar(facts: Facts, here: str = "", up: str = "") -> str:
    """Return the links above a page of a report.

    Args:
        facts: the report.
        here: file of the page among those of the bar, which is no link then.
        up: way from the page to the folder of the report.
    """
    links = [f'<a href="{up}../index.html">All reports</a>', f'<span class="of">{html.escape(facts.title)}</span>']
    links += [
        f'<strong aria-current="page">{name}</strong>' if page == here else f'<a href="{up}{page}">{name}</a>'
        for page, name in _PAGES
    ]
    return f'<p class="bar">{" ".join(links)}</p>\n'


def index_page(reports: Mapping[str, Facts], styles: str) -> str:
    """Return the first page of a site: a card for each report, the latest first.

    Args:
        reports: facts of each report, by the name of its folder.
        styles: address of the style sheet.
    """
    order = sorted(reports, key=lambda name: (reports[name].title.lower(), name))
    order.sort(key=lambda name: reports[name].last, reverse=True)
    cards = "\n".join(_card(name, reports[name]) for name in order)
    n = text.counted(len(reports), "report")
    content = f'<h1>{SITE_TITLE}</h1>\n<p class="lead">{n}</p>\n<div class="cards">\n{cards}\n</div>'
    return frame(SITE_TITLE, styles, "", content)


def _card(name: str, facts: Facts) -> str:
    title = html.escape(facts.title)
    said = html.escape(facts.conclusion or "Nothing was scored.")
    n_figures = sum(one.is_figure and one.is_current for one in facts.listed)
    n_tables = sum(not one.is_figure and one.is_current for one in facts.listed)
    items = f"{text.counted(n_figures, 'figure')}, {text.counted(n_tables, 'table')}"
    listed = [
        ("measured", dates(facts)),
        ("records", f"{facts.n_records:,}"),
        ("tasks", _names(facts.tasks)),
        ("backbones", _names(facts.backbones)),
        ("methods", _names(facts.methods)),
        ("device" if len(facts.devices) == 1 else "devices", _names(facts.devices)),
    ]
    rows = "".join(f"<dt>{term}</dt><dd>{html.escape(value)}</dd>" for term, value in listed)
    changed = facts.history[-1].get("changes") if facts.history else None
    line = f"<p class='notes'>Last change: {html.escape(changes_said(changed))}</p>" if changed else ""
    return (
        f'<article class="card"><h2><a href="{name}/index.html">{title}</a></h2>\n<p>{said}</p>\n'
        f"<dl>{rows}</dl>\n{line}"
        f'<p class="links"><a href="{name}/index.html">Report</a> <a href="{name}/figures.html">{items}</a> '
        f'<a href="{name}/changes.html">What changed</a></p></article>'
    )


def dates(facts: Facts) -> str:
    """Return the days on which the records of a report were made."""
    if not facts.last:
        return "at an unknown time"
    return facts.last if facts.first == facts.last else f"{facts.first} to {facts.last}"


def _names(names: Sequence[str]) -> str:
    shown = [name.rsplit("/", 1)[-1] or name for name in names[:_MOST_NAMED]]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    total = f"{len(names)}: " if len(names) > 1 else ""
    return f"{total}{', '.join(shown)}{more}" if shown else "none"


def changes_said(changes: Mapping[str, Any]) -> str:
    """Return the counts of changes in a sentence."""
    parts = [
        f"{text.counted(changes['n_scores'], 'score')} worse and {changes['n_better']} better of "
        f"{changes['n_compared']} compared",
        *(f"{changes[f'n_{name}']} {said}" for name, said in _HIGHER.items() if changes[f"n_{name}"]),
    ]
    cells = changes["cells_by_change"]
    parts += [f"{text.counted(n, 'cell')} {_OF_CELLS.get(name, name)}" for name, n in cells.items()]
    return f"{'; '.join(parts)}."


_HIGHER = {"train": "slower to train", "predict": "slower to predict", "memory": "with more memory"}
_OF_CELLS = {"another device": "on another device", "changed identity": "of another identity"}
