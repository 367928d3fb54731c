"""Load a backbone's tokenizer and compare it with the embeddings."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final

from harness.backbones.checks import too_many_tokens, vocabulary_size
from harness.backbones.layout import read_object
from harness.backbones.loading import refusing
from harness.backbones.locate import BackboneFiles
from harness.support import UsageError

_RESERVED: Final = 16
"""Maximum number of positions in a table that are not for tokens: RoBERTa's has 2. Longer texts need the model."""


def token_counts(files: BackboneFiles, texts: Sequence[str], max_length: int) -> list[int] | None:
    """Return the number of tokens of each text, without importing torch or transformers, which takes seconds.

    Args:
        files: the backbone.
        texts: whole texts.
        max_length: maximum tokens to read of a text.

    Returns:
        Tokens of each text, special ones included; None if the files do not show that the backbone reads `max_length`
        tokens, or have no tokenizer.json.

    Raises:
        UsageError: tokenizer.json cannot be read.
    """
    from tokenizers import Tokenizer

    path, settings = files.folder / "tokenizer.json", files.folder / "tokenizer_config.json"
    config = read_object(files.folder / "config.json", files.name)
    positions = config.get("max_position_embeddings")
    stated = read_object(settings, files.name).get("model_max_length") if settings.is_file() else None
    is_certain = isinstance(positions, int) and max_length + _RESERVED <= positions
    if not (path.is_file() and is_certain and isinstance(stated, int | float) and max_length <= stated):
        return None
    try:
        tokenizer = _within(Tokenizer.from_file(str(path)), vocabulary_size(config))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]
    except Exception as error:  # a library's parsers raise all kinds on files of the user
        raise refusing(files, "given its tokenizer by tokenizers", error) from error


def read_tokenizer(files: BackboneFiles) -> Any:
    """Return the tokenizer as transformers reads it, with a token for padding.

    Raises:
        UsageError: transformers refuses it, would invent its vocabulary, or has no fast one.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False, local_files_only=True)
        is_fast, limit = bool(tokenizer.is_fast), tokenizer.model_max_length
        if is_fast:
            n_rows = vocabulary_size(read_object(files.folder / "config.json", files.name))
            tokenizer._tokenizer = _within(tokenizer.backend_tokenizer, n_rows)
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


def _within(tokenizer: Any, n_rows: int | None) -> Any:
    """Return a tokenizer of `tokenizers` without the special tokens that have no embedding.

    Such a token in a text is then read as ordinary text. Gemma 3 has one, for images.
    """
    from tokenizers import Tokenizer

    added = tokenizer.get_added_tokens_decoder()
    beyond = {} if n_rows is None else {at: token for at, token in added.items() if at >= n_rows and token.special}
    if not beyond:
        return tokenizer
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [entry for entry in content["added_tokens"] if entry["id"] not in beyond]
    model = content["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {token: at for token, at in model["vocab"].items() if at not in beyond}
    else:
        model["vocab"] = model["vocab"][:n_rows]
    return Tokenizer.from_str(json.dumps(content))


def _is_made_up(tokenizer: Any) -> bool:
    """Return whether a tokenizer has only the default vocabulary of its class."""
    try:
        return bool(type(tokenizer)().get_vocab() == tokenizer.get_vocab())
    except Exception:  # noqa: BLE001 - the class needs files, and may raise any exception
        return False


def check_tokens(tokenizer: Any, n_rows: int, files: BackboneFiles) -> None:
    """Refuse a tokenizer whose ids go beyond the embeddings, or one that leaves no room for a text.

    Args:
        tokenizer: the backbone's.
        n_rows: rows of its embeddings.
        files: the backbone.

    Raises:
        UsageError: the tokenizer belongs to another model.
    """
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest < 0:
        raise UsageError(f"Backbone '{files.name}': its tokenizer has no tokens; expected a vocabulary.")
    if largest >= n_rows:
        raise too_many_tokens(files.name, largest, n_rows, "the tokenizer")
    _check_special(tokenizer, n_rows, files)
    added = tokenizer.num_special_tokens_to_add(pair=True)
    if 0 < tokenizer.model_max_length <= added:
        raise UsageError(
            f"Backbone '{files.name}': model_max_length in tokenizer_config.json is {tokenizer.model_max_length}, and "
            f"{added} special tokens are added to each pair of texts; expected room for a text."
        )


def _check_special(tokenizer: Any, n_rows: int, files: BackboneFiles) -> None:
    """Refuse a tokenizer that uses a special token without an embedding: to pad, or to begin or end a text."""
    known = tokenizer.get_vocab()
    for role in ("pad", "eos", "bos", "cls", "sep", "unk"):
        token = getattr(tokenizer, f"{role}_token", None)
        if token is not None and token not in known:
            raise UsageError(
                f"Backbone '{files.name}': its tokenizer's {role}_token {token!r} has no embedding; the backbone has "
                f"{n_rows}. Resize them and save both: model.resize_token_embeddings(len(tokenizer))."
            )
    pair = tokenizer("a", "b")["input_ids"]
    if max(pair, default=0) >= n_rows:
        raise too_many_tokens(files.name, max(pair), n_rows, "the template of the tokenizer")
