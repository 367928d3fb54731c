"""Nearest neighbours: keep the training rows' features and a metric."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.backbones import Weights
from harness.methods._frozen import FittedOnFeatures, FrozenFeatures, unit_length
from harness.methods.base import Choice, Fitted, SearchSpace, method
from harness.methods.bench import Bench
from harness.methods.restoring import Expected, check_range, check_tensors
from harness.tasks import Floats, Ints, Rows

_CHUNK_DISTANCES = 2**22
"""Maximum number of distances held at a time: 32 MiB."""


@method
class NearestNeighbours(FrozenFeatures):
    """Predict by a vote of the k training rows with the nearest frozen features.

    A neighbour i at distance d_i votes for its own class with weight w_i:

        p(c) = sum of w_i with y_i = c / sum of w_i,    w_i = 1 / d_i  (or 1)

    Nothing is trained: `n_trainable` is 0, and a fit costs only the encoding. The price is storage (the features of
    every training row) and time at prediction.

    Attributes:
        k: number of neighbours; all training rows where there are fewer.
        metric: `cosine` compares directions (1 - cosine), `euclidean` positions.
        weights: `distance` weights a neighbour by the inverse of its distance (one at distance 0 outvotes all
            others), `uniform` weights all equally.
    """

    name = "knn"
    family = "frozen features"
    trains = "nothing: keeps the features of the training rows"
    source = "Cover and Hart, 1967, doi:10.1109/TIT.1967.1053964"
    probabilities_are = "shares of its neighbours' votes"
    search_space: ClassVar[SearchSpace] = {"k": Choice((1, 3, 5, 11, 21))}

    k: int = Field(default=5, ge=1)
    metric: Literal["cosine", "euclidean"] = "cosine"
    weights: Literal["distance", "uniform"] = "distance"  # type: ignore[assignment]

    @property
    def storage(self) -> Weights:
        """`auto`: here `weights` are those of the neighbours."""
        return "auto"

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the settings that came later; `weights` was always here."""
        return {name: value for name, value in super().defaults().items() if name != "weights"}

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Encode the rows and keep them."""
        return _Neighbours(self, bench, self.features(rows, bench, "encode"), rows.known_labels)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved features and labels."""
        n_rows = len(tensors["labels"])
        width = bench.some_backbone.hidden_size
        check_tensors(tensors, {"features": Expected((n_rows, width)), "labels": Expected((None,), "int64")})
        check_range("labels", tensors["labels"], bench.n_outputs)
        return _Neighbours(self, bench, tensors["features"], tensors["labels"])

    def neighbours(self, features: Floats, stored: Floats) -> tuple[Ints, npt.NDArray[np.float64]]:
        """Return positions and distances of the k nearest stored rows, each of shape (rows, k), nearest first."""
        if self.metric == "cosine":
            features, stored = unit_length(features), unit_length(stored)
        k = min(self.k, len(stored))
        # In float64: a difference of two squares that are almost equal leaves few digits of a float32.
        there = stored.astype(np.float64)
        squares = (there**2).sum(axis=1)
        nearest = np.empty((len(features), k), dtype=np.int64)
        distances = np.empty((len(features), k))
        step = max(1, _CHUNK_DISTANCES // len(stored))
        for at in range(0, len(features), step):
            here = features[at : at + step].astype(np.float64)
            products = here @ there.T
            apart = (
                1.0 - products
                if self.metric == "cosine"
                else np.sqrt(np.maximum((here**2).sum(axis=1)[:, None] - 2.0 * products + squares, 0.0))
            )
            some = np.argpartition(apart, k - 1, axis=1)[:, :k]
            order = np.argsort(np.take_along_axis(apart, some, axis=1), axis=1, kind="stable")
            nearest[at : at + step] = np.take_along_axis(some, order, axis=1)
            distances[at : at + step] = np.take_along_axis(apart, nearest[at : at + step], axis=1)
        return nearest, distances


class _Neighbours(FittedOnFeatures):
    def __init__(self, method: NearestNeighbours, bench: Bench, features: Floats, labels: Ints) -> None:
        super().__init__(method, bench, 0)
        self._neighbours = method.neighbours
        self._by_distance = method.weights == "distance"
        self._features = features
        self._labels = labels

    def probabilities(self, features: Floats, bench: Bench) -> Floats:
        nearest, distances = self._neighbours(features, self._features)
        votes = np.ones_like(distances)
        if self._by_distance:
            # Relative to the nearest, against overflow; distances below the rounding error count as 0.
            floored = np.maximum(distances, 1e-7)
            votes = floored[:, :1] / floored
        shares = np.zeros((len(features), bench.n_outputs))
        for place in range(nearest.shape[1]):
            shares[np.arange(len(features)), self._labels[nearest[:, place]]] += votes[:, place]
        return np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=np.float32)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {"features": self._features, "labels": self._labels}
