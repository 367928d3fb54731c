"""A backbone is loaded with exactly the weights of its files, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.support.errors import UsageError
from tests.tiny_backbones import WORDS, save_tiny_llama, save_tiny_t5, word_tokenizer

Tensors = dict[str, torch.Tensor]
CPU = torch.device("cpu")
LAYER = "encoder.layer.1."


def copied(
    source: BackboneFiles, folder: Path, change: Callable[[Tensors], Tensors] | None = None, **config: Any
) -> str:
    """Copy a backbone with other tensors, or other entries of config.json."""
    shutil.copytree(source.folder, folder)
    if change is not None:
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return str(folder)


def renamed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: value for name, value in tensors.items()}


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_removed(prefix: str, tiny: BackboneFiles, tmp_path: Path) -> None:
    files = locate_backbone(copied(tiny, tmp_path / "b", renamed(prefix)))
    expected = load_file(tiny.folder / "model.safetensors")
    for name, value in load_backbone(files).pristine.state_dict().items():
        assert torch.equal(value, expected[name])
    assert files.fingerprint != tiny.fingerprint  # version 0.1 read random weights


def test_prefixes_within_names_are_removed(tiny_llama: BackboneFiles, tmp_path: Path) -> None:
    def wrap(tensors: Tensors) -> Tensors:
        return {name.replace("model.layers", "model._orig_mod.layers"): value for name, value in tensors.items()}

    backbone = load_backbone(locate_backbone(copied(tiny_llama, tmp_path / "b", wrap)))
    expected = load_backbone(tiny_llama).pristine.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in backbone.pristine.state_dict().items())
    head = load_file(tiny_llama.folder / "model.safetensors")["lm_head.weight"]
    assert torch.equal(backbone.language_model(CPU).model.lm_head.weight, head)


REFUSED: dict[str, tuple[Callable[[Tensors], Tensors] | None, dict[str, Any], str]] = {
    "an unknown prefix": (renamed("net."), {}, r"no weights for embeddings\.LayerNorm\.bias"),
    "a missing layer": (
        lambda tensors: {name: value for name, value in tensors.items() if not name.startswith(LAYER)},
        {},
        r"no weights for encoder\.layer\.1\.attention\.output\.LayerNorm\.bias, .* and 13 more",
    ),
    "more layers in the configuration": (None, {"num_hidden_layers": 3}, r"no weights for encoder\.layer\.2\."),
    "fewer layers in the configuration": (None, {"num_hidden_layers": 1}, r"holds encoder\.layer\.1\..*does not read"),
    "another width": (None, {"intermediate_size": 32}, r"has the shape \(64,\); config\.json makes it \(32,\)"),
    "an adapter's leftovers": (
        lambda tensors: {**tensors, f"{LAYER}attention.self.query.lora_A.weight": torch.ones(4, 32)},
        {},
        r"lora_A\.weight, which the model of config\.json does not read",
    ),
    "a tensor twice": (
        lambda tensors: {**tensors, "module.embeddings.LayerNorm.bias": torch.ones(32)},
        {},
        r"holds the tensor embeddings\.LayerNorm\.bias twice",
    ),
    "NaN": (
        lambda tensors: {**tensors, f"{LAYER}output.dense.bias": torch.full((32,), torch.nan)},
        {},
        r"output\.dense\.bias holds NaN",
    ),
    "integers": (
        lambda tensors: {**tensors, f"{LAYER}output.dense.bias": torch.ones(32, dtype=torch.int8)},
        {},
        r"output\.dense\.bias has the type I8",
    ),
    "a vocabulary without rows": (None, {"vocab_size": 10**6}, r"no tensor has 1000000 rows"),
    "a billion tokens": (None, {"vocab_size": 10**9}, r"vocab_size in config\.json is 1e\+09"),
    "a million layers": (None, {"num_hidden_layers": 10**6}, r"num_hidden_layers in config\.json is 1e\+06"),
    "a model of terabytes": (None, {"intermediate_size": 10**8}, r"describes a model of .* GB"),
    "no model type": (None, {"model_type": None}, r"states no model_type"),
    "an unknown type": (None, {"model_type": "bertt"}, r"states the model_type 'bertt'"),
    "code of its own": (None, {"auto_map": {"AutoModel": "m.Model"}}, r"needs custom code"),
    "quantised weights": (None, {"quantization_config": {"quant_method": "gptq"}}, r"is quantised"),
    "kernels of its own": (None, {"attn_implementation": "lab/kernel"}, r"asks for attn_implementation 'lab/kernel'"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_other_weights_than_the_architecture_has_are_refused(name: str, tiny: BackboneFiles, tmp_path: Path) -> None:
    change, config, message = REFUSED[name]
    folder = copied(tiny, tmp_path / "b", change, **config)
    with pytest.raises(UsageError, match=message):
        load_backbone(locate_backbone(folder))


def test_a_language_model_without_a_layer_is_refused(tiny_t5: BackboneFiles, tmp_path: Path) -> None:
    """Its encoder is whole: features are read, and the language model is refused."""
    folder = copied(
        tiny_t5,
        tmp_path / "b",
        lambda tensors: {name: value for name, value in tensors.items() if "decoder.block.1" not in name},
    )
    backbone = load_backbone(locate_backbone(folder))
    with pytest.raises(UsageError, match=r"no weights for decoder\.block\.1"):
        backbone.language_model(CPU)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly(dtype: torch.dtype, tiny: BackboneFiles, tmp_path: Path) -> None:
    folder = copied(tiny, tmp_path / "b", lambda tensors: {name: value.to(dtype) for name, value in tensors.items()})
    stored = load_file(tmp_path / "b" / "model.safetensors")
    backbone = load_backbone(locate_backbone(folder))
    for name, value in backbone.pristine.state_dict().items():
        is_matrix = "word_embeddings" in name or (value.ndim == 2 and ("dense" in name or ".self." in name))
        assert value.dtype == (torch.bfloat16 if is_matrix and dtype == torch.bfloat16 else torch.float32), name
        assert torch.equal(value.float(), stored[name].float())
    assert all(value.dtype == torch.float32 for value in backbone.fresh(CPU).state_dict().values())


def test_a_pooler_may_be_missing_and_a_head_superfluous(tiny: BackboneFiles, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        kept = {f"bert.{name}": value for name, value in tensors.items() if not name.startswith("pooler.")}
        return {**kept, "classifier.weight": torch.ones(3, 32), "bert.embeddings.position_ids": torch.arange(64)[None]}

    backbone = load_backbone(locate_backbone(copied(tiny, tmp_path / "b", change)))
    expected = load_backbone(tiny).pristine.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in backbone.pristine.state_dict().items())


def test_shards(tiny: BackboneFiles, tmp_path: Path) -> None:
    folder = Path(copied(tiny, tmp_path / "b"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {name: f"{'ab'[at % 2]}.safetensors" for at, name in enumerate(names)}
    for file in ("a.safetensors", "b.safetensors"):
        save_file({n: tensors[n] for n in names if weight_map[n] == file}, folder / file, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    backbone = load_backbone(locate_backbone(str(folder)))
    assert all(torch.equal(value, tensors[name]) for name, value in backbone.pristine.state_dict().items())
    index.write_text(json.dumps({"metadata": {}, "weight_map": {**weight_map, "absent": "a.safetensors"}}))
    with pytest.raises(UsageError, match="lists absent, which no shard holds"):
        locate_backbone(str(folder))
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "b.safetensors").unlink()
    with pytest.raises(UsageError, match=r"names b\.safetensors, which is missing \(1 of 2 shards are\)"):
        locate_backbone(str(folder))


def test_an_adapter_is_refused(tiny: BackboneFiles, tmp_path: Path) -> None:
    """transformers would load the base model that the file names, whatever else is in the folder."""
    folder = Path(copied(tiny, tmp_path / "b"))
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x", "peft_type": "LORA"}))
    with pytest.raises(UsageError, match="merge_and_unload"):
        locate_backbone(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match="merge_and_unload"):
        locate_backbone(str(folder))


def test_a_backbone_without_a_tokenizer_is_refused(tiny: BackboneFiles, tmp_path: Path) -> None:
    folder = Path(copied(tiny, tmp_path / "b"))
    (folder / "tokenizer.json").unlink()
    files = locate_backbone(str(folder))
    with pytest.raises(UsageError, match="has no tokenizer"):
        files.require_tokenizer()
    with pytest.raises(UsageError, match="has no tokenizer"):
        load_backbone(files)
    (folder / "vocab.json").write_text("{}")  # of a class that BERT's tokenizer does not read
    (folder / "merges.txt").write_text("")
    with pytest.raises(UsageError, match=r"finds no vocabulary|has no tokens|could not be given its tokenizer"):
        load_backbone(locate_backbone(str(folder)))


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tiny: BackboneFiles, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = copied(tiny, tmp_path / "b")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    n_rows = len(tokenizer)
    tokenizer.add_tokens(["more"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(
        UsageError, match=f"a token with the id {n_rows}, and the backbone has embeddings for the ids 0 "
    ):
        locate_backbone(folder)


def test_fingerprints_of_version_0_1_stay(tiny: BackboneFiles, minilm: BackboneFiles, mirror: Path) -> None:
    assert minilm.fingerprint.startswith("299ef3c76d")
    assert locate_backbone("sentence-transformers/paraphrase-MiniLM-L3-v2", mirror).fingerprint.startswith("8d54f005e5")
    assert locate_backbone("karpathy/tinyllamas-stories260K", mirror).fingerprint.startswith("35e1794d6c")
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    lines = [f"{name} {sha256((tiny.folder / name).read_bytes()).hexdigest()}" for name in names]
    assert tiny.fingerprint == sha256("\n".join(lines).encode()).hexdigest()


def models() -> dict[str, Callable[[], Any]]:
    """Return models by name, most with a table of positions, whose longest input is 40 tokens."""
    import transformers as t

    n = len(WORDS)
    small = {"vocab_size": n, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = {**small, "intermediate_size": 16, "max_position_embeddings": 40}
    behind_1 = {**encoder, "max_position_embeddings": 42, "pad_token_id": 1}
    two = {"vocab_size": n, "d_model": 16, "max_position_embeddings": 40, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    return {
        "bert": lambda: t.BertModel(t.BertConfig(**encoder)),
        "roberta": lambda: t.RobertaModel(t.RobertaConfig(**behind_1)),
        "roberta, padding 0": lambda: t.RobertaModel(
            t.RobertaConfig(**{**behind_1, "max_position_embeddings": 41, "pad_token_id": 0})
        ),
        "mpnet": lambda: t.MPNetModel(t.MPNetConfig(**behind_1)),
        "longformer": lambda: t.LongformerModel(t.LongformerConfig(**behind_1, attention_window=[8])),
        "esm, absolute": lambda: t.EsmModel(
            t.EsmConfig(**behind_1, mask_token_id=4, position_embedding_type="absolute", token_dropout=False)
        ),
        "xlm": lambda: t.XLMModel(
            t.XLMConfig(vocab_size=n, emb_dim=16, n_layers=1, n_heads=2, max_position_embeddings=40, pad_index=0)
        ),
        "gpt2": lambda: t.GPT2Model(t.GPT2Config(vocab_size=n, n_positions=40, n_embd=16, n_layer=1, n_head=2)),
        "opt": lambda: t.OPTModel(
            t.OPTConfig(**small, max_position_embeddings=40, ffn_dim=16, word_embed_proj_dim=16, pad_token_id=0)
        ),
        "bart": lambda: t.BartModel(t.BartConfig(**two, **heads)),
        "mbart": lambda: t.MBartModel(t.MBartConfig(**two, **heads)),
    }


@pytest.mark.parametrize("name", list(models()))
def test_the_longest_input_is_what_the_positions_allow(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models()[name]().save_pretrained(folder)
    word_tokenizer(WORDS, "<s> $A", 10**30).save_pretrained(folder)
    backbone = load_backbone(locate_backbone(str(folder)))
    assert backbone.max_length == 40
    ids = torch.full((1, 41), 7)
    with torch.no_grad():
        backbone.pristine(input_ids=ids[:, :40], attention_mask=torch.ones(1, 40))
        with pytest.raises((IndexError, RuntimeError)):
            backbone.pristine(input_ids=ids, attention_mask=torch.ones(1, 41))


def test_the_longest_input_without_a_table_of_positions(tmp_path: Path) -> None:
    for save, positions in ((save_tiny_llama, 128), (save_tiny_t5, 512)):
        folder = save(tmp_path / save.__name__)
        word_tokenizer(WORDS, "<s> $A", 10**30).save_pretrained(folder)
        assert load_backbone(locate_backbone(str(folder))).max_length == positions


def test_hidden_states_of_another_width_than_the_configuration_says(tmp_path: Path) -> None:
    """OPT of 350 million parameters projects its states to the width of its embeddings."""
    from transformers import OPTConfig, OPTModel

    config = OPTConfig(
        vocab_size=len(WORDS), hidden_size=32, word_embed_proj_dim=16, num_hidden_layers=1, num_attention_heads=2,
        ffn_dim=16, max_position_embeddings=40, pad_token_id=0, do_layer_norm_before=False,
    )  # fmt: skip
    OPTModel(config).save_pretrained(tmp_path)
    word_tokenizer(WORDS, "<s> $A", 40).save_pretrained(tmp_path)
    assert load_backbone(locate_backbone(str(tmp_path))).hidden_size == 16


def test_backbones_of_the_mirror_load(mirror: Path) -> None:
    """One has no pooler, the other is stored in float16."""
    for name, architecture in (
        ("sentence-transformers/paraphrase-MiniLM-L3-v2", "encoder"),
        ("karpathy/tinyllamas-stories260K", "causal"),
    ):
        files = locate_backbone(name, mirror)
        assert files.architecture == architecture
        stored = load_file(files.folder / "model.safetensors")
        for tensor, value in load_backbone(files).pristine.state_dict().items():
            known = stored.get(tensor, stored.get(f"model.{tensor}"))
            assert known is not None
            assert torch.equal(value, known.float())
