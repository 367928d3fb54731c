from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.stats import crossed_variance, paired_difference, pareto_front, summarise_scores, wilson_interval
from harness.metrics.base import metrics


@pytest.mark.parametrize(("correct", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (7, 20), (1641, 2000)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_is_that_of_scipy(correct, n, level):
    expected = scipy.stats.binomtest(correct, n).proportion_ci(level, method="wilson")
    assert wilson_interval(correct, n, level) == pytest.approx(tuple(expected), abs=1e-12)


def crossed(rng, n_seeds, n_rows, mean=1.2, seed_spread=0.1, row_spread=1.0):
    """Right or wrong by a threshold on seed, row and rest, and the score that this model has in the long run."""
    shape = (n_seeds, n_rows)
    latent = mean + seed_spread * rng.normal(size=(n_seeds, 1)) + row_spread * rng.normal(size=(1, n_rows))
    truth = scipy.stats.norm.cdf(mean / math.sqrt(1 + seed_spread**2 + row_spread**2))
    return (latent + rng.normal(size=shape) > 0).astype(float), truth


@pytest.mark.parametrize(("mean", "seed_spread"), [(1.2, 0.05), (1.2, 0.1), (1.2, 0.3), (3.2, 0.2)])
def test_the_crossed_interval_covers_what_it_claims_at_five_seeds(mean, seed_spread):
    rng = np.random.default_rng(20)
    n_trials, n_covered = 1000, 0
    for _ in range(n_trials):
        correct, truth = crossed(rng, 5, 400, mean, seed_spread)
        found = summarise_scores(correct.mean(axis=1), correct)
        n_covered += found.low <= truth <= found.high
    # 93 to 97 %, and the noise of 1,000 trials (0.7 points of standard error).
    assert 0.92 <= n_covered / n_trials <= 0.98


def test_seeds_only_and_rows_only_intervals_would_not_cover():
    rng = np.random.default_rng(3)
    covered = {"seeds": 0, "rows": 0}
    for _ in range(300):
        correct, truth = crossed(rng, 5, 400, seed_spread=0.3)
        rows = summarise_scores(correct[:1].mean(axis=1), correct[:1])
        covered["rows"] += rows.low <= truth <= rows.high
        correct, truth = crossed(rng, 5, 400, seed_spread=0.02)
        seeds = summarise_scores(correct.mean(axis=1))
        covered["seeds"] += seeds.low <= truth <= seeds.high
    assert covered["rows"] < 0.85 * 300
    assert covered["seeds"] < 0.9 * 300


def test_the_paired_interval_covers_the_difference_and_its_p_value_is_level_under_no_difference():
    rng = np.random.default_rng(5)
    n_trials, n_covered, n_rejected = 600, 0, 0
    for _ in range(n_trials):
        shared_row, shared_seed = rng.normal(size=(1, 300)), 0.1 * rng.normal(size=(5, 1))
        own = [0.1 * rng.normal(size=(5, 1)) + 0.5 * rng.normal(size=(1, 300)) for _ in range(2)]
        a, b = (1 + shared_row + shared_seed + mine + rng.normal(size=(5, 300)) > 0 for mine in own)
        found = paired_difference(a, b)
        n_covered += found.low <= 0 <= found.high
        n_rejected += found.p_value < 0.05
    assert 0.92 <= n_covered / n_trials <= 0.99  # more than 95 % where seeds hardly differ, to be safe where they do
    assert n_covered + n_rejected == n_trials


def test_crossed_variance_is_that_of_the_analysis_of_variance_by_hand():
    values = np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]])
    n_seeds, n_rows = values.shape
    grand = values.mean()
    ss_seed = sum(n_rows * (values[s].mean() - grand) ** 2 for s in range(n_seeds))
    ss_row = sum(n_seeds * (values[:, r].mean() - grand) ** 2 for r in range(n_rows))
    ss_rest = ((values - grand) ** 2).sum() - ss_seed - ss_row
    ms_seed, ms_row, ms_rest = ss_seed / 2, ss_row / 3, ss_rest / 6
    assert ms_seed < ms_rest < ms_row  # so the component of the seeds is cut off at 0
    variance, freedom = crossed_variance(values)
    assert variance == pytest.approx(((ms_row - ms_rest) / n_seeds / n_rows) + ms_rest / 12)
    assert freedom == pytest.approx(3)


def test_crossed_variance_with_all_components_adds_the_three():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 1)) + rng.normal(size=(1, 40)) + rng.normal(size=(6, 40))
    ms_seed = 40 * values.mean(axis=1).var(ddof=1)
    ms_row = 6 * values.mean(axis=0).var(ddof=1)
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    ms_rest = (rest**2).sum() / (5 * 39)
    variance, freedom = crossed_variance(values)
    total = ms_seed + ms_row - ms_rest
    assert variance == pytest.approx(total / 240)
    assert freedom == pytest.approx(total**2 / (ms_seed**2 / 5 + ms_row**2 / 39 + ms_rest**2 / 195))


def test_what_an_interval_rests_on_is_said():
    correct = np.random.default_rng(0).random((3, 100)) < 0.8
    scores = correct.mean(axis=1)
    assert summarise_scores(scores, correct).basis == "seeds and test rows"
    one = summarise_scores(scores[:1], correct[:1])
    assert (one.low, one.high) == wilson_interval(correct[0].sum(), 100)
    assert (one.basis, one.n_seeds) == ("test rows only", 1)
    seeds = summarise_scores(scores)
    expected = scipy.stats.t.interval(0.95, 2, scores.mean(), scipy.stats.sem(scores))
    assert (seeds.low, seeds.high) == pytest.approx(expected)
    assert seeds.basis == "seeds only"
    bare = summarise_scores([0.8])
    assert (bare.mean, bare.low, bare.high, bare.basis) == (0.8, None, None, "none")


def test_a_method_that_is_always_right_is_not_certain():
    found = summarise_scores([1.0, 1.0], np.ones((2, 50)))
    assert found.high == 1
    assert found.low == pytest.approx(wilson_interval(50, 50)[0])
    always = paired_difference(np.ones((2, 50)), np.zeros((2, 50)))
    assert always.mean == 1
    assert always.p_value == pytest.approx(scipy.stats.binomtest(50, 50).pvalue)
    assert paired_difference(np.ones((2, 50)), np.ones((2, 50))).p_value == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 30), st.floats(0, 1), st.integers(0, 2**32))
def test_intervals_hold_the_mean_and_stay_in_the_range(n_seeds, n_rows, rate, seed):
    correct = np.random.default_rng(seed).random((n_seeds, n_rows)) < rate
    if n_seeds > 1 and n_rows == 1:
        return
    found = summarise_scores(correct.mean(axis=1), correct)
    assert 0 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= 1


def test_a_pair_with_one_seed_is_the_paired_t_test_over_rows():
    rng = np.random.default_rng(1)
    a, b = (rng.random((2, 1, 200)) < 0.8).astype(float)
    found = paired_difference(a, b)
    expected = scipy.stats.ttest_rel(a[0], b[0])
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.basis == "test rows only"
    assert paired_difference([[1.0]], [[0.0]]).low is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson_interval(3, 2),
        lambda: wilson_interval(0, 0),
        lambda: wilson_interval(1, 2, 95),
        lambda: summarise_scores([]),
        lambda: summarise_scores([0.5], np.ones((2, 3))),
        lambda: summarise_scores([2.0], np.full((1, 3), 2.0)),
        lambda: paired_difference(np.ones((2, 3)), np.ones((2, 4))),
        lambda: crossed_variance(np.ones((1, 3))),
        lambda: pareto_front([1, 2], [1]),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(ValueError, match=r"given|must"):
        call()


number = st.one_of(st.none(), st.integers(0, 4).map(float))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(number, number), max_size=12), st.booleans())
def test_the_pareto_front_is_that_of_brute_force(points, higher_is_better):
    def dominates(p, q):
        gain = (p[1] - q[1]) * (1 if higher_is_better else -1)
        return p[0] <= q[0] and gain >= 0 and (p[0] < q[0] or gain > 0)

    known = [p for p in points if None not in p]
    expected = [None not in q and not any(dominates(p, q) for p in known) for q in points]
    cost, score = ([p[i] for p in points] for i in (0, 1))
    assert (
        pareto_front(np.array(cost, dtype=float), np.array(score, dtype=float), higher_is_better).tolist() == expected
    )
    nullable = [pd.Series(values, dtype="Float64") for values in (cost, score)]
    assert pareto_front(*nullable, higher_is_better).tolist() == expected


@pytest.mark.parametrize("name", sorted(spec.name for spec in metrics))
def test_no_interval_leaves_the_range_of_its_metric(name: str) -> None:
    """Scores near each end, from seeds that differ: with rows, without, and with contributions of rows."""
    spec = metrics.get(name)
    bounds = (spec.low, math.inf if spec.high is None else spec.high)
    rng = np.random.default_rng(0)
    ends = [bounds[0], *([bounds[1]] if spec.high is not None else [])]
    width = 1.0 if spec.high is None else spec.high - spec.low
    for end in ends:
        for n_seeds in (1, 2, 3, 5):
            away = width * rng.uniform(0.01, 0.2, n_seeds) * (1 if end == bounds[0] else -1)
            scores = end + away
            # Pseudo-values leave the range although the metric does not.
            rows = scores[:, None] + rng.normal(0, width, (n_seeds, 30))
            rows += (scores - rows.mean(axis=1))[:, None]
            found = [
                summarise_scores(scores, bounds=bounds),
                summarise_scores(scores, rows, bounds=bounds, is_mean=False),
                summarise_scores(scores, np.clip(rows, *bounds), bounds=bounds),
            ]
            for one in found:
                if one.low is not None:
                    assert bounds[0] <= one.low < one.mean < one.high <= bounds[1]


def test_an_interval_of_a_mean_on_another_scale_is_that_of_the_proportion() -> None:
    correct = np.random.default_rng(1).random((3, 40)) ** 0.3
    one = summarise_scores(correct.mean(axis=1), correct)
    percent = summarise_scores(100 * correct.mean(axis=1), 100 * correct, bounds=(0.0, 100.0))
    assert (percent.low, percent.high) == pytest.approx((100 * one.low, 100 * one.high))


def test_rows_of_a_metric_without_an_end_have_an_interval() -> None:
    """Such as an absolute error, which is a mean over rows and has no maximum."""
    errors = np.random.default_rng(2).exponential(5.0, (3, 40))
    found = summarise_scores(errors.mean(axis=1), errors, bounds=(0.0, math.inf))
    assert 0 <= found.low < found.mean < found.high
