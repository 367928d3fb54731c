"""The architecture follows from the model class and its attention, checked against what the model computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.backbones.architecture import architecture_of
from harness.backbones.locate import locate_backbone
from harness.backbones.model import load_backbone
from harness.support.errors import UsageError
from tests.tiny_backbones import WORDS, save_tiny_t5, word_tokenizer

N = len(WORDS)
SMALL = {"vocab_size": N, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def saved(name: str) -> tuple[Callable[[], Any], str]:
    """Return how to make a model, and its architecture."""
    import transformers as t

    bert = {**SMALL, "intermediate_size": 16, "initializer_range": 0.2}
    llama = {**bert, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    local = [[["global", "local"], 1]]
    xlnet = {"vocab_size": N, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16, "initializer_range": 0.2}
    xlm = {"vocab_size": N, "emb_dim": 16, "n_layers": 1, "n_heads": 2, "pad_index": 0}
    gemma = {**llama, "head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8}
    known: dict[str, tuple[Callable[[], Any], str]] = {
        "GPTNeoModel": (
            lambda: t.GPTNeoModel(
                t.GPTNeoConfig(vocab_size=N, hidden_size=16, num_layers=2, num_heads=2, attention_types=local)
            ),
            "causal",
        ),
        "BloomModel": (
            lambda: t.BloomModel(t.BloomConfig(vocab_size=N, hidden_size=16, n_layer=1, n_head=2)),
            "causal",
        ),
        "MambaModel": (
            lambda: t.MambaModel(t.MambaConfig(vocab_size=N, hidden_size=16, num_hidden_layers=1, state_size=4)),
            "causal",
        ),
        "BertModel": (lambda: t.BertModel(t.BertConfig(**bert)), "encoder"),
        "BertLMHeadModel": (lambda: t.BertLMHeadModel(t.BertConfig(**bert)), "encoder"),  # no mask unless a decoder
        "BertLMHeadModel, decoder": (lambda: t.BertLMHeadModel(t.BertConfig(**bert, is_decoder=True)), "causal"),
        "LlamaModel": (lambda: t.LlamaModel(t.LlamaConfig(**llama)), "causal"),
        "XLNetModel": (lambda: t.XLNetModel(t.XLNetConfig(**xlnet)), "encoder"),
        "XLNetLMHeadModel": (lambda: t.XLNetLMHeadModel(t.XLNetConfig(**xlnet)), "encoder"),
        "XLMWithLMHeadModel": (lambda: t.XLMWithLMHeadModel(t.XLMConfig(**xlm)), "encoder"),
        "XLMModel, causal": (lambda: t.XLMModel(t.XLMConfig(**xlm, causal=True)), "causal"),
        "Gemma3TextModel": (lambda: t.Gemma3TextModel(t.Gemma3TextConfig(**gemma)), "causal"),
        "Gemma3TextModel, both ways": (
            lambda: t.Gemma3TextModel(t.Gemma3TextConfig(**gemma, use_bidirectional_attention=True)),
            "encoder",
        ),
    }
    return known[name]


NAMES = (
    *("GPTNeoModel", "BloomModel", "MambaModel", "BertModel", "BertLMHeadModel", "BertLMHeadModel, decoder"),
    *("LlamaModel", "XLNetModel", "XLNetLMHeadModel", "XLMWithLMHeadModel", "XLMModel, causal", "Gemma3TextModel"),
    "Gemma3TextModel, both ways",
)


@pytest.mark.parametrize("name", NAMES)
def test_the_architecture_is_what_the_attention_does(name: str, tmp_path: Path) -> None:
    make, expected = saved(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make().save_pretrained(tmp_path)
    word_tokenizer(WORDS, "<s> $A", 64).save_pretrained(tmp_path)
    files = locate_backbone(str(tmp_path))
    assert files.architecture == expected
    assert files.pooling == ("last" if expected == "causal" else "mean")
    model = load_backbone(files).pristine
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 9, 10]])
    with torch.no_grad():
        first, second = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
    assert torch.allclose(first, second, atol=1e-6) == (expected == "causal")


def test_an_encoder_without_its_decoder(tmp_path: Path) -> None:
    """T5EncoderModel, as sentence-t5 is saved: the encoder's states, no language model, nothing random."""
    from transformers import T5EncoderModel

    whole = load_backbone(locate_backbone(str(save_tiny_t5(tmp_path / "whole"))))
    word_tokenizer(WORDS, "$A </s>", 64).save_pretrained(tmp_path / "half")
    T5EncoderModel.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "half")
    for stated in (False, True):  # as transformers 5 states it, and as earlier versions did
        path = tmp_path / "half" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "is_encoder_decoder": stated}))
        files = locate_backbone(str(tmp_path / "half"))
        assert (files.architecture, files.pooling) == ("encoder", "mean")
        ids = torch.tensor([[5, 6, 7, 3]])
        with torch.no_grad():
            states = [b.pristine(input_ids=ids).last_hidden_state for b in (whole, load_backbone(files))]
        assert torch.equal(*states)
        assert load_backbone(files).random(torch.device("cpu"))(input_ids=ids).last_hidden_state.shape == (1, 4, 32)


def test_a_decoder_without_its_encoder_is_refused() -> None:
    config = {"model_type": "bart", "architectures": ["BartForCausalLM"], "is_encoder_decoder": False}
    with pytest.raises(UsageError, match="one stack of a sequence-to-sequence model"):
        architecture_of(config, "b")


def test_other_models_than_those_of_text_are_refused() -> None:
    with pytest.raises(UsageError, match="expected a text model"):
        architecture_of({"model_type": "vit", "architectures": ["ViTModel"]}, "b")


def test_a_wrong_flag_is_found_when_the_model_runs(tmp_path: Path) -> None:
    """The configuration states attention both ways, which Llama does not have."""
    make, _ = saved("LlamaModel")
    make().save_pretrained(tmp_path)
    word_tokenizer(WORDS, "<s> $A", 64).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_bidirectional_attention": True}))
    with pytest.raises(UsageError, match="do not depend on later tokens"):
        load_backbone(locate_backbone(str(tmp_path)))


def test_the_mappings_are_those_of_transformers() -> None:
    """They are read from its source text, so that planning imports no torch."""
    from transformers.models.auto import modeling_auto

    from harness.backbones import architecture

    for name in (*architecture._TEXT, architecture._BASE):
        assert architecture._model_names(name) == dict(getattr(modeling_auto, name))
