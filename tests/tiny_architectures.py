"""Tiny backbones with random weights of some thirty architectures, each with a tokenizer of the toy words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.tiny_backbones import SPECIAL, WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BLOCKS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.2,
}
_GROUPED: dict[str, Any] = {**_BLOCKS, "num_key_value_heads": 2}
_GEMMA: dict[str, Any] = {**_GROUPED, "head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16}
_RELATIVE: dict[str, Any] = {
    **_BLOCKS,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
_BART: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "decoder_start_token_id": 2,
    "init_std": 0.2,
}
_XLM: dict[str, Any] = {"emb_dim": 32, "n_layers": 3, "n_heads": 4, "pad_index": 0, "embed_init_std": 0.2}

ARCHITECTURES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "bert": ("bert", "BertModel", "BertConfig", _BLOCKS),
    "roberta": ("roberta", "RobertaModel", "RobertaConfig", _BLOCKS),
    "distilbert": (
        "bert",
        "DistilBertModel",
        "DistilBertConfig",
        {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "initializer_range": 0.2},
    ),
    "deberta": ("bert", "DebertaModel", "DebertaConfig", _RELATIVE),
    "deberta-v2": (
        "bert",
        "DebertaV2Model",
        "DebertaV2Config",
        {**_RELATIVE, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True},
    ),
    "deberta-v2-conv": ("bert", "DebertaV2Model", "DebertaV2Config", {**_RELATIVE, "conv_kernel_size": 3}),
    "modernbert": (
        "bert",
        "ModernBertForMaskedLM",
        "ModernBertConfig",
        {**_BLOCKS, "local_attention": 16, "global_attn_every_n_layers": 3, "cls_token_id": 2, "sep_token_id": 3},
    ),
    "mpnet": ("roberta", "MPNetModel", "MPNetConfig", _BLOCKS),
    "electra": ("bert", "ElectraModel", "ElectraConfig", {**_BLOCKS, "embedding_size": 16}),
    "albert": ("bert", "AlbertModel", "AlbertConfig", {**_BLOCKS, "embedding_size": 16}),
    "xlnet": (
        "bert",
        "XLNetModel",
        "XLNetConfig",
        {"d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 64, "initializer_range": 0.2},
    ),
    "xlm": ("bert", "XLMModel", "XLMConfig", _XLM),
    "flaubert": ("bert", "FlaubertModel", "FlaubertConfig", _XLM),
    "longformer": ("roberta", "LongformerModel", "LongformerConfig", {**_BLOCKS, "attention_window": [8, 8, 8]}),
    "esm": (
        "bert",
        "EsmModel",
        "EsmConfig",
        {**_BLOCKS, "mask_token_id": 4, "position_embedding_type": "rotary", "token_dropout": True},
    ),
    "gpt2": (
        "gpt",
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_positions": 128, "n_embd": 32, "n_layer": 3, "n_head": 4, "initializer_range": 0.2},
    ),
    "opt": ("roberta", "OPTForCausalLM", "OPTConfig", {**_BLOCKS, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "gpt_neox": ("gpt", "GPTNeoXForCausalLM", "GPTNeoXConfig", _BLOCKS),
    "falcon": ("gpt", "FalconForCausalLM", "FalconConfig", _BLOCKS),
    "bloom": ("llama", "BloomForCausalLM", "BloomConfig", {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "phi": ("gpt", "PhiForCausalLM", "PhiConfig", _BLOCKS),
    "llama": ("llama", "LlamaForCausalLM", "LlamaConfig", _GROUPED),
    "mistral": ("llama", "MistralForCausalLM", "MistralConfig", {**_GROUPED, "sliding_window": 16}),
    "qwen2": ("bytes", "Qwen2ForCausalLM", "Qwen2Config", {**_GROUPED, "tie_word_embeddings": True}),
    "qwen3": ("gpt", "Qwen3ForCausalLM", "Qwen3Config", {**_GROUPED, "head_dim": 16, "tie_word_embeddings": True}),
    "gemma": ("llama", "GemmaForCausalLM", "GemmaConfig", {**_BLOCKS, "num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": ("llama", "Gemma2ForCausalLM", "Gemma2Config", _GEMMA),
    "gemma3": ("llama", "Gemma3ForCausalLM", "Gemma3TextConfig", _GEMMA),
    "mamba": ("gpt", "MambaForCausalLM", "MambaConfig", {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 8}),
    "t5": (
        "t5",
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_heads": 4, "decoder_start_token_id": 0},
    ),
    "bart": ("roberta", "BartForConditionalGeneration", "BartConfig", _BART),
    "mbart": ("roberta", "MBartForConditionalGeneration", "MBartConfig", _BART),
}
"""Architectures by name: the style of the tokenizer, the classes of model and configuration, and the sizes."""

_TEMPLATES = {"bert": "<s> $A </s>", "roberta": "<s> $A </s>", "llama": "<s> $A", "t5": "$A </s>", "gpt": "$A"}


def save_tiny(name: str, folder: Path) -> Path:
    """Save the backbone `name` of `ARCHITECTURES` with its tokenizer, as transformers saves them."""
    import torch
    import transformers

    style, model_class, config_class, sizes = ARCHITECTURES[name]
    tokenizer = _tokenizer(style)
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.convert_tokens_to_ids("<s>"),
        "eos_token_id": tokenizer.convert_tokens_to_ids("</s>"),
    }
    # RoBERTa's positions start behind the padding's id.
    positions = {} if name in ("t5", "bloom", "mamba", "xlnet", "gpt2") else {"max_position_embeddings": 130}
    config = getattr(transformers, config_class)(vocab_size=len(tokenizer) + 8, **{**ids, **positions, **sizes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(transformers, model_class)(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(style: str) -> PreTrainedTokenizerFast:
    """A fast tokenizer with one token a word; `gpt` has no token for padding, `roberta` has it at 1.

    `bytes` is a byte-level BPE, trained on the words: transformers reads the tokenizer of a Qwen2 as nothing else.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if style == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator([f" {word}" for word in WORDS], trainer)
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, model_max_length=64, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
        )
    special = ["<s>", "<pad>", "</s>", "<unk>"] if style == "roberta" else SPECIAL
    vocabulary = {word: position for position, word in enumerate([*special, *WORDS[len(SPECIAL) :]])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=_TEMPLATES[style], special_tokens=[(word, vocabulary[word]) for word in ("<s>", "</s>")]
    )
    named = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        **(named if style == "gpt" else {**named, "pad_token": "<pad>"}),
    )
