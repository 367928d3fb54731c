"""A method that uses no backbone."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from harness.methods import Bench, Fitted, Method, method
from harness.tasks import Rows


@method
class CharBayes(Method):
    """Multinomial naive Bayes of character n-grams.

    Attributes:
        ngrams: characters of the longest n-gram.
        alpha: count that is added to each n-gram of each class.
    """

    name = "char-bayes"
    family = "baseline"
    role: ClassVar[Any] = "baseline"
    trains = "counts of character n-grams"
    source = "McCallum and Nigam, 1998, AAAI workshop on learning for text categorization"
    serves = frozenset()

    ngrams: int = Field(default=3, ge=1, le=6)
    alpha: float = Field(default=0.1, gt=0)

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Count the n-grams of each class."""
        with bench.working("encode"):
            counts = self.vectoriser().transform(rows.texts)
        with bench.working("fit"):
            is_of = np.eye(bench.n_outputs)[rows.known_labels]
            in_class = np.asarray((counts.T @ is_of).T) + self.alpha
            weights = np.log(in_class / in_class.sum(axis=1, keepdims=True))
            prior = np.log((is_of.sum(axis=0) + self.alpha) / (len(rows) + self.alpha * bench.n_outputs))
        return FittedBayes(self, weights.astype(np.float32), prior.astype(np.float32))

    def restore(self, tensors: dict[str, Any], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return the saved counts."""
        return FittedBayes(self, tensors["weights"], tensors["prior"])

    def vectoriser(self) -> Any:
        """Return what counts n-grams; nothing is fitted, so nothing of it has to be saved."""
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(
            analyzer="char_wb", ngram_range=(1, self.ngrams), n_features=2**12, norm=None, alternate_sign=False
        )


class FittedBayes(Fitted):
    """Log-probabilities of n-grams in each class, shape (classes, n-grams), and of the classes."""

    def __init__(self, method: CharBayes, weights: np.ndarray, prior: np.ndarray) -> None:
        self.method, self.weights, self.prior = method, weights, prior
        self.n_parameters = self.n_trainable = weights.size + prior.size

    def predict(self, rows: Rows, bench: Bench) -> np.ndarray:
        """Return the probability of each class, shape (rows, classes)."""
        with bench.working("predict"):
            scores = self.method.vectoriser().transform(rows.texts) @ self.weights.T + self.prior
            odds = np.exp(scores - scores.max(axis=1, keepdims=True))
            return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what was counted."""
        return {"weights": self.weights, "prior": self.prior}
