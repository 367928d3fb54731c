"""Ensembles of a search's fits: their weights, when they are used, what they cost, and limits on the time to predict."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.choose.weights import bagged_weights, best_temperature, expected_gain, fitted_weights
from harness.saved.ensemble import calibrated, mixed


def accuracy(probabilities: np.ndarray, right: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == right).mean())


def draw(n: int, strengths: list[float], shared: float, seed: int, k: int = 3) -> tuple[list[np.ndarray], np.ndarray]:
    """Return probabilities of members that see the right class through noise, some of it shared by all."""
    generator = np.random.default_rng(seed)
    right = generator.integers(0, k, n)
    common = shared * generator.normal(size=(n, k))
    found = []
    for strength in strengths:
        logits = common + generator.normal(size=(n, k))
        logits[np.arange(n), right] += strength
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        found.append((exp / exp.sum(axis=1, keepdims=True)).astype(np.float32))
    return found, right


def test_a_temperature_restores_probabilities_that_were_sharpened() -> None:
    (one,), right = draw(4000, [1.5], 0.0, 0)
    temperature = best_temperature(one, right)
    sharp = calibrated(one, 0.5)
    assert best_temperature(sharp.astype(np.float32), right) == pytest.approx(2 * temperature, rel=0.15)
    assert np.allclose(calibrated(one, 1.0), one, atol=1e-5)
    assert (calibrated(one, 3.0).argmax(axis=1) == one.argmax(axis=1)).all()


def test_weights_come_near_the_best_mixture_found_by_trying_all() -> None:
    members, right = draw(800, [1.5, 1.4, 0.2], 0.3, 1)
    of_right = np.stack([one[np.arange(800), right] for one in members]).astype(np.float64)
    grid = [np.array(w) / 20 for w in itertools.product(range(21), repeat=3) if sum(w) == 20]
    best = max(float(np.log(w @ of_right).mean()) for w in grid)
    weights = bagged_weights(of_right)
    assert weights.sum() == pytest.approx(1)
    assert float(np.log(weights @ of_right).mean()) > best - 0.01
    assert weights[2] < min(weights[0], weights[1])


def test_equal_independent_members_gain_and_copies_do_not() -> None:
    members, right = draw(600, [1.4, 1.4, 1.4], 0.0, 2)
    gain = expected_gain(members, right, accuracy)
    assert gain.is_above_noise
    assert gain.metric > 0.03
    alone = expected_gain([members[0], members[0].copy()], right, accuracy)
    assert not alone.is_above_noise
    assert alone.metric == 0


def test_the_expected_gain_is_that_on_new_rows() -> None:
    measured, expected = [], []
    for seed in range(12):
        members, right = draw(2400, [1.4, 1.3, 1.2, 0.6], 0.8, seed)
        seen, new = np.arange(400), np.arange(400, 2400)
        some = [one[seen] for one in members]
        weights, temperatures = fitted_weights(some, right[seen])
        best = int(np.argmax([accuracy(one, right[seen]) for one in some]))
        whole = mixed([one[new] for one in members], list(weights), temperatures)
        measured.append(accuracy(whole, right[new]) - accuracy(members[best][new], right[new]))
        expected.append(expected_gain(some, right[seen], accuracy).metric)
    error = np.std(np.subtract(expected, measured)) / np.sqrt(len(measured))
    assert np.mean(expected) == pytest.approx(np.mean(measured), abs=3 * error)
    assert np.mean(measured) > 0.005


def test_members_without_information_are_rarely_used() -> None:
    used = []
    for seed in range(20):
        members, right = draw(300, [2.0, 0.0, 0.0], 0.0, 100 + seed)
        used.append(expected_gain(members, right, accuracy).is_above_noise)
    assert np.mean(used) <= 0.25
