"""Table: precision, recall and F1 of each class, for the best classifier of each panel (per_class.csv)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.analysis import ClassAnswers, per_class
from harness.report.blocks import Block, Words, said
from harness.report.class_tables import RECALL_AND_PRECISION, per_class_table
from harness.report.panels import Panel
from harness.report.views.base import ReportData, View, views
from harness.support import text

_MOST_ROWS = 20


def _blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
    winner = report.winner(panel, ClassAnswers)
    if winner is None:
        return
    found = per_class(winner.answers)
    yield Words(f"### Where {text.markdown(winner.variant)} is wrong")
    yield said(f"The best of this panel at its largest size is {winner.basis}. {RECALL_AND_PRECISION}")
    if len(found) > _MOST_ROWS:
        yield said(f"The {_MOST_ROWS} classes with the lowest recall, of {len(found)}; per_class.csv has all of them.")
    yield per_class_table(found.head(_MOST_ROWS))


def _csv(report: ReportData) -> pd.DataFrame:
    return report.tabulated(ClassAnswers, lambda winner: per_class(winner.answers))


views.add("per_class", View(position=82, csv=_csv, in_panel=_blocks))
