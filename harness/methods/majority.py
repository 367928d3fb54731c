"""Predict the most frequent class, or the mean: the floor of every comparison."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.methods.base import NO_BACKBONE, Fitted, Method, method
from harness.methods.bench import Bench
from harness.methods.restoring import Expected, check_tensors
from harness.tasks import Floats, Form, Rows


@method
class Majority(Method):
    """Predict the most frequent class of the training rows, whatever the text.

    The probability of class c is its share of the n training rows:

        p(c) = n_c / n

    A number is estimated by the mean of the training rows. Each word gets the most frequent tag, which is mostly `O`.
    For label sets, each label's score is its share of rows, so that a label is given where most rows have it.

    No method that reads the text should score lower. On a task with one frequent class, accuracy alone can look high.
    """

    name = "majority"
    family = "baseline"
    role = "floor"
    trains = "nothing: class frequencies, or a mean"
    source = "none: the floor of every comparison"
    probabilities_are = "shares of the classes in the training rows, the same for each text"
    serves = NO_BACKBONE
    forms: ClassVar[frozenset[Form]] = frozenset({"classes", "number", "labels", "tags"})

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Count the classes, or take the mean."""
        with bench.working("fit"):
            if bench.kind.form not in ("classes", "tags"):
                return _Frequencies(np.mean(rows.known_labels, axis=0, keepdims=True).reshape(-1).astype(np.float32))
            labels = rows.known_labels if bench.kind.form == "classes" else np.concatenate(list(rows.known_labels))
            counts = np.bincount(labels, minlength=bench.n_outputs)
            return _Frequencies((counts / counts.sum()).astype(np.float32))

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved frequencies."""
        check_tensors(tensors, {"frequencies": Expected((bench.n_outputs,))})
        return _Frequencies(tensors["frequencies"])


class _Frequencies(Fitted):
    def __init__(self, frequencies: Floats) -> None:
        self._frequencies = frequencies
        self.n_parameters = self.n_trainable = len(frequencies)

    def predict(self, rows: Rows, bench: Bench) -> Floats:
        with bench.working("predict"):
            return np.tile(self._frequencies, (bench.kind.n_answers(rows), 1))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {"frequencies": self._frequencies}
