"""Memory of frozen methods on a model of 1.24 billion parameters, in bfloat16, beside the arithmetic.

It takes some 8 GiB and several minutes on two cores.
"""

from __future__ import annotations

import gc
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from harness.backbones import BackboneFiles, locate_backbone, write_shape
from harness.cost.closed_form import amount
from harness.measure import Device
from harness.methods import methods
from harness.records import Budget, Record
from harness.running import Job, Worker
from harness.tasks import Task, kinds
from harness.testing.laboratory import made_up_rows, plan_cell, task_spec

SHAPE = "llama-3.2-1b-like"
GIB = 2**30


@pytest.fixture(scope="module")
def billion(tmp_path_factory: pytest.TempPathFactory) -> BackboneFiles:
    """The shape with random bfloat16 weights in two shards, as published models come."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("billion")
    write_shape(SHAPE, folder)
    with torch.device("meta"):
        outline = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    draw = torch.Generator().manual_seed(0)
    names = [name for name in outline.state_dict() if name != "lm_head.weight"]  # it is tied
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    index: dict[str, str] = {}
    for at, half in enumerate(halves):
        file = f"model-{at + 1:05d}-of-00002.safetensors"
        tensors: dict[str, torch.Tensor] = {}
        for name in half:
            shape = outline.state_dict()[name].shape
            value = torch.empty(shape, dtype=torch.bfloat16)
            tensors[name] = value.fill_(1.0) if value.ndim == 1 else value.normal_(0.0, 0.02, generator=draw)
        save_file(tensors, folder / file, {"format": "pt"})
        index |= dict.fromkeys(half, file)
        del tensors
    written = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(written), encoding="utf-8")
    gc.collect()
    return locate_backbone(str(folder))


@pytest.fixture(scope="module")
def few_texts(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A classification task of a few long texts."""
    folder = tmp_path_factory.mktemp("texts")
    kind = kinds.get("classification")
    words = dict(zip(sorted({row["label"] for row in made_up_rows(kind, 24)}), ("good", "work", "time"), strict=True))
    train, test = (  # the shape's tokenizer knows common words alone
        [{"text": " ".join([row["text"]] * 40), "label": words[row["label"]]} for row in made_up_rows(kind, n)]
        for n in (24, 4)
    )
    return kind.prepare(task_spec(kind, folder, train, test, max_length=128), None)


def show(name: str, record: Record, n_parameters: int, expected: float) -> float:
    """Print and return the bytes a frozen parameter that a cell needs; `expected` is the sum by arithmetic."""
    cost = record.cost
    assert record.status == "ok", record.error
    assert cost.weights_bytes is not None
    assert cost.shared_weights_bytes is not None
    assert cost.peak_rss_above_baseline_bytes is not None
    needed = cost.peak_rss_above_baseline_bytes + cost.shared_weights_bytes
    print(
        f"\n{name}: needs {needed / GIB:.2f} GiB = {needed / n_parameters:.2f} bytes a parameter; weights "
        f"{cost.weights_bytes / GIB:.2f}, shared {cost.shared_weights_bytes / GIB:.2f}, "
        f"peak above the baseline {cost.peak_rss_above_baseline_bytes / GIB:.2f} GiB; "
        f"needed by arithmetic {expected / GIB:.2f} GiB"
    )
    return needed / n_parameters


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_frozen_methods_of_a_billion_parameters(billion: BackboneFiles, few_texts: Task, cpu: Device) -> None:
    n_parameters = sum(math.prod(shape) for shape in _shapes(billion))
    worker = Worker(cpu, None)
    settings: dict[str, dict[str, Any]] = {
        "lora": {"batch_size": 1, "min_steps": 2, "epochs": 0.05, "precision": "bf16"},
        "prefix-tuning": {"batch_size": 1, "min_steps": 2, "epochs": 0.05, "precision": "bf16"},
        "linear-probe": {"precision": "bf16"},
        "few-shot": {"k": 1, "precision": "bf16"},
    }
    found = {}
    for name, given in settings.items():
        method = methods.get(name).model_validate(given)
        budget = Budget(steps=2) if "min_steps" in given else Budget()
        planned = plan_cell(few_texts, billion, method, size="6", budget=budget)
        record = worker.run(Job(planned, billion, "tests", hurried=True), few_texts)  # counting takes minutes
        expected = amount(planned, few_texts, billion, cpu).peak_bytes
        found[name] = show(name, record, n_parameters, expected)
    assert found["lora"] <= 2.6, "bytes a frozen parameter, with activations of 128 tokens"


def _shapes(files: BackboneFiles) -> list[tuple[int, ...]]:
    from harness.backbones.headers import read_headers

    return [header.shape for header in read_headers(Path(files.folder), files.name).tensors.values()]
