"""Weights of classes, against torch's and scikit-learn's, and what they change on unbalanced classes."""

from __future__ import annotations

import csv
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from harness.backbones import BackboneFiles
from harness.data.sampling import folds
from harness.data.table import table_task
from harness.measure import Device
from harness.methods._answers import WEIGHED_FORMS
from harness.methods._label_logistics import fit_label_logistics
from harness.methods._logistic import choose_penalty, fit_logistic
from harness.methods.configure import parse_method
from harness.tasks import FORMS, Task, kinds
from harness.tasks.toys import FILLER
from harness.training import answer_form
from harness.training.balance import balanced_weights
from tests.toys import run_one

LABELS = np.array([0] * 60 + [1] * 9 + [3] * 3)


def bench(n_outputs: int) -> SimpleNamespace:
    return SimpleNamespace(n_outputs=n_outputs, device=SimpleNamespace(torch_device=lambda: torch.device("cpu")))


def test_weights_are_scikit_learns() -> None:
    found = balanced_weights(LABELS, 4)
    assert found[[0, 1, 3]] == pytest.approx(compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=LABELS))
    assert found[2] == 1
    assert found[LABELS].mean() == pytest.approx(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_classes_is_torchs_weighted_cross_entropy(smoothing: float) -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(len(LABELS), 4, dtype=torch.float64), torch.tensor(LABELS)
    weights = torch.tensor(balanced_weights(LABELS, 4))
    loss = answer_form("classes").balanced_loss(LABELS, bench(4))
    found = loss(outputs.float(), targets, smoothing)
    expected = functional.cross_entropy(outputs, targets, weight=weights, label_smoothing=smoothing)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    pieces = [loss(outputs[rows].float(), targets[rows], smoothing) * len(rows) for rows in torch.arange(72).split(17)]
    assert float(sum(pieces)) / 72 == pytest.approx(float(expected), rel=1e-6)


def test_the_loss_of_label_sets_weighs_rows_with_and_without_each_label() -> None:
    torch.manual_seed(1)
    labels = np.zeros((40, 3), dtype=np.uint8)
    labels[:4, 0] = labels[:25, 1] = 1
    outputs = torch.randn(40, 3)
    found = answer_form("labels").balanced_loss(labels, bench(3))(outputs, torch.tensor(labels).float(), 0.0)
    each = []
    for label in range(3):
        own = labels[:, label].astype(int)
        logits = torch.stack([torch.zeros(40), outputs[:, label]], dim=1)
        weights = torch.tensor(balanced_weights(own, 2), dtype=torch.float32)
        each.append(float(functional.cross_entropy(logits, torch.tensor(own), weight=weights)))
    assert float(found) == pytest.approx(np.mean(each), rel=1e-5)


def test_the_loss_of_tags_weighs_words_by_the_tags_of_all() -> None:
    torch.manual_seed(2)
    labels = np.empty(3, dtype=object)
    labels[:] = [np.array([0, 0, 0, 1]), np.array([0, 0]), np.array([0, 2, 0, 0, 0])]
    flat, outputs = np.concatenate(list(labels)), torch.randn(3, 6, 3)
    targets = torch.full((3, 6), -100)
    for row, tags in enumerate(labels):
        targets[row, 1 : 1 + len(tags)] = torch.tensor(tags)
    weights = torch.tensor(balanced_weights(flat, 3), dtype=torch.float32)
    expected = functional.cross_entropy(outputs[targets >= 0], torch.tensor(flat), weight=weights)
    found = answer_form("tags").balanced_loss(labels, bench(3))(outputs, targets, 0.0)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_every_form_says_whether_it_has_classes() -> None:
    assert {form for form in FORMS if answer_form(form).weighs_classes} == WEIGHED_FORMS


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_logistic_regression_is_scikit_learns(n_classes: int) -> None:
    draw = np.random.default_rng(0)
    labels = draw.choice(n_classes, 200, p=[0.9, 0.1] if n_classes == 2 else [0.8, 0.15, 0.05])
    features = draw.normal(size=(200, 5)) + labels[:, None]
    found = fit_logistic(features, labels, n_classes, 1.0, class_weights="balanced").probabilities(features)
    expected = LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced").fit(features, labels)
    assert found == pytest.approx(expected.predict_proba(features), abs=1e-5)
    plain = fit_logistic(features, labels, n_classes, 1.0).probabilities(features)
    assert np.abs(found - plain).max() > 0.1


def test_logistic_regressions_of_labels_are_scikit_learns() -> None:
    draw = np.random.default_rng(0)
    labels = (draw.random((200, 2)) < [0.1, 0.4]).astype(np.uint8)
    features = draw.normal(size=(200, 5)) + labels[:, :1]
    found = fit_label_logistics(features, labels, 1.0, class_weights="balanced")
    for label in range(2):
        model = LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced").fit(features, labels[:, label])
        expected = model.predict_proba(features)[:, 1]
        assert found.probabilities(features)[:, label] == pytest.approx(expected, abs=1e-5)


def test_the_penalty_is_chosen_by_the_weighted_log_loss() -> None:
    draw = np.random.default_rng(2)
    labels = (np.arange(120) % 10 == 0).astype(int)
    features = draw.normal(size=(120, 30)) + 0.8 * labels[:, None]
    grid = (0.001, 0.01, 0.1, 1.0)
    weights, fold_of, losses = balanced_weights(labels, 2), folds(labels, 4), {}
    for c in grid:
        losses[c] = 0.0
        for fold in range(4):
            inside, outside = fold_of != fold, fold_of == fold
            model = LogisticRegression(C=c, max_iter=1000, class_weight="balanced").fit(
                features[inside], labels[inside]
            )
            right = model.predict_proba(features[outside])[np.arange(outside.sum()), labels[outside]]
            losses[c] -= float((weights[labels[outside]] * np.log(right)).sum())
    chosen = choose_penalty(features, labels, 2, grid, 4, default=7.0, class_weights="balanced")
    assert chosen.inverse_penalty == min(losses, key=losses.get)


@pytest.fixture(scope="module")
def unbalanced(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """One row in twelve is of the rare class: 80 % of these, and 20 % of the others, have the word that tells."""
    draw, path = random.Random(0), tmp_path_factory.mktemp("unbalanced") / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label"])
        for row in range(1200):
            is_rare = row % 12 == 0
            words = draw.choices(FILLER[:-1], k=draw.randint(6, 9))
            if draw.random() < (0.8 if is_rare else 0.2):
                words += 4 * [FILLER[-1]]
            writer.writerow([" ".join(words), "rare" if is_rare else "common"])
    return kinds.get("classification").prepare(table_task(path, "text", "label", metric="macro_f1"), None)


@pytest.mark.parametrize("method", ["tfidf", "linear-probe", "head", "full[learning_rate=1e-3]"])
def test_balanced_weights_raise_macro_f1_where_a_class_is_rare(
    method: str, unbalanced: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    name, _, settings = method.rstrip("]").partition("[")
    with_weights = f"{name}[{','.join(filter(None, [settings, 'class_weights=balanced']))}]"
    scores = {}
    for text in (method, with_weights):
        files = None if name == "tfidf" else tiny
        record = run_one(unbalanced, files, parse_method(text), cpu, size="600")
        assert record.status == "ok", record.error
        predicted, target = record.predictions.classes
        assert record.score.value == pytest.approx(f1_score(target, predicted, average="macro"))
        scores[text] = record.score.value
    print(scores)
    assert scores[with_weights] > scores[method] + 0.05


def test_it_is_no_part_of_a_configuration_at_its_default() -> None:
    for name in ("tfidf", "linear-probe", "head", "lora", "probe-then-full"):
        assert "class_weights" not in parse_method(name).config()
        assert parse_method(f"{name}[class_weights=balanced]").config()["class_weights"] == "balanced"


def test_tasks_without_classes_refuse_it_at_planning(tiny: BackboneFiles, tiny_llama: BackboneFiles) -> None:
    cases = [
        ("linear-probe", "regression", tiny),
        ("linear-probe", "multiple-choice", tiny),
        ("lora", "similarity", tiny),
        ("full", "question-answering", tiny),
        ("lora", "generation", tiny_llama),
    ]
    for name, kind, files in cases:
        asked = parse_method(f"{name}[class_weights=balanced]")
        assert asked.why_unsupported(kind, files, "cpu") == (
            f"class_weights=balanced was given; a {kind} task has no classes to weigh. Leave it out."
        )
        assert parse_method(name).why_unsupported(kind, files, "cpu") is None
    for kind in ("classification", "text-pair", "multi-label", "token-classification"):
        assert parse_method("lora[class_weights=balanced]").why_unsupported(kind, tiny, "cpu") is None
