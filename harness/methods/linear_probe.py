"""A linear probe: the backbone as a fixed feature extractor under a linear classifier."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from harness.measure.device import PrecisionPolicy
from harness.methods._logistic import Logistic, LogisticMethod, logistic_tensors
from harness.methods.base import Bench, Fitted, method
from harness.tasks.base import Floats, Rows


@method
class LinearProbe(LogisticMethod):
    """Logistic regression on the frozen backbone's pooled vector.

    `c` is scikit-learn's inverse penalty; None chooses it from `c_grid` by folds of the training rows.
    """

    name = "linear-probe"
    family = "frozen features"
    trains = "a logistic regression on pooled features"
    source = "Alain and Bengio, 2016, arXiv:1610.01644"

    c_without_folds = 1.0

    precision: PrecisionPolicy = "auto"

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Encode, choose the penalty, fit."""
        features = bench.pooled(rows, "encode", self.precision)
        model = self.fit_penalised(features, rows.known_labels, bench)
        return _Probe(model, self.precision, bench)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """From the saved weights; features come from the same backbone."""
        return _Probe(Logistic(tensors["weights"], tensors["bias"], 0), self.precision, bench)


class _Probe(Fitted):
    def __init__(self, model: Logistic, precision: PrecisionPolicy, bench: Bench) -> None:
        self._model = model
        self._precision = precision
        self.n_trainable = model.weights.size + model.bias.size
        frozen = sum(parameter.numel() for parameter in bench.some_backbone.pristine.parameters())
        self.n_parameters = frozen + self.n_trainable

    def predict(self, rows: Rows, bench: Bench) -> Floats:
        features = bench.pooled(rows, "predict", self._precision)
        with bench.working("predict"):
            return self._model.probabilities(features)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return logistic_tensors(self._model)
