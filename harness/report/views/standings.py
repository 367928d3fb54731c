"""Table: the best method at each size, and those tied with it (standings.csv)."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.report.blocks import Block, TableBlock, Words
from harness.report.caption import cautions, coverage, scores_said
from harness.report.contrasts import not_known, not_tested, tied_with_best
from harness.report.panels import Panel
from harness.report.views.base import ReportData, View, views
from harness.support import text


@dataclass(frozen=True)
class _Size:
    """One training size of a panel: its best method, and the methods that are or may be as good.

    Attributes:
        n_train: number of labels.
        draw: how they are drawn.
        best: row of the best method.
        tied: methods that are not shown to be worse.
        unknown: methods of which nothing is known.
        untested: methods that share too few seeds with the best for a test.
        n_methods: number of methods at this size.
    """

    n_train: int
    draw: str
    best: Any
    tied: list[str]
    unknown: list[str]
    untested: list[str]
    n_methods: int

    def said(self, shown: Callable[[str], str]) -> str:
        """Say which methods are as good, with each name as `shown` writes it."""
        tied, unknown, untested = (", ".join(map(shown, names)) for names in (self.tied, self.unknown, self.untested))
        if self.n_methods == 1:
            return ""
        if len(self.untested) == self.n_methods - 1:
            return "not tested: at least three seeds are needed"
        parts = [f"tied with it: {tied}" if tied else "" if unknown or untested else "nothing is tied with it"]
        parts += [f"not known: {unknown}"] * bool(unknown)
        parts += [f"not tested with two seeds: {untested}"] * bool(untested)
        return "; ".join(part for part in parts if part)


def _sizes(own: pd.DataFrame) -> Iterator[_Size]:
    for _, at_size in own.groupby(["n_train", "draw"], sort=True):
        best = at_size[at_size["is_best"]].iloc[0]
        yield _Size(
            n_train=int(best["n_train"]),
            draw=str(best["draw"]),
            best=best,
            tied=tied_with_best(at_size),
            unknown=not_known(at_size),
            untested=not_tested(at_size),
            n_methods=len(at_size),
        )


def _list(panel: Panel, own: pd.DataFrame) -> str:
    """Return the best method at each size, and those tied with it, as a list in Markdown."""
    lines = []
    for size in _sizes(own):
        said = size.said(lambda name: text.markdown(panel.shown(name)))
        lines.append(
            f"- {text.size(size.n_train, size.draw)} labels: **{text.markdown(panel.shown(size.best['variant']))}** "
            f"{text.score(size.best['score'])}{f'; {said}' if said else ''}"
        )
    return "\n".join(["Best by number of labels (see below for what tied means):", "", *lines])


def _table(panel: Panel, own: pd.DataFrame) -> str:
    """Return the same as a table in HTML, with the panel's caption."""
    rows = []
    for size in _sizes(own):
        of_best = panel.rows[panel.rows["variant"] == size.best["variant"]]
        here = (of_best["n_train"] == size.n_train) & (of_best["draw"] == size.draw)
        line = of_best[here if here.any() else of_best["n_train"] == 0].iloc[0]
        said = _tied(size, panel)
        rows.append(
            f'<tr><th scope="row">{html.escape(text.size(size.n_train, size.draw, line["n_per_class"]))}</th>'
            f'<td class="name best">{html.escape(panel.shown(str(size.best["variant"]))[:120])}</td>'
            f"<td>{text.score(size.best['score'])} "
            f'<span class="interval">{text.interval(line["score_low"], line["score_high"])}</span></td>'
            f'<td class="words">{html.escape(said)}</td><td>{size.n_methods}</td></tr>'
        )
    columns = {"labels": "", "best": "name", f"{html.escape(panel.scored_by)}, 95 % interval": ""}
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


def _tied(size: _Size, panel: Panel) -> str:
    """Return the methods that are as good as the best of a size, for a column of that heading."""
    return size.said(panel.shown).removeprefix("tied with it: ").replace("nothing is tied with it", "none") or "none"


def _plain_table(panel: Panel, own: pd.DataFrame) -> TableBlock:
    """Return the best at each size as a table of plain text, with all methods behind it."""
    rows = [
        [
            text.size(size.n_train, size.draw),
            panel.shown(str(size.best["variant"])),
            _tied(size, panel),
            text.score(size.best["score"]),
            str(size.n_methods),
        ]
        for size in _sizes(own)
    ]
    header = ["labels", "best", "tied with it", panel.scored_by, "compared"]
    title = "Best at each number of labels"
    return TableBlock(title, header, rows, n_names=3, in_markdown=False, on_page=False, data=own)


def _blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
    own = report.standings_of(panel)
    if own.empty:
        yield Words(html="<p>Nothing was scored.</p>")
    else:
        yield Words(_list(panel, own), _table(panel, own))
        yield _plain_table(panel, own)


views.add("standings", View(position=20, csv=lambda report: report.standings, in_panel=_blocks))
