"""Table: one row per cell, with the columns of `harness export` and more (cells.csv)."""

from __future__ import annotations

import pandas as pd

from harness.analysis import EXPORT_COLUMNS, SERVED_COLUMNS
from harness.report.views.base import ReportData, View, views

_FURTHER = ("tune_seconds", "train_seconds", "train_rows_cut", "test_rows_cut", "unsteady")
"""Columns beyond those of `harness export`; those of requests follow where a served model was asked."""


def _cells(report: ReportData) -> pd.DataFrame:
    frame = report.observations.frame
    served = [name for name in SERVED_COLUMNS if frame[name].notna().any()]  # none without a served model
    cells = frame[[*(column.name for column in EXPORT_COLUMNS), *_FURTHER, *served]]
    return cells.sort_values(["task", "method", "n_train", "seed", "id", "device"])


views.add("cells", View(position=15, csv=_cells))
