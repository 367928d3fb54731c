"""Table: the test rows that the best classifier of each panel gets wrong most confidently (confident_errors.csv)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.report.blocks import Block, Words, folded, said
from harness.report.class_tables import WORTH_READING, errors_table, errors_with_texts
from harness.report.panels import Panel
from harness.report.views.base import ReportData, View, views
from harness.report.winners import Winner, tabulated

_NO_PROBABILITIES = (
    "These predictions have no probabilities, so that the errors have no order. Every seed gets these rows wrong."
)
_NO_TEXTS = (
    "The records hold no texts, so that rows are shown by their number. To see the texts, give the same "
    "`harness run` again where its data are: it runs nothing twice."
)


def _blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
    winner = report.winners.get(panel.title)
    if winner is None:
        return
    found = errors_with_texts(winner.answers, winner.known)
    if not found.empty:
        title = "Errors of every seed" if winner.answers.confidence is None else "Most confident errors"
        yield Words(f"{title}:")
        yield from folded(title, _inside(winner, found))


def _inside(winner: Winner, found: pd.DataFrame) -> Iterator[Block]:
    yield said(_NO_PROBABILITIES if winner.answers.confidence is None else WORTH_READING)
    if winner.known is None:
        yield Words(_NO_TEXTS, said(_NO_TEXTS.replace("`", "")).html)
    yield errors_table(found)


def _csv(report: ReportData) -> pd.DataFrame:
    return tabulated(report.panels, report.winners, lambda winner: errors_with_texts(winner.answers, winner.known))


views.add("confident_errors", View(position=86, csv=_csv, in_panel=_blocks))
