"""Losses in chunks of places: the same loss and gradients as of whole logits, and never more logits than the bound."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.features.tokens import lengths_of
from harness.measure import bounds
from harness.measure.device import Device
from harness.methods import methods
from harness.records.budgets import Budget
from harness.running.worker import Worker
from harness.tasks import Task
from harness.training import generative
from harness.training.forms.text import GeneratedText
from harness.training.generative import GenerativeInputs, GenerativeModel
from harness.training.heads import PendingLogits
from tests.live_tensors import Live
from tests.tiny_architectures import ARCHITECTURES
from tests.toys import make_bench

DECODERS = [
    name
    for name, (_, model, _, _) in ARCHITECTURES.items()
    if model.endswith(("CausalLM", "LMHeadModel", "ConditionalGeneration"))
]
FORM = GeneratedText()


def texts(model: GenerativeModel, n_rows: int = 6) -> tuple[list[Any], Any]:
    """Token ids of texts, and what `batch` reads: how much of each is given, or its answer."""
    generator = np.random.default_rng(0)
    rows = [generator.integers(4, 40, 5 + 2 * row).astype(np.int32) for row in range(n_rows)]
    if model.is_causal:
        return rows, np.array([1 + row for row in range(n_rows)])
    return rows, [generator.integers(4, 40, 3 + row).astype(np.int32) for row in range(n_rows)]


def inputs_of(model: GenerativeModel) -> tuple[GenerativeInputs, Any]:
    rows, targets = texts(model)
    there = torch.device("cpu")
    packed = targets
    if not model.is_causal:
        packed = np.empty(len(targets), dtype=object)
        packed[:] = targets
    return GenerativeInputs(model, rows, pad_id=0, compact=False, device=there), packed


def step(model: GenerativeModel, smoothing: float, *, bf16: bool) -> tuple[Any, float, dict[str, torch.Tensor]]:
    inputs, targets = inputs_of(model)
    batch = inputs.batch(np.arange(len(targets)), targets)
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        outputs = inputs.forward(batch)
    loss = FORM.loss(outputs.float(), batch.targets, smoothing)
    (loss * 0.5).backward()  # a piece's share
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return outputs, loss.item(), found


def bounded(monkeypatch: pytest.MonkeyPatch, n_places: int, vocabulary: int) -> None:
    monkeypatch.setattr(bounds, "LOGIT_BYTES", {"cpu": 4 * n_places * vocabulary + 3})


def vocabulary_of(model: GenerativeModel) -> int:
    return int(model.transformer.get_output_embeddings().weight.shape[0])  # type: ignore[union-attr, operator]


def language_model(files: BackboneFiles) -> GenerativeModel:
    model = load_backbone(files).fresh_language_model(torch.device("cpu"))
    return GenerativeModel(model, is_causal=files.architecture == "causal").eval()


@pytest.mark.parametrize(
    ("name", "smoothing"), [*[(name, 0.1) for name in DECODERS], ("llama", 0.0), ("gemma2", 0.0), ("t5", 0.0)]
)
def test_chunks_give_the_loss_and_gradients_of_whole_logits(
    name: str, smoothing: float, find: Callable[[str], BackboneFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = language_model(find(name))
    whole, expected, gradients = step(model, smoothing, bf16=False)
    assert isinstance(whole, torch.Tensor)
    bounded(monkeypatch, 4, vocabulary_of(model))
    outputs, loss, found = step(model, smoothing, bf16=False)
    assert isinstance(outputs, PendingLogits), "the head of every one of these can run apart from its body"
    assert loss == pytest.approx(expected, rel=1e-6)
    assert found.keys() == gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    rounding = 4 * torch.finfo(torch.float32).eps * largest
    for key, gradient in gradients.items():  # that of a bias of keys is 0 but for rounding
        atol = max(1e-5 * float(gradient.abs().max()), rounding)
        torch.testing.assert_close(found[key], gradient, rtol=1e-5, atol=atol, msg=key)


@pytest.mark.parametrize(
    ("which", "name", "settings"),
    [
        ("tiny_llama", "prompt-tuning", {}),
        pytest.param("tiny_llama", "lora", {"targets": "all-linear"}, marks=pytest.mark.slow),
        pytest.param("tiny_llama", "full", {"patience": 2}, marks=pytest.mark.slow),
        pytest.param("tiny_t5", "full", {}, marks=pytest.mark.slow),
    ],
)
def test_methods_train_alike_in_chunks(
    which: str,
    name: str,
    settings: dict[str, Any],
    toy_kinds: dict[str, Task],
    cpu: Device,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frozen heads, trained ones and virtual tokens: the trained parameters agree after a few steps in pieces."""
    files = request.getfixturevalue(which)
    task = toy_kinds["generation"]
    method = methods.get(name)(accumulation=2, batch_size=8, precision="fp32", **settings)
    rows = Worker(cpu, None).training_rows(task, 20, 0, "stratified")
    tensors, losses, flops = [], [], []
    made: list[int] = []
    plain = PendingLogits.__init__

    def note(self: PendingLogits, *args: Any) -> None:
        made.append(1)
        plain(self, *args)

    monkeypatch.setattr(PendingLogits, "__init__", note)
    for n_places in (10**6, 5):
        bench = make_bench(task, files, cpu, budget=Budget(steps=4))
        vocabulary = len(bench.some_backbone.tokenizer)
        bounded(monkeypatch, n_places, vocabulary)
        made.clear()
        fitted: Any = method.fit(rows, bench)
        tensors.append(fitted.tensors())
        losses.append([(point.train_loss, point.validation) for point in bench.ledger.curve])
        flops.append(bench.ledger.train_flops)
        assert bool(made) == (n_places == 5)
    np.testing.assert_allclose(np.array(losses[1], float), np.array(losses[0], float), rtol=1e-4)
    for key, value in tensors[0].items():
        np.testing.assert_allclose(tensors[1][key], value, rtol=1e-3, atol=2e-5, err_msg=key)
    assert flops[1] <= flops[0], "places without a target have no logits"
    assert flops[1] > 0.5 * flops[0]


def test_gradients_under_autocast_are_those_of_whole_logits(
    tiny_llama: BackboneFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = language_model(tiny_llama)
    _, expected, gradients = step(model, 0.1, bf16=True)
    bounded(monkeypatch, 4, vocabulary_of(model))
    outputs, loss, found = step(model, 0.1, bf16=True)
    assert isinstance(outputs, PendingLogits)
    assert loss == pytest.approx(expected, rel=2e-3)
    for key, gradient in gradients.items():
        assert float((found[key] - gradient).norm()) <= 0.03 * float(gradient.norm()), key


def test_a_head_that_is_adapted_or_kept_whole_by_peft_trains_alike(
    tiny_llama: BackboneFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, get_peft_model

    for settings in ({"target_modules": ["lm_head", "q_proj"]}, {"modules_to_save": ["lm_head"]}):
        plain = load_backbone(tiny_llama).fresh_language_model(torch.device("cpu"))
        torch.manual_seed(0)
        wrapped = get_peft_model(plain, LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM", **settings))  # type: ignore[arg-type]
        model = GenerativeModel(wrapped, is_causal=True).eval()
        with monkeypatch.context() as patched:
            _, expected, gradients = step(model, 0.0, bf16=False)
            bounded(patched, 4, load_backbone(tiny_llama).pristine.config.vocab_size)  # type: ignore[arg-type]
            outputs, loss, found = step(model, 0.0, bf16=False)
        assert isinstance(outputs, PendingLogits)
        assert loss == pytest.approx(expected, rel=1e-6)
        assert any("lm_head" in name for name in gradients)
        assert found.keys() == gradients.keys()
        for key, gradient in gradients.items():
            torch.testing.assert_close(found[key], gradient, rtol=1e-5, atol=1e-7, msg=key)


@pytest.mark.parametrize("which", ["tiny_llama", "tiny_t5"])
def test_a_model_whose_head_is_not_apart_keeps_whole_logits(
    which: str, request: pytest.FixtureRequest, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that looks at its input behind its body: chunks would give other logits."""
    model = language_model(request.getfixturevalue(which))
    inner: Any = model.transformer
    plain = inner.forward
    place = "input_ids" if model.is_causal else "decoder_input_ids"

    def forward(**given: Any) -> Any:
        outputs = plain(**given)
        outputs.logits = outputs.logits + given[place].sum()
        return outputs

    inner.forward = forward
    _, expected, gradients = step(model, 0.1, bf16=False)
    whole = replies(model, cpu)
    bounded(monkeypatch, 8, vocabulary_of(model))
    outputs, loss, found = step(model, 0.1, bf16=False)
    assert isinstance(outputs, torch.Tensor)
    assert loss == expected
    assert all(torch.equal(found[key], gradient) for key, gradient in gradients.items())
    np.testing.assert_allclose(replies(model, cpu), whole, rtol=1e-5)


def replies(model: GenerativeModel, cpu: Device) -> Any:
    prompts, _ = texts(model)
    return likelihoods(model, prompts, [prompt[::-1][:4] for prompt in prompts], cpu)


def likelihoods(model: GenerativeModel, prompts: Any, ends: Any, cpu: Device) -> Any:
    """Minus the log-likelihood of each end behind its prompt."""
    given = lengths_of(prompts)
    lengths = given + lengths_of(ends)
    if not model.is_causal:
        return model._nll(prompts, ends, lengths, 0, cpu, "fp32")
    wholes = [np.concatenate(both) for both in zip(prompts, ends, strict=True)]
    return model._nll(wholes, given, lengths, 0, cpu, "fp32")


@pytest.mark.parametrize("name", DECODERS)
def test_likelihoods_in_chunks_are_those_of_whole_logits(
    name: str, find: Callable[[str], BackboneFiles], cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = language_model(find(name))
    whole = replies(model, cpu)
    bounded(monkeypatch, 3, vocabulary_of(model))
    np.testing.assert_allclose(replies(model, cpu), whole, rtol=1e-5)


def test_below_the_bound_nothing_changes(tiny_llama: BackboneFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit the whole logits and their cross-entropy, in both precisions, without any trial of the head."""
    monkeypatch.setattr(generative, "find_head", None)
    model = language_model(tiny_llama)
    for bf16 in (False, True):
        outputs, loss, _ = step(model, 0.1, bf16=bf16)
        inputs, targets = inputs_of(model)
        batch = inputs.batch(np.arange(len(targets)), targets)
        assert batch.host_targets is None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = model(*batch.inputs)
        plain = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=-100, label_smoothing=0.1
        )
        assert torch.equal(outputs, logits)
        assert loss == plain.item()
        assert batch.n_outputs == batch.targets.shape[1]


def wide(n_tokens: int) -> GenerativeModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=n_tokens,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        use_cache=False,
        tie_word_embeddings=True,
    )
    return GenerativeModel(LlamaForCausalLM(config), is_causal=True)


@pytest.mark.parametrize("work", ["train", "validate", "score"])
def test_logits_never_exceed_the_bound(work: str, cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor that is made holds more places of the vocabulary than the bound."""
    n_tokens, n_places = 5000, 64
    model = wide(n_tokens)
    if work == "train":
        model.transformer.get_input_embeddings().weight.requires_grad_(False)  # type: ignore[operator, union-attr]
    weights = 4 * n_tokens * 16
    rows = [np.arange(4, 44, dtype=np.int32) for _ in range(12)]
    given = np.full(12, 5)
    largest, peaks = [], []
    for limit in (10**6, n_places):
        bounded(monkeypatch, limit, n_tokens)
        live = Live()
        sizes: list[int] = []
        plain = live.watch

        def watch(*tensors: torch.Tensor, sizes: list[int] = sizes, plain: Any = plain) -> None:
            sizes.extend(tensor.untyped_storage().nbytes() for tensor in tensors)
            plain(*tensors)

        live.watch = watch  # type: ignore[method-assign]
        inputs = GenerativeInputs(model, rows, pad_id=0, compact=False, device=torch.device("cpu"))
        with live:
            if work == "train":
                batch = inputs.batch(np.arange(12), given)
                FORM.loss(inputs.forward(batch).float(), batch.targets, 0.0).backward()
            elif work == "validate":
                inputs.mean_loss(np.arange(12), given, FORM.loss, cpu, "fp32")
            else:
                likelihoods(model, [row[:5] for row in rows], [row[5:] for row in rows], cpu)
        largest.append(max(sizes))
        peaks.append(live.peak)
        model.zero_grad(set_to_none=True)
    print(f"{work}: largest tensor {largest[0]:,} -> {largest[1]:,} bytes; live at most {peaks[0]:,} -> {peaks[1]:,}")
    assert largest[0] >= 4 * n_tokens * 12 * 35
    assert largest[1] <= max(4 * n_tokens * n_places, weights) + 64
    assert peaks[1] < 0.35 * peaks[0]


def test_trials_leave_modes_and_random_state(tiny_llama: BackboneFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_model(tiny_llama)
    model.train()
    model.transformer.model.layers[0].eval()  # type: ignore[union-attr, index]
    modes = [module.training for module in model.modules()]
    own = copy.copy(vars(model.transformer.model))
    bounded(monkeypatch, 4, vocabulary_of(model))
    before = torch.get_rng_state()
    step(model, 0.0, bf16=False)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)
    assert vars(model.transformer.model).keys() == own.keys()
