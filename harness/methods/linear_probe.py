"""Linear probe: a linear classifier on features of the frozen backbone."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy.typing as npt

from harness.methods._frozen import FittedOnFeatures, FrozenFeatures
from harness.methods._logistic import Logistic, LogisticMethod, expected_logistic, logistic_tensors
from harness.methods.base import Fitted, method
from harness.methods.bench import Bench
from harness.methods.restoring import check_tensors
from harness.tasks import Floats, Form, Rows


@method
class LinearProbe(FrozenFeatures, LogisticMethod):
    """Fit a logistic regression on the frozen backbone's pooled vector; a conditional one for choices.

    Each text is encoded once as a vector z. One linear layer scores the classes:

        p = softmax(W z + b),    minimise  C * sum of cross-entropies + |W|^2 / 2

    `c` is C, scikit-learn's inverse penalty; None chooses it from `c_grid` by folds of the training rows.
    """

    name = "linear-probe"
    family = "frozen features"
    trains = "a logistic regression on pooled features"
    source = "Alain and Bengio, 2016, arXiv:1610.01644"

    forms: ClassVar[frozenset[Form]] = frozenset({"classes", "choices"})
    c_without_folds = 1.0

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Encode, choose the penalty, fit."""
        features = self.features(rows, bench, "encode")
        return _Probe(self, bench, self.fit_penalised(features, rows.known_labels, bench))

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved weights and the same backbone's features."""
        n_rows = 1 if bench.kind.form == "choices" else bench.n_outputs
        check_tensors(tensors, expected_logistic(n_rows, bench.some_backbone.hidden_size))
        return _Probe(self, bench, Logistic(tensors["weights"], tensors["bias"], 0))


class _Probe(FittedOnFeatures):
    def __init__(self, method: LinearProbe, bench: Bench, model: Logistic) -> None:
        super().__init__(method, bench, model.weights.size + model.bias.size)
        self._model = model

    def probabilities(self, features: Floats, bench: Bench) -> Floats:
        return self._model.probabilities(features)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return logistic_tensors(self._model)
