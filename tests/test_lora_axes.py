"""Settings of LoRA against peft's own results, and against ten lines of algebra."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.methods import load_artifact, methods, parse_methods, save_artifact
from harness.methods._fine_tuning import FineTuning
from harness.records import Budget
from harness.support.errors import UnsupportedError, UsageError
from harness.tasks import Rows, Task
from harness.testing.laboratory import state_hash
from harness.training.low_rank_start import START, LowRankStart, lora_layers
from harness.training.low_rank_steps import LowRankPair, LowRankSteps
from tests.toys import make_bench, training_rows

INITS = ["gaussian", "orthogonal", "pissa", "pissa-niter-16", "olora", "mica", "eva", "corda", "lora-ga"]
BRIEF = "min_steps=6,epochs=1,precision=fp32,rank=4"


def configured(text: str) -> Any:
    (method,) = parse_methods([text])
    assert isinstance(method, FineTuning)
    return method


def hidden(transformer: nn.Module) -> torch.Tensor:
    ids = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: torch.Tensor = transformer(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return found


def begun(method: Any, rows: Rows, bench: Any) -> Any:
    """The model before its first step."""
    examples = bench.form.examples(rows, bench, 0)
    model = method.build(bench)
    model.train()
    inputs = method.make_inputs(model, examples, bench)
    items = examples.items_of(np.arange(len(rows)))
    batches = inputs.batches(items, examples.targets[items], batch_size=method.batch_size, seed=bench.seed)
    method.begin(model, inputs, batches, bench)
    return model, batches


# ---- initial values


@pytest.mark.parametrize("architecture", ["encoder", "causal", "sequence-to-sequence"])
@pytest.mark.parametrize("init", INITS)
def test_training_starts_from_the_pretrained_function(
    init: str, architecture: str, toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Any
) -> None:
    files = tiny_backbones[architecture]
    pristine = load_backbone(files).pristine
    before = state_hash(pristine)
    model, _ = begun(
        configured(f"lora[{BRIEF},init={init},targets=all-linear]"), training_rows(toy, 48), make_bench(toy, files, cpu)
    )
    assert model.training
    model.eval()
    if architecture == "sequence-to-sequence":
        rows = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(0))
        expected = make_plain(toy, files, cpu)(rows, torch.ones_like(rows))
        for module, like in zip(model.head.modules(), make_plain(toy, files, cpu).head.modules(), strict=True):
            assert type(module) is type(like)
        torch.testing.assert_close(model(rows, torch.ones_like(rows)), expected, rtol=1e-4, atol=1e-4)
    else:
        torch.testing.assert_close(hidden(model.transformer), hidden(pristine), rtol=1e-4, atol=1e-4)
    assert state_hash(pristine) == before
    moved = [layer.lora_A["default"].weight.abs().sum() for layer in lora_layers(model.transformer).values()]
    assert init == "mica" or all(float(size) > 0 for size in moved)
