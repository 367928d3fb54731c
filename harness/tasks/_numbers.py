"""Reading, decoding and scoring of answers that are numbers, shared by regression and similarity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from harness.data import Origin, TaskSpec, check_varies, read_numbers
from harness.metrics import IN_UNITS, metrics
from harness.records import Predictions, Score
from harness.tasks._intervals import score_of
from harness.tasks._prepare import Split, assemble, columns_of, read_parts
from harness.tasks.base import Answers, Form, Ints, Kind, Labels, Task, Unscaled

if TYPE_CHECKING:
    from datasets import Dataset

    ReadTexts = Callable[[Dataset, Origin], tuple[list[str], Mapping[str, Any]]]

N_BINS: Final = 5
"""Number of groups of equal size, by the target, that draws and validation splits are stratified by."""


class NumberKind(Kind):
    """Kinds whose answer is one number.

    Class attributes:
        also: metrics that are stored in addition to the main one.
    """

    form: ClassVar[Form] = "number"
    also: ClassVar[tuple[str, ...]] = ("pearson", "spearman", "mae", "rmse")

    def prepare_numbers(
        self,
        spec: TaskSpec,
        mirror: Path | None,
        read: Callable[[Dataset, Origin], tuple[list[str], Mapping[str, Any]]],
    ) -> Task:
        """Load, check, drop copies of test rows from training, cap the test rows.

        Args:
            spec: resolved spec.
            mirror: folder in which hub ids are looked up first.
            read: function that returns the whole input of each row, and the inputs by role.
        """
        columns = columns_of(self, spec)

        def split(data: Dataset, origin: Origin) -> Split:
            texts, fields = read(data, origin)
            targets = read_numbers(data.data.column(columns["label"]).to_pylist(), columns["label"], origin)
            labels = np.array(targets, dtype=np.float64)
            return Split(texts, labels, [repr(float(value)) for value in labels], fields)

        splits, train, test = read_parts(spec, mirror, columns.values(), split)
        check_varies(list(train.labels), columns["label"], splits.origins.get("train", Origin("train")))
        apart = train.labels - train.labels.mean()
        facts = {
            "target_low": float(train.labels.min()),
            "target_high": float(train.labels.max()),
            "rmse_of_mean": float(np.sqrt(np.mean(apart**2))),
            "mae_of_mean": float(np.mean(np.abs(apart))),
        }
        return assemble(self, spec, splits, train, test, n_outputs=1, provenance=facts)

    def strata(self, labels: Labels, names: Sequence[str] = ()) -> Ints:
        """Return the fifth that each target lies in; equal targets share one."""
        edges = np.quantile(labels, np.arange(1, N_BINS) / N_BINS) if len(labels) else np.zeros(0)
        _, found = np.unique(np.searchsorted(edges, labels, side="left"), return_inverse=True)
        return found.reshape(-1).astype(np.int64)

    def check(self, task: Task, answers: Answers, n_rows: int) -> None:
        """Refuse anything but one finite number a row."""
        values, shape = _values(answers), (n_rows,) if isinstance(answers, Unscaled) else (n_rows, 1)
        if values.shape != shape:
            raise ValueError(f"The method returned numbers of shape {values.shape}; expected {shape}.")
        if not np.isfinite(values).all():
            raise FloatingPointError("The method returned numbers that are not finite.")

    def decode(self, task: Task, answers: Answers) -> Predictions:
        """Return the estimates and the right numbers."""
        scale = {"unscaled": np.ones(len(task.test_labels), dtype=np.uint8)} if isinstance(answers, Unscaled) else {}
        estimate = _values(answers).reshape(-1).astype(np.float64)
        statistics = {"estimate": estimate, "truth": np.asarray(task.test_labels, dtype=np.float64), **scale}
        return Predictions(rows=task.test_rows, statistics=statistics)

    def score(self, task: Task, predictions: Predictions) -> Score:
        """Return the main metric, its interval over test rows, and further metrics."""
        left_out = IN_UNITS if "unscaled" in predictions.statistics else frozenset()
        return score_of(task, predictions, [name for name in self.also if name not in left_out])

    def measure(self, task: Task, answers: Answers, labels: Labels) -> float:
        """Return the task's main metric of some rows."""
        estimate = _values(answers).reshape(-1).astype(np.float64)
        return metrics.get(task.metric).compute(estimate, np.asarray(labels, dtype=np.float64))

    def log_loss(self, answers: Answers, labels: Labels) -> float | None:
        """Return None: a number has no probability."""
        return None


def _values(answers: Answers) -> Any:
    found = answers.values if isinstance(answers, Unscaled) else answers
    if not isinstance(found, np.ndarray):
        raise ValueError(f"The method returned {type(answers).__name__}; expected numbers.")
    return found
