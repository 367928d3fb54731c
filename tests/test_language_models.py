"""Backbones as language models, and that one which can learn in context does so through the real method."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.data.table import table_task
from harness.measure.device import Device
from harness.methods import methods
from harness.support.errors import UsageError
from harness.tasks import kinds
from tests.tiny_backbones import SPECIAL, save_tiny_llama, save_tiny_t5, word_tokenizer
from tests.toys import run_one


def test_an_encoder_has_no_language_model(tiny: BackboneFiles, tiny_llama: BackboneFiles, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is an encoder"):
        load_backbone(tiny).language_model(torch.device("cpu"))
    assert methods.get("few-shot")().why_unsupported("classification", tiny, "cpu") is not None
    headless = tmp_path / "headless"
    save_tiny_llama(headless)
    from transformers import AutoModel

    AutoModel.from_pretrained(headless).save_pretrained(headless)
    with pytest.raises(UsageError, match=r"lm_head\.weight.*without the language-modelling head"):
        load_backbone(dataclasses.replace(locate_backbone(str(headless)), architecture="causal")).language_model(
            torch.device("cpu")
        )


def test_a_causal_language_model_shares_the_transformer(tiny_llama: BackboneFiles) -> None:
    backbone = load_backbone(tiny_llama)
    device = torch.device("cpu")
    shared = backbone.language_model(device)
    assert shared is backbone.language_model(device)
    assert shared.load_seconds > 0
    assert shared.model.model is backbone.pristine
    assert not any(value.requires_grad for value in shared.model.parameters())


def test_a_sequence_to_sequence_backbone_is_its_encoder(tiny_t5: BackboneFiles, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, T5EncoderModel

    backbone = load_backbone(tiny_t5)
    inputs = backbone.tokenizer(["my refund", "a crash with the screen"], return_tensors="pt", padding=True)
    given = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    fresh = backbone.fresh(torch.device("cpu"))
    with torch.no_grad():
        expected = T5EncoderModel.from_pretrained(tiny_t5.folder).eval()(**given).last_hidden_state
        torch.testing.assert_close(backbone.pristine(**given).last_hidden_state, expected)
        torch.testing.assert_close(fresh.eval()(**given).last_hidden_state, expected)
        embeddings = fresh.get_input_embeddings()
        wider = torch.nn.Embedding(embeddings.num_embeddings + 4, embeddings.embedding_dim)
        fresh.set_input_embeddings(wider)
        assert fresh.get_input_embeddings() is wider
        assert not torch.allclose(fresh(**given).last_hidden_state, expected)
    assert backbone.hidden_size == 32
    assert backbone.max_length == 128
    folder = save_tiny_t5(tmp_path / "unlimited")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(folder)
    assert load_backbone(locate_backbone(str(folder))).max_length == 512


COLOURS = ["red", "blue", "green", "white", "black", "grey"]
GROUPS = (["oak", "elm", "ash", "fir"], ["cat", "dog", "cow", "hen"])
N_SHOWN = 8


def save_model_that_learns_in_context(folder: Path) -> Path:
    """A causal model that has seen only episodes in which each of two groups of words has a colour drawn anew.

    What a colour stands for can be had from the earlier texts of an episode alone.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    words = [*SPECIAL, ":", *COLOURS, *GROUPS[0], *GROUPS[1]]
    word_tokenizer(words, "<s> $A", 64).save_pretrained(folder)
    n_rows, n_texts, n_words = 64, N_SHOWN + 1, 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(words),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            intermediate_size=128,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
        )
        model = LlamaForCausalLM(config)
        rate, n_steps, n_right = 3e-3, 1000, 0
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, betas=(0.9, 0.98))
        answered = torch.arange(n_texts) * (n_words + 2) + n_words + 1  # the colons' positions
        for step in range(n_steps):
            group = torch.randint(0, 2, (n_rows, n_texts))
            chosen = 5 + len(COLOURS) + 4 * group.unsqueeze(2) + torch.randint(0, 4, (n_rows, n_texts, n_words))
            colours = 5 + torch.rand(n_rows, len(COLOURS)).argsort(1)[:, :2].gather(1, group)
            colons = torch.full((n_rows, n_texts, 1), 4)
            texts = torch.cat([chosen, colons, colours.unsqueeze(2)], dim=2).reshape(n_rows, -1)
            ids = torch.cat([torch.full((n_rows, 1), 2), texts], dim=1)
            logits = model(ids, use_cache=False).logits[:, answered]
            targets = ids[:, answered + 1]
            loss = torch.nn.functional.cross_entropy(logits[:, 1:].flatten(0, 1), targets[:, 1:].flatten())
            optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 50)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            right = (logits.argmax(-1) == targets)[:, N_SHOWN // 2 :].float().mean()
            n_right = n_right + 1 if right > 0.96 else 0
            if n_right == 20:
                break
        model.save_pretrained(folder)
    return folder


def test_in_context_learning_reads_its_demonstrations(tmp_path: Path, cpu: Device) -> None:
    """The same texts with the colours' meanings swapped: nothing but the demonstrations can tell which holds."""
    files = locate_backbone(str(save_model_that_learns_in_context(tmp_path / "learner")))
    generator = np.random.default_rng(0)
    texts = [(group, " ".join(generator.choice(GROUPS[group], 3))) for group in (0, 1) for _ in range(150)]
    for colours in (("red", "blue"), ("blue", "red")):
        table = tmp_path / f"{colours[0]}.csv"
        with table.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(["text", "label"])
            writer.writerows([text, colours[group]] for group, text in sorted(set(texts)))
        task = kinds.get("classification").prepare(table_task(table, "text", "label", name="colours"), None)
        settings = {"template": "{text} :", "separator": " "}
        few = run_one(
            task, files, methods.get("few-shot")(k=N_SHOWN, precision="fp32", **settings), cpu, size=str(N_SHOWN)
        )
        zero = run_one(task, files, methods.get("zero-shot")(precision="fp32", **settings), cpu)
        assert few.score is not None, few.error
        assert zero.score is not None, zero.error
        assert few.score.value >= 0.9
        assert 0.35 <= zero.score.value <= 0.65
