"""Keep the predicted classes of the cells that a panel's winner may be among: those with the most labels."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.records import Record

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


class LargestSizes:
    """The predicted classes of a stream of records, at the largest training size of each setting.

    Cells without labels stand at every size, so that they are kept too.

    Attributes:
        kept: predictions by the cell (id, device).
    """

    def __init__(self) -> None:
        self.kept: dict[_Key, KeptClasses] = {}
        self._largest: dict[tuple[Any, ...], int] = {}
        self._sized: defaultdict[tuple[Any, ...], set[_Key]] = defaultdict(set)
        self._targets: dict[str, npt.NDArray[Any]] = {}
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}

    def add(self, record: Record) -> None:
        """Keep the predictions of a record, in place of an earlier attempt's, and forget those of smaller sizes."""
        key, cell = (record.id, record.device), record.cell
        self.kept.pop(key, None)
        found = self._classes_of(record)
        if found is None:
            return
        if cell.n_train > 0:
            assert record.score is not None
            where = (cell.budget, record.device, record.score.metric)
            setting = (cell.task, cell.data, cell.backbone, cell.weights, *where)
            largest = self._largest.get(setting, 0)
            if cell.n_train < largest:
                return
            if cell.n_train > largest:
                self._largest[setting] = cell.n_train
                for smaller in self._sized.pop(setting, ()):
                    self.kept.pop(smaller, None)
            self._sized[setting].add(key)
        self.kept[key] = found

    def _classes_of(self, record: Record) -> KeptClasses | None:
        """Return the predictions of a scored record; None unless they are classes."""
        predictions, n_classes = record.predictions, record.provenance.dataset.get("n_classes")
        if predictions is None or record.score is None or record.status != "ok" or n_classes is None:
            return None
        if predictions.predicted is None or predictions.target is None or not predictions.target.size:
            return None
        predicted, target = predictions.classes
        if target.min() < 0 or max(int(predicted.max()), int(target.max())) >= n_classes:
            return None
        small = np.min_scalar_type(-max(1, n_classes))  # signed: an answer may name no class
        shared = self._targets.setdefault(predictions.rows, target.astype(small))
        if not np.array_equal(shared, target):
            return None
        names = tuple(map(str, record.provenance.dataset.get("class_names") or ()))
        names = self._names.setdefault(names, names) if len(names) == n_classes else ()
        return KeptClasses(predictions.rows, predicted.astype(small), shared, predictions.confidence, n_classes, names)
