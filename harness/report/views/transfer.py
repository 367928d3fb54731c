"""Table: the gain from pretraining (transfer.csv)."""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.report.contrasts import contrasts
from harness.report.observations import RecordSource
from harness.report.views.base import View, views


def transfer_gains(source: RecordSource, baseline: str = "from-scratch") -> pd.DataFrame:
    """Return the gain from pretraining: each method less `from-scratch` at the same size.

    The columns are those of `pairs.all_pairs`. The table is empty where nothing was trained
    from scratch. Methods without a backbone are left out; others are compared with the same backbone.
    """

    def chosen(rivals: list[Any]) -> list[list[tuple[Any, Any]]]:
        bases = [row for row in rivals if row.method == baseline]
        others = [row for row in rivals if row.method != baseline and not pd.isna(row.backbone)]
        return [[(row, base) for row in others if _of_backbone(row) == _of_backbone(base)] for base in bases]

    return contrasts(source, chosen)


def _of_backbone(row: Any) -> tuple[Any, ...]:
    return row.backbone, None if pd.isna(row.weights) else row.weights


views.add("transfer", View(position=130, csv=lambda report: transfer_gains(report.observations)))
