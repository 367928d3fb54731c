"""Metrics of sets of labels against scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from harness.metrics import metrics
from harness.metrics.rows import pseudo_values
from harness.records.predictions import Predictions

NAMES = ("micro_f1", "macro_f1_labels", "subset_accuracy", "mean_average_precision")


def drawn(case: str, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Scores, given and right labels; the last label is rare or nobody's."""
    draw = np.random.default_rng(seed)
    wanted = (draw.random((n, 5)) < [0.5, 0.3, 0.1, 0.3, 0.0]).astype(np.uint8)
    scores = np.clip(0.3 * wanted + 0.7 * draw.random((n, 5)), 0, 1).astype(np.float32)
    if case == "ties":
        scores = (scores * 4).round() / 4
    if case == "one positive":
        wanted[0, 4] = 1
    if case == "none":
        wanted[:] = 0
    given = (scores >= 0.5).astype(np.uint8)
    return {"scores": scores, "given": given, "wanted": wanted}


CASES = ("plain", "ties", "one positive", "none")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [1, 2, 40, 1000])
def test_each_is_scikit_learns(case: str, n: int) -> None:
    rows = drawn(case, n, seed=n)
    scores, given, wanted = rows["scores"], rows["given"], rows["wanted"]
    known = wanted.any(axis=0)
    expected = {
        "micro_f1": f1_score(wanted, given, average="micro", zero_division=0),
        "macro_f1_labels": f1_score(wanted, given, average="macro", zero_division=0),
        "subset_accuracy": accuracy_score(wanted, given),
        "mean_average_precision": np.mean(
            [average_precision_score(wanted[:, label], scores[:, label]) for label in np.flatnonzero(known)] or [0.0]
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, value in expected.items():
            given_or_scores = scores if name == "mean_average_precision" else given
            assert metrics.get(name).compute(given_or_scores, wanted) == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [2, 3, 120])
def test_leaving_out_each_row_is_to_score_the_others(name: str, case: str, n: int) -> None:
    spec, rows = metrics.get(name), drawn(case, n, seed=1)
    statistics = {key: rows[key] for key in spec.statistics}
    expected = [
        spec.from_statistics({key: np.delete(array, row, axis=0) for key, array in statistics.items()})
        for row in range(n)
    ]
    assert spec.leave_one_out(statistics) == pytest.approx(np.array(expected), rel=1e-9, abs=1e-9)


def test_rows_of_a_subset_accuracy_are_its_contributions() -> None:
    rows = drawn("plain", 50)
    predictions = Predictions("r", statistics={"given": rows["given"], "wanted": rows["wanted"]})
    found = predictions.row_scores("subset_accuracy")
    assert found.mean() == accuracy_score(rows["wanted"], rows["given"])
    assert pseudo_values("subset_accuracy", predictions) == pytest.approx(found.astype(float))


def test_what_is_no_set_of_labels_is_refused() -> None:
    spec = metrics.get("micro_f1")
    with pytest.raises(ValueError, match=r"the prediction of each row is to be 0 or 1 for each label; given \[0, 2\]"):
        spec.compute([[0, 2]], [[0, 1]])
    with pytest.raises(ValueError, match="the reference of each row is to be 0 or 1"):
        spec.compute([[0, 1], [1, 0]], [[0, 1], [1]])
    with pytest.raises(ValueError, match="2 labels and a reference 3"):
        spec.compute([[0, 1]], [[0, 1, 1]])
    with pytest.raises(ValueError, match="not finite"):
        metrics.get("mean_average_precision").compute([[0.1, np.nan]], [[0, 1]])
