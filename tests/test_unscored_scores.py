"""Scores of tasks with classes that no test row has, and intervals of seeds with equal scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from harness.analysis.stats import crossed_variance, summarise_scores, wilson_interval
from harness.metrics.rows import pseudo_values
from harness.records.predictions import Predictions
from harness.report.observations import observe
from harness.tasks.base import Task
from tests.record_factory import make_record
from tests.tables import MANY, prepared, tickets


@pytest.mark.parametrize(("score", "n_seeds"), [(0.1, 3), (0.7, 3), (0.83, 5), (1 / 3, 7)])
def test_seeds_of_equal_scores_have_no_interval(score: float, n_seeds: int) -> None:
    found = summarise_scores([score] * n_seeds)
    assert (found.low, found.high, found.basis) == (None, None, "none")
    assert found.mean == pytest.approx(score)


@pytest.mark.parametrize("score", [0.1, 0.7, 0.83])
def test_rows_of_equal_scores_tell_no_more_than_one_seed_would(score: float) -> None:
    assert crossed_variance(np.full((3, 50), score))[0] == 0
    found = summarise_scores([score] * 3, np.full((3, 50), score))
    assert (found.low, found.high) == pytest.approx(wilson_interval(score * 50, 50))
    alike = summarise_scores([score] * 3, np.full((3, 50), score), is_mean=False)
    assert (alike.low, alike.high, alike.basis) == (None, None, "none")


def probabilities(predicted: np.ndarray, n_classes: int) -> np.ndarray:
    return np.eye(n_classes, dtype=np.float32)[predicted]


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Classes `a` and `b` have test rows; `old` has two training rows and `rare` has one."""
    folder = tmp_path_factory.mktemp("unscored")
    train = tickets(folder / "train.csv", [*MANY[:60], ("old 1", "old"), ("old 2", "old"), ("odd", "rare")])
    return prepared(train, test=tickets(folder / "test.csv", MANY[60:]), metric="macro_f1")


def test_macro_f1_averages_only_classes_that_are_scored(rare: Task) -> None:
    assert [rare.label_names[at] for at in rare.unscored] == ["old", "rare"]
    target = rare.test_labels
    for stray in (1 - target[0], *rare.unscored):  # another scored class, then classes without test rows
        predicted = target.copy()
        predicted[0] = stray
        score = rare.kind.score(rare, rare.kind.decode(rare, probabilities(predicted, 4)))
        expected = f1_score(target, predicted, labels=[0, 1], average="macro")
        assert score.value == pytest.approx(expected)
        assert score.value > 0.9
        assert score.others["accuracy"] == pytest.approx(1 - 1 / len(target))


def test_macro_f1_of_validation_rows_leaves_out_the_same_classes(rare: Task) -> None:
    old = rare.unscored[0]
    labels = np.array([0, 0, 1, 1, old, old])
    predicted = np.array([0, old, 1, 0, old, 1])
    found = rare.kind.measure(rare, probabilities(predicted, 4), labels)
    assert found == pytest.approx(f1_score(labels, predicted, labels=[0, 1], average="macro"))
    only = np.array([old, old])
    assert rare.kind.measure(rare, probabilities(only, 4), only) == 1.0


def test_what_a_row_adds_rests_on_the_same_classes_as_the_score(rare: Task) -> None:
    target = rare.test_labels
    n_rows = len(target)
    predicted = target.copy()
    predicted[0], predicted[1] = rare.unscored[0], 1 - target[1]
    predictions = Predictions("r", predicted, target)
    rows = range(n_rows)

    def score_of(kept: list[int]) -> float:
        return float(f1_score(target[kept], predicted[kept], labels=[0, 1], average="macro"))

    by_hand = [n_rows * score_of([*rows]) - (n_rows - 1) * score_of([r for r in rows if r != row]) for row in rows]
    assert pseudo_values("macro_f1", predictions, has_unscored=True) == pytest.approx(by_hand)
    score = rare.kind.score(rare, rare.kind.decode(rare, probabilities(predicted, 4)))
    record = make_record(score=score, predictions=predictions)
    record.provenance.dataset.update(rare.provenance)
    (found,) = observe([record]).by_row.values()
    assert found.values == pytest.approx(by_hand, rel=1e-5)


def test_tasks_whose_macro_f1_changed_have_another_identity(tmp_path: Path) -> None:
    train = tickets(tmp_path / "train.csv", [*MANY[:60], ("old 1", "old"), ("old 2", "old")])
    test = tickets(tmp_path / "test.csv", MANY[60:])
    by_metric = {name: prepared(train, test=test, metric=name) for name in ("accuracy", "macro_f1")}
    strict = {name: prepared(train, test=test, metric=name, strict=True) for name in ("accuracy", "macro_f1")}
    assert by_metric["accuracy"].data == strict["accuracy"].data == strict["accuracy"].provenance["content"]
    assert strict["macro_f1"].data == strict["macro_f1"].provenance["content"]
    assert by_metric["macro_f1"].data != strict["macro_f1"].data
