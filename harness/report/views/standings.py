"""Table: the best method at each size, and those tied with it (standings.csv)."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.report.blocks import Block, Words
from harness.report.caption import cautions, coverage, scores_said
from harness.report.contrasts import not_known, tied_with_best
from harness.report.panels import Panel
from harness.report.views.base import ReportData, View, views
from harness.support import text


@dataclass(frozen=True)
class _Size:
    """One training size of a panel: its best method, and the methods that are or may be as good."""

    n_train: int
    draw: str
    best: Any
    tied: list[str]
    unknown: list[str]
    n_methods: int


def _sizes(own: pd.DataFrame) -> Iterator[_Size]:
    for _, at_size in own.groupby(["n_train", "draw"], sort=True):
        best = at_size[at_size["is_best"]].iloc[0]
        yield _Size(
            int(best["n_train"]), str(best["draw"]), best, tied_with_best(at_size), not_known(at_size), len(at_size)
        )


def _list(own: pd.DataFrame) -> str:
    """Return the best method at each size, and those tied with it, as a list in Markdown."""
    lines = []
    for size in _sizes(own):
        tied, unknown = (", ".join(map(text.markdown, names)) for names in (size.tied, size.unknown))
        said = f"; tied with it: {tied}" if tied else "; nothing is tied with it" if size.n_methods > 1 else ""
        if unknown:
            said = f"{said if tied else ''}; not known: {unknown}"
        lines.append(
            f"- {text.size(size.n_train, size.draw)} labels: **{text.markdown(size.best['variant'])}** "
            f"{text.score(size.best['score'])}{said}"
        )
    return "\n".join(["Best by number of labels (see below for what tied means):", "", *lines])


def _table(panel: Panel, own: pd.DataFrame) -> str:
    """Return the same as a table in HTML, with the panel's caption."""
    rows = []
    for size in _sizes(own):
        of_best = panel.rows[panel.rows["variant"] == size.best["variant"]]
        here = (of_best["n_train"] == size.n_train) & (of_best["draw"] == size.draw)
        line = of_best[here if here.any() else of_best["n_train"] == 0].iloc[0]
        tied, unknown = (", ".join(_short(name) for name in names) for names in (size.tied, size.unknown))
        said = (tied or "none") + (f" (not known: {unknown})" if unknown else "")
        rows.append(
            f'<tr><th scope="row">{html.escape(text.size(size.n_train, size.draw, line["n_per_class"]))}</th>'
            f'<td class="name best">{html.escape(text.plain(str(size.best["variant"]))[:120])}</td>'
            f"<td>{text.score(size.best['score'])} "
            f'<span class="interval">{text.interval(line["score_low"], line["score_high"])}</span></td>'
            f'<td class="words">{html.escape(said)}</td><td>{size.n_methods}</td></tr>'
        )
    columns = {"labels": "", "best": "name", f"{html.escape(panel.metric or 'score')}, 95 % interval": ""}
    columns |= {"tied with it": "words", "compared": ""}
    head = "".join(f'<th scope="col" class="{of}">{name}</th>' for name, of in columns.items())
    notes = [scores_said(panel), *coverage(panel), *cautions(panel)]
    if (own["n_rows"] == 0).fillna(False).any():
        notes.append("Some methods have no predictions by test row here: they are compared without pairing")
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Best methods by number of labels">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>\n"
        f'<p class="notes">{html.escape(" ".join(f"{note}." for note in notes))}</p>'
    )


def _short(name: str) -> str:
    name = text.plain(name)
    return name if len(name) <= 80 else f"{name[:79]}…"


def _blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
    own = report.standings_of(panel)
    if own.empty:
        yield Words(html="<p>Nothing was scored.</p>")
    else:
        yield Words(_list(own), _table(panel, own))


views.add("standings", View(position=20, csv=lambda report: report.standings, in_panel=_blocks))
