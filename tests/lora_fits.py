"""Fits of LoRA up to their first step, and plain models of peft to compare them with."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.methods._fine_tuning import FineTuning
from harness.methods.configure import parse_methods
from harness.running.worker import Worker
from harness.tasks import Rows, Task

INITS = ["gaussian", "orthogonal", "pissa", "pissa-niter-16", "olora", "mica", "eva", "corda", "lora-ga"]
CHANGING = {"pissa", "pissa-niter-16", "olora", "corda", "lora-ga"}
BRIEF = "min_steps=6,epochs=1,precision=fp32,rank=4"


def configured(text: str) -> Any:
    (method,) = parse_methods([text])
    assert isinstance(method, FineTuning)
    return method


def rows_of(task: Task, cpu: Device, n: int = 48) -> Rows:
    return Worker(cpu, None).training_rows(task, n, 0, "stratified")


def hidden(transformer: nn.Module) -> torch.Tensor:
    ids = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: torch.Tensor = transformer(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return found


def begun(method: Any, rows: Rows, bench: Any) -> tuple[Any, Any, Any]:
    """The model before its first step, with its inputs and batches."""
    examples = bench.form.examples(rows, bench, 0)
    model = method.build(bench)
    model.train()
    inputs = method.make_inputs(model, examples, bench)
    items = examples.items_of(np.arange(len(rows)))
    batches = inputs.batches(items, examples.targets[items], batch_size=method.batch_size, seed=bench.seed)
    method.begin(model, inputs, batches, bench)
    return model, inputs, batches


def product(layer: Any, name: str = "default") -> torch.Tensor:
    found: torch.Tensor = layer.scaling[name] * layer.lora_B[name].weight @ layer.lora_A[name].weight
    return found.detach()


def plain_peft(files: BackboneFiles, **settings: Any) -> tuple[Any, Any]:
    """A copy of the pristine transformer without dropout, and a configuration that names queries and values."""
    from peft import LoraConfig

    transformer = copy.deepcopy(load_backbone(files).pristine)
    for module in transformer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return transformer, LoraConfig(r=4, lora_alpha=16, target_modules=["query", "value"], **settings)
