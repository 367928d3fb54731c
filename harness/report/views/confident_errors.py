"""Table: the test rows that the best classifier of each panel gets wrong most confidently (confident_errors.csv)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.analysis import ClassAnswers
from harness.report.blocks import Block, said
from harness.report.class_tables import WORTH_READING, errors_table, errors_with_texts
from harness.report.known_rows import NO_TEXTS, QUOTED
from harness.report.panels import Panel
from harness.report.views.base import ReportData, View, views

_NO_PROBABILITIES = (
    "Its predictions have no probabilities, so that the errors have no order. Every seed gets these rows wrong."
)


def _blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
    winner = report.winner(panel, ClassAnswers)
    if winner is None:
        return
    found = errors_with_texts(winner.answers, winner.known)
    if found.empty:
        return
    yield said(
        f"Test rows that {winner.variant} gets wrong most confidently. {WORTH_READING}"
        if winner.answers.confidence is not None
        else f"Test rows that {winner.variant} gets wrong. {_NO_PROBABILITIES}"
    )
    yield NO_TEXTS if winner.known is None else QUOTED
    yield errors_table(found)


def _csv(report: ReportData) -> pd.DataFrame:
    return report.tabulated(ClassAnswers, lambda winner: errors_with_texts(winner.answers, winner.known))


views.add("confident_errors", View(position=86, csv=_csv, in_panel=_blocks))
