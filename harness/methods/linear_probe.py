"""A linear probe: the backbone as a fixed feature extractor under a linear classifier."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from pydantic import Field, PositiveFloat

from harness.measure.device import PrecisionPolicy
from harness.methods._logistic import Logistic, choose_penalty, fit_logistic, logistic_tensors, one_blas_thread, warm_up
from harness.methods.base import Bench, Fitted, Method, method
from harness.tasks.base import Floats, Rows


@method
class LinearProbe(Method):
    """Logistic regression on the frozen backbone's pooled vector.

    `c` is scikit-learn's inverse penalty; None chooses it from `c_grid` by folds of the training rows.
    """

    name = "linear-probe"
    family = "frozen features"
    trains = "a logistic regression on pooled features"
    source = "Alain and Bengio, 2016, arXiv:1610.01644"

    c: float | None = Field(default=None, gt=0)
    c_grid: tuple[PositiveFloat, ...] = Field(default=(0.01, 0.1, 1.0, 10.0, 100.0), min_length=1)
    folds: int = Field(default=5, ge=2)
    precision: PrecisionPolicy = "auto"

    def warm_up(self) -> None:
        """Import scikit-learn and fit a few rows."""
        warm_up()

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Encode, choose the penalty, fit."""
        features = bench.pooled(rows, "encode", self.precision)
        labels = rows.known_labels
        choice_iterations = 0.0
        chosen = self.c
        if chosen is None:
            with bench.working("tune"), one_blas_thread():
                choice = choose_penalty(features, labels, bench.n_classes, self.c_grid, self.folds, default=1.0)
            chosen, choice_iterations = choice.inverse_penalty, choice.n_iterations
        with bench.working("fit"), one_blas_thread():
            model = fit_logistic(features, labels, bench.n_classes, chosen)
        # A pass of the solver is one product of the features with the weights and one with the gradient.
        bench.ledger.train_flops += 4.0 * (model.n_iterations + choice_iterations) * features.size * bench.n_classes
        bench.ledger.notes["chosen_c"] = chosen
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
