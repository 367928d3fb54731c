"""Decoding and scoring of answers that are classes or choices, shared by several kinds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from harness.metrics import MetricSpec, metrics
from harness.records import Predictions, Score
from harness.tasks.base import Answers, Form, Kind, Labels, Task


class ProbabilityKind(Kind):
    """Kinds whose answers are probabilities, one per class or per choice; labels are indices."""

    form: ClassVar[Form] = "classes"
    also: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    """Metrics that are stored in addition to the main one."""

    def check(self, task: Task, answers: Answers, n_rows: int) -> None:
        """Refuse anything but finite probabilities of shape (rows, outputs)."""
        probabilities = _probabilities(answers)
        expected = (n_rows, task.n_outputs)
        if probabilities.shape != expected:
            raise ValueError(f"The method returned {probabilities.shape} probabilities; expected {expected}.")
        if not np.isfinite(probabilities).all():
            raise FloatingPointError("The method returned probabilities that are not finite.")

    def decode(self, task: Task, answers: Answers) -> Predictions:
        """Return the most probable class or choice of each row, and its probability."""
        probabilities = _probabilities(answers)
        predicted = probabilities.argmax(axis=1).astype(np.int64)
        return Predictions(
            rows=task.test_rows,
            predicted=predicted,
            target=task.test_labels,
            confidence=probabilities[np.arange(len(predicted)), predicted].astype(np.float16),
        )

    def score(self, task: Task, predictions: Predictions) -> Score:
        """Return the main metric with its interval over test rows (Wilson's, for accuracy), and further metrics."""
        spec = _metric(task.metric, task)
        predicted, target = predictions.classes
        n_test = len(target)
        low = high = None
        if spec.name == "accuracy":
            from scipy.stats import binomtest

            interval = binomtest(int((predicted == target).sum()), n_test).proportion_ci(0.95, method="wilson")
            low, high = float(interval.low), float(interval.high)
        others: dict[str, Any] = {
            name: _metric(name, task).compute(predicted, target) for name in self.also_of(task) if name != spec.name
        }
        if predictions.confidence is not None:
            others["calibration_error"] = metrics.get("calibration_error").compute(
                predicted == target, predictions.confidence.astype(np.float64)
            )
        return Score(
            metric=spec.name,
            value=spec.compute(predicted, target),
            low=low,
            high=high,
            higher_is_better=spec.higher_is_better,
            n_test=n_test,
            n_test_available=task.n_test_available,
            others=others,
            highest=spec.high,
        )

    def also_of(self, task: Task) -> tuple[str, ...]:
        """Return the metrics that are stored in addition to the main one of this task."""
        return self.also

    def measure(self, task: Task, answers: Answers, labels: Labels) -> float:
        """Return the task's main metric of some rows."""
        return _metric(task.metric, task).compute(_probabilities(answers).argmax(axis=1).astype(np.int64), labels)

    def log_loss(self, answers: Answers, labels: Labels) -> float | None:
        """Return the mean negative log-probability of the right output; probabilities are at least 1e-7."""
        right = _probabilities(answers)[np.arange(len(labels)), labels].astype(np.float64)
        return -float(np.log(np.clip(right, 1e-7, 1.0)).mean())


def _metric(name: str, task: Task) -> MetricSpec:
    """Return a metric as the task scores it: classes that no test row has are not averaged."""
    spec = metrics.get(name)
    return spec.without_classes(task.unscored) if task.unscored else spec


def _probabilities(answers: Answers) -> Any:
    if not isinstance(answers, np.ndarray):
        raise ValueError(f"The method returned {type(answers).__name__}; expected probabilities.")
    return answers
