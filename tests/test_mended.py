"""Faults of version 1: they are mended, and only the cells that they made wrong have another identity."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.data.sampling import carve_validation
from harness.forecast.evidence import gather
from harness.measure import flops
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._fine_tuning import FineTuning
from harness.records.labels import variants
from harness.records.record import Budget, Cell
from harness.running.worker import Worker
from harness.support.errors import UnsupportedError
from harness.tasks import Task
from harness.training.blocks import Stack
from harness.training.dropout import set_dropout
from harness.training.loop import Optimisation, ParameterGroup, train
from tests.record_factory import make_record
from tests.tiny_architectures import ARCHITECTURES
from tests.toy_kinds import toy_task
from tests.toys import make_bench, plan_one, run_one

CPU = torch.device("cpu")


# ---- identities


def version(method: str, files: BackboneFiles, toy: Task, **settings: Any) -> int:
    return plan_one(toy, files, methods.get(method)(**settings)).cell.version  # type: ignore[call-arg]


def test_only_cells_that_were_wrong_have_another_identity(find: Any, tiny: BackboneFiles, toy: Task) -> None:
    for name in methods.names():
        cls = methods.get(name)
        if cls.serves:
            assert version(name, tiny, toy) == cls.version, name
    assert version("bitfit", find("modernbert"), toy) == 2  # version 1 trained nothing there
    assert version("last-layers", find("bart"), toy) == 2
    assert version("lora", find("bart"), toy) == 1
    assert version("last-layers", find("deberta-v2"), toy) == 1
    assert version("last-layers", find("deberta-v2-conv"), toy) == 2
    assert version("ia3", find("qwen2"), toy) == 3
    assert version("ia3", find("llama"), toy) == 2
    assert version("lora", find("distilbert"), toy) == 2  # version 1 recorded it as unsupported
    assert version("lora", find("distilbert"), toy, targets="all-linear") == 1


def test_settings_that_did_something_else_have_another_identity(find: Any, tiny: BackboneFiles, toy: Task) -> None:
    assert version("full", tiny, toy, patience=2) == 1
    assert version("full", tiny, toy, patience=2, validation_fraction=0.25) == 1
    assert version("full", tiny, toy, validation_fraction=0.4) == 1  # of no effect without patience
    assert version("full", tiny, toy, patience=2, validation_fraction=0.4) == 2
    assert version("full", tiny, toy, transformer_dropout=0.2) == 1
    assert version("full", find("bart"), toy, transformer_dropout=0.2) == 2


def test_a_version_on_one_backbone_leaves_the_evidence_of_others() -> None:
    def records(backbone: str, of_version: int) -> list[Any]:
        made = [make_record("last-layers", 32, seed) for seed in range(2)]
        return [replace(r, cell=replace(r.cell, backbone=backbone, version=of_version)) for r in made]

    evidence = gather([*records("bert", 1), *records("bart", 1), *records("bart", 2)])
    assert sorted((point.backbone, point.n_records) for point in evidence.points) == [("bart", 2), ("bert", 2)]


def test_versions_of_several_backbones_are_one_method_in_a_table() -> None:
    cell: Cell = make_record("lora", 32, 0).cell
    on_bert, on_bart = replace(cell, backbone="bert", version=1), replace(cell, backbone="bart", version=2)
    assert variants([on_bert, on_bart], [{}, {}]) == ["lora", "lora"]
    assert variants([on_bert, replace(on_bert, version=2)], [{}, {}]) == ["lora[version=1]", "lora[version=2]"]


# ---- what is refused


def test_a_method_that_trains_nothing_is_refused_when_planned(find: Any) -> None:
    class TrainsNothing(FineTuning):
        """Names parameters that no transformer has."""

        name = "trains-nothing"
        family = trains = source = "nothing"
        share_trained = 0.0

        def select_trainable(self, transformer: nn.Module) -> Any:
            return (value for name, value in transformer.named_parameters() if "nowhere" in name)

    reason = TrainsNothing().why_unsupported("classification", find("gpt2"), "cpu")
    assert reason is not None
    assert "there is nothing of that kind" in reason


def test_parameters_that_the_loss_does_not_depend_on_are_refused(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    from harness.training.batches import FeatureBatches

    used, unused = nn.Linear(4, 3), nn.Linear(4, 3)
    batches = FeatureBatches(np.ones((6, 4), np.float32), np.zeros(6, np.int64), batch_size=3, seed=0, device=CPU)
    with pytest.raises(UnsupportedError, match="15 numbers"):
        train(
            forward=lambda batch: used(*batch.inputs),
            loss=lambda outputs, targets, _: nn.functional.cross_entropy(outputs, targets),
            batches=batches,
            groups=[ParameterGroup(list(unused.parameters()), 1e-3), ParameterGroup(list(used.parameters()), 1e-3)],
            optimisation=Optimisation(),
            progress=make_bench(toy, tiny, cpu).progress(2, 2),
            flops=None,
            device=CPU,
            precision="fp32",
            on_step=lambda *_: None,
        )


@pytest.mark.parametrize("name", ["full", "linear-probe", "last-layers", "setfit"])
def test_operations_that_cannot_be_counted_cost_no_score(
    name: str, toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> float:
        raise ValueError("no such operation\nand more")

    monkeypatch.setattr(flops, "count_flops", fails)
    method = methods.get(name)()
    record = run_one(toy, tiny, method, cpu, worker=Worker(cpu, None), budget=Budget(steps=3, train_seconds=60))
    assert record.status == "ok", record.error
    assert record.score is not None
    assert record.cost.train_flops is None
    assert record.facts.missing["train_flops"] == "ValueError: no such operation"
    assert all(point.flops is None for point in record.curve)
    refused = run_one(toy, tiny, method, cpu, worker=Worker(cpu, None), budget=Budget(train_flops=1e9))
    assert refused.status == "unsupported"
    assert "Give a budget of seconds" in str(refused.error)


# ---- what is computed


def test_operations_of_positions_that_rows_share_are_counted(find: Any) -> None:
    """A DeBERTa of the first version multiplies as many relative positions as a text is long, once a batch."""
    model = load_backbone(find("deberta")).pristine

    def run(n_rows: int, length: int) -> None:
        ids = torch.ones((n_rows, length), dtype=torch.long)
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))

    fitted = flops.fit_flops(run)
    for n_rows, length in ((1, 5), (6, 20), (3, 50)):
        assert fitted.batch(n_rows, length) == pytest.approx(flops.count_flops(lambda: run(n_rows, length)), rel=1e-6)  # noqa: B023
    assert 4 * fitted.share(20, 4) == pytest.approx(fitted.batch(4, 20) + 3 * fitted.constant, rel=1e-6)


@pytest.mark.parametrize("fraction", [0.1, 0.15, 0.2, 0.25, 0.29, 0.3, 1 / 3, 0.4, 0.45, 0.5])
def test_early_stopping_sets_aside_the_share_that_is_asked_for(fraction: float) -> None:
    labels = np.random.default_rng(0).integers(0, 3, size=600)
    inside, outside = carve_validation(labels, fraction)
    assert sorted([*inside, *outside]) == list(range(600))
    for label in range(3):
        n, n_outside = int((labels == label).sum()), int((labels[outside] == label).sum())
        assert 0 <= fraction * n - n_outside < 1 + 1e-9
    fewer = carve_validation(labels[:200], fraction)[1]
    assert set(fewer) == {row for row in outside if row < 200}  # what a smaller size validates on, a larger one does
    if fraction in (0.1, 0.2, 0.25, 0.5):
        rank = [int((labels[:row] == labels[row]).sum()) for row in range(600)]
        period = round(1 / fraction)  # version 1's rule, where it was right
        assert list(outside) == [row for row in range(600) if rank[row] % period == period - 1]


DROPPING = ["bart", "bloom", "falcon", "t5", "xlm"]


@pytest.mark.parametrize(
    "name", [*DROPPING, *(pytest.param(n, marks=pytest.mark.slow) for n in ARCHITECTURES if n not in DROPPING)]
)
def test_no_dropout_is_left(name: str, find: Any) -> None:
    """Every rate of the configuration is 1/2; with all set to 0, two passes in training agree."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(find(name).folder)
    for key, value in list(vars(config).items()):
        if "drop" in key and "layer" not in key and isinstance(value, (int, float)) and not isinstance(value, bool):
            setattr(config, key, 0.5)
    model: Any = AutoModel.from_config(config)
    model = (model.get_encoder() if config.is_encoder_decoder else model).train()
    ids = torch.arange(2, 9).unsqueeze(0)

    def differ() -> bool:
        with torch.no_grad():
            first, second = (model(input_ids=ids, attention_mask=torch.ones_like(ids))[0] for _ in range(2))
        return not torch.equal(first, second)

    assert differ() == (name != "mamba")  # a Mamba has no dropout
    set_dropout(model, 0.0)
    assert not differ()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_adalora_prunes_whatever_the_first_step_spends(steps: int, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    method: Any = methods.get("adalora")(rank=4)  # type: ignore[call-arg]
    record = run_one(toy, tiny, method, cpu, budget=Budget(steps=steps))
    assert record.status == "ok", record.error
    fitted = method.fit(Worker(cpu, None).training_rows(toy, 24, 0, "stratified"),
                        make_bench(toy, tiny, cpu, budget=Budget(steps=steps)))  # fmt: skip
    kept = [value for name, value in fitted.model.named_parameters() if "lora_E" in name]
    assert sum(int((value != 0).sum()) for value in kept) <= method.rank * len(kept)


# ---- what is adapted


LORA = {
    "bert": (2, 32 + 32),
    "distilbert": (2, 32 + 32),
    "mpnet": (2, 32 + 32),
    "albert": (2 / 3, 32 + 32),
    "modernbert": (1, 32 + 96),
    "mbart": (2, 32 + 32),
    "xlm": (2, 32 + 32),
    "llama": (1, 32 + 32 + 32 + 16),
}
"""Matrices a block that LoRA is added to, and the rows and columns of each: queries and values, or all in one."""


@pytest.mark.parametrize("name", LORA)
def test_lora_adapts_queries_and_values(name: str, find: Any, toy: Task, cpu: Device) -> None:
    method: Any = methods.get("lora")(rank=4)  # type: ignore[call-arg]
    model = method.build(make_bench(toy, find(name), cpu))
    n_matrices, sizes = LORA[name]
    trained = sum(value.numel() for value in model.transformer.parameters() if value.requires_grad)
    assert trained == round(3 * n_matrices) * sizes * 4


IA3 = {
    "bert": ({"key", "value"}, "output.dense"),
    "deberta-v2": ({"key_proj", "value_proj"}, "output.dense"),
    "distilbert": ({"k_lin", "v_lin"}, "ffn.lin2"),
    "opt": ({"k_proj", "v_proj"}, "fc2"),
    "bart": ({"k_proj", "v_proj"}, "fc2"),
    "phi": ({"k_proj", "v_proj"}, "mlp.fc2"),
    "qwen2": ({"k_proj", "v_proj"}, "mlp.down_proj"),
    "gemma2": ({"k_proj", "v_proj"}, "mlp.down_proj"),
    "t5": ({"k", "v"}, "DenseReluDense.wo"),
    "modernbert": ({"Wqkv"}, "mlp.Wo"),
}
"""Modules that the paper names: keys, values, and the input of the last layer of the feed-forward network."""


@pytest.mark.parametrize("name", IA3)
def test_ia3_rescales_keys_values_and_inner_activations(name: str, find: Any, toy: Task, cpu: Device) -> None:
    from peft.tuners.ia3.layer import IA3Layer

    model: Any = methods.get("ia3")().build(make_bench(toy, find(name), cpu))  # type: ignore[attr-defined]
    found = {key: layer for key, layer in model.named_modules() if isinstance(layer, IA3Layer)}
    outside = {key for key, layer in found.items() if not layer.is_feedforward}
    inside = {key for key, layer in found.items() if layer.is_feedforward}
    kept, end = IA3[name]
    assert {key.rpartition(".")[2] for key in outside} == kept
    assert all(key.endswith(end) and "attention.output" not in key for key in inside)
    assert (len(outside), len(inside)) == (3 * len(kept), 3)


def test_adapters_stand_in_both_stacks_where_texts_are_written(find: Any, cpu: Device, tmp_path: Path) -> None:
    task = toy_task("translation", tmp_path)
    files = find("bart")
    method: Any = methods.get("bottleneck-adapter")()
    model = method.build(make_bench(task, files, cpu))
    places = [name for name, module in model.transformer.named_modules() if type(module).__name__ == "WithAdapter"]
    assert len([name for name in places if ".encoder." in name]) == 3 * 2
    assert len([name for name in places if ".decoder." in name]) == 3 * 3  # attention to the encoder is one more
    assert plan_one(task, files, method).cell.version == 2


def test_stacks_of_different_heights_are_told_apart() -> None:
    from transformers import BartConfig, BartModel

    config = BartConfig(
        vocab_size=50, d_model=16, encoder_layers=3, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=40,
    )  # fmt: skip
    model = BartModel(config)
    required = [value.requires_grad for value in model.parameters()]
    assert len(Stack(model).all_blocks) == 5
    depths = Stack(model).parameters_by_depth()
    names = {id(value): name for name, value in model.named_parameters()}
    assert {names[id(value)].rpartition(".")[0] for value in depths[0]} == {
        *("shared", "encoder.embed_positions", "encoder.layernorm_embedding"),
        *("decoder.embed_positions", "decoder.layernorm_embedding"),
    }
    for at, stack, block in ((1, "encoder", 0), (3, "encoder", 2), (4, "decoder", 0), (5, "decoder", 1)):
        assert all(names[id(value)].startswith(f"{stack}.layers.{block}.") for value in depths[at])
    assert not model.training or model.training == model.encoder.training
    assert [value.requires_grad for value in model.parameters()] == required


_TWICE = """
import sys
from pathlib import Path
from harness.backbones.locate import DEFAULT_BACKBONE, locate_backbone
from harness.running.worker import Worker
from harness.measure.device import find_device
from harness.methods import methods
from harness.records.record import Budget
from harness.tasks import kinds
from tests.toys import run_one, write_toy_table
cpu = find_device("cpu")
task = kinds.get("classification").prepare(write_toy_table(Path(sys.argv[1])), None)
worker, files = Worker(cpu, None), locate_backbone(DEFAULT_BACKBONE)
for _ in range(2):
    method = methods.get(sys.argv[2])(precision="fp32")
    record = run_one(task, files, method, cpu, worker=worker, budget=Budget(steps=6))
    print("BYTES", record.cost.fit_peak_bytes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "lora"])
def test_the_first_cell_of_a_process_counts_as_much_memory_as_the_second(name: str, tmp_path: Path) -> None:
    """Version 1 counted about 45 MB more: pages of weights and of torch's code, read for the first time."""
    done = subprocess.run(
        [sys.executable, "-c", _TWICE, str(tmp_path / "toy.csv"), name],
        capture_output=True, text=True, check=True, timeout=300, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    first, second = (int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("BYTES"))
    assert abs(first - second) < 15e6
