"""The learning curve of a user's own labels: closed forms, simulated curves, and curves of other tasks as a prior."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import multivariate_normal

from harness.forecast.own_curve import (
    BENDS,
    OWN_CURVES,
    Conditional,
    CurveBelief,
    Scores,
    draw_sd,
    fit_curve,
    usual_bends,
)
from harness.forecast.scale import logit_variance, shrunk
from harness.forecast.slopes import KnownCurve, Slopes

SIZES = (128, 256, 512, 1024)
MANY = 1e7
USUAL = tuple(usual_bends().tolist())
EXACT = dataclasses.replace(OWN_CURVES, off=1e-4, draw=1e-4, beyond=1e-3)


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def rise(ratio: float, bend: float) -> float:
    return (1 - ratio**-bend) / bend


def on_curve(level: float, slope: float, bend: float, n_rows: float = MANY) -> list[Scores]:
    shares = [float(expit(level + slope * rise(n / SIZES[-1], bend))) for n in SIZES]
    return [Scores(float(n), (share,), n_rows, 1.0) for n, share in zip(SIZES, shares, strict=True)]


@pytest.mark.parametrize(("level", "slope", "bend"), [(1.5, 0.3, 0.2), (0.2, 0.15, 0.6), (2.5, 0.4, 0.1)])
def test_scores_without_noise_give_the_power_law_back(level: float, slope: float, bend: float) -> None:
    flat = tuple([1 / len(BENDS)] * len(BENDS))
    found = fit_curve(on_curve(level, slope, bend), CurveBelief(0.25, 0.3, flat), EXACT)
    for times in (1, 2, 4):
        expected = expit(level + slope * rise(times, bend))
        assert np.median(found.at(times * SIZES[-1])) == pytest.approx(expected, abs=0.003)
    low, high = np.quantile(found.at(4 * SIZES[-1]), (0.1, 0.9))
    assert high - low < 0.02


def test_evidence_and_posterior_are_those_of_a_normal_distribution() -> None:
    scores = on_curve(1.0, 0.5, 0.2, n_rows=800.0)
    belief = CurveBelief(0.5, 0.05, USUAL)  # so far above 0 that the least slope does not matter
    found = Conditional(scores, belief)
    shares = [shrunk(one.mean, one.n_rows) for one in scores]
    noise = np.diag(
        [
            OWN_CURVES.off**2
            + OWN_CURVES.unshared * logit_variance(share, 800.0)
            + draw_sd(one.n_train, OWN_CURVES) ** 2
            for share, one in zip(shares, scores, strict=True)
        ]
    )
    values = [logit(share) for share in shares]
    logs = []
    for at, bend in enumerate(BENDS):
        design = np.array([[1.0, rise(n / SIZES[-1], bend)] for n in SIZES])
        prior = np.diag([OWN_CURVES.level**2, 0.05**2])
        mean = design @ [OWN_CURVES.middle, 0.5]
        logs.append(multivariate_normal(mean, design @ prior @ design.T + noise).logpdf(values))
        precision = np.linalg.inv(prior) + design.T @ np.linalg.inv(noise) @ design
        right = np.linalg.inv(prior) @ [OWN_CURVES.middle, 0.5] + design.T @ np.linalg.inv(noise) @ values
        assert found.means[at] == pytest.approx(np.linalg.solve(precision, right), rel=1e-6)
        assert found.covariances[at] == pytest.approx(np.linalg.inv(precision), rel=1e-5, abs=1e-12)
    assert np.diff(found.log_evidence) == pytest.approx(np.diff(logs), abs=1e-6)


def test_80_percent_intervals_hold_about_80_percent_of_simulated_curves() -> None:
    generator = np.random.default_rng(0)
    c, n_rows, belief = OWN_CURVES, 1000, CurveBelief(0.3, 0.1, USUAL)
    held, errors, unchanged = [], [], []
    for trial in range(300):
        bend = generator.choice(BENDS, p=usual_bends())
        further = math.exp(c.beyond * generator.normal())
        slope, level = abs(generator.normal(0.3, 0.1)), generator.normal(1.0, 0.7)
        every = level + generator.normal() * math.sqrt((1 - c.unshared) * logit_variance(float(expit(level)), n_rows))

        def measure(
            n: float, every: float = every, slope: float = slope, bend: float = bend, further: float = further
        ) -> float:
            share = float(expit(every + slope * rise(n / SIZES[-1], bend) * (further if n > SIZES[-1] else 1.0)))
            variance = c.off**2 + c.unshared * logit_variance(share, n_rows) + draw_sd(n, c) ** 2
            return float(expit(logit(share) + generator.normal() * math.sqrt(variance)))

        scores = [Scores(float(n), (measure(n),), n_rows, 1.0) for n in SIZES]
        target = 4.0 * SIZES[-1]
        truth, found = measure(target), fit_curve(scores, belief, seed=trial)
        low, high = np.quantile(found.of_measurement(target), (0.1, 0.9))
        held.append(low <= truth <= high)
        errors.append(abs(float(np.median(found.at(target))) - truth))
        unchanged.append(abs(scores[-1].mean - truth))
    assert 0.74 <= np.mean(held) <= 0.86
    assert np.mean(errors) < 0.5 * np.mean(unchanged)


def test_a_curve_never_falls_and_stays_below_the_best() -> None:
    scores = [Scores(float(n), (share,), 500.0, 1.0) for n, share in zip(SIZES, (0.99, 0.98, 0.97, 0.96), strict=True)]
    found = fit_curve(scores, CurveBelief(0.2, 0.1, USUAL))
    draws = np.stack([found.at(n) for n in (64, 128, 1024, 4096, 16384)])
    assert (np.diff(draws, axis=0) >= 0).all()
    assert (draws <= 1).all()


def test_few_test_rows_widen_scores_more_than_gains() -> None:
    def widths(n_rows: float) -> tuple[float, float]:
        found = fit_curve(on_curve(1.0, 0.3, 0.2, n_rows), CurveBelief(0.3, 0.1, USUAL))
        score = np.ptp(np.quantile(found.on_new_rows(SIZES[-1]), (0.1, 0.9)))
        gain = np.ptp(np.quantile(found.at(2 * SIZES[-1]) - found.at(SIZES[-1]), (0.1, 0.9)))
        return float(score), float(gain)

    few, many = widths(100.0), widths(100_000.0)
    binomial = 2 * 1.2816 * math.sqrt(expit(1.0) * (1 - expit(1.0)) / 100)
    assert few[0] == pytest.approx(binomial, rel=0.25)
    assert few[0] - many[0] > 2 * (few[1] - many[1])


def test_draws_that_differ_much_widen_the_interval() -> None:
    def width(apart: float) -> float:
        scores = [
            Scores(one.n_train, (one.mean - apart, one.mean, one.mean + apart), 5000.0, 3.0)
            for one in on_curve(1.0, 0.3, 0.2)
        ]
        found = fit_curve(scores, CurveBelief(0.3, 0.1, USUAL))
        return float(np.ptp(np.quantile(found.of_measurement(4096), (0.1, 0.9))))

    assert width(0.05) > 1.3 * width(0.001)


def test_the_same_scores_give_the_same_curve() -> None:
    first, second = (fit_curve(on_curve(1.0, 0.3, 0.2, 300.0), CurveBelief(0.3, 0.1, USUAL)) for _ in range(2))
    assert (first.at(5000) == second.at(5000)).all()


def known(method: str, task: str, slope: float, bend: float) -> KnownCurve:
    return KnownCurve(task, method, 2, tuple(on_curve(1.0, slope, bend, 5000.0)))


def test_curves_of_other_tasks_tell_the_slope_and_the_bend_of_a_method() -> None:
    curves = [known("steep", f"t{i}", 0.5, 0.1) for i in range(8)] + [
        known("flat", f"t{i}", 0.1, 1.0) for i in range(8)
    ]
    found = Slopes(curves)
    assert found.n_curves == 16
    steep, flat, unknown = (found.expect(SIZES[-1], 2, name) for name in ("steep", "flat", "new"))
    assert flat.slope + 0.05 < unknown.slope < steep.slope - 0.05
    assert unknown.sd > steep.sd
    straight = BENDS < 0.3
    assert sum(np.array(steep.bends)[straight]) > sum(np.array(flat.bends)[straight]) + 0.2
    for one in (steep, flat, unknown):
        assert sum(one.bends) == pytest.approx(1.0)


def test_without_curves_the_belief_is_wide() -> None:
    none = Slopes([]).expect(512, 2, "tfidf")
    some = Slopes([known("tfidf", f"t{i}", 0.3, 0.2) for i in range(8)]).expect(512, 2, "tfidf")
    assert none.sd > 1.5 * some.sd
    assert none.bends == pytest.approx(USUAL)


def test_curves_of_two_sizes_say_nothing() -> None:
    short = KnownCurve("t", "lora", 2, tuple(on_curve(1.0, 0.3, 0.2)[:2]))
    assert Slopes([short]).n_curves == 0
