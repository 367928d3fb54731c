"""Beliefs about scores on few rows, and the reason given where another method is saved than validated best."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize

from harness.choose.candidates import Belief, Candidate, Measured, counts_as_normal
from harness.choose.last_fit import why_not_the_best
from harness.choose.tried import Tried, is_clearly_better, share_of, share_upwards, summarised, validated, value_at
from harness.choose.whole_fits import choose_step
from harness.forecast.evidence import gather
from harness.methods.configure import parse_methods
from harness.store.reading import reference_records
from tests.record_factory import make_record
from tests.searches import search_of


def candidate(name: str) -> Candidate:
    (method,) = parse_methods([name])
    return Candidate(method, method.name, name == "tfidf")


@pytest.mark.parametrize("right", [[150.0, 148.0], [0.0, 75.0], [150.0, 0.0], [120.0, 121.5]])
@pytest.mark.parametrize("mean", [[0.3, 1.1], [-2.0, 4.0]])
def test_normal_measurements_have_the_exact_posteriors_mode_and_curvature(
    right: list[float], mean: list[float]
) -> None:
    """Against scipy's minimizer of the exact negative log-posterior, and its numerical second derivatives."""
    k, n, m = np.array(right), np.array([150.0, 150.0]), np.array(mean)
    covariance = np.array([[1.0, 0.6], [0.6, 0.8]])
    precision = np.linalg.inv(covariance)

    def loss(f: np.ndarray) -> float:
        return float(-k @ f + n @ np.logaddexp(0, f) + 0.5 * (f - m) @ precision @ (f - m))

    exact = minimize(loss, m, method="BFGS", options={"gtol": 1e-9}).x
    values, variances = counts_as_normal(k, n, m, covariance)
    mode = m + covariance @ np.linalg.solve(covariance + np.diag(variances), values - m)
    assert mode == pytest.approx(exact, abs=1e-4)
    step = 1e-3 * np.eye(2)
    hessian = [
        [(loss(exact + a + b) - loss(exact + a - b) - loss(exact - a + b) + loss(exact - a - b)) / 4e-6 for b in step]
        for a in step
    ]
    assert precision + np.diag(1 / variances) == pytest.approx(np.array(hessian), rel=0.02, abs=0.02)


@pytest.mark.parametrize(("right", "n_rows"), [(150, 150), (148, 150), (60, 60), (290, 300), (75, 150)])
def test_a_score_is_believed_as_far_as_its_rows_go(right: int, n_rows: int) -> None:
    """Against the exact posterior of a count under the belief before, by numerical integration."""
    points = [p for p in gather(reference_records()).points if p.kind == "classification"]
    belief, words = Belief(points, 150), candidate("tfidf")
    before, spread = belief.expect([words], [150], [])
    after, _ = belief.expect([words], [150], [Measured(words, 150, 1, n_rows, right / n_rows)])
    sd = float(np.sqrt(spread[0, 0]))

    f = np.linspace(-8, 14, 20_001)
    log_density = right * f - n_rows * np.logaddexp(0, f) - 0.5 * ((f - before[0]) / sd) ** 2
    density = np.exp(log_density - log_density.max())
    exact = float((density / (1 + np.exp(-f))).sum() / density.sum())
    assert belief.back(float(after[0])) == pytest.approx(exact, abs=0.01)


def fits(**scores: float) -> list[Tried]:
    found = []
    for name, score in scores.items():
        label = name.replace("_", "-")
        record = make_record(label, 300, 0, accuracy=score, n_test=150)
        found.append(Tried(candidate(label), record, 300.0, 0, 1.0))
    return found


def test_nothing_is_said_where_the_best_validated_is_saved() -> None:
    assert why_not_the_best("tfidf", fits(tfidf=1.0, last_layers=0.987), {}, {}, "accuracy") is None
    assert why_not_the_best("last-layers", fits(tfidf=0.9, last_layers=0.9), {}, {}, "accuracy") is None
    assert why_not_the_best("tfidf", [], {}, {}, "accuracy") is None


def test_it_says_why_another_method_is_saved() -> None:
    tried = fits(tfidf=1.0, last_layers=0.987)
    said = why_not_the_best("last-layers", tried, {"last-layers": 0.989, "tfidf": 0.982}, {}, "accuracy")
    assert said is not None
    assert "tfidf validated best, with accuracy 1.000 on 150 rows" in said
    assert "Saved is last-layers, which validated at 0.987" in said
    assert "0.989, against 0.982 of tfidf" in said
    unraced = why_not_the_best("full", tried, {"full": 0.99, "tfidf": 0.98}, {}, "accuracy")
    assert unraced is not None
    assert "full, which was not validated" in unraced
    late = why_not_the_best("last-layers", tried, {"tfidf": 0.99}, {"tfidf": "its last fit ended with 'no time'"}, "f1")
    assert late is not None
    assert "because its last fit ended with 'no time'" in late
    put_aside = why_not_the_best("last-layers", tried, {"tfidf": 0.99, "last-layers": 0.9}, {}, "accuracy")
    assert put_aside is not None
    assert "fitted before the others" in put_aside


def test_scores_of_any_metric_are_shares_of_its_range() -> None:
    assert share_of("accuracy", 0.3, {}) == 0.3
    assert share_of("matthews", -1.0, {}) == 0.0
    assert value_at("matthews", share_of("matthews", -0.25, {}), {}) == -0.25
    errors = {"rmse_of_mean": 2.0}  # an error has no upper end: that of the mean is the worst
    assert share_of("rmse", 0.5, errors) == 0.75
    assert share_of("rmse", 3.0, errors) == 0.0
    assert share_upwards("rmse", -0.5, errors) == 0.75
    assert value_at("rmse", 0.75, errors) == 0.5
    (fit,) = fits(tfidf=0.5)
    assert fit.record.score is not None
    score = replace(fit.record.score, metric="matthews", value=-0.2)
    negative = replace(fit, record=replace(fit.record, score=score))
    assert negative.score == pytest.approx(0.4)
    assert validated([negative]) == (pytest.approx(-0.2), 150)
    (measured,) = summarised([negative])
    mean, _ = Belief([], 2).expect([fit.candidate], [300], [measured])
    assert value_at("matthews", Belief([], 2).back(float(mean[0])), {}) == pytest.approx(-0.2, abs=0.02)


def test_a_perfect_score_of_words_is_not_passed_over_for_one_that_is_not_measured() -> None:
    """150 of 150 right: expected above what the linear probe's 146 leave to hope for methods of its kind."""
    points = [p for p in gather(reference_records()).points if p.kind == "classification"]
    names = [candidate(name) for name in ("tfidf", "linear-probe", "last-layers")]
    tried = [Measured(names[0], 150, 1, 150, 1.0), Measured(names[1], 150, 1, 150, 146 / 150)]
    belief = Belief(points, 150)
    mean, _ = belief.expect(names, [300, 300, 300], tried)
    assert belief.back(float(mean[0])) > 0.97


def test_what_validated_clearly_better_is_told_from_chance() -> None:
    """143 of 150 against 150 is no chance: Fisher's exact test, one-sided, says 0.7 %; of 148 it says 25 %."""
    from scipy.stats import fisher_exact

    for right, clear in ((143, True), (148, False)):
        by_name = {fit.candidate.label: [fit] for fit in fits(tfidf=1.0, last_layers=right / 150)}
        table = [[150, 0], [right, 150 - right]]
        assert (fisher_exact(table, alternative="greater").pvalue < 0.05) == clear
        assert is_clearly_better(by_name["tfidf"], by_name["last-layers"]) == clear
        assert not is_clearly_better(by_name["last-layers"], by_name["tfidf"])
    cut_short = [replace(fit, n_train=100.0) for fit in by_name["last-layers"]]
    (poor,) = (replace(fit, n_train=100.0) for fit in fits(last_layers=0.5))
    assert not is_clearly_better(by_name["tfidf"], [poor])  # it made use of fewer labels
    assert not is_clearly_better(by_name["tfidf"], [])
    assert not is_clearly_better([], cut_short)


def test_a_favourite_is_validated_where_that_takes_nothing_from_its_last_fit() -> None:
    """Eighty seconds are left and a fit takes four: nothing is saved unseen. With six left there is no time to see."""
    points = [p for p in gather(reference_records()).points if p.kind == "classification"]
    entrants = [candidate("tfidf"), candidate("last-layers")]
    folds = [SimpleNamespace(n_test=150)]

    def next_fit(seconds: float) -> str | None:
        search = search_of(entrants, Belief(points, 150), seconds, folds=folds, n_rows=300, seconds=4.0)
        record = make_record("tfidf", 150, 0, accuracy=0.9, n_test=150)
        search.tried.append(Tried(entrants[0], record, 150, 0, 1.0))
        step = choose_step(search, [entrants[1]])
        return None if step is None else step.candidate.label

    assert next_fit(80) == "last-layers"
    assert next_fit(6) is None
