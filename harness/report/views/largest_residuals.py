"""Table: the test rows with the largest residuals of the best method of each panel (largest_residuals.csv)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.analysis import NumberAnswers
from harness.report.blocks import Block, said
from harness.report.known_rows import NO_TEXTS, QUOTED
from harness.report.number_tables import WRONG_NUMBERS, residuals_table, residuals_with_texts
from harness.report.panels import Panel
from harness.report.views.base import ReportData, View, views


def _blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
    winner = report.winner(panel, NumberAnswers)
    if winner is None:
        return
    found = residuals_with_texts(winner.answers, winner.known)
    if found.empty:
        return
    seeds = ", as means over the seeds" if winner.answers.n_fits > 1 else ""
    yield said(f"Test rows with the largest residuals of {winner.variant}{seeds}. {WRONG_NUMBERS}")
    yield NO_TEXTS if winner.known is None else QUOTED
    yield residuals_table(found)


def _csv(report: ReportData) -> pd.DataFrame:
    return report.tabulated(NumberAnswers, lambda winner: residuals_with_texts(winner.answers, winner.known))


views.add("largest_residuals", View(position=86, csv=_csv, in_panel=_blocks))
