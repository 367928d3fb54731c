"""Keep the answers of the cells that a panel's winner may be among: those with the most labels."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.records import Predictions, Record

_Key = tuple[str, str]


@dataclass(frozen=True, eq=False)
class KeptClasses:
    """Predictions of one cell that are classes, in small types.

    Attributes:
        rows: fingerprint of the test rows and their order.
        predicted: predicted class of each row, shape (n_test,).
        target: right class of each row, shape (n_test,); cells on the same rows share the array.
        confidence: probability of each prediction, shape (n_test,), float16; None where the record has none.
        n_classes: number of classes.
        class_names: names of the classes; empty where the record has none.
    """

    rows: str
    predicted: npt.NDArray[Any]
    target: npt.NDArray[Any]
    confidence: npt.NDArray[np.float16] | None
    n_classes: int
    class_names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class KeptNumbers:
    """Estimates of one cell.

    Attributes:
        rows: fingerprint of the test rows and their order.
        estimate: estimate of each row, shape (n_test,).
        truth: true number of each row, shape (n_test,); cells on the same rows share the array.
        is_on_scale: whether estimates are in the unit of the true numbers.
    """

    rows: str
    estimate: npt.NDArray[np.float64]
    truth: npt.NDArray[np.float64]
    is_on_scale: bool


@dataclass(frozen=True, eq=False)
class KeptLabels:
    """Label sets of one cell.

    Attributes:
        rows: fingerprint of the test rows and their order.
        given: labels that it gives each row, 0 or 1, shape (n_test, n_labels).
        wanted: right labels of each row, shape (n_test, n_labels); cells on the same rows share the array.
        names: names of the labels; empty where the record has none.
    """

    rows: str
    given: npt.NDArray[np.uint8]
    wanted: npt.NDArray[np.uint8]
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class KeptSpans:
    """Counts of spans of one cell.

    Attributes:
        rows: fingerprint of the test rows and their order.
        spans: right, predicted and true spans of each row and type, shape (n_test, n_types, 3).
        names: names of the types; empty where the record has none.
    """

    rows: str
    spans: npt.NDArray[Any]
    names: tuple[str, ...]


Kept = KeptClasses | KeptNumbers | KeptLabels | KeptSpans
"""Answers of one cell, by their form."""


def shape_of(kept: Kept) -> tuple[Any, ...]:
    """Return what answers must agree on to be averaged: form, test rows, number of classes, labels or types."""
    sizes = [getattr(kept, field.name) for field in fields(kept) if field.name in ("given", "spans", "estimate")]
    return type(kept), kept.rows, getattr(kept, "n_classes", None), *(array.shape for array in sizes)


class LargestSizes:
    """The answers of a stream of records, at the largest training size of each setting.

    Cells without labels stand at every size, so that they are kept too.

    Attributes:
        kept: answers by the cell (id, device).
    """

    def __init__(self) -> None:
        self.kept: dict[_Key, Kept] = {}
        self._largest: dict[tuple[Any, ...], int] = {}
        self._sized: defaultdict[tuple[Any, ...], set[_Key]] = defaultdict(set)
        self._shared: dict[tuple[str, str], npt.NDArray[Any]] = {}
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}

    def add(self, record: Record) -> None:
        """Keep the answers of a record, in place of an earlier attempt's, and forget those of smaller sizes."""
        key = (record.id, record.device)
        self.kept.pop(key, None)
        if record.predictions is None or record.score is None:
            return
        cell = record.cell
        if 0 < cell.n_train < self._largest.get(self._setting(record), 0):
            return  # before anything is unpacked
        found = self._answers_of(record)
        if found is None:
            return
        if cell.n_train > 0:
            setting = self._setting(record)
            if cell.n_train > self._largest.get(setting, 0):
                self._largest[setting] = cell.n_train
                for smaller in self._sized.pop(setting, ()):
                    self.kept.pop(smaller, None)
            self._sized[setting].add(key)
        self.kept[key] = found

    def _setting(self, record: Record) -> tuple[Any, ...]:
        cell, score = record.cell, record.score
        where = (cell.budget, record.device, None if score is None else score.metric)
        return (cell.task, cell.data, cell.backbone, cell.weights, *where)

    def _answers_of(self, record: Record) -> Kept | None:
        """Return the answers of a scored record; None where they are of another form, or incomplete."""
        predictions = record.predictions
        if predictions is None or record.score is None or record.status != "ok":
            return None
        of_data = record.provenance.dataset
        statistics = predictions.statistics
        if of_data.get("n_classes") is not None:
            return self._classes_of(predictions, int(of_data["n_classes"]), of_data.get("class_names"))
        if {"estimate", "truth"} <= statistics.keys():
            return self._numbers_of(predictions)
        if {"given", "wanted"} <= statistics.keys():
            return self._labels_of(predictions, of_data.get("labels"))
        if "spans" in statistics and statistics["spans"].ndim == 3:
            return self._spans_of(predictions, of_data.get("entity_types"))
        return None

    def _classes_of(self, predictions: Predictions, n_classes: int, names: Any) -> KeptClasses | None:
        if predictions.predicted is None or predictions.target is None or not predictions.target.size:
            return None
        predicted, target = predictions.classes
        if target.min() < 0 or max(int(predicted.max()), int(target.max())) >= n_classes:
            return None
        small = np.min_scalar_type(-max(1, n_classes))  # signed: an answer may name no class
        shared = self._same(predictions.rows, "target", target.astype(small))
        if shared is None:
            return None
        told = self._named(names, n_classes)
        return KeptClasses(predictions.rows, predicted.astype(small), shared, predictions.confidence, n_classes, told)

    def _numbers_of(self, predictions: Predictions) -> KeptNumbers | None:
        estimate, truth = (np.asarray(predictions.statistics[name], dtype=np.float64) for name in ("estimate", "truth"))
        if estimate.ndim != 1 or estimate.shape != truth.shape or not truth.size:
            return None
        shared = self._same(predictions.rows, "truth", truth)
        on_scale = "unscaled" not in predictions.statistics
        return None if shared is None else KeptNumbers(predictions.rows, estimate, shared, on_scale)

    def _labels_of(self, predictions: Predictions, names: Any) -> KeptLabels | None:
        given, wanted = (predictions.statistics[name] for name in ("given", "wanted"))
        if given.ndim != 2 or given.shape != wanted.shape or not given.size:
            return None
        shared = self._same(predictions.rows, "wanted", wanted.astype(np.uint8))
        if shared is None:
            return None
        return KeptLabels(predictions.rows, given.astype(np.uint8), shared, self._named(names, given.shape[1]))

    def _spans_of(self, predictions: Predictions, names: Any) -> KeptSpans | None:
        spans = predictions.statistics["spans"]
        if spans.shape[2] != 3 or not spans.size:
            return None
        small = spans.astype(np.min_scalar_type(int(spans.max())))
        return KeptSpans(predictions.rows, small, self._named(names, spans.shape[1]))

    def _same(self, rows: str, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """Return the right answers of test rows as first met; None if these differ."""
        shared = self._shared.setdefault((rows, name), values)
        return shared if np.array_equal(shared, values) else None

    def _named(self, names: Any, n: int) -> tuple[str, ...]:
        """Return names as texts, one object for equal ones; none where there are not `n`."""
        told = tuple(map(str, names or ()))
        return self._names.setdefault(told, told) if len(told) == n else ()
