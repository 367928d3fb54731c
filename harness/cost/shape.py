"""Read the sizes of a transformer that its cost depends on, from its configuration; nothing is loaded."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.backbones import blocks_of, stores_bfloat16, width_of

_INNER = ("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "n_inner", "hidden_dim")
_HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads", "encoder_attention_heads")
_GATED = {"llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "smollm3", "modernbert"}
"""Architectures whose inner layers have three matrices instead of two."""

_USUAL_DROPOUT = 0.1
_DROP_UNLESS_TOLD = {"bert", "roberta", "xlm-roberta", "distilbert", "electra", "deberta-v2", "mpnet"}
"""Architectures with dropout in transformers unless the configuration sets it."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a transformer, or of a sequence-to-sequence transformer's encoder.

    Attributes:
        n_blocks: number of blocks.
        width: width of a hidden state.
        block_parameters: number of weights in the matrices of one block.
        vocabulary: number of tokens in the vocabulary.
        inner: width of a block's inner layer.
        n_heads: number of attention heads.
        attention_width: width of all heads together.
        gated: whether the inner layer is a product of two layers.
        dropout: dropout rate inside the blocks.
        attention_dropout: dropout rate of attention scores.
        key_width: width of all keys together; smaller than `attention_width` where heads share keys.
        is_bfloat16: whether the file stores matrices and embeddings in bfloat16.
        is_tied: whether the language-model head is the embedding.
    """

    n_blocks: int
    width: int
    block_parameters: int
    vocabulary: int
    inner: int = 0
    n_heads: int = 1
    attention_width: int = 0
    gated: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    key_width: int = 0
    is_bfloat16: bool = False
    is_tied: bool = True

    @property
    def vector_parameters(self) -> int:
        """Weights of norms and biases of one block: two scales, or two norms with biases and a bias per layer."""
        return 2 * self.width if self.gated else 9 * self.width + self.inner

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """Rows and columns of the matrices of one block; they have `block_parameters` weights."""
        attention = [(self.attention_width, self.width), (self.width, self.attention_width)]
        keys = [(self.key_width, self.width)] * 2
        return [*attention, *keys, *([(self.inner, self.width)] * (3 if self.gated else 2))]

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding of the vocabulary."""
        return self.vocabulary * self.width

    @property
    def largest_matrix(self) -> int:
        """Weights of the largest matrix of a block."""
        return self.width * max(self.inner, self.attention_width)

    @property
    def n_parameters(self) -> int:
        """Weights of the matrices of all blocks and of the embedding."""
        return self.n_blocks * self.block_parameters + self.embedding_parameters

    def forward_flops(self, n_tokens: float, length: float) -> float:
        """Return the operations of a forward pass of `n_tokens` in sequences of `length`; a multiply-add counts as two.

        Each weight of a matrix is used once per token; attention takes two products of `length` by `width` (Kaplan et
        al., 2020, arXiv:2001.08361, table 1).
        """
        return n_tokens * self.n_blocks * (2.0 * self.block_parameters + 4.0 * length * self.width)


@functools.lru_cache(maxsize=64)
def read_shape(folder: Path) -> Shape | None:
    """Return the shape in a folder's `config.json`; None if the file is incomplete."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    nested = config.get("text_config")
    config = {**config, **nested} if isinstance(nested, dict) else config
    n_blocks, width = blocks_of(config), width_of(config)
    if not n_blocks or width is None:
        return None
    n_heads = _first(config, _HEADS) or max(1, width // 64)
    inner = _first(config, _INNER) or 4 * width
    head_width = _first(config, ("head_dim", "d_kv")) or width // n_heads
    n_keys = _first(config, ("num_key_value_heads",)) or n_heads
    attention = 2 * width * head_width * n_heads + 2 * width * head_width * n_keys
    gated = config.get("model_type") in _GATED or bool(config.get("is_gated_act"))
    usual = _USUAL_DROPOUT if config.get("model_type") in _DROP_UNLESS_TOLD else 0.0
    return Shape(
        n_blocks,
        width,
        attention + (3 if gated else 2) * width * inner,
        _first(config, ("vocab_size",)) or 0,
        inner=inner,
        n_heads=n_heads,
        attention_width=head_width * n_heads,
        gated=gated,
        dropout=_rate(config, ("hidden_dropout_prob", "hidden_dropout", "dropout", "resid_pdrop"), usual),
        attention_dropout=_rate(config, ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop"), usual),
        key_width=head_width * n_keys,
        is_bfloat16=_is_bfloat16(config, folder),
        is_tied=config.get("tie_word_embeddings", True) is not False,
    )


def _is_bfloat16(config: dict[str, Any], folder: Path) -> bool:
    """Return whether the weights are in bfloat16, by their files, or without files by the configuration."""
    stored = stores_bfloat16(folder)
    return config.get("dtype", config.get("torch_dtype")) == "bfloat16" if stored is None else stored


def _rate(config: dict[str, Any], names: tuple[str, ...], otherwise: float) -> float:
    found = (config.get(name) for name in names)
    return next((float(rate) for rate in found if isinstance(rate, (int, float))), otherwise)


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int | None:
    found = (config.get(name) for name in names)
    return next(
        (value for value in found if isinstance(value, int) and not isinstance(value, bool) and value > 0), None
    )
