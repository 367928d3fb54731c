"""Inference: latency, throughput, memory, disk and loading of fitted models, merged and not."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness import load_model, measure_inference
from harness.analysis.frame import tidy_frame
from harness.analysis.using import INFERENCE_COLUMNS
from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.features.direct import DirectFeatures
from harness.features.encode import FeatureStore
from harness.features.tokens import TokenStore
from harness.measure import inference
from harness.measure.device import Device
from harness.methods import methods
from harness.methods.base import CAPABILITIES, methods_that_can
from harness.planning.plan import PlannedCell
from harness.records.inference import Inference
from harness.records.record import Record
from harness.report.views.base import ReportData
from harness.report.views.inference import uses
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.saved import inference as of_saved
from harness.support.errors import OutOfMemoryError, UnsupportedError, UsageError
from harness.tasks.base import Task
from harness.testing.laboratory import plan_cell
from tests.commands import run_apart, run_cli
from tests.record_factory import make_record, with_facts
from tests.toys import save_one

SHORT = {"LATENCY_SECONDS": 0.3, "THROUGHPUT_SECONDS": 0.2, "_BATCH_SECONDS": 0.02, "_SHORTEST_SECONDS": 0.05}


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in SHORT.items():
        monkeypatch.setattr(inference, name, seconds)


class Clockwork:
    """A model whose answers take a known time on a clock of its own.

    Args:
        most: the largest batch that fits in memory.
    """

    def __init__(self, most: int = 10**6) -> None:
        self.now = 0.0
        self.most = most
        self.alone: list[float] = []
        self._random = np.random.default_rng(0)

    def read(self) -> float:
        return self.now

    def answer(self, positions: Sequence[int]) -> None:
        if len(positions) > self.most:
            raise OutOfMemoryError("too many")
        seconds = 0.010 + 0.001 * len(positions)
        if len(positions) == 1:
            seconds += float(self._random.exponential(0.002))
            self.alone.append(seconds)
        elif len(positions) > 16:  # the cache of the processor is too small
            seconds *= 4
        self.now += seconds


def test_percentiles_are_those_of_numpy(cpu: Device) -> None:
    model = Clockwork()
    found = inference.measure_inference(model.answer, 300, cpu, weights_bytes=7, clock=model.read)
    assert found.n_latencies is not None
    measured = model.alone[3 : 3 + found.n_latencies]
    for percent in (50, 95, 99):
        assert getattr(found, f"latency_p{percent}_seconds") == pytest.approx(np.percentile(measured, percent))


def test_the_best_batch_is_found(cpu: Device) -> None:
    model = Clockwork()
    found = inference.measure_inference(model.answer, 300, cpu, weights_bytes=None, clock=model.read)
    assert found.batch_texts == 16
    assert found.texts_per_second == pytest.approx(16 / 0.026)
    assert found.memory_bytes is None


def test_a_batch_that_does_not_fit_ends_the_search(cpu: Device) -> None:
    model = Clockwork(most=4)
    found = inference.measure_inference(model.answer, 300, cpu, weights_bytes=7, clock=model.read)
    assert found.batch_texts == 4
    assert found.memory_bytes is not None
    assert found.memory_bytes >= 7
    with pytest.raises(OutOfMemoryError):
        inference.measure_inference(Clockwork(most=0).answer, 300, cpu, weights_bytes=7)


def test_too_few_latencies_have_no_high_percentile() -> None:
    assert inference.percentile([0.1] * 99, 99) is None
    assert inference.percentile([0.1] * 19, 95) is None
    assert inference.percentile([0.1], 50) == 0.1


def test_features_are_those_of_the_store(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    backbone, index = load_backbone(tiny), np.array([5, 2, 9])
    tokens = TokenStore().tokens(toy.test, toy.kind, backbone, 48)
    asked: tuple[Any, ...] = (toy.test, index, tokens, backbone, 48, "fp32")
    ours, theirs = DirectFeatures(cpu).pooled(*asked), FeatureStore(cpu, None).pooled(*asked)
    np.testing.assert_allclose(ours.values, theirs.values, atol=1e-6)
    assert ours.tokens == theirs.tokens


def measured(name: str, task: Task, files: BackboneFiles, device: Device, **how: Any) -> Record:
    planned: PlannedCell = plan_cell(task, files, methods.get(name)(**how), size="24")
    return Worker(device, None).run(Job(planned, files, "test", inference=True), task)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", ["lora", "linear-probe", "tfidf"])
def test_a_run_measures_the_use_of_its_model(name: str, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    record = measured(name, toy, tiny, cpu)
    assert record.status == "ok", record.error
    assert "inference" not in record.facts.missing
    found, other = record.facts.inference, record.facts.merged_inference
    assert found is not None
    assert found.latency_p50_seconds is not None
    assert found.texts_per_second is not None
    assert found.adapted_bytes == record.cost.artifact_bytes
    assert (other is not None) == (name == "lora")
    if name == "tfidf":
        assert (found.backbone_bytes, found.tokens_per_text) == (None, None)
    else:
        assert found.backbone_bytes == sum(path.stat().st_size for path in tiny.parts().values())
        assert record.facts.test_texts is not None
        assert found.tokens_per_text == pytest.approx(record.facts.test_texts.mean)
    if other is not None:
        assert other.load_seconds is None
        assert other.memory_bytes is not None
    assert Record.from_json(json.loads(json.dumps(record.to_json()))).facts == record.facts


@pytest.mark.usefixtures("brief")
def test_the_memory_of_a_prompt_contains_the_language_model(toy: Task, tiny_llama: BackboneFiles, cpu: Device) -> None:
    planned = plan_cell(toy, tiny_llama, methods.get("zero-shot")(), size="24")
    found = Worker(cpu, None).run(Job(planned, tiny_llama, "test", inference=True), toy).facts.inference
    assert found is not None
    assert found.memory_bytes is not None
    (model,) = load_backbone(tiny_llama).language_models
    assert found.memory_bytes > sum(value.nbytes for value in model.parameters())


@pytest.mark.usefixtures("brief")
def test_its_seconds_are_charged_to_nothing(
    toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = of_saved.measure_fitted

    def slow(*given: Any) -> Any:
        time.sleep(2)
        return real(*given)

    monkeypatch.setattr("harness.saved.measure_fitted", slow)
    began = time.perf_counter()
    record = measured("lora", toy, tiny, cpu, min_steps=2, epochs=1)
    without = time.perf_counter() - began - 2
    assert record.facts.inference is not None
    cost = record.cost
    phases = [cost.load_seconds, cost.warmup_seconds, cost.encode_seconds, cost.tune_seconds, cost.fit_seconds]
    assert sum(filter(None, [*phases, cost.predict_seconds, cost.measure_seconds])) < without
    assert record.provenance.wall_seconds is not None
    assert record.provenance.wall_seconds < without


def test_a_fault_loses_no_record(toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("out of ideas")

    monkeypatch.setattr("harness.saved.measure_fitted", broken)
    record = measured("tfidf", toy, tiny, cpu)
    assert record.status == "ok"
    assert record.score is not None
    assert record.facts.inference is None
    assert record.facts.missing["inference"] == "RuntimeError: out of ideas"


def test_it_is_off_by_default(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    planned = plan_cell(toy, tiny, methods.get("tfidf")(), size="24")
    record = Worker(cpu, None).run(Job(planned, tiny, "test"), toy)
    assert record.facts.inference is None
    assert record.facts.missing == {}


# ---- saved models


@pytest.fixture(scope="module")
def lora(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "lora"
    save_one("lora[learning_rate=0.1,precision=fp32]", toy, tiny, cpu, folder)
    return folder


def test_merged_and_converted_models_predict_the_same(lora: Path, toy: Task) -> None:
    model = load_model(lora, "cpu")
    texts = list(toy.test.texts)
    expected = model.probabilities(texts)
    np.testing.assert_allclose(model.merged().probabilities(texts), expected, atol=1e-5)
    np.testing.assert_allclose(model.converted_to_lora().probabilities(texts), expected, atol=1e-5)
    with pytest.raises(UnsupportedError, match="rank 5000"):
        model.converted_to_lora(5000)
    assert (model.probabilities(texts) == expected).all()


def test_a_low_rank_loses_what_the_singular_values_say(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    import torch

    save_one("loha[learning_rate=0.1,precision=fp32]", toy, tiny, cpu, tmp_path / "model")
    model = load_model(tmp_path / "model", "cpu")

    def additions(saved: Any) -> dict[str, torch.Tensor]:
        (member,) = saved._members
        layers = member.fitted.model.transformer.named_modules()
        return {
            name: layer.get_delta_weight("default").detach()
            for name, layer in layers
            if hasattr(layer, "get_delta_weight")
        }

    before, after = additions(model), additions(model.converted_to_lora(2))
    assert before.keys() == after.keys()
    for name, matrix in before.items():
        lost = torch.linalg.svdvals(matrix)[2:].norm()
        assert torch.linalg.matrix_rank(after[name], rtol=1e-4) <= 2
        assert float((matrix - after[name]).norm()) == pytest.approx(float(lost), rel=1e-3)


@pytest.mark.parametrize(("name", "why"), [("tfidf", "adds nothing"), ("prompt-tuning", "no part|not a part")])
def test_what_cannot_be_merged_is_refused(
    name: str, why: str, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    save_one(name, toy, tiny, cpu, tmp_path / "model")
    with pytest.raises(UnsupportedError, match=why):
        load_model(tmp_path / "model", "cpu").merged()


@pytest.mark.usefixtures("brief")
def test_a_saved_model_is_measured(lora: Path, toy: Task) -> None:
    found = measure_inference(lora, list(toy.test.texts), device="cpu")
    assert found.merged is not None
    assert found.why_not_merged is None
    assert found.n_texts == len(toy.test)
    files = [path for path in lora.rglob("*") if path.is_file()]
    assert found.as_fitted.saved_bytes == sum(path.stat().st_size for path in files)
    inside = [path for path in files if "transformer" in path.relative_to(lora).parts]
    assert found.as_fitted.backbone_bytes == sum(path.stat().st_size for path in inside)
    own = [lora / name for name in ("adapted.safetensors", "adapted.json")]
    assert found.as_fitted.adapted_bytes == sum(path.stat().st_size for path in own)
    assert found.as_fitted.load_seconds is not None
    assert found.as_fitted.load_seconds > 0


@pytest.mark.usefixtures("brief")
def test_the_command_prints_both_forms(lora: Path, toy: Task, tmp_path: Path) -> None:
    data = tmp_path / "new.csv"
    pd.DataFrame({"body": ["", *toy.test.texts]}).to_csv(data, index=False)
    asked = ["speed", "--model", str(lora), "--data", str(data), "--text", "body", "--device", "cpu"]
    printed = run_cli(*asked, cwd=tmp_path)
    assert "merged" in printed
    assert "one text, median" in printed
    found = json.loads(run_apart(*asked, "--json", cwd=tmp_path)[1])
    assert found["n_texts"] == len(toy.test)
    assert found["as_fitted"].keys() == {field.name for field in dataclasses.fields(Inference)}


def test_a_merged_model_writes_the_same_predictions(lora: Path, toy: Task, tmp_path: Path) -> None:
    data = tmp_path / "new.csv"
    pd.DataFrame({"text": toy.test.texts}).to_csv(data, index=False)
    asked = ["predict", "--model", str(lora), "--data", str(data), "--device", "cpu"]
    run_cli(*asked, "--out", str(tmp_path / "fitted.csv"), cwd=tmp_path)
    run_cli(*asked, "--out", str(tmp_path / "merged.csv"), "--merged", cwd=tmp_path)
    fitted, merged = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("fitted", "merged"))
    assert (fitted["prediction"] == merged["prediction"]).all()
    np.testing.assert_allclose(fitted["probability"], merged["probability"], atol=2e-6)


# ---- what can be done with a fit


def test_methods_are_found_by_what_can_be_done(tmp_path: Path) -> None:
    names = {cls.name for cls in methods_that_can(["merge", "vllm"])}
    assert {"lora", "rslora"} <= names
    assert not names & {"dora", "qlora", "full", "tfidf"}
    assert len(methods_that_can([])) == len(list(methods))
    with pytest.raises(UsageError, match=r"Unknown capability 'merged'\. Did you mean 'merge'\?"):
        methods_that_can(["merged"])
    listed = json.loads(run_apart("methods", "--can", "merge,quantise", "--json", cwd=tmp_path)[1])
    assert {one["method"] for one in listed} == {cls.name for cls in methods if {"merge", "quantise"} <= cls.can}
    assert all(list(one["can"]) == [name for name in CAPABILITIES if name in one["can"]] for one in listed)
    assert "Can merge: " in run_cli("methods", "ia3", cwd=tmp_path)


@pytest.mark.parametrize("name", sorted(cls.name for cls in methods_that_can(["quantise"])))
def test_what_adapts_a_quantised_backbone_has_gradients_on_one(name: str, cpu: Device) -> None:
    """The method's addition is put into a model whose linear layers are in 4 bits, and a backward pass reaches it."""
    import copy

    import torch
    from peft import get_peft_model

    from harness.methods._peft import PeftMethod
    from harness.tasks.base import kinds
    from harness.testing.laboratory import lab
    from harness.training.blocks import Stack
    from harness.training.quantised import quantise_linear_layers

    pytest.importorskip("bitsandbytes")
    cls = methods.get(name)
    if not issubclass(cls, PeftMethod) or "causal" not in cls.serves:
        pytest.skip("it adds nothing to a causal backbone")
    task = lab().task(kinds.get("classification"))
    bench = lab().bench(task, lab().backbone("causal"))
    transformer: Any = copy.deepcopy(bench.form.stored(bench))
    method = cls.model_validate({"precision": "fp32"})
    config: Any = method.peft_config(transformer, bench)  # by the widths of the matrices
    if getattr(config, "target_modules", ()) is None:
        config.target_modules = method.default_targets(transformer, str(config.peft_type.value))
    for block in Stack(transformer).blocks:
        quantise_linear_layers(block, torch.device("cpu"), "nf4", double_quantisation=True, computed_in=torch.float32)
    adapted: Any = get_peft_model(transformer, config)
    ids = torch.randint(5, 20, (2, 7), generator=torch.Generator().manual_seed(0))
    adapted(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.sum().backward()
    trained = [value for value in adapted.parameters() if value.requires_grad]
    assert trained
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in trained)


# ---- the report


def test_the_report_shows_it_and_prefers_quiet_cells() -> None:
    quiet = Inference(latency_p50_seconds=0.010, texts_per_second=200.0, batch_texts=8, memory_bytes=10**8)
    busy = Inference(latency_p50_seconds=0.050, texts_per_second=20.0, batch_texts=8, unsteady="other work")
    merged = dataclasses.replace(quiet, latency_p50_seconds=0.008)
    records = [
        with_facts(make_record("lora", 32, 0), inference=quiet, merged_inference=merged),
        with_facts(make_record("lora", 32, 1), inference=busy),
        make_record("full", 32, 0),
    ]
    (row,) = uses(ReportData(records)).to_dict("records")
    assert (row["n_cells"], row["n_unsteady"]) == (2, 1)
    assert (row["text_p50_seconds"], row["merged_text_p50_seconds"]) == (0.010, 0.008)
    frame = tidy_frame(records)
    assert set(INFERENCE_COLUMNS) <= set(frame.columns)
    assert frame["text_p50_seconds"].isna().tolist() == [False, False, True]
