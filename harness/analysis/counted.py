"""Score each label of label sets, and each type of spans: precision, recall and F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.means import mean_over_fits


@dataclass(frozen=True, eq=False)
class LabelAnswers:
    """Given and right labels of the same test rows, by one or several fits.

    Attributes:
        given: whether each fit gives a row a label, 0 or 1, shape (n_fits, n_rows, n_labels).
        wanted: whether the row has the label, 0 or 1, shape (n_rows, n_labels).
        names: names of the labels; empty where they are unknown.
    """

    given: npt.NDArray[Any]
    wanted: npt.NDArray[Any]
    names: tuple[str, ...] = ()

    @property
    def n_fits(self) -> int:
        """Number of fits."""
        return len(self.given)

    @property
    def n_rows(self) -> int:
        """Number of test rows."""
        return len(self.wanted)


@dataclass(frozen=True, eq=False)
class SpanAnswers:
    """Counts of spans in the same test rows, by one or several fits.

    Attributes:
        spans: spans of each type that are right, predicted and true, shape (n_fits, n_rows, n_types, 3).
        names: names of the types; empty where they are unknown.
    """

    spans: npt.NDArray[Any]
    names: tuple[str, ...] = ()

    @property
    def n_fits(self) -> int:
        """Number of fits."""
        return len(self.spans)

    @property
    def n_rows(self) -> int:
        """Number of test rows."""
        return int(self.spans.shape[1])


def per_label(answers: LabelAnswers) -> pd.DataFrame:
    """Return the scores of each label, the lowest F1 first; labels without test rows come last.

    Columns: label, n_test (test rows that have it), n_predicted (rows that are given it), n_right (those of them that
    have it), precision, recall, f1. Counts and scores are means over the fits. Precision is null for a label that no
    fit gives, recall for one without test rows, and F1 where both hold.
    """
    given, wanted = np.asarray(answers.given, dtype=bool), np.asarray(answers.wanted, dtype=bool)
    n_true = np.broadcast_to(wanted.sum(axis=0), (answers.n_fits, wanted.shape[1]))
    return _scored("label", (given & wanted).sum(axis=1), given.sum(axis=1), n_true, answers.names)


def per_type(answers: SpanAnswers) -> pd.DataFrame:
    """Return the scores of each type of spans, the lowest F1 first; types without spans in the test rows come last.

    A predicted span is right if its type and both its ends are. Columns: type, n_test (true spans), n_predicted,
    n_right, precision, recall, f1. They are means over the fits, null as in `per_label`.
    """
    right, predicted, true = np.moveaxis(np.asarray(answers.spans, dtype=np.int64).sum(axis=1), -1, 0)
    return _scored("type", right, predicted, true, answers.names)


def _scored(
    what: str,
    right: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    true: npt.NDArray[np.int64],
    names: Sequence[str],
) -> pd.DataFrame:
    """Return precision, recall and F1 from counts, each of shape (n_fits, n_names)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = {"precision": right / predicted, "recall": right / true, "f1": 2 * right / (predicted + true)}
    mean = {name: mean_over_fits(values) for name, values in scores.items()}
    frame = pd.DataFrame(
        {
            what: pd.array(names or [f"{what} {i}" for i in range(right.shape[1])], dtype="string"),
            "n_test": pd.array(true[0], dtype="Int64"),
            "n_predicted": pd.array(predicted.mean(axis=0), dtype="Float64"),
            "n_right": pd.array(right.mean(axis=0), dtype="Float64"),
            **{name: pd.array(values, dtype="Float64") for name, values in mean.items()},
        }
    )
    is_absent = frame["n_test"] == 0
    order = frame.assign(_absent=is_absent).sort_values(["_absent", "f1", "recall"], kind="stable", na_position="last")
    return order.drop(columns="_absent").reset_index(drop=True)
