"""Correlations and errors against scipy and scikit-learn, also with ties, outliers and constants."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from harness.metrics import metrics
from harness.metrics.rows import pseudo_values
from harness.records.predictions import Predictions

NAMES = ("pearson", "spearman", "mae", "rmse")


def columns(case: str, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    truth = draw.normal(3, 2, n)
    estimate = 0.6 * truth + draw.normal(size=n)
    if case == "ties":
        estimate, truth = estimate.round(), truth.round()
    if case == "outlier":
        estimate[n // 2] = 1e9
    if case == "far from zero":
        estimate, truth = estimate + 1e6, truth + 1e6
    if case == "huge":
        estimate, truth = estimate * 1e140, truth * 1e140
    if case == "one differs":
        estimate = np.where(np.arange(n) == 1, 2.0, 5.0)
    return estimate, truth


CASES = ("plain", "ties", "outlier", "far from zero", "huge", "one differs")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [3, 40, 1000])
def test_each_is_scipys_or_scikit_learns(case: str, n: int) -> None:
    estimate, truth = columns(case, n)
    expected = {
        "pearson": scipy.stats.pearsonr(estimate, truth).statistic,
        "spearman": scipy.stats.spearmanr(estimate, truth).statistic,
        "mae": mean_absolute_error(truth, estimate),
        "rmse": root_mean_squared_error(truth, estimate),
    }
    for name, value in expected.items():
        found = metrics.get(name).compute(estimate, truth)
        if case == "far from zero" and name == "pearson":
            assert found == pytest.approx(value, abs=1e-9)  # the input itself has six digits fewer
        else:
            assert found == pytest.approx(value, rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_constant_has_the_correlation_zero_and_no_warning(name: str) -> None:
    spec, varied = metrics.get(name), np.arange(5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spec.compute(np.full(5, 0.1), varied) == 0
        assert spec.compute(varied, np.full(5, 0.1)) == 0
        assert spec.compute([1.0], [2.0]) == 0
        for statistics in ({"estimate": np.full(5, 0.1), "truth": varied},
                           {"estimate": np.array([1.0, 1, 1, 1, 9]), "truth": varied}):  # fmt: skip
            assert np.isfinite(pseudo_values(name, Predictions("r", statistics=statistics))).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [2, 3, 150])
def test_leaving_out_each_row_is_to_score_the_others(name: str, case: str, n: int) -> None:
    spec = metrics.get(name)
    statistics = spec.row_statistics(*columns(case, n))
    expected = [
        spec.from_statistics({key: np.delete(array, row) for key, array in statistics.items()}) for row in range(n)
    ]
    assert spec.leave_one_out(statistics) == pytest.approx(np.array(expected), rel=1e-9, abs=1e-9)


def test_the_rows_of_a_mean_absolute_error_are_its_contributions() -> None:
    estimate, truth = columns("plain", 60)
    predictions = Predictions("r", statistics=metrics.get("mae").row_statistics(estimate, truth))
    assert predictions.row_scores("mae") == pytest.approx(np.abs(estimate - truth))
    assert pseudo_values("mae", predictions) == pytest.approx(np.abs(estimate - truth))
    assert predictions.row_scores("rmse") is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(name: str, wrong: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        metrics.get(name).compute([1.0, wrong, 2.0], [1.0, 2.0, 3.0])
