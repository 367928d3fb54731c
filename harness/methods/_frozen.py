"""Base classes of methods on frozen features: settings, encoding and prediction."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import numpy as np
from pydantic import field_validator

from harness.backbones import BackboneFiles, Pooling
from harness.features import Layer, why_no_such_layer
from harness.measure import Phase, PrecisionPolicy
from harness.methods._weights import FrozenWeights
from harness.methods.base import Fitted
from harness.methods.bench import Bench
from harness.records import Budget, Workload
from harness.tasks import Answers, Floats, Rows, kinds

_LAYERS = "a block's number (1 is the first, -1 the last, 0 the embeddings), last or average"


class FrozenFeatures(FrozenWeights):
    """A method that reads one vector per row from the frozen backbone, which is in evaluation mode.

    Attributes:
        pooling: tokens that make up the vector; `own` is the backbone's own pooling.
        layer: `last`; `average`, the mean over the outputs of all blocks, without the embeddings; or the index of a
            block, from 1 or, if negative, from the end; 0 is the output of the embeddings.
        precision: precision of encoding; `auto` is bfloat16 where the hardware has it natively.
    """

    role = "frozen features"

    pooling: Literal["own", "cls", "mean", "last"] = "own"
    layer: Layer = "last"
    precision: PrecisionPolicy = "auto"

    @field_validator("layer", mode="before")
    @classmethod
    def _check_layer(cls, value: Any) -> Any:
        """Give one message for both types of a layer, instead of one per type."""
        if value in ("last", "average") or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise ValueError(_LAYERS)

    def why_unsupported(self, kind: str, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also a pooling where words are read, and a block that the backbone is known not to have."""
        reason = super().why_unsupported(kind, files, device)
        if reason is None and self.pooling != "own" and kinds.get(kind).form == "tags":
            reason = f"pooling={self.pooling} was given; a {kind} task reads a vector for each word. Leave it out."
        if reason is not None or files is None or isinstance(self.layer, str):
            return reason
        return None if files.n_blocks is None else why_no_such_layer(self.layer, files.n_blocks)

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload: each text is encoded once."""
        return Workload(encoded=n_train, texts_per_answer=1.0)

    def features(self, rows: Rows, bench: Bench, phase: Phase) -> Floats:
        """Return the vectors of these rows, shape (rows, width), charged to `phase`.

        Where pairs are compared by a number, their texts are encoded apart. With vectors u and v of length 1, a pair's
        vector is (|u - v|, u * v), whose second half sums to the cosine.
        """
        sides = [self.encoded(side, bench, phase) for side in bench.kind.sides(rows)]
        if len(sides) == 1:
            return sides[0]
        first, second = (unit_length(side) for side in sides)
        return np.concatenate([np.abs(first - second), first * second], axis=1)

    def encoded(self, rows: Rows, bench: Bench, phase: Phase) -> Floats:
        """Return the vector of each text, or of each word where words are tagged, charged to `phase`.

        Its shape is (rows, the backbone's width), or (words, width).
        """
        if bench.kind.form == "tags":
            return bench.words(rows, phase, self.precision, layer=self.layer, weights=self.storage)
        pooling: Pooling | None = None if self.pooling == "own" else self.pooling
        return bench.pooled(rows, phase, self.precision, pooling=pooling, layer=self.layer, weights=self.storage)

    def width(self, bench: Bench) -> int:
        """Return the length of a row's vector: that of the backbone's, or twice it where two texts are compared."""
        return bench.some_backbone.hidden_size * (2 if bench.kind.compares_apart else 1)


class FittedOnFeatures(Fitted):
    """A predictor fitted on frozen features.

    Args:
        method: the method, which encodes rows as it did for the fit.
        bench: the cell's bench.
        n_trainable: number of trained values; the backbone's parameters are added for `n_parameters`.
    """

    def __init__(self, method: FrozenFeatures, bench: Bench, n_trainable: int) -> None:
        self._method = method
        self.n_trainable = n_trainable
        frozen = sum(parameter.numel() for parameter in bench.some_backbone.pristine.parameters())
        self.n_parameters = frozen + n_trainable

    @abstractmethod
    def probabilities(self, features: Floats, bench: Bench) -> Floats:
        """Return answers of shape (rows, outputs), float32, from features of shape (rows, width)."""

    def predict(self, rows: Rows, bench: Bench) -> Answers:
        """Encode and predict, both charged to predicting."""
        features = self._method.features(rows, bench, "predict")
        with bench.working("predict"):
            return self.probabilities(features, bench)


def unit_length(vectors: Floats) -> Floats:
    """Return each row scaled to length 1; a row of zeros stays as it is."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=vectors.dtype)
