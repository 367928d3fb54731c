"""Tell where a chosen model is wrong: by class, by confusion, and row by row, on rows that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.analysis import ClassAnswers, confusions, per_class
from harness.records import Predictions
from harness.report import (
    RECALL_AND_PRECISION,
    WORTH_READING,
    KnownRows,
    confusions_table,
    errors_table,
    errors_with_texts,
    markdown_table,
    per_class_table,
    worst_confusion,
)
from harness.support import text
from harness.tasks import Task

if TYPE_CHECKING:
    import pandas as pd

EVALUATION: Final = "evaluation.md"
"""Name of the file in the folder of a saved model. Predicting does not read it, so the model loads without it."""

_MOST_WEAK = 3
_MOST_PAIRS = 15
_PRIVATE = "This file quotes rows of your data. If they are private, delete it before you share the model."


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Where a saved model is wrong on the test rows.

    Attributes:
        origin: where the test rows come from, in words.
    """

    origin: str
    _answers: ClassAnswers = field(repr=False)
    _known: KnownRows = field(repr=False)

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """Scores of each class, the lowest recall first: class, n_test, n_right, precision, recall, f1, and others."""
        return per_class(self._answers)

    @cached_property
    def confusions(self) -> pd.DataFrame:
        """Pairs of a right class and a wrong prediction, the most frequent first: true, predicted, n, share, n_test."""
        return confusions(self._answers)

    @cached_property
    def errors(self) -> pd.DataFrame:
        """The ten most confident errors: row, true, predicted, probability, text (shortened), and others."""
        return errors_with_texts(self._answers, self._known)

    def in_words(self) -> list[str]:
        """Return the weakest classes and the most frequent confusion, one short line each."""
        weak = self.per_class[self.per_class["recall"] < 1].head(_MOST_WEAK)
        if weak.empty:
            return []
        shown = [
            f"{text.plain(str(row['class']))[:60]} ({row['n_right']:.0f} of {row['n_test']:,} right)"
            for _, row in weak.iterrows()
        ]
        return [
            f"Weakest by recall: {', '.join(shown)}.",
            f"Most frequent confusion (right → predicted): {worst_confusion(self.confusions)}.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the scores by class and the confusions as plain values; texts of rows are left out."""
        return {"per_class": _plain(self.per_class), "confusions": _plain(self.confusions.head(_MOST_PAIRS))}


def evaluate(found: Predictions | None, task: Task) -> Evaluation | None:
    """Return where the saved model is wrong, from its predictions; None if they are no classes.

    Args:
        found: predictions of the test rows.
        task: the user's data.
    """
    if found is None or found.predicted is None or found.target is None or found.rows != task.test_rows:
        return None
    rows = task.test_rows_to_predict
    confidence = None if found.confidence is None else found.confidence[None]
    answers = ClassAnswers(found.predicted[None], found.target, len(task.label_names), confidence, task.label_names)
    held_out = task.provenance.get("held_out")
    origin = (
        f"The test rows were held out from the data: {held_out}." if held_out else "The test rows were given apart."
    )
    known = KnownRows(rows.parts, task.label_names)
    return Evaluation(origin, answers, known)


def write_evaluation(found: Evaluation, folder: Path, title: str, score: str, *, refit: bool = False) -> None:
    """Write the evaluation into the folder of a saved model.

    Args:
        found: the evaluation.
        folder: the folder.
        title: task and method.
        score: score of the model, in words.
        refit: whether the saved model was fitted to the test rows too, after they scored it.
    """
    trained = "The model was not trained on them."
    if refit:
        trained = (
            "The scored model was not trained on them. The saved one is the same method, fitted to these rows too."
        )
    parts = [
        f"# Evaluation of {text.markdown(title)}",
        f"{text.markdown(score)}. {text.markdown(found.origin)} {trained}",
        "## Scores by class",
        RECALL_AND_PRECISION,
        markdown_table(per_class_table(found.per_class)),
        "## Most frequent confusions",
    ]
    if found.confusions.empty:
        parts.append("Every test row is predicted as its own class.")
    else:
        parts += [markdown_table(confusions_table(found.confusions.head(_MOST_PAIRS)))]
        parts += ["## Most confident errors", f"{WORTH_READING} {_PRIVATE}", markdown_table(errors_table(found.errors))]
    (folder / EVALUATION).write_text("\n\n".join(parts) + "\n", encoding="utf-8", newline="\n")


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as dictionaries of Python's own values, None for null."""
    values = frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None)
    return [dict(zip(frame.columns, row, strict=True)) for row in values]
