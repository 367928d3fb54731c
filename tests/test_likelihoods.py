"""Likelihoods of replies in padded batches are those of each prompt and reply alone, whatever the architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.measure.halving import Halvings
from harness.methods._label_likelihood import LabelLikelihood, batches_of_like_length
from harness.support.errors import UnsupportedError
from tests.tiny_architectures import ARCHITECTURES

CPU = torch.device("cpu")
TWO_STACKS = ("t5", "bart", "mbart")
CAUSAL = (
    *("gpt2", "opt", "gpt_neox", "falcon", "bloom", "phi", "llama", "mistral"),
    *("qwen2", "qwen3", "gemma", "gemma2", "gemma3"),
)
LABELS = [[11], [12, 13], [12, 14, 15, 16], [9, 9]]


def some_prompts(n_shared: int, n_rows: int = 14) -> tuple[np.ndarray, list[np.ndarray]]:
    """Prompts of many lengths, longer than a sliding window of 16; two do not begin like the others."""
    generator = np.random.default_rng(0)
    shared = generator.integers(6, 20, n_shared)
    ends = [generator.integers(6, 20, length) for length in generator.integers(1, 30, n_rows)]
    prompts = [np.concatenate([shared, end]) for end in ends]
    return shared, [*prompts, generator.integers(6, 20, 9), generator.integers(6, 20, n_shared + 4)]


def alone(model: Any, prompt: Sequence[int] | np.ndarray, reply: Sequence[int], *, is_causal: bool) -> float:
    """Run a prompt with one reply, without padding or a cache."""
    ids = torch.tensor([[*prompt]])
    with torch.no_grad():
        if is_causal:
            logits = model(input_ids=torch.tensor([[*prompt, *reply]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        else:
            start = model.config.decoder_start_token_id
            logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[start, *reply[:-1]]])).logits[0]
    return float(logits.log_softmax(-1).gather(1, torch.tensor([*reply])[:, None]).sum())


def scorer(files: BackboneFiles, cpu: Device, labels: Sequence[Sequence[int]], **settings: Any) -> LabelLikelihood:
    model = load_backbone(files).language_model(CPU).model
    is_causal = files.architecture == "causal"
    how = {"normalise": False, "precision": "fp32", **settings}
    return LabelLikelihood(model, labels, is_causal=is_causal, device=cpu, **how)


@pytest.mark.parametrize("name", [*CAUSAL, *TWO_STACKS])
def test_padded_batches_score_as_rows_alone(
    name: str, find: Callable[[str], BackboneFiles], cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.methods._label_likelihood._MOST_ROWS", {"cpu": 5})
    files = find(name)
    model = load_backbone(files).language_model(CPU).model
    for n_shared, labels in ((21, LABELS), (0, LABELS), (21, [[11], [12]])):
        shared, prompts = some_prompts(n_shared)
        found = scorer(files, cpu, labels).score(prompts, shared)
        is_causal = files.architecture == "causal"
        expected = [[alone(model, prompt, label, is_causal=is_causal) for label in labels] for prompt in prompts]
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma2", "bloom", "t5"])
def test_replies_of_each_prompt_score_as_rows_alone(
    name: str, find: Callable[[str], BackboneFiles], cpu: Device
) -> None:
    files = find(name)
    model = load_backbone(files).language_model(CPU).model
    shared, prompts = some_prompts(12)
    generator = np.random.default_rng(1)
    replies = [
        [generator.integers(6, 20, length).tolist() for length in generator.integers(0, 7, generator.integers(0, 5))]
        for _ in prompts
    ]
    assert any(not reply for several in replies for reply in several)
    is_causal = files.architecture == "causal"
    expected = np.array(
        [
            alone(model, prompt, reply, is_causal=is_causal) if reply else 0.0
            for prompt, several in zip(prompts, replies, strict=True)
            for reply in several
        ]
    )
    np.testing.assert_allclose(scorer(files, cpu, ()).score_replies(prompts, replies, shared), expected, atol=1e-4)
    lengths = [max(1, len(reply)) for several in replies for reply in several]
    means = scorer(files, cpu, (), normalise=True).score_replies(prompts, replies, shared)
    np.testing.assert_allclose(means, expected / lengths, atol=1e-4)


def test_a_prompt_is_read_once_for_all_its_replies(find: Callable[[str], BackboneFiles], cpu: Device) -> None:
    likelihood = scorer(find("llama"), cpu, ())
    _, prompts = some_prompts(30, n_rows=2)
    likelihood.score_replies([prompts[0]], [[[7, 8], [9, 10, 11], [12], [13, 14]]], np.empty(0, dtype=np.int64))
    assert likelihood.n_tokens == len(prompts[0]) + 1 + 2 + 0 + 1


def test_a_batch_that_does_not_fit_is_halved(find: Callable[[str], BackboneFiles], cpu: Device) -> None:
    likelihood = scorer(find("llama"), cpu, LABELS)
    shared, prompts = some_prompts(12)
    expected = likelihood.score(prompts, shared)
    sizes = []

    def fails(_: Any, __: Any, given: dict[str, Any]) -> None:
        sizes.append(len(given["input_ids"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = likelihood._model.register_forward_pre_hook(fails, with_kwargs=True)
    halvings = Halvings()
    with halvings.active(lambda _: None):
        found = likelihood.score(prompts, shared)
    hook.remove()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert max(sizes) > 3
    assert halvings.rows["score"][1] <= 3


@pytest.mark.parametrize("name", ["mamba", "xlnet"])
def test_a_model_without_keys_is_refused(name: str, find: Callable[[str], BackboneFiles], cpu: Device) -> None:
    import transformers

    model_class = {"mamba": "MambaForCausalLM", "xlnet": "XLNetLMHeadModel"}[name]
    model = getattr(transformers, model_class).from_pretrained(find(name).folder)
    likelihood = LabelLikelihood(model, LABELS, is_causal=True, normalise=False, device=cpu, precision="fp32")
    with pytest.raises(UnsupportedError, match="keeps the keys and values"):
        likelihood.score([np.array([7, 8])], np.empty(0, dtype=np.int64))


def test_keys_are_kept_in_the_precision_of_attention(find: Callable[[str], BackboneFiles], cpu: Device) -> None:
    shared, prompts = some_prompts(12)
    likelihood = scorer(find("llama"), cpu, LABELS, precision="bf16")
    with likelihood._running():
        past = likelihood._remember(shared)
    assert {states.dtype for layer in past for states in layer} == {torch.bfloat16}
    expected = scorer(find("llama"), cpu, LABELS).score(prompts, shared)
    np.testing.assert_allclose(likelihood.score(prompts, shared), expected, atol=0.15)


def test_every_architecture_is_tried() -> None:
    causal = {name for name, (_, model, *_) in ARCHITECTURES.items() if "Causal" in model or "LMHead" in model}
    assert causal == {*CAUSAL, "mamba"}


@pytest.mark.parametrize("call_tokens", [0, 10, 1000])
def test_batches_cost_least(call_tokens: int) -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 12, 9)
    batches = batches_of_like_length(lengths, 4, 30, call_tokens=call_tokens)
    assert sorted(np.concatenate(batches)) == list(range(9))

    def cost(some: Sequence[Sequence[int]]) -> float:
        return sum(call_tokens + len(rows) * max(rows) for rows in some)

    def ways(rest: list[int]) -> list[list[list[int]]]:
        if not rest:
            return [[]]
        return [
            [rest[:size], *further]
            for size in range(1, min(4, len(rest)) + 1)
            if size == 1 or size * rest[size - 1] <= 30
            for further in ways(rest[size:])
        ]

    best = min(map(cost, ways(sorted(lengths.tolist()))))
    assert cost([lengths[rows].tolist() for rows in batches]) == best
