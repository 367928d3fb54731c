"""Table: precision, recall and F1 of each type of spans, for the best method of each panel (per_type.csv)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.analysis import SpanAnswers, per_type
from harness.report.blocks import Block, Words, said
from harness.report.counted_tables import OF_TYPES, per_type_table
from harness.report.panels import Panel
from harness.report.views.base import ReportData, View, views
from harness.support import text

_MOST_ROWS = 40


def _blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
    winner = report.winner(panel, SpanAnswers)
    if winner is None:
        return
    found = per_type(winner.answers)
    yield Words(f"### Where {text.markdown(winner.variant)} is wrong")
    yield said(f"The best of this panel at its largest size is {winner.basis}. {OF_TYPES}")
    if len(found) > _MOST_ROWS:
        yield said(f"The {_MOST_ROWS} types with the lowest F1, of {len(found)}; per_type.csv has all of them.")
    yield per_type_table(found.head(_MOST_ROWS))


def _csv(report: ReportData) -> pd.DataFrame:
    return report.tabulated(SpanAnswers, lambda winner: per_type(winner.answers))


views.add("per_type", View(position=82, csv=_csv, in_panel=_blocks))
