"""Memory of saved tensors apart from the heap: the same gradients, memory that serves again, nothing overwritten."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaModel

from harness.backbones.weights import fit_classes, store_bfloat16
from harness.measure.flops import FlopsModel, count_flops
from harness.training import kept
from harness.training.lean import is_lean, make_lean
from harness.training.masks import known_padding, padded_on_the_right
from harness.training.model import PooledModel

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _keep_small_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_SMALLEST_BYTES", 1)
    monkeypatch.setattr(kept, "_BLOCK_BYTES", 1 << 16)


def small() -> nn.Module:
    torch.manual_seed(0)
    config: Any = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=50, use_cache=False, pad_token_id=0,
    )  # fmt: skip
    model = store_bfloat16(LlamaModel(config)).train().requires_grad_(False)
    for name, value in model.named_parameters():
        value.requires_grad_(name.endswith("norm.weight"))
    make_lean(model)
    return model


def forward_of(model: nn.Module) -> Any:
    def forward(states: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(states.shape[:2], dtype=torch.long)
        mask[1, 5:] = 0
        with padded_on_the_right(model, CPU), torch.autocast("cpu", dtype=torch.bfloat16):
            output: torch.Tensor = model(inputs_embeds=states, attention_mask=mask).last_hidden_state
        return output

    return forward


def gradients(model: nn.Module, output: torch.Tensor, states: torch.Tensor) -> list[torch.Tensor]:
    trained = [value for value in model.parameters() if value.requires_grad]
    return list(torch.autograd.grad(output.pow(2).mean(), [states, *trained]))


def test_scores_and_gradients_are_the_same_bits() -> None:
    model = small()
    assert is_lean(model)
    plain = forward_of(model)
    apart = kept.keeping_apart(plain, model.parameters())
    for length in (12, 7, 12):  # the memory serves again, for other shapes too
        states = torch.randn(4, length, 32, requires_grad=True)
        expected, found = plain(states), apart(states)
        assert torch.equal(found, expected)
        pairs = zip(gradients(model, found, states), gradients(model, expected, states), strict=True)
        assert all(torch.equal(own, theirs) for own, theirs in pairs)


def test_a_second_pass_leaves_the_first_ones_tensors_alone() -> None:
    model = small()
    plain = forward_of(model)
    apart = kept.keeping_apart(plain, model.parameters())
    first, second = (torch.randn(4, 12, 32, requires_grad=True) for _ in range(2))
    expected = gradients(model, plain(first), first)
    output = apart(first)
    apart(second)
    assert all(torch.equal(a, b) for a, b in zip(gradients(model, output, first), expected, strict=True))


def test_equal_roundings_are_kept_once_and_memory_serves_again() -> None:
    memory = kept.Kept([])
    x = torch.randn(8, 16)
    slots: list[Any] = [memory.pack(x.to(torch.bfloat16)) for _ in range(2)]
    assert slots[0].values.data_ptr() == slots[1].values.data_ptr()
    other: Any = memory.pack((-x).to(torch.bfloat16))
    assert torch.equal(memory.unpack(other), (-x).to(torch.bfloat16))
    place = slots[0].values.data_ptr()
    zeros: Any = [memory.pack(torch.tensor([sign, 1.0])) for sign in (0.0, -0.0)]  # equal, but not the same bits
    assert zeros[0].values.data_ptr() != zeros[1].values.data_ptr()
    del slots, other, zeros
    memory.begin()
    again: Any = memory.pack(torch.randn(8, 16))
    assert again.values.data_ptr() == place


def test_what_lasts_or_has_gaps_is_not_copied() -> None:
    weight = torch.randn(8, 8)
    memory = kept.Kept([weight])
    assert memory.pack(weight) is weight
    columns = torch.randn(8, 8)[:, ::2]
    assert memory.pack(columns) is columns
    transposed = torch.randn(4, 8).t()
    slot: Any = memory.pack(transposed)
    assert torch.equal(slot.values, transposed)
    assert slot.values.stride() == transposed.stride()


def test_adapted_matrices_are_not_taken_for_frozen_ones() -> None:
    model = small()
    model.layers[0].mlp.up_proj.weight.requires_grad_(True)  # type: ignore[union-attr,index]
    plain = forward_of(model)
    states = torch.randn(4, 12, 32, requires_grad=True)
    found = gradients(model, kept.keeping_apart(plain, model.parameters())(states), states)
    expected = gradients(model, plain(states), states)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_counting_operations_raises_no_matrix_to_float32() -> None:
    model = PooledModel(small(), nn.Linear(32, 2), "last")
    matrices = {tuple(value.shape) for value in model.transformer.parameters() if value.dtype is torch.bfloat16}
    matrices |= {shape[::-1] for shape in matrices}
    raised: list[Any] = []

    class Raised(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._to_copy.default and args[0].dtype is torch.bfloat16:
                raised.append(tuple(args[0].shape))
            return func(*args, **(kwargs or {}))

    with Raised():  # type: ignore[no-untyped-call]
        model.counting(lambda: FlopsModel(count_flops(lambda: pooled_once(model))), CPU)
    assert matrices
    assert not matrices.intersection(raised)
    narrow = count_flops(lambda: pooled_once(model))
    model.transformer.float()
    fit_classes(model.transformer)
    assert count_flops(lambda: pooled_once(model)) == narrow


def pooled_once(model: PooledModel) -> None:
    ids = torch.ones((2, 8), dtype=torch.long)
    with known_padding(full=True):
        model.run_once(lambda: model(ids, ids), backward=True)
