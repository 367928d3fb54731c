"""Keys and values: none are kept where nothing reads them, and where they are kept, rounding changes no bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.caching import without_cache
from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.features.encode import FeatureStore
from harness.features.tokens import TokenStore
from harness.measure.device import Device
from harness.tasks import Task
from harness.training.shared_keys import roomy_cache
from tests.live_tensors import Live
from tests.tiny_architectures import ARCHITECTURES

DECODERS = [name for name, (_, model, _, _) in ARCHITECTURES.items() if model.endswith(("CausalLM", "LMHeadModel"))]


@pytest.mark.parametrize("name", DECODERS)
def test_encoding_keeps_no_keys_and_reads_the_same_bits(name: str, find: Callable[[str], BackboneFiles]) -> None:
    model = load_backbone(find(name)).pristine
    ids = torch.arange(2 * 12).view(2, 12) % 9 + 4
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    with torch.inference_mode():
        kept = model(input_ids=ids, attention_mask=mask, use_cache=True)
        bare = model(input_ids=ids, attention_mask=mask, **without_cache(model))
    assert getattr(bare, "past_key_values", None) is None
    assert getattr(bare, "cache_params", None) is None
    assert torch.equal(kept.last_hidden_state, bare.last_hidden_state)


def test_a_model_that_takes_no_such_argument_is_given_none() -> None:
    class Plain(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return input_ids

    assert without_cache(Plain()) == {}


def test_the_peak_of_encoding_a_decoder_holds_no_keys(
    toy: Task, tiny_llama: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same features, bit for bit, as with a cache; the peak falls by the keys and values of all blocks but one."""
    backbone = load_backbone(tiny_llama)
    tokens = TokenStore().tokens(toy.train, toy.kind, backbone, 64)
    index = np.arange(48)
    found, peaks = [], []
    for kept in ({"use_cache": True}, {"use_cache": False}):
        monkeypatch.setattr("harness.features.encode.without_cache", lambda _, kept=kept: dict(kept))
        store = FeatureStore(cpu, None)
        store.warm_up(backbone)
        with Live() as live:
            found.append(store.pooled(toy.train, index, tokens, backbone, 64, "fp32").values)
        peaks.append(live.peak)
    assert found[0].tobytes() == found[1].tobytes()
    monkeypatch.undo()
    assert FeatureStore(cpu, None).pooled(toy.train, index, tokens, backbone, 64, "fp32").values.tobytes() == (
        found[1].tobytes()
    )
    config: Any = backbone.pristine.config
    length = -(-int(tokens.lengths[index].max()) // 4) * 4
    a_block = 2 * 4 * 16 * length * config.num_key_value_heads * config.head_dim
    print(f"peak {peaks[0]:,} bytes with a cache, {peaks[1]:,} without; {a_block:,} bytes of keys and values a block")
    assert peaks[0] - peaks[1] >= (config.num_hidden_layers - 1) * a_block


@pytest.mark.parametrize("name", ["llama", "gemma", "qwen3", "gpt2", "falcon", "bloom"])
def test_rounded_keys_are_what_attention_reads(name: str, find: Callable[[str], BackboneFiles]) -> None:
    """In two steps under autocast, with transformers' cache and the harness's: the same logits, from bfloat16 keys."""
    from transformers import DynamicCache

    model: Any = load_backbone(find(name)).language_model(torch.device("cpu")).model
    ids = torch.arange(2 * 12).view(2, 12) % 9 + 4
    caches = [DynamicCache(config=model.config), roomy_cache(model.config.num_hidden_layers, 16)]
    logits: list[torch.Tensor] = []
    for cache in caches:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            steps = [model(input_ids=part, past_key_values=cache, use_cache=True).logits for part in ids.split(9, 1)]
        logits.append(torch.cat(steps, dim=1))
    assert torch.equal(*logits)
    assert caches[1].get_seq_length() == 12
    assert {layer.keys.dtype for layer in caches[1].layers} == {torch.bfloat16}
