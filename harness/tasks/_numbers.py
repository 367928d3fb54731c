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
from harness.tasks._number_answers import REPLY, SCHEMA, in_digits, numbers_in
from harness.tasks._prepare import Split, assemble, columns_of, fill, read_parts, reply_of
from harness.tasks.base import Answers, Form, Ints, Kind, Labels, Reply, Rows, Task, Unscaled

if TYPE_CHECKING:
    from datasets import Dataset

    ReadTexts = Callable[[Dataset, Origin], tuple[list[str], Mapping[str, Any]]]

N_BINS: Final = 5
"""Number of groups of equal size, by the target, that draws and validation splits are stratified by."""


class NumberKind(Kind):
    """Kinds whose answer is one number.

    Class attributes:
        also: metrics that are stored in addition to the main one.
        asks: template of the question to a language model, with `{scale}` where it states the scale.
        scale: lowest and highest number that the question names where no demonstration shows the target's own scale.
            None leaves the question without a scale: answers are then taken as numbers in the target's units.
    """

    form: ClassVar[Form] = "number"
    also: ClassVar[tuple[str, ...]] = ("pearson", "spearman", "mae", "rmse")
    asks: ClassVar[str]
    scale: ClassVar[tuple[float, float] | None] = None

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
            prompts = None
            if spec.prompt is not None:
                by_column = {columns[role]: values for role, values in fields.items()}
                prompts = fill(spec.prompt, {**fields, **by_column}, len(texts), list(by_column))
            return Split(texts, labels, [repr(float(value)) for value in labels], fields, prompts)

        splits, train, test = read_parts(spec, mirror, columns.values(), split)
        check_varies(list(train.labels), columns["label"], splits.origins.get("train", Origin("train")))
        apart = train.labels - train.labels.mean()
        facts = {
            "target_low": float(train.labels.min()),
            "target_high": float(train.labels.max()),
            "rmse_of_mean": float(np.sqrt(np.mean(apart**2))),
            "mae_of_mean": float(np.mean(np.abs(apart))),
        }
        reply = reply_of(spec, REPLY)
        return assemble(self, spec, splits, train, test, n_outputs=1, prompt=spec.prompt, reply=reply, provenance=facts)

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

    def in_words(self, rows: Rows, label_words: Sequence[str]) -> list[str]:
        """Return the numbers as a language model would write them."""
        return [in_digits(float(value)) for value in rows.known_labels]

    def question(self, names: Sequence[str], *, is_shown: bool = True) -> tuple[str, Reply] | None:
        """Return a prompt that asks for a number, and states the kind's own scale where no answers are shown."""
        low, high = self.scale or (0.0, 0.0)
        stated = "" if is_shown or self.scale is None else f" from {low:g} to {high:g}"
        return self.asks.replace("{scale}", stated), REPLY

    def schema(self, names: Sequence[str]) -> dict[str, Any] | None:
        """Return the schema of an object with a number."""
        return SCHEMA

    def read_replies(
        self, texts: Sequence[str], rows: Rows, names: Sequence[str], shown: Sequence[str] = ()
    ) -> tuple[Answers, int]:
        """Return the first number of each answer; `Unscaled` ones where the question stated the kind's own scale.

        An answer without a number counts as the median of the demonstrations, or else as the middle of the kind's
        scale (0 without one). Without demonstrations, answers of which more than half hold no number are refused.
        """
        middle = 0.0 if self.scale is None else sum(self.scale) / 2
        values, n_unread = numbers_in(texts, shown, middle)
        return (Unscaled(values[:, 0]) if self.scale is not None and not shown else values), n_unread

    def log_loss(self, answers: Answers, labels: Labels) -> float | None:
        """Return None: a number has no probability."""
        return None


def _values(answers: Answers) -> Any:
    found = answers.values if isinstance(answers, Unscaled) else answers
    if not isinstance(found, np.ndarray):
        raise ValueError(f"The method returned {type(answers).__name__}; expected numbers.")
    return found
