"""Parts of Llama-like models for training: the same numbers as transformers' own, less kept, no look at masks."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel, MistralConfig, MistralModel, Qwen2Config, Qwen2Model, masking_utils

from harness.backbones.locate import BackboneFiles
from harness.backbones.pooling import pool
from harness.measure.device import Device
from harness.methods import methods
from harness.methods.adalora import prune_on_device
from harness.records.record import Budget
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.tasks import Task
from harness.training.lean import make_lean
from harness.training.masks import known_padding, padded_on_the_right
from tests.live_tensors import Live
from tests.toys import plan_one

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 50, "use_cache": False, "pad_token_id": 0,
}  # fmt: skip
LLAMA_LIKE = [(LlamaConfig, LlamaModel), (MistralConfig, MistralModel), (Qwen2Config, Qwen2Model)]
CPU = torch.device("cpu")


def small(config: Any = LlamaConfig, model: Any = LlamaModel) -> nn.Module:
    torch.manual_seed(0)
    built: nn.Module = model(config(**SIZES)).train()
    return built


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(1, 50, (4, 12))
    mask = torch.ones_like(ids)
    for row, length in enumerate((12, 9, 4, 1)):
        mask[row, length:] = 0
    return ids * mask, mask


def run(model: nn.Module, *, bf16: bool, unmasked: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the pooled states, and the gradients of a loss of them."""
    ids, mask = padded()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        if unmasked:
            with padded_on_the_right(model, CPU):
                states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        else:
            states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    both = torch.cat([pool(states, mask, "last"), pool(states, mask, "mean")], 1)
    model.zero_grad()
    both.pow(2).mean().backward()
    return both.detach(), {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize(("config", "model"), LLAMA_LIKE, ids=["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
def test_lean_parts_give_the_numbers_of_transformers(config: Any, model: Any, bf16: bool) -> None:
    original = small(config, model)
    lean = copy.deepcopy(original)
    kinds = make_lean(lean)
    assert {kind.removeprefix(model.__name__.removesuffix("Model")) for kind in kinds} == {
        "Attention",
        "MLP",
        "RMSNorm",
    }
    expected, gradients = run(original, bf16=bf16)
    found, own = run(lean, bf16=bf16, unmasked=True)
    assert torch.equal(found, expected)
    assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        gap = (own[name] - gradient).norm() / gradient.norm()
        assert gap < (0.03 if bf16 else 1e-5), name


@pytest.mark.parametrize("trains", [True, False], ids=["full", "adapters"])
def test_lean_parts_keep_less(trains: bool) -> None:
    kept = []
    mask = torch.ones(4, 64, dtype=torch.long)
    mask[1, 40:] = 0
    for is_lean in (False, True):
        model = small().requires_grad_(trains)
        if is_lean:
            make_lean(model)
        states = torch.randn(4, 64, 32, requires_grad=True)
        unmasked = padded_on_the_right(model, CPU) if is_lean else nullcontext()
        live = Live()
        with live, unmasked, torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(inputs_embeds=states, attention_mask=mask).last_hidden_state
            kept.append(live.now)
        del output
    assert kept[1] < 0.8 * kept[0]


def test_a_class_that_computes_otherwise_stays() -> None:
    from transformers import Gemma2Config, Gemma2Model, T5Config, T5EncoderModel

    assert make_lean(Gemma2Model(Gemma2Config(**SIZES, head_dim=8))) == []
    assert make_lean(T5EncoderModel(T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, vocab_size=20))) == []


def test_checkpointed_blocks_have_the_same_gradients() -> None:
    plain, checkpointed = small(), small()
    make_lean(plain), make_lean(checkpointed)
    checkpointed.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    expected, found = (run(model, bf16=True, unmasked=True)[1] for model in (plain, checkpointed))
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@contextmanager
def masks_made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Collect what transformers' maker of sdpa's masks is asked and returns."""
    made: list[Any] = []
    original = masking_utils.sdpa_mask

    def note(*args: Any, **given: Any) -> Any:
        made.append((given, original(*args, **given)))
        return made[-1][1]

    monkeypatch.setitem(masking_utils.AttentionMaskInterface._global_mapping, "sdpa", note)
    yield made


def test_causal_training_makes_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask = padded()
    with masks_made(monkeypatch) as made:
        model = small()
        with padded_on_the_right(model, CPU):
            model(input_ids=ids, attention_mask=mask)
        assert made[-1][1] is None
        model(input_ids=ids, attention_mask=mask)  # outside, transformers decides
        assert made[-1][1] is not None


def test_a_sliding_window_that_matters_keeps_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = MistralModel(MistralConfig(**SIZES, sliding_window=4))
    ids, mask = padded()
    with masks_made(monkeypatch) as made:
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
        with padded_on_the_right(model, CPU):
            found = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert made[-1][1] is not None
    assert torch.equal(found, expected)


@pytest.mark.parametrize("full", [False, True])
def test_an_encoder_on_a_device_is_not_asked_about_padding(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertConfig, BertModel

    sizes = {name: SIZES[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")}
    model = BertModel(BertConfig(**sizes, num_hidden_layers=1)).to("meta")
    ids = torch.ones((2, 6), dtype=torch.long, device="meta")
    with pytest.raises(RuntimeError, match="meta"):  # a look at a tensor without numbers fails
        model(input_ids=ids, attention_mask=ids)
    with masks_made(monkeypatch) as made, known_padding(full=full), padded_on_the_right(model, torch.device("meta")):
        model(input_ids=ids, attention_mask=ids)
    assert (made[-1][1] is None) == full


def test_attention_is_a_choice_with_equal_scores(tiny_llama: BackboneFiles, toy: Task, cpu: Device) -> None:
    scores = {}
    for attention in ("auto", "sdpa", "eager"):
        method = methods.get("lora")(attention=attention, precision="fp32")
        planned = plan_one(toy, tiny_llama, method, size="24", budget=Budget(steps=3))
        record = Worker(cpu, None).run(Job(planned, tiny_llama, "attention"), toy)
        assert record.status == "ok", record.error
        scores[attention] = [point.train_loss for point in record.curve]
    assert scores["auto"] == scores["sdpa"]
    assert scores["eager"] == pytest.approx(scores["auto"], abs=1e-4)
    assert "attention" not in methods.get("lora")().config()
    assert methods.get("lora")(attention="eager").config()["attention"] == "eager"


@pytest.mark.parametrize(("device", "why"), [("cpu", "needs a GPU"), ("cuda", "not installed")])
def test_flash_attention_is_refused_where_it_cannot_run(device: str, why: str, tiny_llama: BackboneFiles) -> None:
    if device == "cuda" and importlib.util.find_spec("flash_attn"):
        pytest.skip("flash-attn is installed")
    reason = methods.get("lora")(attention="flash_attention_2").why_unsupported("classification", tiny_llama, device)
    assert reason is not None
    assert why in reason


def test_adalora_prunes_what_peft_prunes() -> None:
    from peft import AdaLoraConfig, get_peft_model

    pruned = []
    for on_device in (False, True):
        torch.manual_seed(0)
        targets = ["q_proj", "v_proj"]
        config = AdaLoraConfig(init_r=6, target_r=2, total_step=12, tinit=2, tfinal=3, target_modules=targets)
        adalora: Any = get_peft_model(small(), config).base_model
        if on_device:
            prune_on_device(adalora)
        optimiser = torch.optim.SGD([value for value in adalora.parameters() if value.requires_grad], lr=0.5)
        for tick in range(12):
            ids, mask = padded()
            adalora.model(input_ids=ids, attention_mask=mask).last_hidden_state.pow(2).mean().backward()
            optimiser.step()
            adalora.update_and_allocate(tick)
            optimiser.zero_grad()
        pruned.append(torch.cat([value for name, value in adalora.named_parameters() if "lora_E" in name]))
    assert torch.equal(*pruned)
    assert 0 < (pruned[0] == 0).sum() < pruned[0].numel()
