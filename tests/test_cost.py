"""What cells will cost: the closed form against what is counted, estimates against what records say."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.backbones.shapes import write_shape
from harness.cost.closed_form import amount
from harness.cost.estimate import LIGHT_STEP_SECONDS, Estimator, total_seconds
from harness.cost.fitting import first_that_fits
from harness.cost.probe import make_probe
from harness.cost.shape import read_shape
from harness.measure.device import Device
from harness.measure.flops import count_flops
from harness.methods import methods
from harness.methods.configure import parse_methods
from harness.records.record import Budget, Record
from harness.records.workload import Workload
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.support.errors import UsageError
from harness.tasks import Task
from tests.toys import plan_one, run_one


@pytest.mark.parametrize("which", ["tiny", "tiny_llama", "tiny_t5", "minilm"])
def test_operations_of_a_forward_pass_are_what_is_counted(which: str, request: pytest.FixtureRequest) -> None:
    files: BackboneFiles = request.getfixturevalue(which)
    shape = read_shape(files.folder)
    assert shape is not None
    model = load_backbone(files).pristine
    ids = torch.randint(6, 20, (4, 24))
    counted = count_flops(lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids)))
    assert shape.forward_flops(4 * 24, 24) == pytest.approx(counted, rel=0.02)
    left_out = ("position_embeddings", "token_type_embeddings", "relative_attention_bias")
    matrices = [
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and not any(part in name for part in left_out)
    ]
    assert shape.n_parameters == sum(matrices)


# Of a block's matrices, written out from the models' own papers (multiply-adds a token), and attention's width.
MATRICES = {
    "bert-base-like": (12, 4 * 768**2 + 2 * 768 * 3072, 768),
    "bert-large-like": (24, 4 * 1024**2 + 2 * 1024 * 4096, 1024),
    "llama-3.2-1b-like": (16, 2 * 2048**2 + 2 * 2048 * 512 + 3 * 2048 * 8192, 2048),
    "llama-3.2-3b-like": (28, 2 * 3072**2 + 2 * 3072 * 1024 + 3 * 3072 * 8192, 3072),
    "llama-3.1-8b-like": (32, 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336, 4096),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_step_of_a_published_shape_is_what_is_counted(name: str, tmp_path: Path) -> None:
    """Forward and backward, on no device: nothing is computed, and all of it is counted."""
    write_shape(name, tmp_path)
    shape = read_shape(tmp_path)
    assert shape is not None
    n_blocks, matrices, width = MATRICES[name]
    rows, length = 4, 128
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.from_pretrained(tmp_path), attn_implementation="sdpa")
        ids = torch.ones(rows, length, dtype=torch.long)
        counted = count_flops(lambda: model(input_ids=ids).last_hidden_state.sum().backward())
    expected = 3 * rows * length * n_blocks * (2 * matrices + 4 * length * width)
    assert counted == pytest.approx(expected, rel=0.05)
    assert 3 * shape.forward_flops(rows * length, length) == pytest.approx(counted, rel=0.05)


def test_sizes_that_transformers_knows_under_other_names(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gpt2", n_layer=3, n_embd=32, n_head=2, vocab_size=50, n_positions=32)
    config.save_pretrained(tmp_path)
    shape = read_shape(tmp_path)
    assert shape is not None
    model = AutoModel.from_config(config)
    ids = torch.randint(0, 50, (2, 16))
    counted = count_flops(lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids)))
    assert shape.forward_flops(2 * 16, 16) == pytest.approx(counted, rel=0.02)
    (tmp_path / "config.json").write_text("{}")
    read_shape.cache_clear()
    assert read_shape(tmp_path) is None


@pytest.mark.parametrize("name", ["full", "lora", "bitfit", "last-layers", "head"])
def test_operations_of_training_are_near_what_records_count(
    name: str, toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    method = methods.get(name)()
    planned = plan_one(toy, tiny, method, size="96", budget=Budget(epochs=2))
    record = Worker(cpu, None).run(Job(planned, tiny, "tests"), toy)
    expected = amount(planned, toy, tiny)
    assert record.cost.train_flops is not None
    # The texts' tokens are guessed from their characters, and padding is not: hence the width. On so small a model what
    # methods add to it weighs more than on any real one.
    assert 0.4 < expected.train_flops / record.cost.train_flops < 2.5


def test_work_of_a_fit() -> None:
    full, lora = methods.get("full")(), methods.get("lora")()
    assert full.workload(64, Budget(epochs=3), 6) == Workload(
        steps=12, texts_per_step=16, passes_per_text=3.0, share_trained=1.0, texts_per_answer=1.0
    )
    assert full.workload(64, Budget(epochs=3, steps=5), 6).steps == 5
    assert full.workload(64, Budget(), 6).steps == 120  # its least
    assert lora.workload(64, Budget(epochs=3), 6).passes_per_text == 2.0
    last = methods.get("last-layers")().workload(64, Budget(epochs=3), 6)
    assert (last.encoded, last.passes_per_text) == (pytest.approx(64 * 4 / 6), pytest.approx(1.0))
    assert methods.get("linear-probe")().workload(64, Budget(), 6).reads_features
    assert not full.workload(64, Budget(), 6).reads_features
    assert methods.get("majority")().workload(64, Budget(), 6) == Workload()
    assert methods.get("few-shot")(k=4).workload(64, Budget(), 6).texts_per_answer == 5.0


def test_compared_wordings_and_draws_are_part_of_a_plan(toy: Task, tiny_llama: BackboneFiles) -> None:
    def of(**settings: Any) -> Any:
        method = methods.get("few-shot")(k=4, **settings)
        return amount(plan_one(toy, tiny_llama, method, size="64"), toy, tiny_llama)

    n_wordings = len(toy.kind.wordings(toy.label_words))
    whole = of()
    each = whole.train_flops / (60 * n_wordings)  # 64 labels less 4 demonstrations
    assert each == pytest.approx(whole.predict_flops / toy.n_test, rel=0.2)  # training rows differ a little in length
    assert whole.train_launches > 0
    assert of(choose="validated").train_flops == pytest.approx(each * (60 * n_wordings + 8 * 32))
    assert of(n_template_rows=10).train_flops == pytest.approx(each * 10 * n_wordings)
    assert of(n_template_rows=0).train_flops == of(template="{text} :").train_flops == 0
    worded = dataclasses.replace(toy, prompt="Help: {text}")
    assert (
        amount(plan_one(worded, tiny_llama, methods.get("few-shot")(), size="64"), worded, tiny_llama).train_flops == 0
    )


def test_only_prompts_write_the_parts_of_a_text(toy_kinds: dict[str, Task], tiny: BackboneFiles) -> None:
    task = toy_kinds["question-answering"]
    assert task.reply is not None
    planned = plan_one(task, tiny, methods.get("head")(), size="32")
    assert amount(planned, task, tiny) == amount(planned, dataclasses.replace(task, reply=None), tiny)


def test_halving_goes_down_to_single_rows_and_then_computes_blocks_again() -> None:
    def forms(name: str) -> list[tuple[int, bool]]:
        method: Any = methods.get(name)()
        found = [(method.accumulation, method.gradient_checkpointing)]
        while (method := method.halved()) is not None:
            found.append((method.accumulation, method.gradient_checkpointing))
            methods.get(name)(**method.config())  # what is refused when it is asked for is not tried either
        return found

    pieces = [(1, False), (2, False), (4, False), (8, False), (16, False)]
    assert forms("full") == [*pieces, (16, True)]
    assert forms("prefix-tuning") == pieces
    assert methods.get("head")().halved() is None
    assert methods.get("majority")().halved() is None


def test_the_form_that_fits_is_the_least_changed(tmp_path: Path, toy: Task, cpu: Device) -> None:
    files = write_shape("bert-base-like", tmp_path)
    estimator = Estimator({toy.name: toy}, cpu)
    planned = plan_one(toy, files, methods.get("full")(batch_size=64, precision="fp32"), size="96")
    whole = estimator.estimate(planned).peak_bytes
    assert first_that_fits(planned, estimator, whole) is None
    fits = first_that_fits(planned, estimator, 0.999 * whole)
    assert fits is not None
    assert fits.planned.method_in_full == "full[batch_size=64, accumulation=2, precision=fp32]"
    assert parse_methods([fits.planned.method_in_full])[0].config() == fits.planned.cell.config  # a user may copy it
    assert fits.peak_bytes < whole
    rows = plan_one(toy, files, methods.get("full")(batch_size=64, accumulation=64, precision="fp32"), size="96")
    least = first_that_fits(planned, estimator, 0.999 * estimator.estimate(rows).peak_bytes)
    assert least is not None
    assert least.planned.method.halved() is None
    assert (
        least.planned.method_in_full
        == "full[batch_size=64, accumulation=64, precision=fp32, gradient_checkpointing=true]"
    )
    assert first_that_fits(planned, estimator, 4.0 * 85e6) is None  # its weights alone are more


@pytest.fixture(scope="module")
def measured(toy: Task, tiny: BackboneFiles, cpu: Device) -> Record:
    return run_one(toy, tiny, methods.get("full")(), cpu, size="32", budget=Budget(epochs=2))


def estimator_of(toy: Task, tiny: BackboneFiles, cpu: Device) -> Estimator:
    return Estimator({toy.name: toy}, cpu)


def test_records_are_carried_over_by_the_closed_form(
    measured: Record, toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    estimator = estimator_of(toy, tiny, cpu)
    full = methods.get("full")()
    known = plan_one(toy, tiny, full, size="32", budget=Budget(epochs=2))
    before = estimator.estimate(known)
    assert before.basis == "formula"
    assert not estimator.measured(known)
    estimator.add(measured, known)
    same = estimator.estimate(known)
    cost = measured.cost
    assert same.basis == "records"
    assert same.seconds == pytest.approx(measured.provenance.wall_seconds)
    assert same.train_seconds == pytest.approx(cost.train_seconds)
    assert same.peak_bytes == pytest.approx(cost.peak_rss_above_baseline_bytes)
    three_times = estimator.estimate(plan_one(toy, tiny, full, size="96", budget=Budget(epochs=2)))
    assert three_times.train_seconds == pytest.approx(3 * same.train_seconds)
    capped = estimator.estimate(plan_one(toy, tiny, full, size="96", budget=Budget(epochs=2, train_seconds=0.01)))
    assert capped.train_seconds == 0.01
    assert capped.seconds < three_times.seconds
    other = estimator.estimate(plan_one(toy, tiny, full.model_copy(update={"learning_rate": 1e-3})))
    assert other.basis == "formula"  # another configuration: nothing is known of it, but the device's speed
    assert estimator.estimate(plan_one(toy, tiny, full, size="32", seed=7, budget=Budget(epochs=2))) == same


def test_what_is_done_with_features_says_nothing_of_the_transformers_speed(
    measured: Record, toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    """A probe that spent 9 of 10 seconds on choosing its penalty read its texts in one."""
    probe, full, head = (plan_one(toy, tiny, methods.get(name)()) for name in ("linear-probe", "full", "head"))
    cost = dataclasses.replace(measured.cost, encode_seconds=1.0, tune_seconds=9.0, fit_seconds=0.0, stopped_by=None)
    estimator = estimator_of(toy, tiny, cpu)
    estimator.add(dataclasses.replace(measured, cost=cost), probe)
    speed = amount(probe, toy, tiny).train_flops / 1.0
    assert estimator.flops_per_second() == pytest.approx(speed)
    assert estimator.estimate(full).train_seconds == pytest.approx(amount(full, toy, tiny).train_flops / speed)
    steps = head.method.workload(head.cell.n_train, Budget(), 2).steps
    assert amount(head, toy, tiny).light_steps == steps > 0
    assert estimator.estimate(head).train_seconds == pytest.approx(1.0 + steps * LIGHT_STEP_SECONDS)


def test_other_devices_and_failures_teach_nothing(
    measured: Record, toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    estimator = estimator_of(toy, tiny, cpu)
    planned = plan_one(toy, tiny, methods.get("full")(), size="32", budget=Budget(epochs=2))
    estimator.add(dataclasses.replace(measured, device="another"), planned)
    estimator.add(dataclasses.replace(measured, status="failed", score=None, error="x"), planned)
    assert estimator.estimate(planned).basis == "formula"


def test_what_is_kept_of_many_records_is_bounded(measured: Record, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    estimator = estimator_of(toy, tiny, cpu)
    planned = plan_one(toy, tiny, methods.get("full")(), size="32", budget=Budget(epochs=2))
    for _ in range(1000):
        estimator.add(measured, planned)
    [by_task] = estimator._figures.values()
    [by_size] = by_task.values()
    assert sum(map(len, by_size.values())) < 100
    assert len(estimator._rates) < 100


def test_features_are_encoded_once_in_a_total(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    estimator = estimator_of(toy, tiny, cpu)
    probes = [plan_one(toy, tiny, methods.get("linear-probe")(), size=size) for size in ("24", "48", "96")]
    alone = [estimator.estimate(planned).seconds for planned in probes]
    assert total_seconds(probes, estimator) == pytest.approx(max(alone) + 2 * 1.0)
    full = [plan_one(toy, tiny, methods.get("full")(), size="24", seed=seed) for seed in (0, 1)]
    assert total_seconds(full, estimator) == pytest.approx(2 * estimator.estimate(full[0]).seconds)


@pytest.mark.parametrize("name", ["full", "lora", "linear-probe", "tfidf"])
def test_a_probe_predicts_a_whole_cell(name: str, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path) -> None:
    method = methods.get(name)()
    files = tiny if method.serves else None
    planned = plan_one(toy, files, method, size="96", budget=Budget(epochs=4) if method.serves else None)
    probe = make_probe(planned, toy, files, memory_bytes=1e12, flops_per_second=1e10, folder=tmp_path)
    assert probe.n_blocks is None
    steps = [cell.cell.budget.steps for cell in probe.cells]
    assert steps == ([2, 6] if name in ("full", "lora") else [None])
    slow = make_probe(planned, toy, files, memory_bytes=1e12, flops_per_second=1e4, folder=tmp_path)
    assert [cell.cell.budget.steps for cell in slow.cells] == ([1, 2] if name in ("full", "lora") else [None])
    worker = Worker(cpu, None)
    records = [worker.run(Job(cell, files, "probe"), probe.task) for cell in probe.cells]
    assert [record.status for record in records] == ["ok"] * len(records)
    estimator = estimator_of(toy, tiny, cpu)
    estimator.add_figure(planned, probe.figure(records))
    found = estimator.estimate(planned)
    assert found.basis == "probe"
    actual = worker.run(Job(planned, files, "tests"), toy).cost
    assert actual.train_seconds is not None
    assert found.train_seconds < 20 * actual.train_seconds + 0.5
    assert actual.train_seconds < 20 * found.train_seconds + 0.5


def test_a_backbone_that_is_too_large_is_probed_on_its_first_blocks(
    toy: Task, tmp_path: Path, cpu: Device, tiny: BackboneFiles
) -> None:
    from tests.toys import save_tiny_bert

    deep = locate_backbone(str(save_tiny_bert(tmp_path / "deep", layers=12)))
    planned = plan_one(toy, deep, methods.get("full")())
    probe = make_probe(planned, toy, deep, memory_bytes=1e6, flops_per_second=1e10, folder=tmp_path / "cut")
    assert probe.n_blocks == 2
    assert probe.files is not None
    assert read_shape(probe.files.folder).n_blocks == 2  # type: ignore[union-attr]
    record = Worker(cpu, None).run(Job(probe.cells[0], probe.files, "probe"), probe.task)
    assert record.status == "ok", record.error
    figure = probe.figure([record])
    whole = amount(planned, toy, deep)
    steps = planned.method.workload(24, Budget(), 12).steps
    assert whole.train_flops / figure.amount.train_flops == pytest.approx(12 / 2 * steps / 6, rel=0.01)


def test_a_backbone_without_weights_can_be_probed_and_not_run(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(tiny.folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(UsageError, match=r"no \.safetensors file"):
        locate_backbone(str(folder))
    files = locate_backbone(str(folder), weights=False)
    assert not files.has_weights
    record = run_one(toy, files, methods.get("lora")(), cpu, budget=Budget(steps=2))
    assert record.status == "ok", record.error
