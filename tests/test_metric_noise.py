"""Scores of any metric enter a search with the noise that they have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.choose.metric_noise import rows_worth
from harness.metrics.base import metrics
from harness.records.record import Predictions, Record, Score
from tests.record_factory import make_record

ENDS = {"accuracy": (0.0, 1.0), "macro_f1": (0.0, 1.0), "matthews": (-1.0, 1.0), "f1": (0.0, 1.0)}


def draw(shares: list[float], right: float, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions and right classes of n rows; a wrong one is any other class."""
    target = generator.choice(len(shares), size=n, p=shares)
    wrong = (target + generator.integers(1, len(shares), n)) % len(shares)
    return np.where(generator.random(n) < right, target, wrong), target


def record_of(metric: str, predicted: np.ndarray, target: np.ndarray) -> Record:
    value = metrics.get(metric).compute(predicted, target)
    score = Score(metric, float(value), None, None, True, len(target), len(target), {}, ENDS[metric][1])
    return replace(make_record("tfidf"), score=score, predictions=Predictions("rows", predicted, target))


@pytest.mark.parametrize("metric", ["macro_f1", "matthews", "f1"])
@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.9, 0.1]], ids=["balanced", "unbalanced"])
def test_the_rows_give_the_spread_of_scores_over_new_draws_of_rows(metric: str, shares: list[float]) -> None:
    generator = np.random.default_rng(0)
    low, high = ENDS[metric]
    drawn = [draw(shares, 0.85, 400, generator) for _ in range(200)]
    spread = np.std([(metrics.get(metric).compute(*one) - low) / (high - low) for one in drawn])
    found = []
    for predicted, target in drawn[:5]:
        share = (metrics.get(metric).compute(predicted, target) - low) / (high - low)
        found.append(np.sqrt(share * (1 - share) / rows_worth(record_of(metric, predicted, target), low, high)))
    assert np.mean(found) == pytest.approx(spread, rel=0.3)


def test_accuracy_counts_each_row_and_rare_classes_make_macro_f1_noisy() -> None:
    predicted, target = draw([0.9, 0.05, 0.05], 0.8, 300, np.random.default_rng(1))
    assert rows_worth(record_of("accuracy", predicted, target), 0.0, 1.0) == 300
    assert rows_worth(record_of("macro_f1", predicted, target), 0.0, 1.0) < 200
    perfect = record_of("macro_f1", target, target)
    assert rows_worth(perfect, 0.0, 1.0) == 300
    assert rows_worth(replace(perfect, predictions=None), 0.0, 1.0) == 300
