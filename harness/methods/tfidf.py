"""Classic baseline without a transformer: word counts alone."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveFloat

from harness.methods._logistic import (
    Linear,
    LogisticMethod,
    answers_of,
    linear_state,
    logistic_tensors,
    restore_linear,
)
from harness.methods.base import NO_BACKBONE, Fitted, method
from harness.methods.bench import Bench
from harness.methods.restoring import Expected, check_tensors
from harness.tasks import Floats, Form, Rows


@method
class Tfidf(LogisticMethod):
    """Fit a logistic regression on TF-IDF of words and word pairs, or of characters, without a transformer.

    Each text becomes a sparse vector x with one entry per n-gram t, scaled to length 1. A linear layer scores the
    classes:

        x_t = (1 + log count_t) * idf_t,    p = softmax(W x + b)

    For label sets there is one regression for each label; a number is estimated by ridge regression. `idf_t` is low for
    n-grams of many training texts. `c` is scikit-learn's inverse penalty; None chooses it from
    `c_grid` by folds of the training rows.

    Attributes:
        analyzer: units of an n-gram: words, or characters (for texts other than prose, such as proteins or code).
        ngrams: length of the longest n-gram, in words or characters.
    """

    name = "tfidf"
    family = "baseline"
    role = "baseline"
    trains = "a logistic regression on TF-IDF of n-grams, or a ridge regression for numbers"
    source = "Salton and Buckley, 1988, doi:10.1016/0306-4573(88)90021-0; scikit-learn"
    serves = NO_BACKBONE
    forms: ClassVar[frozenset[Form]] = frozenset({"classes", "number", "labels"})
    c_without_folds = 10.0
    newer_settings: ClassVar[frozenset[str]] = frozenset({"analyzer"})

    analyzer: Literal["word", "char"] = "word"
    ngrams: int = Field(default=2, ge=1, le=5)
    c_grid: tuple[PositiveFloat, ...] = Field(default=(1.0, 10.0, 100.0), min_length=1)

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Learn the vocabulary and the words' weights from the training rows, choose the penalty, and fit."""
        with bench.working("encode"):
            vectoriser = self._vectoriser()
            try:
                features = vectoriser.fit_transform(rows.texts)
            except ValueError:  # no text has a word of two letters: all rows look the same to this method
                vectoriser = self._vectoriser(vocabulary={"": 0})
                features = vectoriser.fit_transform(rows.texts)
        counts_words = self.analyzer == "word" and self.ngrams == 2
        bench.ledger.state(n_terms=features.shape[1], counts_words=counts_words)
        return _Tfidf(vectoriser, self.fit_linear(features, rows, bench))

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved vocabulary and weights."""
        words = state["words"]
        check_tensors(tensors, {"idf": Expected((len(words),))})
        model = restore_linear(tensors, state, len(words), bench)
        vectoriser = self._vectoriser(vocabulary={word: position for position, word in enumerate(words)})
        vectoriser.idf_ = tensors["idf"]
        return _Tfidf(vectoriser, model)

    def _vectoriser(self, vocabulary: dict[str, int] | None = None) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(
            analyzer=self.analyzer,
            ngram_range=(1, self.ngrams),
            sublinear_tf=True,
            vocabulary=vocabulary,
            dtype=np.float32,
        )


class _Tfidf(Fitted):
    def __init__(self, vectoriser: Any, model: Linear) -> None:
        self._vectoriser = vectoriser
        self._model = model
        self.n_parameters = self.n_trainable = model.weights.size + model.bias.size

    def predict(self, rows: Rows, bench: Bench) -> Floats:
        with bench.working("predict"):
            return answers_of(self._model, self._vectoriser.transform(rows.texts))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {**logistic_tensors(self._model), "idf": np.asarray(self._vectoriser.idf_, dtype=np.float32)}

    def state(self) -> dict[str, Any]:
        words = [str(word) for word in self._vectoriser.get_feature_names_out()]
        return {"words": words, **linear_state(self._model)}
