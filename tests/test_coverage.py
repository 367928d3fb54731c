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
        found = stats.summarise_scores(scores, rows, bounds=None)
        covered += found.low <= truth <= found.high
    assert covered / 300 >= 0.95 - 5 * 0.0126
