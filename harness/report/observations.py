"""What a report rests on: a tidy frame of the records, and per cell which test rows it got right.

Predictions of many records do not fit in memory as they are stored; one boolean a test row does.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis import labels_per_class, tidy_columns, tidy_frame
from harness.metrics import pseudo_values
from harness.records import Predictions, Record, Score
from harness.support import UsageError

Key = tuple[str, str]


@dataclass(frozen=True)
class Correctness:
    """Which test rows a cell got right, how well it did on each, or what each adds to a metric that is no mean.

    Attributes:
        rows: fingerprint of the test rows and their order.
        correct: shape (n_test,), true and false, or between 0 and 1, or contributions.
        is_mean: whether the score is the mean of `correct`; they are contributions otherwise
            (`metrics.rows.pseudo_values`).
    """

    rows: str
    correct: npt.NDArray[Any]
    is_mean: bool = True


@dataclass(frozen=True, eq=False)
class Observations:
    """The latest attempt of each cell on each device.

    Attributes:
        records: without predictions.
        n_per_class: labels of each class in a balanced draw, of each record; None for other draws.
        correct: by (id, device), where predictions were given.
    """

    records: tuple[Record, ...]
    n_per_class: tuple[int | None, ...]
    correct: dict[Key, Correctness]

    @functools.cached_property
    def frame(self) -> pd.DataFrame:
        """`tidy_frame` of the records, in the same order."""
        frame = tidy_frame(self.records)
        frame["n_per_class"] = pd.array(self.n_per_class, dtype="Int64")
        return frame

    def columns(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """Some columns of the frame as plain values, None for null, without making it."""
        found = tidy_columns(self.records, [name for name in names if name != "n_per_class"])
        return {name: list(self.n_per_class) if name == "n_per_class" else found[name] for name in names}


RecordSource = Iterable[Record] | Observations
"""What every public function of the report takes; records should come with their predictions."""


def observe(source: RecordSource) -> Observations:
    """Read a stream of records once; what was read already is passed through.

    Raises:
        UsageError: if there is no record.
    """
    if isinstance(source, Observations):
        return source
    latest: dict[Key, Record] = {}
    correct: dict[Key, Correctness] = {}
    n_per_class: dict[Key, int | None] = {}
    for record in source:
        key = (record.id, record.device)
        if key in latest and latest[key].attempt > record.attempt:
            continue
        correct.pop(key, None)
        predictions = record.predictions
        if predictions is not None and record.score is not None:
            has_unscored = bool(record.provenance.dataset.get("n_classes_not_scored"))
            found = _correctness(predictions, record.score, has_unscored)
            if found is not None:
                correct[key] = found
        n_per_class[key] = labels_per_class(record)  # may need the predictions
        latest[key] = record if predictions is None else dataclasses.replace(record, predictions=None)
    if not latest:
        raise UsageError("There is nothing to report: no record was given. Run something first, or name another store.")
    return Observations(tuple(latest.values()), tuple(n_per_class[key] for key in latest), correct)


def _correctness(predictions: Predictions, score: Score, has_unscored: bool) -> Correctness | None:
    scores = predictions.row_scores(score.metric)
    if scores is not None:
        return Correctness(predictions.rows, scores)
    contributions = pseudo_values(score.metric, predictions, has_unscored=has_unscored)
    if contributions is None:
        return None
    return Correctness(predictions.rows, contributions.astype(np.float32), is_mean=False)


@dataclass(frozen=True)
class Rows:
    """Some cells on the same test rows.

    Attributes:
        values: shape (n_cells, n_test): of `Correctness.correct`.
        is_mean: whether the scores are the means of their rows.
        fingerprint: of the test rows.
    """

    values: npt.NDArray[Any]
    is_mean: bool
    fingerprint: str

    def are_those_of(self, other: Rows) -> bool:
        """Whether both may be compared row by row."""
        same = self.fingerprint == other.fingerprint and self.is_mean == other.is_mean
        return same and self.values.shape == other.values.shape


def matrix(observations: Observations, keys: Sequence[Key], scores: npt.ArrayLike) -> Rows | None:
    """What is known of each test row for each of some cells.

    None unless all were scored on the same rows by a metric that their rows tell something of: only then do the rows
    say how the score varies.

    Args:
        observations: where the cells are.
        keys: (id, device) of each cell.
        scores: their scores, shape (len(keys),).
    """
    found = [observations.correct.get(key) for key in keys]
    rows = [one for one in found if one is not None and one.correct.size]
    if not rows or len(rows) < len(found) or len({(one.rows, one.is_mean) for one in rows}) > 1:
        return None
    stacked = np.stack([one.correct for one in rows])
    is_mean = rows[0].is_mean
    if is_mean and not np.allclose(stacked.mean(axis=1), np.asarray(scores, dtype=float), atol=1e-6):
        return None
    return Rows(stacked, is_mean, rows[0].rows)
