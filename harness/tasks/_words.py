"""Tokenize sentences of words in windows, and find the tokens of each word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from harness.backbones import Backbone
from harness.tasks._tokenize import cutting
from harness.tasks.base import Ints, Rows, Sequences, Source

OVERLAP = 1 / 3
"""Share of a window that the next one repeats."""


def words_of(rows: Rows) -> Ints:
    """Return the number of words of each row, shape (rows,)."""
    tokens = rows.source.fields["tokens"]
    return np.fromiter((len(tokens[at]) for at in rows.index), dtype=np.int64, count=len(rows))


def tokenize_words(source: Source, backbone: Backbone, max_length: int) -> Sequences:
    """Tokenize the words of each row, joined by spaces; a row that is too long is read in overlapping windows.

    A token belongs to the word that its last character is in. Each word is predicted in one window: the one in which
    its first token has most tokens before or after it, whichever are fewer. The border of a sentence takes no context
    away. Windows in which no word is predicted are left out.

    Returns:
        Token ids, and as `places` for each sequence an array of shape (words, 3): the word's position in its row, its
        first token, and the token behind its last. A word without tokens (of white space or control characters for
        this tokenizer) is in none.
    """
    if not len(source):
        return Sequences([], 0, np.zeros(1, dtype=np.int64), [])
    tokenizer = backbone.tokenizer
    room = max_length - int(tokenizer.num_special_tokens_to_add())
    with cutting(tokenizer, "right"):
        encoded = tokenizer(
            list(source.texts),
            truncation=True,
            max_length=max_length,
            stride=max(0, min(int(OVERLAP * room), room - 1)),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=False,
        )
    owner = np.asarray(encoded["overflow_to_sample_mapping"], dtype=np.int64)
    starts = np.searchsorted(owner, np.arange(len(source) + 1))
    ids: list[Sequence[int]] = []
    places: list[npt.NDArray[np.int32]] = []
    counts = np.zeros(len(source), dtype=np.int64)
    for row, words in enumerate(source.fields["tokens"]):
        windows = range(starts[row], starts[row + 1])
        word_of = _word_of_character(words)
        found = [_first_tokens(encoded["offset_mapping"][window], word_of) for window in windows]
        for window, place in zip(windows, _owned(found, len(words)), strict=True):
            if len(place) or len(windows) == 1:
                ids.append(encoded["input_ids"][window])
                places.append(place)
                counts[row] += 1
        if counts[row] == 0:  # no word has a token: the row keeps a sequence, in which nothing is predicted
            ids.append(encoded["input_ids"][windows[0]])
            places.append(np.zeros((0, 3), dtype=np.int32))
            counts[row] = 1
    return Sequences(ids, 0, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), places)


def _word_of_character(words: Sequence[str]) -> Ints:
    """Return the word that each character of the joined words is in; -1 for the spaces between them."""
    lengths = [len(word) for word in words]
    found = np.full(sum(lengths) + len(words) - 1, -1, dtype=np.int64)
    at = 0
    for word, length in enumerate(lengths):
        found[at : at + length] = word
        at += length + 1
    return found


def _first_tokens(offsets: Sequence[tuple[int, int]], word_of: Ints) -> npt.NDArray[np.int64]:
    """Return the words of a window, shape (words, 5): word, first token, token behind the last, tokens before, after.

    The tokens before and after are counted from the first token to the borders of the window's text.
    """
    place = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    is_text = place[:, 1] > place[:, 0]  # special tokens have no characters
    words = np.where(is_text, word_of[np.maximum(place[:, 1] - 1, 0)], -1)
    at = np.flatnonzero(words >= 0)
    if len(at) == 0:
        return np.zeros((0, 5), dtype=np.int64)
    known, first = np.unique(words[at], return_index=True)
    last = len(at) - 1 - np.unique(words[at][::-1], return_index=True)[1]
    begins, ends = at[first], at[last] + 1
    return np.stack([known, begins, ends, begins - at[0], at[-1] - begins], axis=1)


def _owned(windows: Sequence[npt.NDArray[np.int64]], n_words: int) -> list[npt.NDArray[np.int32]]:
    """Return the words that are predicted in each window: (word, first token, token behind the last)."""
    most = np.full(n_words, -1, dtype=np.int64)
    owner = np.full(n_words, -1, dtype=np.int64)
    for number, found in enumerate(windows):
        if len(found) == 0:
            continue
        before, after = found[:, 3].copy(), found[:, 4].copy()
        if number == 0:
            before[:] = np.iinfo(np.int64).max
        if number == len(windows) - 1:
            after[:] = np.iinfo(np.int64).max
        context = np.minimum(before, after)
        # A window that begins inside a word has no token before it there: the earlier window keeps the word.
        better = context > most[found[:, 0]]
        most[found[better, 0]] = context[better]
        owner[found[better, 0]] = number
    return [
        found[owner[found[:, 0]] == number, :3].astype(np.int32) if len(found) else np.zeros((0, 3), dtype=np.int32)
        for number, found in enumerate(windows)
    ]
