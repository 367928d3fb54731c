"""Cosine of frozen vectors: order pairs of texts without a label."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.backbones import BackboneFiles
from harness.methods._frozen import FrozenFeatures, unit_length
from harness.methods.base import Fitted, method
from harness.methods.bench import Bench
from harness.metrics import IN_UNITS
from harness.records import Budget, Workload
from harness.tasks import Answers, Floats, Form, Rows, Task, Unscaled


@method
class CosineSimilarity(FrozenFeatures):
    """Say how alike two texts are by the cosine of their frozen vectors. No label is used, and nothing is trained.

    Both texts are encoded by themselves as vectors u and v:

        s = u . v / (|u| |v|)

    The cosine orders pairs; it is on no scale of the target. Correlations can therefore be measured, and errors in the
    units of the target cannot.
    """

    name = "cosine-similarity"
    family = "frozen features"
    trains = "nothing"
    source = "Reimers and Gurevych, 2019, arXiv:1908.10084"
    forms: ClassVar[frozenset[Form]] = frozenset({"number"})
    needs_pairs: ClassVar[bool] = True
    uses_labels: ClassVar[bool] = False

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload: nothing is encoded for a fit; a row to predict is two texts."""
        return Workload(texts_per_answer=2.0)

    def why_not(self, task: Task, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also a main metric in the units of the target."""
        reason = super().why_not(task, files, device)
        if reason is None and task.metric in IN_UNITS:
            reason = (
                f"'{self.name}' orders pairs without a label; '{task.metric}' is in the units of the target. Take "
                "pearson or spearman as the metric."
            )
        return reason

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Return the predictor."""
        return _Cosine(self, bench)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return the predictor, which keeps nothing."""
        return _Cosine(self, bench)


class _Cosine(Fitted):
    def __init__(self, method: CosineSimilarity, bench: Bench) -> None:
        self._method = method
        self.n_trainable = 0
        self.n_parameters = sum(parameter.numel() for parameter in bench.some_backbone.pristine.parameters())

    def predict(self, rows: Rows, bench: Bench) -> Answers:
        first, second = (self._method.encoded(side, bench, "predict") for side in bench.kind.sides(rows))
        with bench.working("predict"):
            return Unscaled(cosines(first, second))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {}


def cosines(first: Floats, second: Floats) -> Floats:
    """Return the cosine of each pair of vectors, shape (rows,), from two arrays of shape (rows, width)."""
    one, other = (unit_length(vectors.astype(np.float64)) for vectors in (first, second))
    return np.asarray((one * other).sum(axis=1), dtype=np.float32)
