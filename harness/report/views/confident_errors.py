"""Table: the test rows that the best classifier of each panel gets wrong most confidently (confident_errors.csv)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.report.blocks import Block, Words, said
from harness.report.class_tables import WORTH_READING, errors_table, errors_with_texts
from harness.report.panels import Panel
from harness.report.views.base import ReportData, View, views
from harness.report.winners import tabulated

_NO_PROBABILITIES = (
    "Its predictions have no probabilities, so that the errors have no order. Every seed gets these rows wrong."
)
_NO_TEXTS = (
    "The records hold no texts, so rows are shown by their number, from 0. The report of `harness run` shows the texts "
    "of your own data and of a mirror. The same command again runs nothing twice."
)
_QUOTED = (
    "The texts are quoted from the data and shortened. Check that you may share them before you share this report."
)


def _blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
    winner = report.winners.get(panel.title)
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
    yield Words(_NO_TEXTS, said(_NO_TEXTS.replace("`", "")).html) if winner.known is None else said(_QUOTED)
    yield errors_table(found)


def _csv(report: ReportData) -> pd.DataFrame:
    return tabulated(report.panels, report.winners, lambda winner: errors_with_texts(winner.answers, winner.known))


views.add("confident_errors", View(position=86, csv=_csv, in_panel=_blocks))
