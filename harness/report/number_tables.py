"""Tables that show where estimates of numbers are wrong, for reports and for the evaluation of a chosen model."""

from __future__ import annotations

import pandas as pd

from harness.analysis import NumberAnswers, largest_residuals
from harness.report.blocks import TableBlock
from harness.report.known_rows import KnownRows
from harness.report.tables import each
from harness.support import text

RESIDUAL = (
    "A residual is the estimate less the true number. Positive residuals at the low end with negative ones at the high "
    "end mean that estimates are too near to the mean."
)
WRONG_NUMBERS = (
    "Where a method is good, its largest residuals are often wrong numbers in the data: read these rows first."
)
NOT_ON_SCALE = "These estimates order the rows and are not in the unit of the true numbers. They have no residuals."


def by_truth_table(found: pd.DataFrame) -> TableBlock:
    """Return rows of `analysis.residuals_by_truth` as a table, in their order."""
    shown = _shown(found, "low", "high", "truth", "estimate", "residual", "mae")
    rows = [
        [
            f"{shown['low'][i]} to {shown['high'][i]}",
            f"{row.n_test:,}",
            *(shown[name][i] for name in ("truth", "estimate", "residual", "mae")),
        ]
        for i, row in enumerate(each(found))
    ]
    header = ["true number", "test rows", "mean", "mean estimate", "mean residual", "mean absolute residual"]
    return TableBlock("Residuals by the size of the true number", header, rows)


def residuals_with_texts(answers: NumberAnswers, known: KnownRows | None, most: int = 10) -> pd.DataFrame:
    """Return `analysis.largest_residuals` with an excerpt of each text; null where the texts are not known."""
    found = largest_residuals(answers, most)
    texts = [None if known is None else known.excerpt(int(row)) for row in found["row"]]
    return found.assign(text=pd.array(texts, dtype="string"))


def residuals_table(found: pd.DataFrame) -> TableBlock:
    """Return rows of `residuals_with_texts` as a table."""
    shown = _shown(found, "truth", "estimate", "residual")
    rows = [
        [row.text if text.present(row.text) else f"test row {row.row:,}", *(values[i] for values in shown.values())]
        for i, row in enumerate(each(found))
    ]
    header = ["text" if found["text"].notna().any() else "row", "true number", "estimate", "residual"]
    return TableBlock("Largest residuals", header, rows)


def largest_residual(found: pd.DataFrame) -> str:
    """Return the largest residual in words, from rows of `residuals_with_texts`, at least one."""
    first = found.head(1)
    shown = _shown(first, "truth", "estimate")
    return f"{shown['estimate'][0]} in place of {shown['truth'][0]}"


def _shown(found: pd.DataFrame, *names: str) -> dict[str, list[str]]:
    """Return columns of one unit as texts with the same decimals."""
    every = text.quantities(value for name in names for value in found[name])
    return {name: every[i * len(found) : (i + 1) * len(found)] for i, name in enumerate(names)}
