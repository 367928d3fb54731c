"""Table: how much better each method scores its training rows than test rows (gaps.csv)."""

from __future__ import annotations

import pandas as pd

from harness.report.views.base import View, views


def overfitting_gaps(comparison: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `comparison` with a training score, and its distance to the test score.

    Columns: task, backbone, device, budget, variant, n_train, draw, train_score, score, gap (positive where the
    training rows are scored better, whatever the metric's direction), n_seeds.
    """
    known = comparison[comparison["train_score"].notna() & comparison["score"].notna()]
    names = ["task", "backbone", "device", "budget", "variant", "n_train", "draw", "train_score", "score"]
    sign = known["higher_is_better"].map({True: 1.0, False: -1.0}).astype("Float64")
    gap = (known["train_score"] - known["score"]) * sign
    return known[names].assign(gap=gap, n_seeds=known["n_seeds"]).reset_index(drop=True)


views.add("gaps", View(position=120, csv=lambda report: overfitting_gaps(report.comparison)))
