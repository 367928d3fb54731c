"""Forgetting: against transformers' own loss, formulas written out, and models that are known not to have moved."""

from __future__ import annotations

import copy
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from harness.analysis.frame import tidy_frame
from harness.backbones import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.data import OutsideTexts, outside_texts
from harness.features import debiased_cka
from harness.measure import Device, Failures
from harness.methods import methods
from harness.methods.base import Fitted
from harness.records import Budget, Forgetting, Record
from harness.records.facts import Facts
from harness.report.tables import comparison
from harness.report.views.forgetting import draw_score_against_forgetting, forgetting_of
from harness.running import forgetting
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.store.importing.peft import read_peft_result
from harness.tasks import Task
from harness.testing.backbones import WORDS
from harness.training import outside
from tests.record_factory import make_record
from tests.toys import make_bench, plan_one, run_one

STEPS = Budget(steps=4)


def toy_texts() -> OutsideTexts:
    """Sixteen texts of four works in words that tiny backbones know."""
    draw = np.random.default_rng(0)
    works = [f"work {number}" for number in range(4) for _ in range(4)]
    texts = [" ".join(draw.choice(WORDS[4:], 40)) for _ in works]
    return OutsideTexts("toy@0", tuple(texts), tuple(works), {})


@pytest.fixture(autouse=True)
def known_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "outside_texts", toy_texts)


@pytest.fixture(scope="module")
def tied_llama(tiny_llama: BackboneFiles, tmp_path_factory: pytest.TempPathFactory) -> BackboneFiles:
    """The tiny Llama with its embedding as its head, and no head in its file."""
    folder = tmp_path_factory.mktemp("tied") / "tied-llama"
    shutil.copytree(tiny_llama.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_llama.folder)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text()) != config
    return locate_backbone(str(folder))


@pytest.fixture(params=["tied", "untied"])
def llama(request: pytest.FixtureRequest, tiny_llama: BackboneFiles, tied_llama: BackboneFiles) -> BackboneFiles:
    return tied_llama if request.param == "tied" else tiny_llama


def theirs(model: Any, files: BackboneFiles) -> float:
    """The mean loss by `labels=`, a text at a time: all texts have equally many tokens."""
    tokens = forgetting.outside_tokens(toy_texts(), load_backbone(files), forgetting.MAX_TOKENS)
    assert {len(ids) for ids in tokens} == {forgetting.MAX_TOKENS}
    with torch.no_grad():
        rows = [torch.from_numpy(ids.astype(np.int64))[None] for ids in tokens]
        return float(np.mean([float(model.eval()(input_ids=ids, labels=ids).loss) for ids in rows]))


def fit(method: str, files: BackboneFiles, task: Task, cpu: Device, budget: Budget = STEPS, **settings: Any) -> Fitted:
    bench = make_bench(task, files, cpu, budget=budget)
    rows = Worker(cpu, None).training_rows(task, 32, 0, "stratified")
    return methods.get(method)(precision="fp32", **settings).fit(rows, bench)


def measure(method: str, fitted: Fitted, files: BackboneFiles, cpu: Device) -> Forgetting:
    failures = Failures()
    made = methods.get(method)(precision="fp32")
    found = forgetting.ForgettingMeter(cpu).measure(made, fitted, load_backbone(files), failures)
    assert found is not None, failures
    return found


# ---- the outside texts


def test_the_outside_texts_are_those_of_this_version() -> None:
    """A change of the texts needs a new name: figures on other texts are not comparable."""
    outside = outside_texts()
    assert outside.name == "outside-1@c579cd2d8dd2"
    assert len(outside.texts) == len(set(outside.texts)) == 64
    assert all(outside.works.count(work) == 8 and source for work, source in outside.sources.items())
    assert all(40 <= len(text.split()) <= 80 and text.isascii() for text in outside.texts)


def test_a_tokenizer_that_does_not_know_the_words_is_refused(tiny: BackboneFiles, toy: Task, cpu: Device) -> None:
    failures = Failures()
    fitted = fit("full", tiny, toy, cpu)
    backbone = load_backbone(tiny)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(forgetting, "outside_texts", outside_texts)
        assert forgetting.ForgettingMeter(cpu).measure(methods.get("full")(), fitted, backbone, failures) is None
    assert "does not know" in failures["forgetting"]


# ---- formulas


def hsic(k: np.ndarray, m: np.ndarray) -> float:
    """The unbiased estimate, equation 5 of Song et al. (2012)."""
    n, one = len(k), np.ones(len(k))
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    parts = (
        np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    )
    return float(parts / (n * (n - 3)))


def test_cka_is_the_unbiased_formula() -> None:
    draw = np.random.default_rng(1)
    a, b = draw.normal(size=(12, 40)), draw.normal(size=(12, 30))
    b[:, :20] += a[:, :20]
    k, m = a @ a.T, b @ b.T
    assert debiased_cka(a, b) == pytest.approx(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)), abs=1e-12)
    assert debiased_cka(a, a) == 1.0
    turned = 3 * a @ np.linalg.qr(draw.normal(size=(40, 40)))[0] + 5
    assert debiased_cka(a, turned) == pytest.approx(1.0, abs=1e-9)
    unrelated = [debiased_cka(draw.normal(size=(64, 384)), draw.normal(size=(64, 384))) for _ in range(20)]
    assert abs(np.mean(unrelated)) < 0.05  # the plain estimate is about 0.86


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_cka_of_equal_rows_is_refused(value: float) -> None:
    with pytest.raises(FloatingPointError, match="CKA is unknown"):
        debiased_cka(np.full((8, 4), value), np.random.default_rng(0).normal(size=(8, 4)))


def test_the_probe_is_ridge_regression_written_out() -> None:
    draw = np.random.default_rng(2)
    labels = np.repeat(["a", "b", "c"], 8)
    features = draw.normal(size=(24, 10)) + 0.8 * np.repeat(np.eye(3, 10), 8, axis=0)
    right = 0
    for fold in range(4):
        test = np.arange(24) % 4 == fold
        mean, deviation = features[~test].mean(0), features[~test].std(0)
        x, z = (features[~test] - mean) / deviation, (features[test] - mean) / deviation
        y = np.where(labels[~test][:, None] == np.unique(labels), 1.0, -1.0)
        weights = np.linalg.solve(x.T @ x + 10 * np.eye(10), x.T @ (y - y.mean(0)))
        right += int((np.unique(labels)[(z @ weights + y.mean(0)).argmax(1)] == labels[test]).sum())
    assert forgetting.probe_accuracy(features, list(labels)) == pytest.approx(right / 24)


# ---- causal models


def adapted(files: BackboneFiles, fitted: Fitted) -> Any:
    """transformers' language model with the weights of a fit."""
    model: Any = AutoModelForCausalLM.from_pretrained(files.folder)
    own = fitted.adapted_model()
    assert own is not None
    missing = model.model.load_state_dict(own.transformer.state_dict())
    assert not missing.missing_keys
    return model


def test_the_rise_is_that_of_transformers_own_loss(llama: BackboneFiles, toy: Task, cpu: Device) -> None:
    fitted = fit("full", llama, toy, cpu, learning_rate=3e-2)
    expected = theirs(adapted(llama, fitted), llama) - theirs(AutoModelForCausalLM.from_pretrained(llama.folder), llama)
    found = measure("full", fitted, llama, cpu)
    assert found.rise_of_loss_nats == pytest.approx(expected, abs=3e-6)
    assert abs(expected) > 0.01
    assert found.feature_change is not None
    assert found.feature_change > 0.001
    assert found.amount == found.rise_of_loss_nats
    assert found.unit == "nats per token"


def test_rows_that_training_left_out_of_the_embedding_are_the_pretrained_ones(
    tied_llama: BackboneFiles, toy: Task, cpu: Device
) -> None:
    fitted = fit("full", tied_llama, toy, cpu, weight_decay=0.0, learning_rate=1e-2)
    model = adapted(tied_llama, fitted)
    before = AutoModelForCausalLM.from_pretrained(tied_llama.folder).get_input_embeddings().weight
    same = (model.get_input_embeddings().weight == before).all(1)
    assert 0 < int(same.sum()) < len(same)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    change = theirs(model, tied_llama) - theirs(AutoModelForCausalLM.from_pretrained(tied_llama.folder), tied_llama)
    assert measure("full", fitted, tied_llama, cpu).rise_of_loss_nats == pytest.approx(change, abs=3e-6)


def test_merged_or_not_is_the_same(llama: BackboneFiles, toy: Task, cpu: Device) -> None:
    fitted = fit("lora", llama, toy, cpu, learning_rate=5e-2)
    apart = measure("lora", fitted, llama, cpu)
    model: Any = fitted.adapted_model()
    model.transformer = copy.deepcopy(model.transformer).merge_and_unload()  # a merge writes to shared weights
    merged = measure("lora", fitted, llama, cpu)
    assert merged.rise_of_loss_nats == pytest.approx(apart.rise_of_loss_nats, abs=1e-5)
    assert merged.feature_change == pytest.approx(apart.feature_change, abs=1e-5)
    assert abs(apart.rise_of_loss_nats or 0) > 1e-4
    expected = theirs(adapted(llama, fitted), llama) - theirs(AutoModelForCausalLM.from_pretrained(llama.folder), llama)
    assert merged.rise_of_loss_nats == pytest.approx(expected, abs=1e-5)


def test_the_base_loss_is_that_of_the_pretrained_model_and_not_of_untrained_adapters(
    tiny_llama: BackboneFiles, toy: Task, cpu: Device
) -> None:
    """A soft prompt is no identity at the start: peft's first figures took the loss under it as the base."""
    fitted = fit("prompt-tuning", tiny_llama, toy, cpu, learning_rate=1e-12)
    found = measure("prompt-tuning", fitted, tiny_llama, cpu)
    assert found.feature_change is not None
    assert found.feature_change > 0.001
    model: Any = fitted.adapted_model()
    prompt = model.transformer.get_prompt(1).detach()
    whole = AutoModelForCausalLM.from_pretrained(tiny_llama.folder).eval()
    sums = []
    for ids in forgetting.outside_tokens(toy_texts(), load_backbone(tiny_llama), forgetting.MAX_TOKENS):
        row = torch.from_numpy(ids.astype(np.int64))[None]
        with torch.no_grad():
            inside = torch.cat([prompt, whole.get_input_embeddings()(row)], dim=1)
            logits = whole(inputs_embeds=inside).logits[:, prompt.shape[1] :]
        sums.append(float(nn.functional.cross_entropy(logits[0, :-1], row[0, 1:])))
    base = theirs(AutoModelForCausalLM.from_pretrained(tiny_llama.folder), tiny_llama)
    assert found.rise_of_loss_nats == pytest.approx(np.mean(sums) - base, abs=3e-6)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_model_that_writes_is_read_with_its_own_head(
    method: str, llama: BackboneFiles, toy_kinds: dict[str, Task], cpu: Device
) -> None:
    fitted = fit(method, llama, toy_kinds["generation"], cpu, learning_rate=2e-2)
    model: Any = fitted.adapted_model()
    base = theirs(AutoModelForCausalLM.from_pretrained(llama.folder), llama)
    expected = theirs(model.transformer, llama) - base
    found = measure(method, fitted, llama, cpu)
    assert found.rise_of_loss_nats == pytest.approx(expected, abs=3e-6)
    assert abs(expected) > 1e-4
    assert (found.feature_change or 0) > 0


def test_a_batch_that_does_not_fit_is_read_once(
    tiny_llama: BackboneFiles, toy_kinds: dict[str, Task], cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out in the second part of the first batch: its first part must not count twice."""
    fitted = fit("full", tiny_llama, toy_kinds["generation"], cpu)
    usual = measure("full", fitted, tiny_llama, cpu)
    monkeypatch.setattr(type(fitted.adapted_model()), "most_places", 3 * forgetting.MAX_TOKENS)
    own, calls = outside.pool, []

    def pool(*args: Any) -> torch.Tensor:
        calls.append(len(args[0]))
        if len(calls) == 3:  # the first is the pretrained model's
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return own(*args)

    monkeypatch.setattr(outside, "pool", pool)
    found = measure("full", fitted, tiny_llama, cpu)
    assert calls[:4] == [16, 3, 3, 3]
    assert found.rise_of_loss_nats == pytest.approx(usual.rise_of_loss_nats, abs=3e-6)


# ---- nothing moved


@pytest.mark.parametrize("architecture", ["encoder", "causal", "sequence-to-sequence"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_before_the_first_step_nothing_is_forgotten(
    method: str, architecture: str, tiny_backbones: dict[str, BackboneFiles], toy: Task, cpu: Device
) -> None:
    files = tiny_backbones[architecture]
    made: Any = methods.get(method)(precision="fp32")
    bench = make_bench(toy, files, cpu)
    found = measure(method, made.fitted(made.build(bench).eval(), bench), files, cpu)
    assert found.rise_of_loss_nats == (0.0 if architecture == "causal" else None)
    assert found.feature_change == 0.0
    assert found.probe_before == found.probe_after
    assert found.n_texts == 16
    assert found.outside_text == "toy@0"


@pytest.mark.parametrize("method", ["linear-probe", "head", "knn"])
def test_frozen_methods_have_exact_zeros_and_read_nothing(
    method: str, tiny_llama: BackboneFiles, toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "outside_tokens", lambda *_: pytest.fail("texts were read"))
    record = run_one(toy, tiny_llama, methods.get(method)(), cpu, size="32")
    assert record.facts.forgetting == Forgetting(rise_of_loss_nats=0.0, feature_change=0.0)


# ---- records of cells


def test_a_cell_records_it_and_no_phase_or_peak_contains_it(
    tiny: BackboneFiles, toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(cpu, None)
    method = methods.get("full")(learning_rate=1e-2)
    usual = run_one(toy, tiny, method, cpu, worker=worker, size="32", budget=STEPS)
    own, held = forgetting.compared, []

    def slow(*args: Any) -> Forgetting:
        held.append(np.ones(400_000_000, dtype=np.uint8))
        time.sleep(1.0)
        return own(*args)

    monkeypatch.setattr(forgetting, "compared", slow)
    record = run_one(toy, tiny, method, cpu, worker=worker, size="32", budget=STEPS)
    assert held
    assert record.facts.forgetting == usual.facts.forgetting
    assert record.facts.forgetting is not None
    assert (record.facts.forgetting.feature_change or 0) > 0
    assert record.facts.forgetting.unit == "1 - CKA"
    assert record.cost.measure_seconds is not None
    assert record.cost.measure_seconds > 1.0
    assert record.cost.total_seconds is not None
    assert record.cost.total_seconds < 1.0
    assert (record.cost.peak_rss_above_baseline_bytes or 0) < 400_000_000
    assert Record.from_json(json.loads(json.dumps(record.to_json()))).facts.forgetting == record.facts.forgetting


@pytest.mark.parametrize(("method", "is_known"), [("setfit", True), ("tfidf", False), ("from-scratch", False)])
def test_methods_without_a_pretrained_transformer_have_none(
    method: str, is_known: bool, tiny: BackboneFiles, toy: Task, cpu: Device
) -> None:
    cls = methods.get(method)
    record = run_one(toy, tiny if cls.serves else None, cls(), cpu, size="32", budget=STEPS if cls.serves else Budget())
    assert record.status == "ok", record.error
    assert (record.facts.forgetting is not None) == is_known
    assert ("random weights" in record.facts.missing.get("forgetting", "")) == (method == "from-scratch")


def test_a_hurried_cell_has_none(tiny: BackboneFiles, toy: Task, cpu: Device) -> None:
    planned = plan_one(toy, tiny, methods.get("full")(), size="32", budget=STEPS)
    assert Worker(cpu, None).run(Job(planned, tiny, "tests", hurried=True), toy).facts.forgetting is None


def test_a_failed_measurement_costs_no_score(
    tiny: BackboneFiles, toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("no memory left, say")

    monkeypatch.setattr(forgetting, "compared", fails)
    record = run_one(toy, tiny, methods.get("lora")(), cpu, size="32", budget=STEPS)
    assert record.status == "ok"
    assert record.facts.forgetting is None
    assert record.facts.missing["forgetting"] == "RuntimeError: no memory left, say"


@pytest.mark.parametrize("kind", ["multiple-choice", "extractive-qa", "token-classification", "text-pair"])
def test_models_of_every_form_are_read(kind: str, toy_kinds: dict[str, Task], tiny: BackboneFiles, cpu: Device) -> None:
    if kind not in toy_kinds:
        pytest.skip(f"no toy task of {kind}")
    record = run_one(toy_kinds[kind], tiny, methods.get("full")(learning_rate=1e-2), cpu, size="24", budget=STEPS)
    assert record.facts.forgetting is not None, record.facts.missing
    assert (record.facts.forgetting.feature_change or 0) > 0


def test_the_encoder_of_a_model_that_translates_is_read(
    toy_kinds: dict[str, Task], tiny_t5: BackboneFiles, cpu: Device
) -> None:
    record = run_one(toy_kinds["generation"], tiny_t5, methods.get("full")(), cpu, size="24", budget=STEPS)
    assert record.facts.forgetting is not None, record.facts.missing
    assert record.facts.forgetting.rise_of_loss_nats is None
    assert (record.facts.forgetting.feature_change or 0) > 0


# ---- tables, figures, imports


def with_forgetting(method: str, seed: int, **figures: float) -> Record:
    record = make_record(method, seed=seed, accuracy=0.5 + 0.1 * len(method) / 10)
    return replace(record, facts=replace(record.facts, forgetting=Forgetting(**figures)))  # type: ignore[arg-type]


def test_tables_have_one_figure_with_its_unit() -> None:
    records = [with_forgetting("lora", seed, rise_of_loss_nats=0.1 * seed, feature_change=0.5) for seed in range(3)]
    frame = tidy_frame(records)
    assert frame["forgetting"].tolist() == pytest.approx([0.0, 0.1, 0.2])
    assert set(frame["forgetting_unit"]) == {"nats per token"}
    assert comparison(records)["forgetting"].tolist() == pytest.approx([0.1])
    some = comparison([*records, make_record("lora", seed=3)])
    assert some["forgetting"].isna().all()


def test_the_figure_is_drawn_where_units_agree() -> None:
    from harness.report.panels import panels
    from harness.report.views.base import ReportData

    records = [
        *(with_forgetting("full", seed, feature_change=0.4) for seed in range(2)),
        *(with_forgetting("lora", seed, feature_change=0.2) for seed in range(2)),
        *(with_forgetting("linear-probe", seed, feature_change=0.0) for seed in range(2)),
    ]
    report = ReportData(records)
    (panel,) = report.panels
    data = forgetting_of(panel)
    front = data.loc[data["on_front"], "forgetting"].tolist()
    assert sorted(front) == [0.0]  # the longest name scores highest, and forgets nothing
    figure = draw_score_against_forgetting(data, report.styles_of(panel))
    assert "1 - CKA" in figure.axes[0].get_xlabel()
    mixed = [*records, with_forgetting("bitfit", 0, rise_of_loss_nats=0.1)]
    (panel,) = panels(mixed)
    assert forgetting_of(panel)["forgetting"].isna().all()


def test_pefts_field_comes_in(evidence: Path) -> None:
    value = json.loads((evidence / "lora--llama-3.2-3B-rank32.json").read_text())
    record = read_peft_result(evidence / "lora--llama-3.2-3B-rank32.json")
    assert record.facts.forgetting is not None
    assert record.facts.forgetting.amount == value["train_info"]["metrics"][-1]["forgetting"]
    assert record.facts.forgetting.outside_text == "PEFT's sample of finewiki"


def test_pefts_figures_from_before_their_correction_do_not(evidence: Path, tmp_path: Path) -> None:
    value = json.loads((evidence / "lora--llama-3.2-3B-rank32.json").read_text())
    value["run_info"]["created_at"] = "2026-01-08T00:00:00+00:00"
    (tmp_path / "old.json").write_text(json.dumps(value))
    record = read_peft_result(tmp_path / "old.json")
    assert record.facts.forgetting is None
    assert "without the shift by one token" in record.facts.missing["forgetting"]
    assert record.score is not None
    assert "forgetting" in record.score.others


@pytest.mark.parametrize(
    ("given", "amount", "unit"),
    [
        (Forgetting(), None, None),
        (Forgetting(rise_of_loss_nats=-0.1, feature_change=0.2), -0.1, "nats per token"),
        (Forgetting(feature_change=0.0), 0.0, "1 - CKA"),
    ],
)
def test_the_figure_of_tables(given: Forgetting, amount: float | None, unit: str | None) -> None:
    assert (given.amount, given.unit) == (amount, unit)
    facts = Facts(forgetting=given)
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) in (facts, Facts())
