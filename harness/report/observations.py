"""Read the records of a report: a tidy frame, and the scores of each cell by test row.

Predictions of many records do not fit in memory as they are stored; one value per test row does. Classes,
numbers, label sets and counts of spans are kept in full for the cells with the most labels alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis import labels_per_class, tidy_columns, tidy_frame
from harness.metrics import pseudo_values
from harness.records import Predictions, Record, Score
from harness.report.kept_answers import Kept, LargestSizes
from harness.support import UsageError


@dataclass(frozen=True)
class RowScores:
    """The scores of one or several cells on each test row.

    Attributes:
        fingerprint: identity of the test rows and their order.
        values: shape (n_test,) of one cell or (n_cells, n_test) of several: true and false, scores between 0 and 1, or
            the rows' contributions to a metric that is no mean over rows (`metrics.pseudo_values`).
        is_mean: whether a cell's score is the mean of its values; they are contributions otherwise.
    """

    fingerprint: str
    values: npt.NDArray[Any]
    is_mean: bool = True

    def are_on_rows_of(self, other: RowScores) -> bool:
        """Return whether both may be compared row by row."""
        same = self.fingerprint == other.fingerprint and self.is_mean == other.is_mean
        return same and self.values.shape == other.values.shape


@dataclass(frozen=True, eq=False)
class Observations:
    """The latest attempt of each cell on each device.

    Attributes:
        records: the records, without predictions.
        n_per_class: labels of each class in a balanced draw, one per record; None for other draws.
        by_row: scores by test row of the cell (id, device), where its predictions are known.
        answers: answers of the cell (id, device) at its largest size: classes, numbers, label sets, counts of spans.
    """

    records: tuple[Record, ...]
    n_per_class: tuple[int | None, ...]
    by_row: dict[tuple[str, str], RowScores]
    answers: dict[tuple[str, str], Kept] = field(default_factory=dict)

    @functools.cached_property
    def frame(self) -> pd.DataFrame:
        """`tidy_frame` of the records, in the same order."""
        frame = tidy_frame(self.records)
        frame["n_per_class"] = pd.array(self.n_per_class, dtype="Int64")
        return frame

    def columns(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """Return some columns of the frame as plain values, None for null, without making the frame."""
        found = tidy_columns(self.records, [name for name in names if name != "n_per_class"])
        return {name: list(self.n_per_class) if name == "n_per_class" else found[name] for name in names}


RecordSource = Iterable[Record] | Observations
"""Records, best with their predictions, or observations that were made of them."""


def observe(source: RecordSource) -> Observations:
    """Read a stream of records once; return observations as they are.

    Raises:
        UsageError: if there is no record.
    """
    if isinstance(source, Observations):
        return source
    observer = Observer()
    latest: dict[_Key, Record] = {}
    for record in source:
        key = (record.id, record.device)
        if observer.add(record):
            latest[key] = record if record.predictions is None else record.replaced(predictions=None)
    if not latest:
        raise UsageError("There is nothing to report: no record was given. Run something first, or name another store.")
    return observer.observations(latest.values())


_Key = tuple[str, str]


class Observer:
    """Keeps the scores and answers by test row of records that are met one by one, and none of the records."""

    def __init__(self) -> None:
        self._attempts: dict[_Key, int] = {}
        self._by_row: dict[_Key, RowScores] = {}
        self._n_per_class: dict[_Key, int | None] = {}
        self._largest = LargestSizes()

    def add(self, record: Record) -> bool:
        """Take in a record in place of an earlier attempt; return False for an attempt before the latest one."""
        key = (record.id, record.device)
        if self._attempts.get(key, 0) > record.attempt:
            return False
        self._attempts[key] = record.attempt
        self._by_row.pop(key, None)
        self._largest.add(record)
        predictions = record.predictions
        if predictions is not None and record.score is not None:
            has_unscored = bool(record.provenance.dataset.get("n_classes_not_scored"))
            found = _row_scores(predictions, record.score, has_unscored)
            if found is not None:
                self._by_row[key] = found
        self._n_per_class[key] = labels_per_class(record)  # may need the predictions
        return True

    def knows(self, record: Record) -> bool:
        """Return whether this attempt was taken in."""
        return self._attempts.get((record.id, record.device)) == record.attempt

    def observations(self, records: Iterable[Record]) -> Observations:
        """Return the observations of records without predictions, all of which were taken in."""
        kept = tuple(records)
        keys = [(record.id, record.device) for record in kept]
        known = set(keys)
        by_row = {key: found for key, found in self._by_row.items() if key in known}
        answers = {key: found for key, found in self._largest.kept.items() if key in known}
        return Observations(kept, tuple(self._n_per_class[key] for key in keys), by_row, answers)


def _row_scores(predictions: Predictions, score: Score, has_unscored: bool) -> RowScores | None:
    scores = predictions.row_scores(score.metric)
    if scores is not None:
        return RowScores(predictions.rows, scores)
    contributions = pseudo_values(score.metric, predictions, has_unscored=has_unscored)
    if contributions is None:
        return None
    return RowScores(predictions.rows, contributions.astype(np.float32), is_mean=False)


def matrix(observations: Observations, keys: Sequence[tuple[str, str]], scores: npt.ArrayLike) -> RowScores | None:
    """Return the scores by test row of some cells, shape (n_cells, n_test).

    Return None unless all cells were scored on the same rows by a metric that depends on rows one by one: only then do
    the rows show how the score varies.

    Args:
        observations: the observations that hold the cells.
        keys: (id, device) of each cell.
        scores: the cells' scores, shape (len(keys),).
    """
    found = [observations.by_row.get(key) for key in keys]
    rows = [one for one in found if one is not None and one.values.size]
    if not rows or len(rows) < len(found) or len({(one.fingerprint, one.is_mean) for one in rows}) > 1:
        return None
    stacked = np.stack([one.values for one in rows])
    is_mean = rows[0].is_mean
    if is_mean and not np.allclose(stacked.mean(axis=1), np.asarray(scores, dtype=float), atol=1e-6):
        return None
    return RowScores(rows[0].fingerprint, stacked, is_mean)
