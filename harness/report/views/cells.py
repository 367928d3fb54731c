"""Table: one row per cell, with the columns of `harness export` and more (cells.csv)."""

from __future__ import annotations

import pandas as pd

from harness.analysis import EXPORT_COLUMNS
from harness.report.views.base import ReportData, View, views

_FURTHER = ("tune_seconds", "train_seconds", "train_rows_cut", "test_rows_cut", "unsteady")
"""Columns beyond those of `harness export`."""


def _cells(report: ReportData) -> pd.DataFrame:
    cells = report.observations.frame[[*(column.name for column in EXPORT_COLUMNS), *_FURTHER]]
    return cells.sort_values(["task", "method", "n_train", "seed", "id", "device"])


views.add("cells", View(position=15, csv=_cells))
