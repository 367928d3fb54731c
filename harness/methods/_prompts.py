"""From texts and demonstrations to the token ids of prompts, and from classes to the token ids of their words.

Everything is tokenised as running text, whole, so that each token is the one a language model would see there: no
piece is tokenised by itself and glued to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.backbones.model import Backbone
from harness.errors import UnsupportedError
from harness.tasks.base import Ints

PLACE = "{text}"
"""Where a template has the text."""

_PROBES = ("", "a", "7")
"""Texts that begin differently under any tokenizer: what prompts with these share, all prompts share."""


@dataclass(frozen=True)
class Demonstration:
    """A training row that a prompt shows."""

    text: str
    label: int


@dataclass(frozen=True, eq=False)
class Prompt:
    """One row's prompt.

    Attributes:
        ids: token ids, shape (tokens,).
        n_dropped: demonstrations, the earliest first, for which the positions left no room.
        is_cut: whether the text was cut on the right, by the task's limit or for want of room.
    """

    ids: Ints
    n_dropped: int
    is_cut: bool


class PromptWriter:
    """Writes prompts for one task and backbone.

    A prompt is the instruction, the demonstrations and the text, each but the first behind a separator; a
    demonstration is the filled template with its label's words behind it, and the text is the filled template alone,
    for the language model to go on from. The label's words follow the template's end after one space, or at once if
    the template ends a line. The special tokens that the tokenizer begins a text with (BOS) come once, at the start.

    Args:
        backbone: causal: the words continue the prompt; sequence to sequence: the prompt is the encoder's input and
            the words are the decoder's targets, special tokens (T5: EOS) included, as in its training.
        label_words: each class in words.
        template: holds `PLACE` once.
        separator: between instruction, demonstrations and text.
        instruction: begins every prompt; "" for none.
        max_text_tokens: tokens of a text that are read, special tokens counted (`Bench.max_length`).

    Raises:
        UnsupportedError: two classes have the same tokens, or one has none.
    """

    def __init__(
        self,
        backbone: Backbone,
        label_words: Sequence[str],
        *,
        template: str,
        separator: str,
        instruction: str,
        max_text_tokens: int,
    ) -> None:
        self._tokenizer = backbone.tokenizer
        self._separator = separator
        self._instruction = instruction
        # A space before the words is part of their first token in most vocabularies: it is theirs, not the prompt's.
        self._template = template.rstrip(" ")
        self._joint = "" if self._template[-1:].isspace() else " "
        self._label_words = tuple(label_words)
        self._n_text_tokens = max(1, max_text_tokens - self._tokenizer.num_special_tokens_to_add())
        self._lengths: dict[Demonstration, int] = {}
        self._n_behind = 0
        if backbone.files.architecture == "causal":
            self.labels, self._n_behind = self._continuations()
            self._room = backbone.max_length - max(len(label) for label in self.labels)
        else:
            self.labels = [self._ids(words) for words in label_words]
            self._room = backbone.max_length
        self._check_labels()

    def write(self, text: str, demonstrations: Sequence[Demonstration]) -> Prompt:
        """The prompt of a text behind demonstrations, shortened to fit the positions.

        Raises:
            UnsupportedError: instruction and template alone are longer than the positions allow.
        """
        read = self._first_tokens(text, self._n_text_tokens)
        n_dropped = 0
        ids = self._prompt_ids(read, demonstrations)
        while len(ids) > self._room and n_dropped < len(demonstrations):
            n_dropped += self._n_to_drop(demonstrations[n_dropped:], len(ids) - self._room)
            ids = self._prompt_ids(read, demonstrations[n_dropped:])
        while len(ids) > self._room:
            n_read = len(self._tokenizer(read, add_special_tokens=False)["input_ids"])
            if n_read == 0:
                raise UnsupportedError(
                    f"The template and the instruction take {len(ids)} tokens without any text; the backbone's "
                    f"positions leave room for {self._room}. Shorten them."
                )
            read = self._first_tokens(read, max(0, n_read - (len(ids) - self._room)))
            ids = self._prompt_ids(read, ())
        return Prompt(np.asarray(ids, dtype=np.int64), n_dropped, read != text)

    def shared(self, demonstrations: Sequence[Demonstration]) -> Ints:
        """The tokens that prompts with these demonstrations begin with, whatever their text; shape (tokens,).

        Found by comparing prompts, since a tokenizer may merge across the border between separator and template.
        """
        prompts = [self._prompt_ids(text, demonstrations) for text in _PROBES]
        return np.asarray(prompts[0][: _n_common(prompts)], dtype=np.int64)

    def shorten(self, text: str) -> str:
        """The part of a text that the task's limit lets a method read."""
        return self._first_tokens(text, self._n_text_tokens)

    def _written(self, text: str, demonstrations: Sequence[Demonstration]) -> str:
        shown = [self._template.replace(PLACE, shown.text) + self._words(shown.label) for shown in demonstrations]
        instruction = [self._instruction] if self._instruction else []
        return self._separator.join([*instruction, *shown, self._template.replace(PLACE, text)])

    def _words(self, label: int) -> str:
        return self._joint + self._label_words[label]

    def _prompt_ids(self, text: str, demonstrations: Sequence[Demonstration]) -> list[int]:
        ids = self._ids(self._written(text, demonstrations))
        ids = ids[: len(ids) - self._n_behind]
        return ids or [_start_id(self._tokenizer)]  # nothing at all to go on from: an empty text in a bare template

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def _first_tokens(self, text: str, n_tokens: int) -> str:
        """The text up to the end of its `n_tokens`-th token."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if len(encoded["input_ids"]) <= n_tokens:
            return text
        return text[: encoded["offset_mapping"][n_tokens - 1][1]] if n_tokens else ""

    def _n_to_drop(self, demonstrations: Sequence[Demonstration], n_over: int) -> int:
        """How many of the earliest to leave out for `n_over` tokens: at least one, and one less than is likely."""
        lengths = np.cumsum([self._length(shown) for shown in demonstrations])
        return max(1, int(np.searchsorted(lengths, n_over)))

    def _length(self, shown: Demonstration) -> int:
        """Tokens that a demonstration adds to a prompt, up to merges at its borders."""
        if shown not in self._lengths:
            self._lengths[shown] = len(self._prompt_ids("", [shown])) - len(self._prompt_ids("", ()))
        return self._lengths[shown]

    def _continuations(self) -> tuple[list[list[int]], int]:
        """Token ids of each class's words as they continue a prompt, and how many of the prompt's own they replace.

        A tokenizer may merge the prompt's last character with what follows it, or end every text with a token: such
        tokens are no part of what is gone on from.
        """
        before = self._written("a", ())
        prompt = self._ids(before)
        wholes = [self._ids(before + self._words(label)) for label in range(len(self._label_words))]
        n_kept = min(_n_common([prompt, whole]) for whole in wholes)
        return [whole[n_kept:] for whole in wholes], len(prompt) - n_kept

    def _check_labels(self) -> None:
        seen: dict[tuple[int, ...], str] = {}
        for words, label in zip(self._label_words, self.labels, strict=True):
            other = seen.setdefault(tuple(label), words)
            if not label or other is not words:
                how = "has no tokens" if not label else f"has the same tokens as '{other}'"
                raise UnsupportedError(
                    f"The class '{words}' {how} under this backbone's tokenizer, so that no language model can tell it "
                    "apart; name other words in the task's label_words."
                )


def _n_common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    n_common = 0
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        n_common += 1
    return n_common


def _start_id(tokenizer: Any) -> int:
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return next(int(token) for token in known if token is not None)
