"""How often intervals hold the truth, by simulation; the figures of docs/explanation/statistics.md."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis import stats
from harness.metrics import metrics
from harness.metrics.rows import pseudo_values
from harness.records.predictions import Predictions

ROW_SPREAD = 1.2


def answers(rng, n_seeds, n_rows, seed_spread, mean=1.0):
    """Right or wrong, shape (n_seeds, n_rows): rows of a difficulty of their own, the same for all seeds."""
    rows, seeds = rng.normal(0, ROW_SPREAD, n_rows), rng.normal(0, seed_spread, n_seeds)
    chance = 1 / (1 + np.exp(-(mean + seeds[:, None] + rows[None, :])))
    return (rng.random((n_seeds, n_rows)) < chance).astype(float)


def long_run(seed_spread, mean=1.0):
    noise = np.random.default_rng(0).normal(size=400_000) * np.sqrt(ROW_SPREAD**2 + seed_spread**2)
    return float((1 / (1 + np.exp(-(mean + noise)))).mean())


def coverage(n_seeds, n_rows, seed_spread, n_trials, seed=1):
    rng, truth, covered = np.random.default_rng(seed), long_run(seed_spread), 0
    for _ in range(n_trials):
        correct = answers(rng, n_seeds, n_rows, seed_spread)
        found = stats.summarise_scores(correct.mean(axis=1), correct)
        covered += found.low <= truth <= found.high
    return covered / n_trials


@pytest.mark.parametrize("n_seeds", [5, 10])
@pytest.mark.parametrize("seed_spread", [0.1, 0.3])
def test_from_five_seeds_on_an_interval_covers_what_it_says(n_seeds, seed_spread):
    # 93 to 97 %, and three standard errors of 600 trials.
    assert 0.93 - 0.027 <= coverage(n_seeds, 600, seed_spread, 600) <= 0.97 + 0.027


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [300, 1800])
@pytest.mark.parametrize("seed_spread", [0.0, 0.1, 0.3])
@pytest.mark.parametrize(
    ("n_seeds", "low", "high"), [(2, 0.88, 0.97), (3, 0.92, 0.97), (5, 0.93, 0.975), (10, 0.93, 0.97)]
)
def test_coverage_by_seeds_rows_and_spread_is_what_is_documented(n_seeds, low, high, seed_spread, n_rows):
    found = coverage(n_seeds, n_rows, seed_spread, 4000)
    print(n_seeds, n_rows, seed_spread, found)
    assert low - 0.012 <= found <= high + 0.012


@pytest.mark.slow
def test_an_interval_of_matthews_correlation_covers_too():
    """By jackknife pseudo-values: 95 % within five standard errors of 300 trials."""
    rng = np.random.default_rng(7)

    def drawn(n_seeds, n_rows):
        target = (rng.random(n_rows) < 0.25).astype(int)
        ease = rng.normal(size=n_rows)
        tilt = rng.normal(0, 0.1, n_seeds)
        noise = rng.normal(size=(n_seeds, n_rows))
        return target, np.where(0.9 + ease + tilt[:, None] + noise > 0, target, 1 - target)

    spec, truths, covered = metrics.get("matthews"), [], 0
    for _ in range(40):
        target, predicted = drawn(1, 20_000)
        truths.append(spec.from_statistics({"predicted": predicted[0], "target": target}))
    truth = float(np.mean(truths))
    for _ in range(300):
        target, predicted = drawn(5, 300)
        scores = [spec.from_statistics({"predicted": one, "target": target}) for one in predicted]
        rows = np.stack([pseudo_values("matthews", Predictions("r", one, target)) for one in predicted])
        found = stats.summarise_scores(scores, rows, bounds=(-1.0, 1.0), is_mean=False)
        covered += found.low <= truth <= found.high
    assert covered / 300 >= 0.95 - 5 * 0.0126


def differences(rng, n_seeds, n_rows, n_trials, seeds, rows):
    """Return differences of two methods that score alike, shape (n_trials, n_seeds, n_rows).

    `seeds` and `rows` are the shares of the seeds' and the rows' variance in a mean, as multiples of the rest's share.
    """
    of_seed = rng.normal(0, np.sqrt(seeds / n_rows), (n_trials, n_seeds, 1))
    of_row = rng.normal(0, np.sqrt(rows / n_seeds), (n_trials, 1, n_rows))
    return of_seed + of_row + rng.normal(size=(n_trials, n_seeds, n_rows))


def false_positives(found):
    """Return the share of these differences that the paired test finds at the 5 % level."""
    return float(np.mean([stats.paired_difference(one, np.zeros_like(one)).p_value < 0.05 for one in found]))


def test_two_seeds_are_not_tested():
    for one in differences(np.random.default_rng(0), 2, 50, 5, 3, 1):
        found = stats.paired_difference(one, np.zeros_like(one))
        assert (found.p_value, found.low, found.high) == (None, None, None)
        assert found.mean == pytest.approx(one.mean())
    assert stats.paired_difference(np.ones((2, 50)), np.ones((2, 50))).p_value == 1


@pytest.mark.parametrize(("n_seeds", "seeds", "rows"), [(3, 30, 4), (3, 300, 0), (5, 10, 2)])
def test_a_paired_test_finds_no_more_false_differences_than_it_promises(n_seeds, seeds, rows):
    """At the ratios that were worst for Satterthwaite's degrees of freedom: 5 % within three errors of 1,500 trials."""
    found = differences(np.random.default_rng(1), n_seeds, 60, 1500, seeds, rows)
    assert false_positives(found) <= 0.05 + 3 * 0.0056


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [3, 4, 5, 10])
def test_no_ratio_of_variances_gives_more_false_differences(n_seeds):
    worst = {}
    for seeds in (0, 1, 3, 10, 30, 100, 300):
        for rows in (0, 1, 4, 40):
            rng = np.random.default_rng([n_seeds, seeds, rows])
            worst[seeds, rows] = false_positives(differences(rng, n_seeds, 100, 6000, seeds, rows))
    print(n_seeds, worst)
    assert max(worst.values()) <= 0.05 + 3.5 * 0.0028  # the largest of 28 shares, each of 6,000 trials


@pytest.mark.slow
@pytest.mark.parametrize("seed_spread", [0.0, 0.1, 0.3])
@pytest.mark.parametrize(("n_seeds", "n_rows"), [(3, 300), (3, 1800), (5, 300), (5, 1800)])
def test_right_and_wrong_answers_give_no_more_false_differences(n_seeds, n_rows, seed_spread):
    rng, found = np.random.default_rng(2), []
    for _ in range(2000):
        rows = rng.normal(0, ROW_SPREAD, n_rows)
        both = [rows + rng.normal(0, seed_spread, (n_seeds, 1)) + rng.normal(0, 0.3, n_rows) for _ in range(2)]
        right = [(rng.random((n_seeds, n_rows)) < 1 / (1 + np.exp(-1 - one))).astype(float) for one in both]
        found.append(right[0] - right[1])
    share = false_positives(found)
    print(n_seeds, n_rows, seed_spread, share)
    assert share <= 0.05 + 3 * 0.0049
