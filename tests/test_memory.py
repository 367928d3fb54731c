"""Memory by arithmetic against what autograd keeps, and against all tensors alive, of transformers' modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.cost.memory import Regime, Trained, encoding_memory, kept_by_block, training_memory
from harness.cost.shape import Shape, read_shape
from tests.live_tensors import Live

WIDTH, INNER, HEADS, VOCABULARY = 128, 512, 4, 500


def make(architecture: str, n_blocks: int, folder: Path, dropout: float = 0.0) -> tuple[nn.Module, Shape]:
    from transformers import AutoConfig, AutoModel

    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_hidden_layers": n_blocks,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "vocab_size": VOCABULARY,
    }
    if architecture == "bert":
        sizes |= {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": dropout}
    else:
        sizes |= {"num_key_value_heads": 2, "use_cache": False}
    config = AutoConfig.for_model(architecture, **sizes)
    config.save_pretrained(folder)
    read_shape.cache_clear()
    shape = read_shape(folder)
    assert shape is not None
    model = AutoModel.from_config(config)
    if architecture == "bert":
        model.pooler = None
    return model.train(), shape


def adapt(model: nn.Module, how: str) -> tuple[nn.Module, float, float]:
    """The model as a method trains it; blocks that are trained, and that gradients pass through, as shares."""
    if how == "lora":
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0)), 0.0, 1.0
    return model, 1.0, 0.0


def step(model: nn.Module, n_rows: int, length: int, *, bits16: bool) -> torch.Tensor:
    ids = torch.randint(5, VOCABULARY, (n_rows, length))
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bits16):
        states: torch.Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return states


def saved_bytes(model: nn.Module, n_rows: int, length: int, *, bits16: bool) -> int:
    """Bytes of everything that autograd keeps of a forward pass, parameters left out, each storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def look(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        states = step(model, n_rows, length, bits16=bits16)
    found = sum(storage.nbytes() for storage in kept.values())
    del states
    return found


@pytest.mark.parametrize("bits16", [True, False])
@pytest.mark.parametrize("how", ["full", "lora"])
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_a_block_keeps_what_autograd_keeps(architecture: str, how: str, bits16: bool, tmp_path: Path) -> None:
    """The slope over tokens, between models of two and of four blocks: nothing but blocks differs."""
    length, slopes = 32, []
    for n_blocks in (2, 4):
        model, shape = make(architecture, n_blocks, tmp_path / str(n_blocks))
        adapted, *_ = adapt(model, how)
        less, more = (saved_bytes(adapted, n, length, bits16=bits16) for n in (4, 12))
        slopes.append((more - less) / (8 * length))
    counted = (slopes[1] - slopes[0]) / 2
    regime = Regime(bits16)
    expected = kept_by_block(shape, regime, length, trains=how == "full")
    if how == "lora":  # what enters two additions, without dropout
        expected += 2 * regime.product_bytes * WIDTH
    print(f"{architecture} {how} {'bf16' if bits16 else 'fp32'}: {expected:.0f} bytes a token, counted {counted:.0f}")
    # Masks, means and variances of norms, and of a float32 Llama rotated queries, are left out.
    assert expected == pytest.approx(counted, rel=0.07)


@pytest.mark.parametrize("n_rows", [1, 16, 64])
@pytest.mark.parametrize("how", ["full", "lora", "frozen"])
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_the_peak_of_a_step_is_that_of_the_tensors_alive(
    architecture: str, how: str, n_rows: int, tmp_path: Path
) -> None:
    """Within 10 %, of batches of 1 to 64 rows of 32 tokens, in bfloat16 under autocast with AdamW."""
    length, n_blocks = 32, 4
    model, shape = make(architecture, n_blocks, tmp_path)
    adapted, trains, through = adapt(model, how)
    if how == "frozen":
        adapted.requires_grad_(False).eval()
        trains = 0.0
    moved = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(moved) if moved else None
    live = Live()
    live.watch(*adapted.parameters())
    with live:
        for _ in range(2):
            with torch.set_grad_enabled(optimiser is not None):
                states = step(adapted, n_rows, length, bits16=True)
            if optimiser is not None:
                states.float().mean().backward()
                optimiser.step()
                optimiser.zero_grad()
    seen = live.peak
    if how == "frozen":
        weights = 4.0 * shape.n_parameters
        expected = weights + encoding_memory(shape, Regime(bits16=True), n_rows=n_rows, length=length)
    else:
        expected = training_memory(
            shape,
            Trained(trains * n_blocks, through * n_blocks, sum(p.numel() for p in moved), additions=2.0 * through),
            Regime(bits16=True, mask_bytes=0.0),
            n_rows=n_rows,
            length=length,
        ).peak_bytes
    print(f"{architecture} {how} {n_rows}: {expected / 1e6:.2f} MB, alive {seen / 1e6:.2f} MB")
    assert expected == pytest.approx(seen, rel=0.10)
