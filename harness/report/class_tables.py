"""Tables that show where a classifier is wrong, for reports and for the evaluation of a chosen model."""

from __future__ import annotations

import pandas as pd

from harness.analysis import ClassAnswers, confident_errors
from harness.report.blocks import TableBlock
from harness.report.known_rows import KnownRows
from harness.report.tables import each
from harness.support import text

WORTH_READING = "Where a method is good, its most confident errors are often wrong labels: read these rows first."
RECALL_AND_PRECISION = (
    "Recall is the share of a class's test rows that are predicted as it. Precision is the share of the rows predicted "
    "as it that are right."
)


def per_class_table(found: pd.DataFrame) -> TableBlock:
    """Return rows of `analysis.per_class` as a table, in their order."""
    rows = [
        [
            row.name,
            f"{row.n_test:,}",
            text.mean_count(row.n_predicted),
            text.score(row.precision),
            text.score(row.recall),
            text.score(row.f1),
        ]
        for row in each(found.rename(columns={"class": "name"}))
    ]
    header = ["class", "test rows", "predicted rows", "precision", "recall", "F1"]
    return TableBlock("Scores by class, lowest recall first", header, rows)


def confusions_table(found: pd.DataFrame) -> TableBlock:
    """Return rows of `analysis.confusions` as a table."""
    rows = [[row.true, row.predicted, text.mean_count(row.n), text.percent(row.share)] for row in each(found)]
    header = ["right class", "predicted as", "test rows", "share of the class"]
    return TableBlock("Most frequent confusions", header, rows, n_names=2)


def worst_confusion(found: pd.DataFrame) -> str:
    """Return the most frequent confusion in words, from rows of `analysis.confusions`, at least one."""
    first = next(each(found))
    right, wrong = (text.plain(str(name))[:60] for name in (first.true, first.predicted))
    return f"{right} → {wrong}, {text.mean_count(first.n)} of {text.counted(first.n_test, 'test row')}"


def errors_with_texts(answers: ClassAnswers, known: KnownRows | None) -> pd.DataFrame:
    """Return `analysis.confident_errors` with an excerpt of each text; null where the texts are not known."""
    found = confident_errors(answers)
    texts = [None if known is None else known.excerpt(int(row)) for row in found["row"]]
    return found.assign(text=pd.array(texts, dtype="string"))


def errors_table(found: pd.DataFrame) -> TableBlock:
    """Return rows of `errors_with_texts` as a table; several fits get a column that says how many are wrong."""
    several = bool((found["n_fits"] > 1).any())
    rows = [
        [
            row.true,
            row.predicted,
            row.text if text.present(row.text) else f"test row {row.row:,}",
            text.score(row.probability),
            *([f"{row.n_wrong} of {row.n_fits}"] if several else []),
        ]
        for row in each(found)
    ]
    header = ["label", "predicted", "text" if found["text"].notna().any() else "row", "probability"]
    header += ["seeds wrong"] if several else []
    return TableBlock("Most confident errors", header, rows, n_names=3)
