"""Decoding and scoring of answers that are texts or likelihoods, shared by several kinds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.metrics import metrics
from harness.records import Predictions, Score
from harness.tasks.base import Answers, Kind, Labels, Likelihoods, Task, TextAnswers


class TextualKind(Kind):
    """Kinds whose answers are texts, scored against references, or likelihoods, which are scores themselves.

    Class attributes:
        also: metrics that are stored in addition to the main one.
    """

    also: ClassVar[tuple[str, ...]] = ()

    def measured(self, task: Task) -> list[str]:
        """Return the metrics to compute, the main one first."""
        return list(dict.fromkeys([task.metric, *self.also]))

    def references(self, labels: Labels) -> list[list[str]]:
        """Return the references of each row."""
        return [[str(label)] for label in labels]

    def check(self, task: Task, answers: Answers, n_rows: int) -> None:
        """Refuse anything but one text per row with a finite confidence, if any, or one finite likelihood per row."""
        wants_likelihood = task.reply is not None and task.reply.wants_likelihood
        expected = Likelihoods if wants_likelihood else TextAnswers
        if not isinstance(answers, expected):
            raise ValueError(f"The method returned {type(answers).__name__}; expected {expected.__name__}.")
        found = len(answers.nll) if isinstance(answers, Likelihoods) else len(answers.texts)
        if found != n_rows:
            raise ValueError(f"The method returned {found} answers; expected {n_rows}.")
        if isinstance(answers, Likelihoods) and not np.isfinite(answers.nll).all():
            raise FloatingPointError("The method returned likelihoods that are not finite.")
        confidence = answers.confidence if isinstance(answers, TextAnswers) else None
        if confidence is not None and not np.isfinite(confidence).all():
            raise FloatingPointError("The method returned confidences that are not finite.")

    def decode(self, task: Task, answers: Answers) -> Predictions:
        """Return the texts, and the statistics of the metrics."""
        names = self.measured(task)
        statistics: dict[str, npt.NDArray[Any]] = {}
        if isinstance(answers, Likelihoods):
            statistics = metrics.get(task.metric).row_statistics(answers.nll, answers.n_tokens)
            return Predictions(rows=task.test_rows, statistics=_narrow(statistics))
        assert isinstance(answers, TextAnswers)
        texts = list(answers.texts)
        for name in names:
            statistics |= metrics.get(name).row_statistics(texts, self.references(task.test_labels))
        confidence = answers.confidence
        return Predictions(
            rows=task.test_rows,
            confidence=None if confidence is None else confidence.astype(np.float16),
            statistics=_narrow(statistics),
            texts=tuple(texts),
        )

    def score(self, task: Task, predictions: Predictions) -> Score:
        """Return the main metric, its interval over test rows if it is their mean, and further metrics."""
        spec = metrics.get(task.metric)
        value = spec.from_statistics(predictions.statistics)
        low = high = None
        each = predictions.row_scores(spec.name) if spec.mean_over_rows else None
        if each is not None and len(each) > 1:
            half = 1.959964 * float(np.std(each, ddof=1)) / len(each) ** 0.5
            low, high = max(spec.low, value - half), value + half
            high = high if spec.high is None else min(spec.high, high)
        others = {
            name: metrics.get(name).from_statistics(predictions.statistics)
            for name in self.measured(task)
            if name != spec.name and predictions.texts is not None
        }
        return Score(
            metric=spec.name,
            value=value,
            low=low,
            high=high,
            higher_is_better=spec.higher_is_better,
            n_test=task.n_test,
            n_test_available=task.n_test_available,
            others=others,
            highest=spec.high,
        )

    def measure(self, task: Task, answers: Answers, labels: Labels) -> float:
        """Return the task's main metric of some rows."""
        spec = metrics.get(task.metric)
        if isinstance(answers, Likelihoods):
            return spec.compute(answers.nll, answers.n_tokens)
        assert isinstance(answers, TextAnswers)
        return spec.compute(list(answers.texts), self.references(labels))

    def log_loss(self, answers: Answers, labels: Labels) -> float | None:
        """Return None: texts have no probabilities."""
        return None


def _narrow(statistics: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Return fractions as four-byte floats, which suffice to compare rows, and likelihoods as eight-byte floats."""
    return {
        name: values.astype(np.float32) if values.dtype == np.float64 and name != "nll" else values
        for name, values in statistics.items()
    }
