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

from harness.errors import UsageError
from harness.frame import labels_per_class, tidy_columns, tidy_frame
from harness.records import Record

Key = tuple[str, str]


@dataclass(frozen=True)
class Correctness:
    """Which test rows a cell got right, or how well it did on each.

    Attributes:
        rows: fingerprint of the test rows and their order.
        correct: shape (n_test,), true and false, or between 0 and 1.
    """

    rows: str
    correct: npt.NDArray[Any]


@dataclass(frozen=True)
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


Source = Iterable[Record] | Observations
"""What every public function of the report takes; records should come with their predictions."""


def observe(source: Source) -> Observations:
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
        scores = None
        if predictions is not None and record.score is not None:
            scores = predictions.row_scores(record.score.metric)
            if scores is None and predictions.predicted is not None:  # a metric of classes that is no mean of rows
                scores = predictions.row_scores("accuracy")
        if predictions is not None and scores is not None:
            correct[key] = Correctness(predictions.rows, scores)
        n_per_class[key] = labels_per_class(record)  # may need the predictions
        latest[key] = record if predictions is None else dataclasses.replace(record, predictions=None)
    if not latest:
        raise UsageError("There is nothing to report: no record was given. Run something first, or name another store.")
    return Observations(tuple(latest.values()), tuple(n_per_class[key] for key in latest), correct)


def matrix(observations: Observations, keys: Sequence[Key], scores: npt.ArrayLike) -> npt.NDArray[Any] | None:
    """Which test rows each of some cells got right, shape (len(keys), n_test).

    None unless all were scored on the same rows by a metric that is the mean of being right: only then do the rows
    say how the score varies.

    Args:
        observations: where the cells are.
        keys: (id, device) of each cell.
        scores: their scores, shape (len(keys),).
    """
    found = [observations.correct.get(key) for key in keys]
    rows = [one for one in found if one is not None and one.correct.size]
    if not rows or len(rows) < len(found) or len({one.rows for one in rows}) > 1:
        return None
    stacked = np.stack([one.correct for one in rows])
    return stacked if np.allclose(stacked.mean(axis=1), np.asarray(scores, dtype=float), atol=1e-6) else None
