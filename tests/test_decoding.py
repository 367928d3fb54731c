"""Language models write what the task says, whatever settings of generation a backbone comes with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.methods import Method, methods
from harness.tasks.base import FORMS, Reply, Task
from harness.training.generative import GenerativeModel
from harness.training.writing import EndsAt, write
from tests.toys import plan_one

CPU = torch.device("cpu")
PROMPTS = ["my refund", "a crash with the screen", "parcel", "label : billing"]
PENALTIES = {
    "repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "min_length": 4, "bad_words_ids": [[7], [9]],
    "do_sample": True, "temperature": 3.0, "num_beams": 3, "suppress_tokens": [5, 6, 8], "max_length": 2,
}  # fmt: skip


def with_settings(source: BackboneFiles, folder: Path, settings: dict[str, Any]) -> BackboneFiles:
    shutil.copytree(source.folder, folder)
    path = folder / "generation_config.json"
    stated = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**stated, **settings}))
    return locate_backbone(str(folder))


def greedy(model: Any, ids: list[int], n_new: int, end: int, *, is_causal: bool) -> list[int]:
    """Write token by token, without a cache: the most likely one each time, until the end."""
    written = [] if is_causal else [model.config.decoder_start_token_id]
    given = torch.tensor([ids])
    n_begun = len(written)
    while len(written) - n_begun < n_new and (len(written) == n_begun or written[-1] != end):
        with torch.no_grad():
            if is_causal:
                logits = model(input_ids=torch.tensor([ids + written])).logits
            else:
                logits = model(input_ids=given, decoder_input_ids=torch.tensor([written])).logits
        written.append(int(logits[0, -1].argmax()))
    return written[n_begun:]


@pytest.mark.parametrize("architecture", ["causal", "sequence-to-sequence"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_answers_are_those_of_a_greedy_loop(
    architecture: str, pretrained: bool, tiny_backbones: dict[str, BackboneFiles], cpu: Device, tmp_path: Path
) -> None:
    backbone = load_backbone(with_settings(tiny_backbones[architecture], tmp_path / "b", PENALTIES))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = backbone.language_model(CPU).model if pretrained else backbone.random_language_model(CPU).eval()
    tokenizer = backbone.tokenizer
    is_causal = architecture == "causal"
    prompts = [np.asarray(ids, dtype=np.int32) for ids in tokenizer(PROMPTS)["input_ids"]]
    reply = Reply(max_new_tokens=9, num_beams=1, stop=())
    answers, _ = write(GenerativeModel(model, is_causal=is_causal), prompts, tokenizer, reply, cpu, "fp32")
    expected = [greedy(model, ids.tolist(), 9, tokenizer.eos_token_id, is_causal=is_causal) for ids in prompts]
    assert any(len(set(ids)) < len(ids) for ids in expected)  # something repeats, which the file's penalties forbid
    assert answers == [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in expected]


def test_cells_that_were_written_with_other_settings_have_another_identity(
    tiny_llama: BackboneFiles, toy: Task, tmp_path: Path
) -> None:
    """Version 0.1 wrote with some of them; others never changed a greedy answer, and none changed another answer."""
    for at, (settings, changes) in enumerate(
        (
            ({"temperature": 0.6, "top_p": 0.9, "do_sample": True, "max_length": 9, "eos_token_id": [3, 4]}, False),
            ({"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "bad_words_ids": None}, False),
            ({"repetition_penalty": 1.1}, True),
            ({"forced_bos_token_id": 0}, True),
            ({"min_length": 2}, True),
        )
    ):
        files = with_settings(tiny_llama, tmp_path / str(at), settings)
        assert files.fingerprint == tiny_llama.fingerprint
        for name in ("full", "lora", "few-shot"):
            method: Method = methods.get(name)()
            for form in FORMS:
                before, after = (method.version_on(each, form) for each in (tiny_llama, files))
                is_written = form == "text" or (form == "spans" and name == "few-shot")
                assert after == before + (changes and is_written), (name, form, settings)
    probe = plan_one(toy, tiny_llama, methods.get("linear-probe")()).cell  # type: ignore[call-arg]
    renamed = replace(files, name=tiny_llama.name)
    assert plan_one(toy, renamed, methods.get("linear-probe")()).cell.id == probe.id  # type: ignore[call-arg]


def test_forced_tokens_of_a_configuration_change_an_identity_too(tmp_path: Path, tiny_t5: BackboneFiles) -> None:
    shutil.copytree(tiny_t5.folder, tmp_path / "b")
    path = tmp_path / "b" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "forced_eos_token_id": 3}))
    files = locate_backbone(str(tmp_path / "b"))
    versions = [methods.get("full")().version_on(files, form) for form in ("classes", "text")]
    assert versions == [1, 2]


def test_likelihoods_keep_their_identity(toy_kinds: dict[str, Task], tiny_llama: BackboneFiles, tmp_path: Path) -> None:
    files = with_settings(tiny_llama, tmp_path / "b", {"repetition_penalty": 1.1})
    for name, n_versions in (("perplexity", 0), ("generation", 1)):
        full: Method = methods.get("full")()
        before, after = (plan_one(toy_kinds[name], each, full).cell.version for each in (tiny_llama, files))
        assert after - before == n_versions


CAUSAL = (
    *("gpt2", "opt", "gpt_neox", "falcon", "bloom", "phi", "llama", "mistral"),
    *("qwen2", "qwen3", "gemma", "gemma2", "gemma3", "mamba"),
)


def prompts_that_share(n_shared: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Prompts of many lengths, longer than a sliding window of 16; two do not begin like the others."""
    generator = np.random.default_rng(3)
    shared = generator.integers(6, 20, n_shared).astype(np.int32)
    ends = [generator.integers(6, 20, length).astype(np.int32) for length in (1, 1, 2, 5, 9, 9, 14)]
    others = [generator.integers(6, 20, length).astype(np.int32) for length in (4, 30)]
    return shared, [*(np.concatenate([shared, end]) for end in ends), *others]


@pytest.mark.parametrize("name", CAUSAL)
def test_answers_after_shared_tokens_are_those_of_a_greedy_loop(
    name: str, find: Callable[[str], BackboneFiles], cpu: Device
) -> None:
    backbone = load_backbone(find(name))
    model, tokenizer = backbone.language_model(CPU).model, backbone.tokenizer
    shared, prompts = prompts_that_share(21)
    reply = Reply(max_new_tokens=8, num_beams=1, stop=())
    written = write(GenerativeModel(model, is_causal=True), prompts, tokenizer, reply, cpu, "fp32", shared)[0]
    expected = [greedy(model, ids.tolist(), 8, tokenizer.eos_token_id, is_causal=True) for ids in prompts]
    assert written == [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in expected]


@pytest.mark.parametrize("n_beams", [1, 3])
@pytest.mark.parametrize("name", ["llama", "t5", "bart"])
def test_a_cache_that_rounds_changes_no_answer(
    name: str, n_beams: int, find: Callable[[str], BackboneFiles], cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(find(name))
    is_causal = name == "llama"
    model = GenerativeModel(backbone.language_model(CPU).model, is_causal=is_causal)
    _, prompts = prompts_that_share(21)
    reply = Reply(max_new_tokens=8, num_beams=n_beams, stop=())
    answers = write(model, prompts, backbone.tokenizer, reply, cpu, "bf16")
    monkeypatch.setattr("harness.training.writing._cache", lambda *_: None)
    assert answers == write(model, prompts, backbone.tokenizer, reply, cpu, "bf16")


@pytest.mark.parametrize("n_shared", [1, 12])
def test_beams_after_shared_tokens_are_those_after_whole_prompts(
    n_shared: int, find: Callable[[str], BackboneFiles], cpu: Device
) -> None:
    backbone = load_backbone(find("llama"))
    model = GenerativeModel(backbone.language_model(CPU).model, is_causal=True)
    shared, prompts = prompts_that_share(n_shared)
    reply = Reply(max_new_tokens=8, num_beams=3, stop=("refund",))
    apart, together = (write(model, prompts, backbone.tokenizer, reply, cpu, "fp32", some) for some in (None, shared))
    assert apart == together


def test_shared_tokens_are_read_once_and_no_step_copies_what_is_kept(tiny_llama: BackboneFiles, cpu: Device) -> None:
    backbone = load_backbone(tiny_llama)
    model: Any = backbone.language_model(CPU).model
    shared, prompts = prompts_that_share(21)
    shapes: list[tuple[int, ...]] = []
    kept: set[int] = set()

    def note(_: Any, __: Any, given: dict[str, Any], outputs: Any) -> None:
        shapes.append(tuple(given["input_ids"].shape))
        kept.update(layer.keys.data_ptr() for layer in outputs.past_key_values.layers if shapes[-1] == (7, 1))

    hook = model.register_forward_hook(note, with_kwargs=True)
    reply = Reply(max_new_tokens=6, num_beams=1, stop=())
    write(GenerativeModel(model, is_causal=True), prompts[:7], backbone.tokenizer, reply, cpu, "fp32", shared)
    hook.remove()
    assert shapes == [(1, 21), (7, 13), *[(7, 1)] * (len(shapes) - 2)]
    assert len(shapes) > 4
    assert len(kept) == model.config.num_hidden_layers


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2", "t5"])
def test_ends_of_rows_tell_where_a_stop_is(name: str, find: Callable[[str], BackboneFiles]) -> None:
    """As decoding everything after each token does."""
    tokenizer = load_backbone(find(name)).tokenizer
    generator = np.random.default_rng(0)
    rows = torch.from_numpy(generator.integers(0, len(tokenizer), (60, 40)))
    if name == "qwen2":  # single bytes, some of them parts of a character
        text = tokenizer("déjà vu \n\n→ the end\n. Ünï", add_special_tokens=False)["input_ids"]
        rows[:30, 10 : 10 + len(text)] = torch.tensor(text)
    whole = tokenizer.batch_decode(rows, skip_special_tokens=True)
    stops = {text[at : at + size] for text in whole[::7] for at, size in ((9, 3), (20, 1), (31, 6))}
    stops |= {"\n\n", "à v", "→", ". "}
    for stop in sorted(stops - {""}):
        seen = torch.zeros(len(rows), dtype=torch.bool)
        ends = EndsAt([stop, "zzz"], tokenizer, 3, reads_tails=True)
        everything = EndsAt([stop, "zzz"], tokenizer, 3, reads_tails=False)
        for n_tokens in range(4, rows.shape[1] + 1):
            seen |= ends(rows[:, :n_tokens])
            assert seen.tolist() == (everything(rows[:, :n_tokens]) | seen).tolist(), (stop, n_tokens)
