"""Backbones that are saved as those on the hub are: without computed tables, or with tokens beyond the embeddings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.backbones.locate import locate_backbone
from harness.backbones.model import ALIKE, load_backbone, shorten
from harness.backbones.tokenizer import token_counts
from harness.support.errors import UsageError
from tests.tiny_architectures import ARCHITECTURES
from tests.tiny_backbones import WORDS, word_tokenizer

CPU = torch.device("cpu")
IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 0}
SIZES: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
    "init_std": 0.2,
}  # fmt: skip


def saved(name: str, folder: Path, **settings: Any) -> Any:
    """Save a tiny model of two stacks with its tokenizer, and return the model."""
    import transformers

    word_tokenizer(WORDS, "$A </s>", 64).save_pretrained(folder)
    config_class = getattr(
        transformers, name.replace("MTModel", "Config").replace("ForConditionalGeneration", "Config")
    )
    config = config_class(vocab_size=len(WORDS), **IDS, **SIZES, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, name)(config).eval()
    model.save_pretrained(folder)
    return model


def without(folder: Path, chosen: Callable[[str], bool]) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if not chosen(name)}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", ["MarianMTModel", "PegasusForConditionalGeneration"])
def test_sinusoids_that_are_not_saved_are_computed(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path)
    without(tmp_path, lambda tensor: "embed_positions" in tensor)  # a Marian's are not saved in the first place
    backbone = load_backbone(locate_backbone(str(tmp_path)))
    encoder = model.get_encoder().state_dict()
    found = backbone.pristine.state_dict()
    assert found.keys() == encoder.keys()
    assert all(torch.equal(value, encoder[key]) for key, value in found.items())
    expected = model.state_dict()
    written = backbone.language_model(CPU).model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in written.items())


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("MarianMTModel", "layers.1.fc1.weight"),
        ("MarianMTModel", "layers.1.fc1.bias"),
        ("BartForConditionalGeneration", "layernorm_embedding.weight"),
    ],
)
def test_other_missing_weights_are_refused(name: str, part: str, tmp_path: Path) -> None:
    """Random, zeros, ones: what a weight begins with is not what it was trained to."""
    saved(name, tmp_path)
    without(tmp_path, lambda tensor: part in tensor)
    with pytest.raises(UsageError, match="has no weights for encoder"):
        load_backbone(locate_backbone(str(tmp_path)))


def test_a_random_weight_on_a_list_of_transformers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BartPreTrainedModel

    saved("BartForConditionalGeneration", tmp_path)
    without(tmp_path, lambda tensor: tensor == "model.encoder.embed_positions.weight")
    patterns = ["model.encoder.embed_positions.weight"]
    monkeypatch.setattr(BartPreTrainedModel, "_keys_to_ignore_on_load_missing", patterns)
    with pytest.raises(UsageError, match=r"no weights for encoder\.embed_positions\.weight"):
        load_backbone(locate_backbone(str(tmp_path)))


def with_special_token(folder: Path, role: str) -> None:
    """Add a token that has no embedding, in the vocabulary as well, as bart-large-cnn has its `<mask>`."""
    path, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    content, names = json.loads(path.read_text()), json.loads(settings.read_text())
    entry = {**content["added_tokens"][0], "id": len(WORDS), "content": "<mask>", "special": True}
    content["added_tokens"].append(entry)
    content["model"]["vocab"]["<mask>"] = len(WORDS)
    path.write_text(json.dumps(content))
    settings.write_text(json.dumps({**names, role: "<mask>"}))


def test_a_special_token_without_an_embedding_is_read_as_text(tmp_path: Path) -> None:
    saved("BartForConditionalGeneration", tmp_path)
    plain = load_backbone(locate_backbone(str(tmp_path)))
    with_special_token(tmp_path, "mask_token")
    files = locate_backbone(str(tmp_path))
    load_backbone.cache_clear()
    backbone = load_backbone(files)
    texts = ["my refund", "my <mask> refund", "<mask>", "<s> my <pad>"]
    encoded = backbone.tokenizer(texts, ["a <mask>"] * 4, return_tensors="pt", padding=True)
    as_text = plain.tokenizer(texts, ["a <mask>"] * 4, return_tensors="pt", padding=True)
    assert torch.equal(encoded["input_ids"], as_text["input_ids"])
    assert int(encoded["input_ids"].max()) < len(WORDS)
    backbone.pristine(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
    expected = [len(ids) for ids in plain.tokenizer(texts)["input_ids"]]
    assert token_counts(files, texts, 40) == expected


@pytest.mark.parametrize("role", ["pad_token", "eos_token", "unk_token", "bos_token", "cls_token", "sep_token"])
def test_a_special_token_in_use_without_an_embedding_is_refused(role: str, tmp_path: Path) -> None:
    saved("BartForConditionalGeneration", tmp_path)
    with_special_token(tmp_path, role)
    with pytest.raises(UsageError, match=f"{role} '<mask>' has no embedding"):
        load_backbone(locate_backbone(str(tmp_path)))


def test_planning_builds_a_few_blocks_of_a_large_model(tmp_path: Path) -> None:
    from harness.backbones.model import outline_backbone

    stated = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128_256, "hidden_size": 4096,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14_336,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(stated))
    files = locate_backbone(str(tmp_path), weights=False)
    shown: Any = outline_backbone(files, language_model=False)
    assert len(shown.layers) == shown.config.num_hidden_layers < 5
    projection = shown.layers[0].self_attn.k_proj.weight
    assert (tuple(projection.shape), projection.is_meta) == ((1024, 4096), True)


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) & ALIKE))
def test_a_few_blocks_show_the_modules_of_all(name: str) -> None:
    """The blocks left out have modules and parameters that the blocks shown have too."""
    import transformers

    def kinds(n_blocks: int | None) -> set[tuple[str, str]]:
        sizes = {**ARCHITECTURES[name][3], **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), 8)}
        config = getattr(transformers, ARCHITECTURES[name][2])(vocab_size=40, pad_token_id=0, **sizes)
        if n_blocks is not None:
            shorten(config)
            assert config.num_hidden_layers == n_blocks
        with torch.device("meta"):
            model = transformers.AutoModel.from_config(config)
        named = [*model.named_modules(), *model.named_parameters()]
        return {(re.sub(r"\.\d+\.", ".N.", key), type(part).__name__) for key, part in named if key[-1:].isalpha()}

    assert kinds(3) == kinds(None)


def saved_encoder(name: str, folder: Path, **settings: Any) -> Any:
    """Save a tiny encoder with its tokenizer, and return the model."""
    import transformers

    word_tokenizer(WORDS, "<s> $A </s>", 64).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    stated = {**sizes, "max_position_embeddings": 64, "pad_token_id": 0, "initializer_range": 0.2, **settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(vocab_size=len(WORDS), **stated)
        model = getattr(transformers, f"{name}Model")(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "SqueezeBert",
            {"embedding_size": 32, **dict.fromkeys((f"{part}_groups" for part in ("q", "k", "v", "intermediate")), 2)},
        ),
        ("LayoutLM", {}),
    ],
)
def test_a_pooler_that_is_always_called_is_passed_by(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    model = saved_encoder(name, tmp_path, **settings)
    pristine = load_backbone(locate_backbone(str(tmp_path))).pristine
    ids = torch.arange(4, 12)[None]
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        assert torch.equal(pristine(**given).last_hidden_state, model(**given).last_hidden_state)
    assert not any("pooler" in key for key in pristine.state_dict())


def test_a_backbone_that_looks_at_no_other_token_is_refused(tmp_path: Path) -> None:
    """An MRA computes nothing without kernels for a GPU: transformers puts zeros in place of its attention."""
    saved_encoder("Mra", tmp_path)
    with pytest.raises(UsageError, match="depend on no other token, neither before nor after it"):
        load_backbone(locate_backbone(str(tmp_path)))
