"""Table: precision, recall and F1 of each label, for the best method of each panel of label sets (per_label.csv)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.analysis import LabelAnswers, per_label
from harness.report.blocks import Block, Words, said
from harness.report.counted_tables import OF_LABELS, per_label_table
from harness.report.panels import Panel
from harness.report.views.base import ReportData, View, views
from harness.support import text

_MOST_ROWS = 40


def _blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
    winner = report.winner(panel, LabelAnswers)
    if winner is None:
        return
    found = per_label(winner.answers)
    yield Words(f"### Where {text.markdown(winner.variant)} is wrong")
    yield said(f"The best of this panel at its largest size is {winner.basis}. {OF_LABELS}")
    if len(found) > _MOST_ROWS:
        yield said(f"The {_MOST_ROWS} labels with the lowest F1, of {len(found)}; per_label.csv has all of them.")
    yield per_label_table(found.head(_MOST_ROWS))


def _csv(report: ReportData) -> pd.DataFrame:
    return report.tabulated(LabelAnswers, lambda winner: per_label(winner.answers))


views.add("per_label", View(position=82, csv=_csv, in_panel=_blocks))
