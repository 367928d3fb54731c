"""Make backbones without weights from a published model's configuration and a substitute tokenizer.

The cost of a step does not depend on the values of weights or the words of the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.backbones.locate import BackboneFiles, locate_backbone

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_LLAMA: Final[dict[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "head_dim": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
}
_BERT: Final[dict[str, Any]] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}

BACKBONE_SHAPES: Final[dict[str, dict[str, Any]]] = {
    "llama-3.2-1b-like": {**_LLAMA, "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32},
    "llama-3.2-3b-like": {
        **_LLAMA, "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "head_dim": 128,
    },
    "llama-3.1-8b-like": {
        **_LLAMA, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "head_dim": 128,
        "intermediate_size": 14336, "tie_word_embeddings": False,
    },
    "bert-base-like": {
        **_BERT, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    },
    "bert-large-like": {
        **_BERT, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    },
}  # fmt: skip
"""Configurations by name; sizes and types of weights are those of the published models' own configurations."""

COMMON_WORDS: Final = (
    *("the", "of", "and", "to", "in", "is", "for", "on", "with", "as", "by", "at", "from", "it", "an", "be", "this"),
    *("that", "are", "was", "or", "not", "have", "has", "had", "but", "they", "you", "we", "which", "one", "all"),
    *("can", "more", "when", "there", "their", "time", "will", "would", "about", "out", "up", "into", "than", "them"),
    *("other", "some", "could", "make", "like", "then", "now", "people", "year", "good", "look", "work", "first"),
)
"""Common words that are single tokens in most vocabularies."""

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_shape(name: str, folder: Path) -> BackboneFiles:
    """Write a folder with the configuration and a tokenizer of `COMMON_WORDS`; return its files.

    Args:
        name: a key of `BACKBONE_SHAPES`.
        folder: folder to write to; it is made if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = BACKBONE_SHAPES[name]
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    bert_word_tokenizer(COMMON_WORDS, config["max_position_embeddings"]).save_pretrained(folder)
    return locate_backbone(str(folder.absolute()), weights=False)


def bert_word_tokenizer(words: Iterable[str], max_length: int, *, lowercase: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words in BERT's form, after its special tokens.

    Args:
        words: the vocabulary, in the order of the ids.
        max_length: tokens of the longest sequence.
        lowercase: whether texts are written in lower case first.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate((*_SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_length,
    )
