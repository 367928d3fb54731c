"""Zero-shot classification by similarity: the class whose name is nearest to the text."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from harness.measure import PrecisionPolicy
from harness.methods._frozen import unit_length
from harness.methods._weights import FrozenWeights
from harness.methods.base import Fitted, method
from harness.methods.bench import Bench
from harness.methods.restoring import Expected, check_tensors
from harness.records import Budget, Workload
from harness.tasks import Floats, Rows, Source

_PLACE = "{label}"


@method
class LabelSimilarity(FrozenWeights):
    """Predict the class whose description, encoded by the frozen backbone, has the highest cosine with the text.

    No training row is read. z is the text's pooled vector, and d_c that of the description of class c:

        p = softmax(cos(z, d_c) / temperature)

    Attributes:
        description: a class in words, with `{label}` once; another common one is "This text is about {label}.".
        temperature: divisor of cosines before the softmax; it changes confidences but no prediction.
        precision: `auto` is bfloat16 where the hardware has it natively.
    """

    name = "label-similarity"
    family = "in context"
    role = "prompting"
    trains = "nothing"
    source = "Yin et al., 2019, arXiv:1909.00161; Schopf et al., 2022, arXiv:2211.16285"
    probabilities_are = "a softmax of similarities at a fixed temperature"
    serves_pairs: ClassVar[bool] = False
    uses_labels = False

    description: str = "{label}"
    temperature: float = Field(default=0.05, gt=0)  # the scale of 20 that sentence-transformers trains cosines with
    precision: PrecisionPolicy = "auto"

    @field_validator("description")
    @classmethod
    def _has_one_place(cls, description: str) -> str:
        if description.count(_PLACE) != 1:
            raise ValueError(f"expected {_PLACE} once in the description; got {description!r}")
        return description

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload: each test text once; the few words per class do not count."""
        return Workload(texts_per_answer=1.0)

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Encode the descriptions of the classes."""
        texts = [self.description.replace(_PLACE, words) for words in bench.label_words]
        digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
        source = Source(f"{digest}/descriptions", texts)
        described = Rows(source, np.arange(len(texts), dtype=np.int64))
        features = bench.pooled(described, "encode", self.precision, weights=self.weights)
        return _Descriptions(unit_length(features), self, bench)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the encoded descriptions."""
        check_tensors(tensors, {"descriptions": Expected((bench.n_outputs, bench.some_backbone.hidden_size))})
        return _Descriptions(tensors["descriptions"], self, bench)


class _Descriptions(Fitted):
    n_trainable = 0

    def __init__(self, descriptions: Floats, settings: LabelSimilarity, bench: Bench) -> None:
        self._descriptions = descriptions
        self._settings = settings
        self.n_parameters = sum(parameter.numel() for parameter in bench.some_backbone.pristine.parameters())

    def predict(self, rows: Rows, bench: Bench) -> Floats:
        features = bench.pooled(rows, "predict", self._settings.precision, weights=self._settings.weights)
        with bench.working("predict"):
            scores = unit_length(features) @ self._descriptions.T / self._settings.temperature
            likelihoods = np.exp(scores - scores.max(axis=1, keepdims=True))
            return np.asarray(likelihoods / likelihoods.sum(axis=1, keepdims=True), dtype=np.float32)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {"descriptions": self._descriptions}
