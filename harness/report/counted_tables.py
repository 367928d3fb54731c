"""Tables of precision, recall and F1 by label or by type, for reports and for the evaluation of a chosen model."""

from __future__ import annotations

import pandas as pd

from harness.report.blocks import TableBlock
from harness.report.tables import each
from harness.support import text

OF_LABELS = (
    "Recall is the share of the test rows with a label that are given it. Precision is the share of the rows given it "
    "that have it."
)
OF_TYPES = (
    "Recall is the share of the true spans of a type that are found. Precision is the share of the predicted spans "
    "that are right. A span is right if its type and both its ends are."
)

_MOST_WEAK = 3


def per_label_table(found: pd.DataFrame) -> TableBlock:
    """Return rows of `analysis.per_label` as a table, in their order."""
    return _table(found, "label", "Scores by label, lowest F1 first", ("test rows", "given"))


def per_type_table(found: pd.DataFrame) -> TableBlock:
    """Return rows of `analysis.per_type` as a table, in their order."""
    return _table(found, "type", "Scores by type, lowest F1 first", ("true spans", "predicted"))


def weakest(found: pd.DataFrame) -> str | None:
    """Return the labels or types with the lowest F1 in words; None where none is below 1.

    Args:
        found: `analysis.per_label` or `analysis.per_type`.
    """
    what = str(found.columns[0])
    weak = found[(found["f1"] < 1).fillna(False) & (found["n_test"] > 0)].head(_MOST_WEAK)
    if weak.empty:
        return None
    shown = ((text.plain(str(row[what]))[:60], text.score(row["f1"]), row["n_test"]) for _, row in weak.iterrows())
    return ", ".join(f"{name} (F1 {f1} on {n:,})" for name, f1, n in shown)


def _table(found: pd.DataFrame, what: str, title: str, counts: tuple[str, str]) -> TableBlock:
    rows = [
        [
            row.name,
            f"{row.n_test:,}",
            text.mean_count(row.n_predicted),
            text.score(row.precision),
            text.score(row.recall),
            text.score(row.f1),
        ]
        for row in each(found.rename(columns={what: "name"}))
    ]
    return TableBlock(title, [what, *counts, "precision", "recall", "F1"], rows)
