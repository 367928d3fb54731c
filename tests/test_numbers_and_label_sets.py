"""Regression, similarity and label sets, against scikit-learn, closed forms and ten-line scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._label_logistics import choose_for_labels, fit_label_logistics
from harness.methods._ridge import choose_ridge_penalty, fit_ridge
from harness.planning.suites import load_suite
from harness.running.worker import Worker
from harness.tasks import Rows, Task, kinds
from harness.testing.method_checks import BRIEF, configured
from harness.training.thresholds import choose_threshold, scores_at
from tests.toy_kinds import toy_rows, toy_spec
from tests.toys import make_bench, run_one


def made_up(n_rows: int = 120, width: int = 12) -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(n_rows, width)).astype(np.float32)
    return features, draw


def micro_f1(scores: Any, labels: Any) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, scores >= 0.5, average="micro", zero_division=0))


# ---- numbers


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_ridge_is_scikit_learns_on_standardised_targets(c: float) -> None:
    from sklearn.linear_model import Ridge

    features, draw = made_up()
    targets = 50 + 20 * (features @ draw.normal(size=12) + draw.normal(size=120))
    expected = Ridge(alpha=1 / c).fit(features.astype(np.float64), (targets - targets.mean()) / targets.std())
    found = fit_ridge(features, targets, c).estimates(features)
    assert found.shape == (120, 1)
    np.testing.assert_allclose(
        found[:, 0], expected.predict(features) * targets.std() + targets.mean(), rtol=1e-4, atol=1e-3
    )


def test_the_penalty_of_a_ridge_regression_has_the_least_error_over_folds() -> None:
    from sklearn.linear_model import Ridge

    features, draw = made_up(100, 40)
    targets = features[:, 0] + 3 * draw.normal(size=100)
    grid, strata = (0.001, 0.01, 0.1, 1.0, 10.0), np.zeros(100, dtype=np.int64)
    errors = []
    for c in grid:
        error = 0.0
        for fold in range(5):
            out = np.arange(100) % 5 == fold
            mean, deviation = targets[~out].mean(), targets[~out].std()
            model = Ridge(alpha=1 / c).fit(features[~out], (targets[~out] - mean) / deviation)
            error += float((((model.predict(features[out]) * deviation + mean) - targets[out]) ** 2).sum())
        errors.append(error)
    chosen, n_fits = choose_ridge_penalty(features, targets, strata, grid, 5, default=1.0)
    assert chosen == grid[int(np.argmin(errors))]
    assert n_fits == pytest.approx(len(grid) * 5 * 0.8)
    assert choose_ridge_penalty(features[:3], targets[:3], strata[:3], grid, 5, default=7.0) == (7.0, 0.0)


@pytest.mark.parametrize("name", ["linear-probe", "tfidf", "head", "full", "majority"])
def test_the_unit_of_the_target_changes_nothing(
    name: str, tiny_backbones: dict[str, BackboneFiles], cpu: Device, tmp_path: Path
) -> None:
    """Estimates of 1000 y - 7 are 1000 times those of y, less 7: methods see standardised targets."""
    rows = toy_rows("regression", 160)
    found = []
    for at, (factor, shift) in enumerate(((1.0, 0.0), (1000.0, -7.0))):
        folder = tmp_path / str(at)
        folder.mkdir()
        spec = toy_spec("regression", folder, [{**row, "label": factor * row["label"] + shift} for row in rows])
        task = kinds.get("regression").prepare(spec, None)
        # The draw follows the rows' content, labels included: the same rows are given here by hand.
        order = np.argsort([task.train.texts[row] for row in range(len(task.train_labels))], kind="stable")[:48]
        files = tiny_backbones["encoder"]
        method = configured(methods.get(name), **BRIEF, precision="fp32")
        bench = make_bench(task, files if method.serves else None, cpu)
        labels, strata = task.train_labels[order], np.zeros(48, dtype=np.int64)
        fitted = method.fit(Rows(task.train, order.astype(np.int64), labels, strata), bench)
        test = np.argsort(task.test.texts, kind="stable")
        found.append(np.asarray(fitted.predict(Rows(task.test, test.astype(np.int64)), bench))[:, 0])
    np.testing.assert_allclose(found[1], 1000 * found[0] - 7, rtol=2e-3, atol=20)


def test_draws_of_numbers_span_the_range(toy_kinds: dict[str, Task], cpu: Device) -> None:
    task = toy_kinds["regression"]
    for n_train in (10, 20):
        labels = Worker(cpu, None).training_rows(task, n_train, 0, "stratified").known_labels
        low, high = np.quantile(task.train_labels, [0.2, 0.8])
        assert (labels <= low).any()
        assert (labels >= high).any()


def test_a_cosine_has_no_error_in_the_unit_of_the_target(
    toy_kinds: dict[str, Task], tiny_backbones: dict[str, BackboneFiles], cpu: Device, tmp_path: Path
) -> None:
    files = tiny_backbones["encoder"]
    record = run_one(toy_kinds["similarity"], files, methods.get("cosine-similarity")(), cpu)
    assert record.status == "ok"
    assert record.cell.n_train == 0
    assert record.score is not None
    assert set(record.score.others) == {"pearson"}
    errors = kinds.get("similarity").prepare(toy_spec("similarity", tmp_path, metric="mae"), None)
    refused = run_one(errors, files, methods.get("cosine-similarity")(), cpu)
    assert refused.status == "unsupported"
    assert "Take pearson or spearman" in str(refused.error)
    scaled = run_one(errors, files, methods.get("linear-probe")(), cpu)
    assert scaled.score is not None
    assert set(scaled.score.others) == {"pearson", "spearman", "rmse"}


def test_cosines_of_minilm_are_those_of_a_plain_script(mirror: Path, minilm: BackboneFiles, cpu: Device) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    spec = load_suite("similarity").task("semeval_sts").model_copy(update={"test_cap": 200})
    task = kinds.get("similarity").prepare(spec, mirror)
    record = run_one(task, minilm, methods.get("cosine-similarity")(), cpu)
    assert record.score is not None
    tokenizer, model = AutoTokenizer.from_pretrained(minilm.folder), AutoModel.from_pretrained(minilm.folder).eval()

    def vector(text: str) -> Any:
        with torch.no_grad():
            states = model(**tokenizer(text, truncation=True, max_length=128, return_tensors="pt")).last_hidden_state
        return torch.nn.functional.normalize(states[0].mean(dim=0), dim=0)

    texts = zip(task.test.fields["first"], task.test.fields["second"], strict=True)
    cosines = [float(vector(first) @ vector(second)) for first, second in texts]
    assert record.score.value == pytest.approx(spearmanr(cosines, task.test_labels).statistic, abs=0.002)


def test_contrastive_cosine_ends_with_the_line_of_least_squares(
    toy_kinds: dict[str, Task], tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    task, files = toy_kinds["similarity"], tiny_backbones["encoder"]
    rows = Worker(cpu, None).training_rows(task, 40, 0, "stratified")
    bench = make_bench(task, files, cpu)
    fitted = methods.get("contrastive-cosine")(epochs=1, min_steps=4, precision="fp32").fit(rows, bench)
    model, backbone = fitted.model, load_backbone(files)  # type: ignore[attr-defined]
    import torch

    def vectors(role: str) -> Any:
        found = []
        for position in rows.index:
            ids = backbone.tokenizer(task.train.fields[role][position], return_tensors="pt")
            with torch.no_grad():
                found.append(model(ids["input_ids"], ids["attention_mask"])[0])
        return torch.nn.functional.normalize(torch.stack(found), dim=1)

    cosines = (vectors("first") * vectors("second")).sum(dim=1).numpy().astype(np.float64)
    slope, start = np.polyfit(cosines, rows.known_labels, 1)
    np.testing.assert_allclose(fitted.tensors()["line"], [start, slope], rtol=1e-2)
    estimates = np.asarray(fitted.predict(rows.without_labels(), bench))[:, 0]
    np.testing.assert_allclose(estimates, start + slope * cosines, atol=1e-3)


# ---- label sets


def test_one_regression_for_each_label_is_scikit_learns_one_vs_rest() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    features, draw = made_up()
    labels = (features @ draw.normal(size=(12, 4)) + draw.normal(size=(120, 4)) > 0.8).astype(np.uint8)
    labels[:, 3] = 0  # nothing to learn: never given
    found = fit_label_logistics(features, labels, 1.0)
    expected = OneVsRestClassifier(LogisticRegression(C=1.0, max_iter=1000)).fit(features, labels[:, :3])
    np.testing.assert_allclose(found.probabilities(features)[:, :3], expected.predict_proba(features), atol=2e-3)
    assert found.probabilities(features)[:, 3].max() < 1e-6
    assert found.threshold == 0.5


def test_few_rows_of_many_labels_are_dealt_to_folds_too() -> None:
    """With fewer rows than labels, each row is the only one of its rarest label."""
    features = made_up(16)[0]
    labels = np.eye(16, dtype=np.uint8)
    given = {"n_folds": 5, "default": 7.0, "measure": micro_f1}
    chosen = choose_for_labels(features, labels, grid=(0.1, 1.0), threshold=None, **given)
    assert chosen.inverse_penalty in (0.1, 1.0)
    assert 0 < chosen.threshold < 1
    assert chosen.n_iterations > 0
    assert choose_for_labels(features[:3], labels[:3], grid=(0.1, 1.0), threshold=None, **given).inverse_penalty == 7.0
    assert choose_for_labels(features, labels, grid=(2.0,), threshold=0.3, **given).n_iterations == 0
    assert kinds.get("multi-label").validation_groups(np.arange(5)).tolist() == [0] * 5


@pytest.mark.parametrize("name", ["linear-probe", "tfidf", "head", "full", "majority"])
@pytest.mark.parametrize("kind", ["multi-label", "regression", "similarity"])
def test_a_handful_of_rows_is_enough(
    name: str, kind: str, toy_kinds: dict[str, Task], tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    method = configured(methods.get(name), **BRIEF)
    for size in ("2", "5"):
        record = run_one(toy_kinds[kind], tiny_backbones["encoder"], method, cpu, size=size)
        assert record.status == "ok", record.error


def test_labels_without_a_row_are_noted(
    toy_kinds: dict[str, Task], tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    task = toy_kinds["multi-label"]
    record = run_one(task, None, methods.get("majority")(), cpu, size="1")
    rows = Worker(cpu, None).training_rows(task, 1, 0, "stratified")
    n_unseen = int((rows.known_labels.sum(axis=0) == 0).sum())
    assert n_unseen
    assert record.facts.remarks["unseen_labels"] == f"{n_unseen} of {task.n_outputs}"
    assert "unseen_labels" not in run_one(task, None, methods.get("majority")(), cpu, size="60").facts.remarks


def test_a_metric_of_ranks_needs_no_threshold_and_holds_out_no_row(
    tiny_backbones: dict[str, BackboneFiles], cpu: Device, tmp_path: Path
) -> None:
    task = kinds.get("multi-label").prepare(toy_spec("multi-label", tmp_path, metric="mean_average_precision"), None)
    files = tiny_backbones["encoder"]
    for name in ("linear-probe", "head", "full"):
        rows = Worker(cpu, None).training_rows(task, 40, 0, "stratified")
        bench = make_bench(task, files, cpu)
        bench.ranks_by_scores = True
        method = configured(methods.get(name), **BRIEF)
        assert method.fit(rows, bench).state()["answers"]["threshold"] == 0.5


def test_texts_of_a_pair_count_together(
    toy_kinds: dict[str, Task], tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    """A record's mean length of a row is that of both texts, whether they are read apart or in one sequence."""
    task, files = toy_kinds["similarity"], tiny_backbones["encoder"]
    tokenizer = load_backbone(files).tokenizer
    rows = Worker(cpu, None).training_rows(task, 24, 0, "stratified")
    lengths = [
        sum(len(tokenizer(task.train.fields[role][row])["input_ids"]) for role in ("first", "second"))
        for row in rows.index
    ]
    record = run_one(task, files, methods.get("linear-probe")(), cpu)
    assert record.facts.train_texts is not None
    assert record.facts.train_texts.mean == pytest.approx(np.mean(lengths))


def test_the_threshold_is_the_best_of_all() -> None:
    draw = np.random.default_rng(1)
    for _ in range(10):
        labels = (draw.random((60, 1)) < 0.15).astype(np.uint8)
        scores = np.clip(0.25 * labels + draw.normal(0.15, 0.1, labels.shape), 0.001, 0.999).astype(np.float32)
        found = choose_threshold(scores, labels, micro_f1)
        best = max(micro_f1(scores_at(scores, float(cut)), labels) for cut in np.unique(scores))
        assert micro_f1(scores_at(scores, found), labels) == pytest.approx(best)
    assert choose_threshold(np.zeros((0, 2), dtype=np.float32), np.zeros((0, 2), dtype=np.uint8), micro_f1) == 0.5


@pytest.mark.parametrize("threshold", [1e-4, 0.03, 0.4999, 0.5, 0.7, 0.999])
def test_moved_scores_keep_their_order_and_pass_a_half_at_the_threshold(threshold: float) -> None:
    scores = np.random.default_rng(2).random(5000).astype(np.float32)
    scores[:4] = [0.0, 1.0, threshold, np.nextafter(np.float32(threshold), np.float32(0))]
    moved = scores_at(scores, threshold)
    assert moved.min() >= 0
    assert moved.max() <= 1
    np.testing.assert_array_equal(moved >= 0.5, scores.astype(np.float64) >= threshold)
    assert (np.diff(moved[np.argsort(scores, kind="stable")]) >= 0).all()


@pytest.mark.parametrize("name", ["linear-probe", "head", "full"])
def test_a_given_threshold_holds_out_no_row(
    name: str, toy_kinds: dict[str, Task], tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    task, files = toy_kinds["multi-label"], tiny_backbones["encoder"]
    rows = Worker(cpu, None).training_rows(task, 60, 0, "stratified")
    states = []
    for threshold in (None, 0.25):
        method = configured(methods.get(name), **BRIEF).model_copy(update={"threshold": threshold})
        states.append(method.fit(rows, make_bench(task, files, cpu)).state()["answers"]["threshold"])
    assert states[1] == 0.25
    assert 0 < states[0] < 1
    reason = methods.get(name)(threshold=0.25).why_unsupported("classification", files, "cpu")
    assert reason is not None
    assert "threshold=0.25" in reason


def test_draws_of_label_sets_hold_every_label_that_they_can(toy_kinds: dict[str, Task], cpu: Device) -> None:
    task = toy_kinds["multi-label"]
    rows = Worker(cpu, None).training_rows(task, 8, 0, "stratified")
    assert rows.known_labels.any(axis=0).all()
    strata = task.kind.strata(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]], dtype=np.uint8))
    np.testing.assert_array_equal(strata, [2, 1, 3, 3, 0])  # the counts are 3, 1 and 2
