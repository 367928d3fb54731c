"""Tiny backbones with random weights, one of each architecture, saved as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.backbones import bert_word_tokenizer
from harness.tasks import FILLER, TOPIC_WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
PROMPT_WORDS = ["input", "label", ":", "text", *TOPIC_WORDS]
"""Words of prompts in addition to those of the texts: the template's, and the names of the classes."""

WORDS = [*SPECIAL, *FILLER, *(word for words in TOPIC_WORDS.values() for word in words), *PROMPT_WORDS]


def word_tokenizer(words: list[str], template: str, max_length: int) -> PreTrainedTokenizerFast:
    """Return a fast tokenizer with one token per word.

    Args:
        words: the vocabulary, `SPECIAL` first.
        template: positions of special tokens, such as `<s> $A`.
        max_length: longest input in tokens.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: position for position, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(word, vocabulary[word]) for word in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=max_length,
    )


def save_tiny_bert(folder: Path, *, layers: int = 2, width: int = 32) -> Path:
    """Save a BERT and its tokenizer; return the folder."""
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = bert_word_tokenizer([*FILLER, *(w for ws in TOPIC_WORDS.values() for w in ws)], 64, lowercase=True)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
        BertModel(config).save_pretrained(folder)
    return folder


def save_tiny_llama(folder: Path, *, layers: int = 2, width: int = 32, max_length: int = 128) -> Path:
    """Save a Llama with its language-modelling head; `<s>` begins every text. Return the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    word_tokenizer(WORDS, "<s> $A", max_length).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=max_length,
            initializer_range=0.2,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_tiny_t5(folder: Path, *, layers: int = 2, width: int = 32, max_length: int = 128) -> Path:
    """Save a T5, encoder and decoder; `</s>` ends every text. Return the folder."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    word_tokenizer(WORDS, "$A </s>", max_length).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = T5Config(  # type: ignore[call-arg]
            vocab_size=len(WORDS),
            d_model=width,
            d_kv=width // 2,
            d_ff=2 * width,
            num_layers=layers,
            num_decoder_layers=layers,
            num_heads=2,
            initializer_factor=1.0,  # embeddings with deviation 1, so that texts differ in their features
            pad_token_id=0,
            eos_token_id=3,
            decoder_start_token_id=0,
        )
        T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder
