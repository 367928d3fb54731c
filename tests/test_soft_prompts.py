"""Soft prompts: only real tokens are read, and virtual ones take their room from the text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone, pool
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._peft import SoftPrompt
from harness.tasks import Rows, Task
from tests.toys import make_bench

N_VIRTUAL = 5


@pytest.mark.parametrize("name", ["prompt-tuning", "p-tuning", "prefix-tuning"])
def test_only_real_tokens_are_pooled(name: str, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    method = methods.get(name)(n_virtual_tokens=N_VIRTUAL)
    assert isinstance(method, SoftPrompt)
    model = method.build(make_bench(toy, tiny, cpu)).eval()
    ids = torch.randint(5, 20, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    with torch.no_grad():
        hidden = model.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        real = torch.stack([row[-7:][: int(n)].mean(0) for row, n in zip(hidden, mask.sum(1), strict=True)])
        torch.testing.assert_close(model(ids, mask), model.head(real))
        if name != "prefix-tuning":  # a prefix has keys and values only, and no states of its own
            assert hidden.shape[1] == N_VIRTUAL + 7
            longer = torch.cat([torch.ones(3, N_VIRTUAL, dtype=torch.long), mask], dim=1)
            assert not torch.allclose(model.head(pool(hidden, longer, "mean")), model(ids, mask))


def test_prompt_changes_what_is_read(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    """A prefix that had no effect would train a head and call it a prefix."""
    model: Any = methods.get("prefix-tuning")(n_virtual_tokens=N_VIRTUAL).build(make_bench(toy, tiny, cpu)).eval()
    ids = torch.randint(5, 20, (3, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(ids, torch.ones_like(ids))
        for parameter in model.transformer.prompt_encoder.parameters():
            parameter.add_(1.0)
        assert not torch.allclose(model(ids, torch.ones_like(ids)), before)


def test_virtual_tokens_take_positions_from_the_text(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    bench = make_bench(toy, tiny, cpu)
    longest = load_backbone(tiny).max_length
    bench.max_length = longest
    rows = Rows(toy.train, np.arange(len(toy.train), dtype=np.int64))
    reserved = longest - 6
    whole, cut = bench.token_rows(rows, "encode"), bench.token_rows(rows, "encode", reserved)
    assert max(map(len, whole)) > 6
    assert max(map(len, cut)) == 6
    assert bench.ledger.facts.train_texts.n_cut
