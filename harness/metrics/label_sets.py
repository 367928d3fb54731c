"""Metrics of sets of labels: F1 (micro, macro), subset accuracy and mean average precision."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.metrics.base import MetricSpec, Statistics, metrics

Reals = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_NAMES: Final = ("given", "wanted")
_SCIKIT_LEARN: Final = "scikit-learn: Machine Learning in Python, Pedregosa et al., JMLR 12, 2011"


def _sets(given: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]) -> Statistics:
    _check_labels(given, wanted)
    return {"given": given, "wanted": wanted}


def _scores(scores: npt.NDArray[Any], wanted: npt.NDArray[np.uint8]) -> Statistics:
    _check_labels(scores, wanted)
    return {"scores": scores, "wanted": wanted}


def _check_labels(predicted: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
    if predicted.shape != wanted.shape:
        raise ValueError(
            f"A prediction has {predicted.shape[1]} labels and a reference {wanted.shape[1]}; expected as many."
        )


def f1_of(right: npt.NDArray[Any], predicted: npt.NDArray[Any], true: npt.NDArray[Any]) -> Reals:
    """Return F1 from counts of right, predicted and true ones, of any one shape; 0 where nothing was predicted or true.

    Source: van Rijsbergen, Information Retrieval, 1979; F1 = 2 right / (predicted + true).
    """
    return ratio(2.0 * right, predicted + true)


def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Reals:
    """Return `part / whole`, and 0 where `whole` is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    found: Reals = np.zeros(np.broadcast_shapes(part.shape, whole.shape))
    np.divide(part, whole, out=found, where=whole > 0)
    return found


def _each(rows: Statistics) -> tuple[Ints, Ints, Ints]:
    """Return right, given and wanted labels of each row, each of shape (rows, labels)."""
    given, wanted = (rows[name].astype(np.int64) for name in _NAMES)
    return given * wanted, given, wanted


def _micro_f1(rows: Statistics) -> float:
    return float(f1_of(*(counts.sum() for counts in _each(rows))))


def _micro_f1_without(rows: Statistics) -> Reals:
    return f1_of(*(counts.sum() - counts.sum(axis=1) for counts in _each(rows)))


def _macro_f1(rows: Statistics) -> float:
    return float(f1_of(*(counts.sum(axis=0) for counts in _each(rows))).mean())


def _macro_f1_without(rows: Statistics) -> Reals:
    found: Reals = f1_of(*(counts.sum(axis=0) - counts for counts in _each(rows))).mean(axis=1)
    return found


def _subset_accuracy(rows: Statistics) -> float:
    return float((rows["given"] == rows["wanted"]).all(axis=1).mean())


def _subset_accuracy_without(rows: Statistics) -> Reals:
    whole = (rows["given"] == rows["wanted"]).all(axis=1)
    found: Reals = (whole.sum() - whole) / (len(whole) - 1)
    return found


def _counts_from_above(scores: npt.NDArray[Any], wanted: Ints) -> tuple[Ints, Ints, Ints]:
    """Return what a threshold at the score of each row of one label takes in, rows of equal scores together.

    Args:
        scores: scores of the label, shape (rows,).
        wanted: 1 for rows that have it, shape (rows,).

    Returns:
        For each distinct score, the highest first: number of rows with at least this score, number of them that have
        the label; and for each row, the position of its score.
    """
    distinct, place = np.unique(-scores.astype(np.float64), return_inverse=True)
    all_rows = np.bincount(place, minlength=len(distinct)).cumsum()
    positives = np.bincount(place, weights=wanted, minlength=len(distinct)).astype(np.int64).cumsum()
    return all_rows, positives, place


def _average_precision(scores: npt.NDArray[Any], wanted: Ints) -> float:
    """Return the mean precision at the score of each row with the label, as scikit-learn defines it; needs one."""
    taken, right, place = _counts_from_above(scores, wanted)
    return float((right / taken)[place[wanted > 0]].mean())


def _average_precision_without(scores: npt.NDArray[Any], wanted: Ints) -> tuple[Reals, npt.NDArray[np.bool_]]:
    """Return average precision without each row, and whether another row has the label; both of shape (rows,)."""
    taken, right, place = _counts_from_above(scores, wanted)
    steps = np.diff(right, prepend=0)  # positives at each distinct score
    # Without a row of at least its score, a threshold takes in one row less, and one positive less if it was one.
    fewer = ratio(right, taken - 1) * steps
    fewer_right = ratio(right - 1, taken - 1) * steps
    above = np.cumsum(steps * right / taken) - steps * right / taken
    below, below_right = (np.cumsum(part[::-1])[::-1] for part in (fewer, fewer_right))
    own = ratio(right - 1, taken - 1)
    n_positive = wanted.sum() - wanted
    sums = above[place] + np.where(wanted > 0, below_right[place] - own[place], below[place])
    return ratio(sums, n_positive), n_positive > 0


def _mean_average_precision(rows: Statistics) -> float:
    scores, wanted = rows["scores"], rows["wanted"].astype(np.int64)
    _check_finite(scores)
    each = [_average_precision(*pair) for pair in zip(scores.T, wanted.T, strict=True) if pair[1].any()]
    return float(np.mean(each)) if each else 0.0


def _mean_average_precision_without(rows: Statistics) -> Reals:
    scores, wanted = rows["scores"], rows["wanted"].astype(np.int64)
    pairs = [_average_precision_without(*pair) for pair in zip(scores.T, wanted.T, strict=True)]
    values, known = (np.stack(side) for side in zip(*pairs, strict=True))
    return ratio((values * known).sum(axis=0), known.sum(axis=0))


def _check_finite(scores: npt.NDArray[Any]) -> None:
    if not np.isfinite(scores).all():
        raise ValueError("mean_average_precision: a score is not finite; expected real numbers.")


metrics.add(
    "micro_f1",
    MetricSpec(
        name="micro_f1",
        scores=frozenset({"labels"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=False,
        description="F1 of all labels of all rows together; 0 where no label is given or right.",
        source=_SCIKIT_LEARN,
        inputs=("labels", "labels"),
        measure=_sets,
        statistics=_NAMES,
        combine=_micro_f1,
        leave_one_out=_micro_f1_without,
    ),
)
metrics.add(
    "macro_f1_labels",
    MetricSpec(
        name="macro_f1_labels",
        scores=frozenset({"labels"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=False,
        description="F1 of each label, averaged over all labels; 0 for a label that no row has and none was given.",
        source=_SCIKIT_LEARN,
        inputs=("labels", "labels"),
        measure=_sets,
        statistics=_NAMES,
        combine=_macro_f1,
        leave_one_out=_macro_f1_without,
    ),
)
metrics.add(
    "subset_accuracy",
    MetricSpec(
        name="subset_accuracy",
        scores=frozenset({"labels"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=True,
        description="Share of rows that were given exactly their right labels.",
        source=_SCIKIT_LEARN,
        inputs=("labels", "labels"),
        measure=_sets,
        statistics=_NAMES,
        combine=_subset_accuracy,
        leave_one_out=_subset_accuracy_without,
    ),
)
metrics.add(
    "mean_average_precision",
    MetricSpec(
        name="mean_average_precision",
        scores=frozenset({"labels"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=False,
        description="Average precision of each label's scores, averaged over the labels that at least one row has; 0 "
        "where no row has a label.",
        source=_SCIKIT_LEARN,
        inputs=("scores", "labels"),
        measure=_scores,
        statistics=("scores", "wanted"),
        combine=_mean_average_precision,
        leave_one_out=_mean_average_precision_without,
    ),
)
