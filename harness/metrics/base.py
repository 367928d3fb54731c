"""What a metric declares, and the registry of metrics."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.registry import Registry

if TYPE_CHECKING:
    import evaluate


@dataclass(frozen=True)
class MetricSpec:
    """A metric: its name, direction and range, and how its `evaluate.Metric` is built.

    Attributes:
        name: as suites and records carry it.
        higher_is_better: its direction.
        low, high: the range of its values.
        mean_over_rows: whether it is the mean of one value per test row (accuracy is, F1 is not); intervals over
            rows rest on it.
        build: makes the `evaluate.Metric`; called once, when first needed, since importing evaluate takes seconds.
    """

    name: str
    higher_is_better: bool
    low: float
    high: float
    mean_over_rows: bool
    build: Callable[[Any], evaluate.Metric]

    def compute(self, predicted: npt.NDArray[np.int64], target: npt.NDArray[np.int64]) -> float:
        """The metric of predicted against right class indices, each of shape (rows,)."""
        results = _instance(self).compute(predictions=predicted, references=target)
        return float(results[self.name])


@functools.cache
def _instance(spec: MetricSpec) -> evaluate.Metric:
    # evaluate makes its cache folder even when it keeps everything in memory; a read-only home must not matter
    return spec.build({"keep_in_memory": True, "cache_dir": tempfile.gettempdir()})


metrics: Registry[MetricSpec] = Registry("metric", "harness.metrics")
