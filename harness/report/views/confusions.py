"""Figure and table: the classes that the best classifier of each panel confuses (confusions.csv)."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from harness.analysis import ClassAnswers, confusion_matrix, confusions
from harness.report.axes import look, wrapped
from harness.report.blocks import Block, Picture, Words, said
from harness.report.class_tables import confusions_table, worst_confusion
from harness.report.panels import Panel
from harness.report.views.base import ReportData, View, views
from harness.support import text

_MOST_CLASSES = 20
"""Number of classes beyond which the matrix is not drawn: its fields would be too small to read."""

_MOST_PAIRS = 15
_LONGEST_NAME = 24
_FIELD_INCHES = 0.5
_LEAST_SHARE = 0.005
"""Share below which a field stays empty: it would be rounded to 0 %."""

_STRONGEST = 45
"""Colour in percent of a field that holds all of its row: text on it stays readable, light and dark."""


def shares_of(answers: ClassAnswers) -> npt.NDArray[np.float64]:
    """Return the confusion matrix as shares of each right class's test rows; 0 for a class without test rows."""
    return confusion_matrix(answers) / np.maximum(_n_test(answers), 1)[:, None]


def draw_confusions(answers: ClassAnswers, title: str, panel: str) -> Figure:
    """Draw the matrix: right classes in rows, predicted ones in columns, each field in percent of its row."""
    shares, names = shares_of(answers), _names(answers)
    side = _FIELD_INCHES * len(names)
    letters = max(72, int(12 * side))
    with look():
        figure = Figure(figsize=(side, side))
        axes = figure.add_axes((0, 0, 1, 1))  # labels stand outside; figures are cut to what is drawn
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            if share >= _LEAST_SHARE:
                colour = "white" if share > 0.55 else "#222222"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color=colour)
        axes.grid(visible=False)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        labels = [f"{name} ({n:,})" for name, n in zip(names, _n_test(answers), strict=True)]
        axes.set_yticks(range(len(names)), labels)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("right class (test rows)")
        axes.set_title(f"{wrapped(title, letters)}\n{wrapped(panel, letters)}", loc="left", fontsize=10)
    return figure


def _n_test(answers: ClassAnswers) -> npt.NDArray[np.int64]:
    return np.bincount(answers.target, minlength=answers.n_classes)


def _names(answers: ClassAnswers) -> list[str]:
    names = [text.plain(answers.name(i)) for i in range(answers.n_classes)]
    return [name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…" for name in names]


def _shares_frame(answers: ClassAnswers) -> pd.DataFrame:
    """Return the matrix as a row for each right and predicted class."""
    names, shares, n_test = _names(answers), shares_of(answers), _n_test(answers)
    rows = [
        {"right_class": right, "predicted_class": predicted, "share": float(shares[i][j]), "n_test": int(n_test[i])}
        for i, right in enumerate(names)
        for j, predicted in enumerate(names)
    ]
    return pd.DataFrame(rows)


def _matrix_html(answers: ClassAnswers, title: str) -> str:
    """Return the matrix as a table of the page: right answers and errors differ in colour."""
    names, shares = [html.escape(name) for name in _names(answers)], shares_of(answers)
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = [
        f'<tr><th scope="row">{name} ({n:,})</th>'
        + "".join(_field(share, right=i == j) for j, share in enumerate(shares[i]))
        + "</tr>"
        for i, (name, n) in enumerate(zip(names, _n_test(answers), strict=True))
    ]
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(title)}"><table><thead><tr>'
        f'<th scope="col">right class (test rows)</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _field(share: float, *, right: bool) -> str:
    if share < _LEAST_SHARE:
        return "<td></td>"
    # Errors are few where a method is good; the root tells small shares apart.
    percent = _STRONGEST * (share if right else math.sqrt(share))
    colour = f"color-mix(in srgb, var({'--best' if right else '--warn'}) {percent:.0f}%, transparent)"
    return f'<td style="background:{colour}">{100 * share:.0f}</td>'


def _blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
    winner = report.winner(panel, ClassAnswers)
    if winner is None:
        return
    found = confusions(winner.answers)
    if found.empty:
        yield said(f"{winner.variant} predicts the right class of every test row.")
        return
    yield said(f"Most frequent confusion of {winner.variant} (right → predicted): {worst_confusion(found)}.")
    if winner.answers.n_classes > _MOST_CLASSES:
        yield confusions_table(found.head(_MOST_PAIRS))
        return
    title = f"Confusions of {winner.variant}, % of each right class"
    draw = partial(draw_confusions, winner.answers, title, panel.title)
    yield Picture("confusions", f"{title}: {panel.title}", draw, on_page=False, data=_shares_frame(winner.answers))
    told = said("Each row is a right class. Its fields show how its test rows are predicted, in %.")
    yield Words(html=f"{told.html}\n{_matrix_html(winner.answers, text.plain(title))}")


def _csv(report: ReportData) -> pd.DataFrame:
    return report.tabulated(ClassAnswers, lambda winner: confusions(winner.answers))


views.add("confusions", View(position=84, csv=_csv, in_panel=_blocks))
