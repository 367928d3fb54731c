"""Versions of methods: which cells have a later one, and what follows for evidence, labels and saved models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.forecast.evidence import gather
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._by_depth import MISORDERED
from harness.methods._fine_tuning import _KEPT_A_RATE
from harness.methods._peft import _NAMED_BY_PEFT
from harness.methods.artifact import ARTIFACT_SETTINGS, artifact_size_bytes, load_artifact, save_artifact
from harness.methods.ia3 import _RIGHT_IN_2
from harness.records.labels import variants
from harness.support.errors import UnsupportedError, UsageError
from harness.tasks import Task
from harness.training.blocks import Stack
from tests.record_factory import make_record
from tests.tiny_architectures import save_tiny
from tests.toys import make_bench, run_one, test_rows

# ---- model types


@pytest.mark.parametrize(
    ("method", "settings", "model_type", "architecture", "form", "expected"),
    [
        *(
            ("bottleneck-adapter", {}, name, "causal", form, 2)
            for name in ("gptj", "codegen", "modernbert-decoder")
            for form in ("classes", "text")
        ),
        *(
            ("bottleneck-adapter", {}, name, "sequence-to-sequence", "classes", 2)
            for name in ("bigbird_pegasus", "led", "prophetnet")
        ),
        ("bottleneck-adapter", {}, "xmod", "encoder", "classes", 2),
        ("bottleneck-adapter", {}, "t5", "sequence-to-sequence", "classes", 1),
        ("bottleneck-adapter", {}, "t5", "sequence-to-sequence", "text", 2),
        ("bottleneck-adapter", {}, "bert", "encoder", "classes", 1),
        ("ia3", {}, "mt5", "sequence-to-sequence", "classes", 3),
        ("ia3", {}, "t5", "sequence-to-sequence", "classes", 2),
        *(
            ("full", {"transformer_dropout": 0.5}, name, "causal", "classes", 2)
            for name in ("starcoder2", "gpt_bigcode")
        ),
        *(("full", {}, name, "causal", "classes", 1) for name in ("starcoder2", "gpt_bigcode")),
    ],
)
def test_a_cell_that_version_1_refused_or_got_wrong_has_a_later_version(
    method: str, settings: Any, model_type: str, architecture: Any, form: Any, expected: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    files = BackboneFiles("b", tmp_path, "f" * 64, architecture, "mean", None, "local folder")
    assert methods.get(method)(**settings).version_on(files, form) == expected


def test_every_model_type_of_the_tables_is_one_of_transformers() -> None:
    """A misspelt type would leave a wrong cell with its old identity."""
    from transformers import CONFIG_MAPPING

    named = {*MISORDERED, *_KEPT_A_RATE, *_RIGHT_IN_2}
    for name in methods.names():
        named |= {*methods.get(name).mended}
    assert len(named) > 30
    assert sorted(named - set(CONFIG_MAPPING.keys())) == []
    assert len(_NAMED_BY_PEFT & set(CONFIG_MAPPING.keys())) > 20  # peft names some that transformers lacks


def test_a_method_says_where_a_later_version_applies() -> None:
    wide = "one more on backbones wider than 384, with the default learning rate"
    assert methods.get("full").later_versions() == wide
    assert methods.get("bitfit").later_versions().startswith("version 2 on ")
    assert "; version 2 on sequence-to-sequence" in methods.get("bottleneck-adapter").later_versions()
    assert "modernbert-decoder" in methods.get("bottleneck-adapter").later_versions()
    assert methods.get("prompt-tuning").later_versions() == wide
    assert methods.get("from-scratch").later_versions() == ""


# ---- evidence and labels


def test_a_version_for_one_kind_of_task_leaves_the_evidence_of_others() -> None:
    classes = [make_record("bottleneck-adapter", 32, seed, task="trec", kind="classification") for seed in range(2)]
    texts = [
        make_record("bottleneck-adapter", 32, 0, task="e2e", kind="generation", version=number) for number in (1, 2)
    ]
    points = gather([*classes, *texts]).points
    assert sorted((point.task, point.method, point.n_records) for point in points) == [
        ("e2e", "bottleneck-adapter", 1),
        ("trec", "bottleneck-adapter", 2),
    ]


def test_versions_of_several_tasks_are_one_method_in_a_table() -> None:
    cells = [make_record("lora", 32, 0, task=task, version=number).cell for task, number in (("trec", 1), ("e2e", 2))]
    assert variants(cells, [{}, {}]) == ["lora", "lora"]
    cells.append(replace(cells[1], version=1))
    assert variants(cells, [{}] * 3) == ["lora[version=1]", "lora[version=2]", "lora[version=1]"]


# ---- the order of computation


def tiny_funnel(folder: Path, block_sizes: list[int]) -> BackboneFiles:
    from transformers import AutoTokenizer, FunnelConfig, FunnelModel

    tokenizer = AutoTokenizer.from_pretrained(save_tiny("bert", folder))
    config = FunnelConfig(
        vocab_size=len(tokenizer) + 8, d_model=32, n_head=4, d_head=8, d_inner=64, block_sizes=block_sizes,
        num_decoder_layers=2, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        FunnelModel(config).save_pretrained(folder)
    return locate_backbone(str(folder))


@pytest.mark.parametrize("block_sizes", [[1, 1, 1], [3]])
def test_the_last_stages_of_a_funnel_are_trained(
    block_sizes: list[int], toy: Task, cpu: Device, tmp_path: Path
) -> None:
    """A Funnel halves a text after each stage, so that a short one is used up."""
    files = tiny_funnel(tmp_path / "funnel", block_sizes)
    method: Any = methods.get("last-layers")(k=1)  # type: ignore[call-arg]
    assert method.why_unsupported("classification", files, "cpu") is None
    record = run_one(toy, files, method, cpu)
    assert record.status == "ok", record.error
    model = method.build(make_bench(toy, files, cpu)).transformer
    last = "encoder.blocks.2.0." if len(block_sizes) == 3 else "encoder.blocks.0.2."
    names = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {name for name in names if name.startswith("encoder.")} == {
        name for name, _ in model.named_parameters() if name.startswith(last)
    }


class Fails(nn.Module):
    """Takes the place of a block's part and raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, *_: Any, **__: Any) -> Any:
        raise self.error


@pytest.fixture
def bert(find: Any) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(find("bert").folder)


def test_a_model_that_cannot_be_run_on_a_short_text_is_refused(bert: Any) -> None:
    bert.encoder.layer[1].intermediate = Fails(RuntimeError("output with shape [1] does not match [2]."))
    with pytest.raises(
        UnsupportedError, match=r"text of 16 tokens .*: output with shape \[1\] does not match \[2\]\. Use"
    ):
        Stack(bert).parameters_by_depth()


def test_memory_that_runs_out_is_not_taken_for_an_architecture(bert: Any) -> None:
    bert.encoder.layer[1].intermediate = Fails(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        Stack(bert).parameters_by_depth()


# ---- saved models


@pytest.mark.parametrize(
    ("name", "backbone", "earlier", "now"),
    [("ia3", "qwen2", 2, 3), ("last-layers", "bart", 1, 2), ("last-layers", "bert", 1, 1)],
)
def test_a_saved_model_has_the_version_of_its_cell(
    name: str, backbone: str, earlier: int, now: int, find: Any, toy: Task, cpu: Device, tmp_path: Path
) -> None:
    files = find(backbone)
    method: Any = methods.get(name)()
    bench = make_bench(toy, files, cpu)
    fitted = method.fitted(method.build(bench).eval(), bench)
    assert save_artifact(fitted, method, tmp_path, bench) == artifact_size_bytes(fitted, method)
    settings = json.loads((tmp_path / ARTIFACT_SETTINGS).read_text())
    assert settings["version"] == now
    _, restored = load_artifact(tmp_path, bench)
    np.testing.assert_array_equal(restored.predict(test_rows(toy), bench), fitted.predict(test_rows(toy), bench))

    (tmp_path / ARTIFACT_SETTINGS).write_text(json.dumps({**settings, "version": earlier}))
    if earlier == now:
        load_artifact(tmp_path, bench)
        return
    with pytest.raises(UsageError, match=f"saved by version {earlier} of '{name}'; this is version {now}"):
        load_artifact(tmp_path, bench)


@pytest.mark.parametrize("version", [0, 2])
def test_a_version_that_never_was_is_refused(
    version: int, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    method: Any = methods.get("bitfit")()
    bench = make_bench(toy, tiny, cpu)
    save_artifact(method.fitted(method.build(bench).eval(), bench), method, tmp_path, bench)
    settings = json.loads((tmp_path / ARTIFACT_SETTINGS).read_text())
    (tmp_path / ARTIFACT_SETTINGS).write_text(json.dumps({**settings, "version": version}))
    with pytest.raises(UsageError, match=f"saved by version {version} of 'bitfit'; this is version 1"):
        load_artifact(tmp_path, bench)
