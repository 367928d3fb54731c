"""Linear probe: a linear classifier on features of the frozen backbone."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy.typing as npt

from harness.methods._frozen import FittedOnFeatures, FrozenFeatures
from harness.methods._logistic import (
    Linear,
    LogisticMethod,
    answers_of,
    linear_state,
    logistic_tensors,
    restore_linear,
)
from harness.methods.base import Fitted, method
from harness.methods.bench import Bench
from harness.tasks import Floats, Form, Rows


@method
class LinearProbe(FrozenFeatures, LogisticMethod):
    """Fit a logistic regression on the frozen backbone's pooled vector; a conditional one for choices.

    For label sets there is one regression for each label. For tags, the rows of the regression are words, and a word's
    vector is the mean over its tokens. A number is estimated by ridge regression. A pair of texts u, v that a number
    compares is read as (|u - v|, u * v), both vectors scaled to length 1.

    Each text is encoded once as a vector z. One linear layer scores the classes:

        p = softmax(W z + b),    minimise  C * sum of cross-entropies + |W|^2 / 2

    `c` is C, scikit-learn's inverse penalty; None chooses it from `c_grid` by folds of the training rows.
    """

    name = "linear-probe"
    family = "frozen features"
    trains = "a logistic regression on pooled features, or a ridge regression for numbers"
    source = "Alain and Bengio, 2016, arXiv:1610.01644"

    forms: ClassVar[frozenset[Form]] = frozenset({"classes", "choices", "number", "labels", "tags"})
    c_without_folds = 1.0

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Encode, choose the penalty, fit."""
        features = self.features(rows, bench, "encode")
        return _Probe(self, bench, self.fit_linear(features, rows, bench))

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved weights and the same backbone's features."""
        return _Probe(self, bench, restore_linear(tensors, state, self.width(bench), bench))


class _Probe(FittedOnFeatures):
    def __init__(self, method: LinearProbe, bench: Bench, model: Linear) -> None:
        super().__init__(method, bench, model.weights.size + model.bias.size)
        self._model = model

    def probabilities(self, features: Floats, bench: Bench) -> Floats:
        return answers_of(self._model, features)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return logistic_tensors(self._model)

    def state(self) -> dict[str, Any]:
        return linear_state(self._model)
