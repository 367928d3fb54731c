"""Tell where a chosen model is wrong, on rows that it was not trained on: by class, label or type, and row by row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from harness.analysis import (
    ClassAnswers,
    LabelAnswers,
    NumberAnswers,
    SpanAnswers,
    confusions,
    per_class,
    per_label,
    per_type,
    residuals_by_truth,
)
from harness.records import Predictions
from harness.report import (
    NOT_ON_SCALE,
    OF_LABELS,
    OF_TYPES,
    RECALL_AND_PRECISION,
    RESIDUAL,
    WORTH_READING,
    WRONG_NUMBERS,
    KnownRows,
    by_truth_table,
    confusions_table,
    errors_table,
    errors_with_texts,
    largest_residual,
    markdown_table,
    per_class_table,
    per_label_table,
    per_type_table,
    residuals_table,
    residuals_with_texts,
    weakest,
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
PRIVATE: Final = "This file quotes rows of your data. If they are private, delete it before you share the model."


class Evaluation(ABC):
    """Where a saved model is wrong on the test rows.

    Attributes:
        origin: where the test rows come from, in words.
        contents: what the file of it holds, in words.
    """

    origin: str
    contents: ClassVar[str]

    @abstractmethod
    def in_words(self) -> list[str]:
        """Return the gist in one or two short lines."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values; texts of rows are left out."""

    @abstractmethod
    def sections(self) -> list[str]:
        """Return the sections of the file, in Markdown."""


@dataclass(frozen=True, eq=False)
class ClassEvaluation(Evaluation):
    """Where a saved model of classes is wrong: by class, by confusion, and row by row."""

    origin: str
    _answers: ClassAnswers = field(repr=False)
    _known: KnownRows = field(repr=False)

    contents: ClassVar[str] = "scores by class and the most confident errors"

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

    def sections(self) -> list[str]:
        """Return scores by class, confusions, and the most confident errors."""
        parts = ["## Scores by class", RECALL_AND_PRECISION, markdown_table(per_class_table(self.per_class))]
        parts.append("## Most frequent confusions")
        if self.confusions.empty:
            return [*parts, "Every test row is predicted as its own class."]
        parts += [markdown_table(confusions_table(self.confusions.head(_MOST_PAIRS)))]
        return [
            *parts,
            "## Most confident errors",
            f"{WORTH_READING} {PRIVATE}",
            markdown_table(errors_table(self.errors)),
        ]


@dataclass(frozen=True, eq=False)
class NumberEvaluation(Evaluation):
    """Where a saved model of numbers is wrong: by the size of the true number, and row by row."""

    origin: str
    _answers: NumberAnswers = field(repr=False)
    _known: KnownRows = field(repr=False)

    contents: ClassVar[str] = "residuals by the size of the true number, and the largest ones"

    @cached_property
    def by_truth(self) -> pd.DataFrame:
        """Errors in five groups of test rows, by the true number (`analysis.residuals_by_truth`)."""
        return residuals_by_truth(self._answers)

    @cached_property
    def residuals(self) -> pd.DataFrame:
        """The ten largest residuals: row, truth, estimate, residual, text (shortened), and others."""
        return residuals_with_texts(self._answers, self._known)

    def in_words(self) -> list[str]:
        """Return the largest residual."""
        if self.residuals.empty:
            return [NOT_ON_SCALE]
        return [f"Largest residual: {largest_residual(self.residuals)}."]

    def to_dict(self) -> dict[str, Any]:
        """Return the errors by the size of the true number as plain values."""
        return {"by_truth": _plain(self.by_truth)}

    def sections(self) -> list[str]:
        """Return the residuals by the true number, and the largest ones."""
        if self.residuals.empty:
            return [NOT_ON_SCALE]
        return [
            *("## Residuals by the size of the true number", RESIDUAL, markdown_table(by_truth_table(self.by_truth))),
            *("## Largest residuals", f"{WRONG_NUMBERS} {PRIVATE}", markdown_table(residuals_table(self.residuals))),
        ]


@dataclass(frozen=True, eq=False)
class CountedEvaluation(Evaluation):
    """Where a saved model of label sets or of tags is wrong: precision, recall and F1 of each label or type.

    Attributes:
        scores: `analysis.per_label` or `analysis.per_type`.
    """

    origin: str
    scores: pd.DataFrame

    contents: ClassVar[str] = "precision, recall and F1 of each label or type"

    @property
    def _is_of_labels(self) -> bool:
        return str(self.scores.columns[0]) == "label"

    def in_words(self) -> list[str]:
        """Return the labels or types with the lowest F1."""
        found = weakest(self.scores)
        return [] if found is None else [f"Weakest: {found}."]

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain values."""
        return {"per_label" if self._is_of_labels else "per_type": _plain(self.scores)}

    def sections(self) -> list[str]:
        """Return the table of the scores."""
        if self._is_of_labels:
            return ["## Scores by label", OF_LABELS, markdown_table(per_label_table(self.scores))]
        return ["## Scores by type", OF_TYPES, markdown_table(per_type_table(self.scores))]


def evaluate(found: Predictions | None, task: Task) -> Evaluation | None:
    """Return where the saved model is wrong, from its predictions; None for other answers than these.

    Args:
        found: predictions of the test rows.
        task: the user's data.
    """
    if found is None or found.rows != task.test_rows:
        return None
    rows = task.test_rows_to_predict
    held_out = task.provenance.get("held_out")
    origin = (
        f"The test rows were held out from the data: {held_out}." if held_out else "The test rows were given apart."
    )
    kept = found.statistics
    if task.kind.form == "number" and {"estimate", "truth"} <= kept.keys():
        numbers = NumberAnswers(kept["estimate"][None], kept["truth"], "unscaled" not in kept)
        return NumberEvaluation(origin, numbers, KnownRows(rows.parts))
    if task.kind.form == "labels" and {"given", "wanted"} <= kept.keys():
        return CountedEvaluation(origin, per_label(LabelAnswers(kept["given"][None], kept["wanted"], task.label_names)))
    if task.kind.form == "tags" and "spans" in kept:
        types = tuple(task.provenance.get("entity_types") or ())
        return CountedEvaluation(origin, per_type(SpanAnswers(kept["spans"][None], types)))
    if found.predicted is None or found.target is None:
        return None
    confidence = None if found.confidence is None else found.confidence[None]
    answers = ClassAnswers(found.predicted[None], found.target, len(task.label_names), confidence, task.label_names)
    return ClassEvaluation(origin, answers, KnownRows(rows.parts, task.label_names))


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
        *found.sections(),
    ]
    (folder / EVALUATION).write_text("\n\n".join(parts) + "\n", encoding="utf-8", newline="\n")


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as dictionaries of Python's own values, None for null."""
    values = frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None)
    return [dict(zip(frame.columns, row, strict=True)) for row in values]
