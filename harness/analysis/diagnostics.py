"""Find where a classifier is wrong: scores by class, confusions, and its most confident errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.means import mean_over_fits

NO_ANSWER = -1
"""Index of a prediction that names no class."""


@dataclass(frozen=True, eq=False)
class ClassAnswers:
    """Predicted and right classes of the same test rows, by one or several fits.

    Attributes:
        predicted: predicted class of each fit and row, shape (n_fits, n_rows); `NO_ANSWER` where there is none.
        target: right class of each row, shape (n_rows,).
        n_classes: number of classes.
        confidence: probability of each prediction, shape (n_fits, n_rows); None without probabilities.
        names: names of the classes, in the order of their indices; empty where they are unknown.
    """

    predicted: npt.NDArray[Any]
    target: npt.NDArray[Any]
    n_classes: int
    confidence: npt.NDArray[Any] | None = None
    names: tuple[str, ...] = ()

    @property
    def n_fits(self) -> int:
        """Number of fits."""
        return len(self.predicted)

    @property
    def n_rows(self) -> int:
        """Number of test rows."""
        return len(self.target)

    def name(self, index: int) -> str:
        """Return the name of a class, or its index in words."""
        if index == NO_ANSWER:
            return "no answer"
        return self.names[index] if self.names else f"class {index}"


def per_class(answers: ClassAnswers) -> pd.DataFrame:
    """Return the scores of each class, the lowest recall first; classes without test rows come last.

    Columns: index, class, n_test (its test rows), n_predicted (rows predicted as it), n_right (those of them that
    are), precision, recall, f1. Counts and scores are means over the fits. Precision is null for a class that no fit
    predicts, recall for a class without test rows, and F1 where both hold.
    """
    found = [_scores(answers, predicted) for predicted in answers.predicted]
    mean = {name: mean_over_fits([one[name] for one in found]) for name in found[0]}
    frame = pd.DataFrame(
        {
            "index": pd.array(range(answers.n_classes), dtype="Int64"),
            "class": pd.array([answers.name(i) for i in range(answers.n_classes)], dtype="string"),
            "n_test": pd.array(_count(answers.target, answers.n_classes), dtype="Int64"),
            **{name: pd.array(values, dtype="Float64") for name, values in mean.items()},
        }
    )
    return frame.sort_values(["recall", "f1"], kind="stable", na_position="last").reset_index(drop=True)


def _scores(answers: ClassAnswers, predicted: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float64]]:
    n_test = _count(answers.target, answers.n_classes).astype(float)
    n_predicted = _count(predicted, answers.n_classes).astype(float)
    n_right = _count(predicted[predicted == answers.target], answers.n_classes).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "n_predicted": n_predicted,
            "n_right": n_right,
            "precision": n_right / n_predicted,
            "recall": n_right / n_test,
            "f1": 2 * n_right / (n_test + n_predicted),
        }


def _count(indices: npt.NDArray[Any], n_classes: int) -> npt.NDArray[np.int64]:
    return np.bincount(indices[indices >= 0].astype(np.int64), minlength=n_classes)


def confusion_matrix(answers: ClassAnswers) -> npt.NDArray[np.float64]:
    """Return the number of test rows by right class (rows) and predicted class (columns), as a mean over fits.

    Shape (n_classes, n_classes). Rows without an answer are in no column.
    """
    n = answers.n_classes
    pairs = np.where(answers.predicted >= 0, answers.target.astype(np.int64) * n + answers.predicted, -1)
    counts = np.bincount(pairs[pairs >= 0], minlength=n * n)
    return counts.reshape(n, n) / answers.n_fits


def confusions(answers: ClassAnswers) -> pd.DataFrame:
    """Return each pair of a right class and a wrong prediction that occurs, the most frequent first.

    Columns: true, predicted, n (test rows, as a mean over fits), share (of the test rows of the right class), n_test
    (test rows of the right class).
    """
    n_columns = answers.n_classes + 1  # `NO_ANSWER` takes the last one
    predicted = np.where(answers.predicted < 0, answers.n_classes, answers.predicted).astype(np.int64)
    pairs = answers.target.astype(np.int64) * n_columns + predicted
    found, counts = np.unique(pairs[predicted != answers.target], return_counts=True)
    true, wrong = found // n_columns, found % n_columns
    wrong = np.where(wrong == answers.n_classes, NO_ANSWER, wrong)
    n_test = _count(answers.target, answers.n_classes)[true]
    order = np.lexsort((wrong, true, -counts))
    frame = pd.DataFrame(
        {
            "true": pd.array([answers.name(int(i)) for i in true], dtype="string"),
            "predicted": pd.array([answers.name(int(i)) for i in wrong], dtype="string"),
            "n": pd.array(counts / answers.n_fits, dtype="Float64"),
            "share": pd.array(counts / answers.n_fits / np.maximum(n_test, 1), dtype="Float64"),
            "n_test": pd.array(n_test, dtype="Int64"),
        }
    )
    return frame.iloc[order].reset_index(drop=True)


def confident_errors(answers: ClassAnswers, most: int = 10) -> pd.DataFrame:
    """Return the test rows that are wrong with the highest probability, at most one wrong class a row.

    Rows are ordered by the probability of the wrong class, as a mean over all fits in which fits with another
    prediction count as zero: an error that the fits share comes before one of a single fit. Without probabilities only
    errors common to all fits are returned, in the order of the rows.

    Columns: row (position among the test rows, from 0), true, predicted, probability (mean over the fits that predict
    this class; null without probabilities), n_wrong (fits that are wrong on the row), n_fits.
    """
    wrong = answers.predicted != answers.target
    n_wrong = wrong.sum(axis=0)
    confidence = None if answers.confidence is None else np.asarray(answers.confidence, dtype=np.float64)
    found = []
    for row in np.flatnonzero(n_wrong if confidence is not None else n_wrong == answers.n_fits):
        said, of_row = answers.predicted[:, row], wrong[:, row]
        weight = of_row.astype(float) if confidence is None else np.where(of_row, confidence[:, row], 0.0)
        total = {int(label): float(weight[said == label].sum()) for label in np.unique(said[of_row])}
        label = max(total, key=lambda one: total[one])
        mean = None if confidence is None else float(confidence[said == label, row].mean())
        found.append((total[label] if confidence is not None else 0.0, int(row), label, mean))
    found.sort(key=lambda one: (-one[0], one[1]))
    shown = found[:most]
    return pd.DataFrame(
        {
            "row": pd.array([row for _, row, _, _ in shown], dtype="Int64"),
            "true": pd.array([answers.name(int(answers.target[row])) for _, row, _, _ in shown], dtype="string"),
            "predicted": pd.array([answers.name(label) for _, _, label, _ in shown], dtype="string"),
            "probability": pd.array([mean for _, _, _, mean in shown], dtype="Float64"),
            "n_wrong": pd.array([int(n_wrong[row]) for _, row, _, _ in shown], dtype="Int64"),
            "n_fits": pd.array([answers.n_fits] * len(shown), dtype="Int64"),
        }
    )
