"""Tokenize texts and pairs of texts with a backbone's own tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from harness.backbones import Backbone
from harness.tasks.base import Sequences, Source


def tokenize_texts(source: Source, backbone: Backbone, max_length: int) -> Sequences:
    """Tokenize one text per row, cut on the task's side; special tokens are kept."""
    if not len(source):
        return Sequences([], 0)
    texts = [as_read(text, source) for text in source.texts]
    with cutting(backbone.tokenizer, source.cut):
        encoded = backbone.tokenizer(texts, truncation=True, max_length=max_length, padding=False)
    n_truncated = sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    return Sequences(encoded["input_ids"], n_truncated)


def tokenize_pairs(
    first: Sequence[str], second: Sequence[str], source: Source, backbone: Backbone, max_length: int
) -> tuple[list[list[int]], list[bool]]:
    """Tokenize two texts as one sequence; the longer is cut first.

    Returns:
        Token ids, with those of the second segment marked (`Sequences.ids`), and whether each sequence was cut.
    """
    if not first:
        return [], []
    one, other = ([as_read(text, source) for text in texts] for texts in (first, second))
    with cutting(backbone.tokenizer, source.cut):
        encoded = backbone.tokenizer(
            one, other, truncation="longest_first", max_length=max_length, padding=False, **segments_of(backbone)
        )
    return mark_segments(encoded), [bool(encoding.overflowing) for encoding in encoded.encodings]


def segments_of(backbone: Backbone) -> dict[str, bool]:
    """Return the tokenizer's options that mark segments, if the backbone reads them."""
    return {"return_token_type_ids": backbone.reads_segments}


def mark_segments(encoded: Any) -> list[list[int]]:
    """Return token ids, those of the second segment as `-1 - id`."""
    rows = encoded["input_ids"]
    if "token_type_ids" not in encoded:
        return list(rows)
    return [
        [-1 - token if segment else token for token, segment in zip(ids, types, strict=True)]
        for ids, types in zip(rows, encoded["token_type_ids"], strict=True)
    ]


def as_read(text: str, source: Source) -> str:
    """Return the text as a backbone reads it, with its characters as words if the task says so."""
    return " ".join(text.replace(" ", "")) if source.characters else text


@contextmanager
def cutting(tokenizer: Any, side: Literal["right", "left"]) -> Iterator[None]:
    """Set the end at which a tokenizer cuts, within the context."""
    before = tokenizer.truncation_side
    tokenizer.truncation_side = side
    try:
        yield
    finally:
        tokenizer.truncation_side = before


def keep_ending(prompt: str, ending: str, n_tokens: int, tokenizer: Any) -> str:
    """Return a prompt that is too long, shortened to about `n_tokens`: the first ones of its beginning, and its ending.

    Args:
        prompt: text of more tokens, which ends in `ending`.
        ending: words that are kept whole.
        n_tokens: maximum number of tokens, special tokens aside; merges at the joint may change it by a few.
        tokenizer: the backbone's tokenizer.
    """
    beginning = prompt[: len(prompt) - len(ending)]
    behind = len(tokenizer(ending, add_special_tokens=False)["input_ids"]) if ending else 0
    offsets = tokenizer(beginning, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    n_kept = max(0, min(n_tokens - behind, len(offsets) - 1))
    return beginning[: offsets[n_kept - 1][1] if n_kept else 0] + ending
