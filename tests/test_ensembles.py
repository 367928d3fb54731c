"""Ensembles of a search's fits: their weights, when they are used, what they cost, and limits on that cost."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from harness import load_model
from harness.backbones.locate import BackboneFiles
from harness.choose import ensemble
from harness.choose.choosing import choose_within
from harness.choose.prediction_cost import milliseconds_together, rule_out_slow
from harness.choose.tried import Tried
from harness.choose.weights import Gain, bagged_weights, best_temperature, expected_gain, fitted_weights
from harness.data.table import table_task
from harness.methods.configure import parse_methods
from harness.saved.ensemble import calibrated, mixed
from harness.schedule.local import LocalWorkers
from harness.store.store import Store
from harness.support.errors import UsageError
from harness.tasks import kinds


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


def fit(label: str, takes: float, backbone: str | None, *, is_cheap: bool = True) -> Tried:
    """Return a stand-in for a fit that predicts a text in so many milliseconds."""
    files = None if backbone is None else SimpleNamespace(fingerprint=backbone)
    candidate = SimpleNamespace(
        label=label, files=files, is_cheap=is_cheap, reads_features=is_cheap and files is not None
    )
    cost = SimpleNamespace(predict_seconds=takes * 200 / 1000)
    record = SimpleNamespace(cost=cost, score=SimpleNamespace(n_test=200))
    return cast(Tried, SimpleNamespace(candidate=candidate, record=record))


def test_members_on_one_backbone_read_a_text_once() -> None:
    words, probe, votes = fit("tfidf", 0.2, None), fit("linear-probe", 3.0, "a"), fit("knn", 3.5, "a")
    elsewhere, tuned = fit("linear-probe b", 7.0, "b"), fit("full", 3.2, "a", is_cheap=False)
    assert milliseconds_together([words, probe]) == pytest.approx(3.2)
    assert milliseconds_together([probe, votes]) == pytest.approx(3.5)
    assert milliseconds_together([words, probe, votes, elsewhere, tuned]) == pytest.approx(0.2 + 3.5 + 7.0 + 3.2)


def test_a_slow_probe_rules_out_all_methods_that_read_with_its_backbone() -> None:
    fits = [fit("tfidf", 0.2, None), fit("linear-probe", 3.0, "a"), fit("full", 3.0, "a", is_cheap=False)]
    fits.append(fit("full b", 1.0, "b", is_cheap=False))
    said: list[str] = []
    entrants = [one.candidate for one in fits]
    search = SimpleNamespace(most_milliseconds=2.0, entrants=entrants, out={}, say=said.append)
    for one in fits[:2]:
        rule_out_slow(cast(Any, search), one)
    assert [one.label for one in search.entrants] == ["tfidf", "full b"]
    assert search.out["full"] == "takes at least 3.0 ms a text to predict"
    assert said == ["out, with 3.0 ms a text to predict, where 2 ms are allowed: linear-probe, full"]


def test_a_limit_of_nothing_is_refused(tmp_path: Path) -> None:
    import harness

    with pytest.raises(UsageError, match=r"--predict-milliseconds 0 was given|predict_milliseconds=0 was given"):
        harness.choose(data=tmp_path / "no.csv", within=60, save=tmp_path / "model", predict_milliseconds=0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 700 texts whose class shows in four of five texts."""
    import pandas as pd

    generator = np.random.default_rng(0)
    words = [f"w{i}" for i in range(40)]
    labels = generator.integers(0, 2, 700)
    texts = [
        " ".join([*generator.choice(words, 6), f"sign{label if generator.random() < 0.8 else 1 - label}", f"n{i}"])
        for i, label in enumerate(labels)
    ]
    path = tmp_path_factory.mktemp("table") / "noisy.csv"
    pd.DataFrame({"text": texts, "label": [f"c{label}" for label in labels]}).to_csv(path, index=False)
    return path


def test_a_search_saves_an_ensemble_that_scores_what_it_says(
    table: Path, tiny: BackboneFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gain is planted; everything else is real."""
    monkeypatch.setattr(ensemble, "expected_gain", lambda *_: Gain(0.02, 0.01, 0.1, 0.01, 100))
    monkeypatch.setattr(ensemble, "_LEAST_ROWS", 20)
    task = kinds.get("classification").prepare(table_task(table, "text", "label"), None)
    lines: list[str] = []
    with LocalWorkers("cpu", None) as workers, Store.open(tmp_path / "store.sqlite") as store:
        found = choose_within(
            task, [tiny], workers, store, tmp_path / "model", within=3000.0, began=time.monotonic(),
            methods=parse_methods(["tfidf", "linear-probe", "knn", "full[epochs=1]"]), refit=False, settings=False,
            say=lines.append,
        )  # fmt: skip
    assert found.ensemble is not None, lines
    assert sum(found.ensemble.weights) == pytest.approx(1)
    assert any("cross-fitted" in line and "ms a text to predict" in line for line in lines)
    model = load_model(tmp_path / "model", "cpu")
    answers = model.probabilities(task.test_rows_to_predict.texts)
    assert found.score.value == pytest.approx((answers.argmax(axis=1) == task.test_labels).mean())
    assert found.method == model.description.method
    card = (tmp_path / "model" / "README.md").read_text()
    assert "members, with their weights" in card
    assert found.to_dict()["ensemble"]["milliseconds"] == found.ensemble.milliseconds
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []  # nothing is left aside
