"""Prototypes: each class is represented by the mean of its rows."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.methods._frozen import FittedOnFeatures, FrozenFeatures, unit_length
from harness.methods.base import Choice, Fitted, SearchSpace, method
from harness.methods.bench import Bench
from harness.methods.restoring import AGAIN, Expected, check_range, check_tensors
from harness.support import UsageError
from harness.tasks import Floats, Rows


@method
class Prototypes(FrozenFeatures):
    """Predict the class whose mean frozen feature is nearest.

    The prototype m_c of a class is the mean of its n_c training vectors:

        m_c = (1 / n_c) * sum of z_i with y_i = c,    p = softmax(similarity(z, m_c) / temperature)

    Only the means are learnt: `n_trainable` is classes * width. Beyond encoding, a fit costs one addition per value of
    the features. A class without a training row has no mean and is never predicted.

    Attributes:
        metric: with `cosine`, the mean is over vectors of length 1 and similarity is the cosine. With `euclidean`,
            similarity is minus the squared distance divided by the width, so that it does not grow with the width.
        temperature: probabilities are the softmax of similarity / temperature; it changes no prediction.
    """

    name = "prototypes"
    family = "frozen features"
    trains = "one mean vector per class"
    source = "Mensink et al., 2013, doi:10.1109/TPAMI.2013.83; Snell et al., 2017, arXiv:1703.05175"
    probabilities_are = "a softmax of similarities at a fixed temperature"
    search_space: ClassVar[SearchSpace] = {"metric": Choice(("cosine", "euclidean"))}

    metric: Literal["cosine", "euclidean"] = "cosine"
    temperature: float = Field(default=0.1, gt=0)

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Encode the rows, and average each class."""
        features = self.features(rows, bench, "encode")
        with bench.working("fit"):
            if self.metric == "cosine":
                features = unit_length(features)
            members = np.eye(bench.n_outputs)[rows.known_labels]
            counts = members.sum(axis=0)
            means = (members.T @ features) / np.maximum(counts, 1.0)[:, None]
        bench.ledger.train_flops += float(features.size)
        return _Means(self, bench, means.astype(np.float32), counts.astype(np.int64))

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved means."""
        shape = (bench.n_outputs, bench.some_backbone.hidden_size)
        check_tensors(tensors, {"means": Expected(shape), "counts": Expected(shape[:1], "int64")})
        check_range("counts", tensors["counts"], 2**62)
        if not tensors["counts"].any():
            raise UsageError(f"The saved tensor 'counts' is all 0; expected a class with rows. {AGAIN}")
        return _Means(self, bench, tensors["means"], tensors["counts"])

    def similarities(self, features: Floats, means: Floats) -> npt.NDArray[np.float64]:
        """Return the similarity of each row to each class, shape (rows, classes); greater is nearer."""
        if self.metric == "cosine":
            return np.asarray(unit_length(features) @ unit_length(means).T, dtype=np.float64)
        here, there = features.astype(np.float64), means.astype(np.float64)
        squared = (here**2).sum(axis=1)[:, None] - 2.0 * here @ there.T + (there**2).sum(axis=1)
        return np.asarray(-squared / means.shape[1])


class _Means(FittedOnFeatures):
    """Means of shape (classes, width) and the number of rows behind each, shape (classes,)."""

    def __init__(self, method: Prototypes, bench: Bench, means: Floats, counts: npt.NDArray[np.int64]) -> None:
        super().__init__(method, bench, means.size)
        self._prototypes = method
        self._means = means
        self._counts = counts

    def probabilities(self, features: Floats, bench: Bench) -> Floats:
        logits = self._prototypes.similarities(features, self._means) / self._prototypes.temperature
        logits[:, self._counts == 0] = -np.inf
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {"means": self._means, "counts": self._counts}
