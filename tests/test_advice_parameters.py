"""Trained parameters that advice expects, against closed forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.advice.answer import answer_question
from harness.advice.parameters import trained_parameters
from harness.advice.question import Question
from harness.store import reference_records


def point(trainable: float | None, classes: int | None, n_train: int = 100, backbone: str | None = "b") -> Any:
    return SimpleNamespace(trainable=trainable, classes=classes, n_train=n_train, backbone=backbone)


def test_a_layer_of_classes_grows_with_the_classes() -> None:
    lora = [point(36_864 + 385 * k, k) for k in (2, 4, 6)]
    assert trained_parameters(lora, 154, 77) == 36_864 + 385 * 77
    assert trained_parameters(lora, 154, None) == 36_864 + 385 * 4


def test_words_follow_a_power_law_of_labels_and_classes() -> None:
    words = [point(60 * n**0.8 * (1 if k == 2 else k), k, n, None) for k in (2, 4, 8) for n in (10, 100, 1000)]
    assert trained_parameters(words, 2000, 5) == pytest.approx(60 * 2000**0.8 * 5, rel=1e-6)
    assert trained_parameters(words, 2000, 2) == pytest.approx(60 * 2000**0.8, rel=1e-6)


def test_without_a_law_the_median_is_taken() -> None:
    forest = [point(value, k) for value, k in ((900.0, 2), (5000.0, 4), (1000.0, 6))]
    assert trained_parameters(forest, 100, 5) == 1000
    assert trained_parameters([point(None, 2)], 100, 2) is None
    assert trained_parameters([point(0.0, 2), point(0.0, 4)], 100, 77) == 0


def test_the_reference_answers_with_the_size_of_a_probe() -> None:
    records = list(reference_records())
    answer = answer_question(Question(n_train=154, classes=77), records)
    probe = next(one for one in answer.choices if one.method == "linear-probe on all-MiniLM-L6-v2")
    assert probe.trainable_parameters == (384 + 1) * 77
