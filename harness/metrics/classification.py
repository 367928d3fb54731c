"""Metrics of class predictions, over scikit-learn, and the calibration of their confidences."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.metrics.base import MetricSpec, Statistics, metrics

N_CALIBRATION_BINS: Final = 15

_SCIKIT_LEARN = "scikit-learn: Machine Learning in Python, Pedregosa et al., JMLR 12, 2011"
_INDICES = ("predicted", "target")


def _indices(predicted: npt.NDArray[np.int64], target: npt.NDArray[np.int64]) -> Statistics:
    return {"predicted": predicted, "target": target}


def _accuracy(indices: Statistics) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(indices["target"], indices["predicted"]))


def _macro_f1(indices: Statistics) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(indices["target"], indices["predicted"], average="macro", zero_division=0))


def _macro_f1_over(indices: Statistics, classes: npt.NDArray[np.int64]) -> float:
    from sklearn.metrics import f1_score

    target, predicted = indices["target"], indices["predicted"]
    return float(f1_score(target, predicted, labels=classes, average="macro", zero_division=0))


def _f1(indices: Statistics) -> float:
    from sklearn.metrics import f1_score

    given = np.unique(np.concatenate([indices["predicted"], indices["target"]]))
    if not np.isin(given, (0, 1)).all():
        raise ValueError(f"f1 is that of class 1 of two; these rows have the classes {given.tolist()}: try macro_f1.")
    return float(f1_score(indices["target"], indices["predicted"], labels=[1], average="macro", zero_division=0))


def _matthews(indices: Statistics) -> float:
    from sklearn.metrics import matthews_corrcoef

    if len(np.unique([indices["target"], indices["predicted"]])) == 1:
        return 0.0  # scikit-learn returns the same, with a warning at every call
    return float(matthews_corrcoef(indices["target"], indices["predicted"]))


def _confidences(correct: npt.NDArray[np.bool_], confidence: npt.NDArray[Any]) -> Statistics:
    return {"correct": correct, "confidence": confidence}


def _calibration_error(rows: Statistics) -> float:
    confidence = rows["confidence"].astype(np.float64)
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():  # a sum in single precision may end above 1
        raise ValueError("calibration_error: a confidence is the probability of the predicted class, within 0 and 1.")
    # Bin m holds values above m / 15 and up to (m + 1) / 15; the first bin also holds 0.
    edges = np.linspace(0, 1, N_CALIBRATION_BINS + 1)[1:-1]
    gaps = np.bincount(
        np.searchsorted(edges, confidence, side="left"), rows["correct"] - confidence, minlength=N_CALIBRATION_BINS
    )
    # A bin's share of the rows times the gap of its means is the gap of its sums over the rows.
    return float(np.abs(gaps).sum() / len(confidence))


metrics.add(
    "accuracy",
    MetricSpec(
        name="accuracy",
        scores=frozenset({"classes", "choices"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=True,
        description="Share of rows whose predicted class is right.",
        source=_SCIKIT_LEARN,
        inputs=("class", "class"),
        measure=_indices,
        statistics=_INDICES,
        combine=_accuracy,
    ),
)
metrics.add(
    "macro_f1",
    MetricSpec(
        name="macro_f1",
        scores=frozenset({"classes"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=False,
        description="F1 of each class, averaged over the classes that occur; 0 for a class without a right prediction. "
        "Where a task has classes without test rows, only classes that test rows have are averaged.",
        source=_SCIKIT_LEARN,
        inputs=("class", "class"),
        measure=_indices,
        statistics=_INDICES,
        combine=_macro_f1,
        combine_over=_macro_f1_over,
    ),
)
metrics.add(
    "f1",
    MetricSpec(
        name="f1",
        scores=frozenset({"classes"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=False,
        description="F1 of class index 1 of two, as GLUE scores MRPC and QQP; 0 if that class never occurs.",
        source="GLUE, Wang et al., 2019, arXiv:1804.07461; " + _SCIKIT_LEARN,
        inputs=("class", "class"),
        measure=_indices,
        statistics=_INDICES,
        combine=_f1,
    ),
)
metrics.add(
    "matthews",
    MetricSpec(
        name="matthews",
        scores=frozenset({"classes"}),
        higher_is_better=True,
        low=-1.0,
        high=1.0,
        mean_over_rows=False,
        description="Matthews' correlation of predicted and right classes, as GLUE scores CoLA; 0 where one side has "
        "one class only.",
        source="Matthews, 1975, doi:10.1016/0005-2795(75)90109-9; " + _SCIKIT_LEARN,
        inputs=("class", "class"),
        measure=_indices,
        statistics=_INDICES,
        combine=_matthews,
    ),
)
metrics.add(
    "calibration_error",
    MetricSpec(
        name="calibration_error",
        higher_is_better=False,
        low=0.0,
        high=1.0,
        mean_over_rows=False,
        description="Expected calibration error of (whether the predicted class is right, its probability): the gap "
        "between the share of right rows and the mean confidence, in 15 bins of equal width, weighted by rows.",
        source="On Calibration of Modern Neural Networks, Guo et al., 2017, arXiv:1706.04599",
        inputs=("flag", "real"),
        measure=_confidences,
        statistics=("correct", "confidence"),
        combine=_calibration_error,
    ),
)
