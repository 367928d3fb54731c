"""A backbone's tokenizer, loaded and compared with its embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from harness.backbones.checks import too_many_tokens
from harness.backbones.layout import read_object
from harness.backbones.loading import refusing
from harness.backbones.locate import BackboneFiles
from harness.errors import UsageError

_RESERVED: Final = 16
"""Positions that a table may have beside those of tokens: RoBERTa's has 2. A longer text needs the model to know."""


def token_counts(files: BackboneFiles, texts: Sequence[str], max_length: int) -> list[int] | None:
    """Return how many tokens each text has, without importing torch or transformers, which takes seconds.

    Args:
        files: the backbone.
        texts: whole texts.
        max_length: tokens of a text that are to be read.

    Returns:
        Tokens of each text, special ones included; None where the files do not say for certain that the backbone
        reads `max_length` tokens, or have no tokenizer.json.

    Raises:
        UsageError: tokenizer.json cannot be read.
    """
    from tokenizers import Tokenizer

    path, settings = files.folder / "tokenizer.json", files.folder / "tokenizer_config.json"
    positions = read_object(files.folder / "config.json", files.name).get("max_position_embeddings")
    stated = read_object(settings, files.name).get("model_max_length") if settings.is_file() else None
    is_certain = isinstance(positions, int) and max_length + _RESERVED <= positions
    if not (path.is_file() and is_certain and isinstance(stated, int | float) and max_length <= stated):
        return None
    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]
    except Exception as error:  # a library's parsers raise all kinds on files of the user
        raise refusing(files, "given its tokenizer by tokenizers", error) from error


def read_tokenizer(files: BackboneFiles) -> Any:
    """Return the tokenizer as transformers reads it, with a token for padding.

    Raises:
        UsageError: transformers refuses it, makes it up, or has no fast one.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False, local_files_only=True)
        is_fast, limit = bool(tokenizer.is_fast), tokenizer.model_max_length
    except Exception as error:  # a library's parsers raise all kinds on files of the user
        raise refusing(files, "given its tokenizer by transformers", error) from error
    if not is_fast:
        raise UsageError(f"Backbone '{files.name}' has no tokenizer.json; expected a fast tokenizer.")
    if not isinstance(limit, int | float) or math.isnan(limit):
        raise UsageError(
            f"Backbone '{files.name}': model_max_length in tokenizer_config.json is {limit!r}; expected a number."
        )
    if not (files.folder / "tokenizer.json").is_file() and _is_made_up(tokenizer):
        raise UsageError(
            f"Backbone '{files.name}': transformers finds no vocabulary for {type(tokenizer).__name__}; expected "
            "tokenizer.json beside config.json. Save it with: tokenizer.save_pretrained(FOLDER)."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # decoders often have none; padding is masked everywhere
    if tokenizer.pad_token_id is None:
        raise UsageError(
            f"Backbone '{files.name}': its tokenizer has neither pad_token nor eos_token; expected one to pad with. "
            "Set one: tokenizer.pad_token = '...', then tokenizer.save_pretrained(FOLDER)."
        )
    return tokenizer


def _is_made_up(tokenizer: Any) -> bool:
    """Return whether a tokenizer has the vocabulary that its class has without any file."""
    try:
        return bool(type(tokenizer)().get_vocab() == tokenizer.get_vocab())
    except Exception:  # noqa: BLE001 - the class needs files, and says so in its own way
        return False


def check_tokens(tokenizer: Any, n_rows: int, files: BackboneFiles) -> None:
    """Refuse a tokenizer whose ids go beyond the embeddings, or that has no room for a text.

    Args:
        tokenizer: the backbone's.
        n_rows: rows of its embeddings.
        files: the backbone.

    Raises:
        UsageError: it is another model's.
    """
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest < 0:
        raise UsageError(f"Backbone '{files.name}': its tokenizer has no tokens; expected a vocabulary.")
    if largest >= n_rows:
        raise too_many_tokens(files.name, largest, n_rows, "the tokenizer")
    added = tokenizer.num_special_tokens_to_add(pair=True)
    if 0 < tokenizer.model_max_length <= added:
        raise UsageError(
            f"Backbone '{files.name}': model_max_length in tokenizer_config.json is {tokenizer.model_max_length}, and "
            f"{added} special tokens are added to each pair of texts; expected room for a text."
        )
