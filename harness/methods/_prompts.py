"""From texts and demonstrations to the token ids of prompts, and from classes to the token ids of their words.

Everything is tokenised as running text, whole, so that each token is the one a language model would see there: no
piece is tokenised by itself and glued to another.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.backbones import Backbone
from harness.support import UnsupportedError
from harness.tasks import Ints

PLACE = "{text}"
"""Where a method's template has the text."""

_PROBES = ("", "a", "7")
"""Texts that begin differently under any tokenizer: what prompts with these share, all prompts share."""


@dataclass(frozen=True)
class Demonstration:
    """A training row that a prompt shows.

    Attributes:
        text: the text, or all that is asked (`Wording`).
        answer: what is right, in words.
    """

    text: str
    answer: str


@dataclass(frozen=True)
class Wording:
    """How a row is put to a language model.

    Attributes:
        template: a method's, which holds `PLACE` once; or a task's own, whose fields name columns.
        is_whole: whether rows come as the task has worded them, so that the template only shows how they end.
    """

    template: str
    is_whole: bool = False

    def ask(self, text: str) -> str:
        """What is asked, without spaces behind it: a space before an answer is part of its first token mostly."""
        return (text if self.is_whole else self.template.replace(PLACE, text)).rstrip(" ")

    def probe(self, text: str) -> str:
        """What is asked of a row all of whose fields are `text`."""
        if not self.is_whole:
            return self.ask(text)
        return self.template.format_map(defaultdict(lambda: text)).rstrip(" ")

    @property
    def joint(self) -> str:
        """What stands between what is asked and its answer."""
        return "" if self.probe("a")[-1:].isspace() else " "


@dataclass(frozen=True, eq=False)
class Prompt:
    """One row's prompt.

    Attributes:
        ids: token ids, shape (tokens,).
        n_dropped: demonstrations, the earliest first, for which the positions left no room.
        is_cut: whether the text was cut, by the task's limit or for want of room.
        written: as it reads.
    """

    ids: Ints
    n_dropped: int
    is_cut: bool
    written: str = ""


class PromptWriter:
    """Writes prompts for one task and backbone.

    A prompt is the instruction, the demonstrations and the text, each but the first behind a separator; a
    demonstration is what is asked of a row with its answer behind it, and the text is what is asked alone, for the
    language model to go on from. An answer follows after one space, or at once if what is asked ends a line. The
    special tokens that the tokenizer begins a text with (BOS) come once, at the start.

    A text that is too long loses its end; one that the task has worded itself loses its beginning, since its end says
    what is asked.

    Args:
        backbone: causal: answers continue the prompt; sequence to sequence: the prompt is the encoder's input and
            answers are the decoder's targets, special tokens (T5: EOS) included, as in its training.
        wording: how a row is put.
        separator: between instruction, demonstrations and text.
        instruction: begins every prompt; "" for none.
        max_text_tokens: tokens of a text that are read, special tokens counted (`Bench.max_length`).
        answers: all that there are, in words, where every row has the same.
        n_answer_tokens: positions to leave for an answer where rows differ.

    Attributes:
        labels: token ids of each of `answers`.

    Raises:
        UnsupportedError: two answers have the same tokens, or one has none.
    """

    def __init__(
        self,
        backbone: Backbone,
        wording: Wording,
        *,
        separator: str,
        instruction: str,
        max_text_tokens: int,
        answers: Sequence[str] = (),
        n_answer_tokens: int = 0,
    ) -> None:
        self._tokenizer = backbone.tokenizer
        self._wording = wording
        self._separator = separator
        self._instruction = instruction
        self._joint = wording.joint
        self._is_causal = backbone.files.architecture == "causal"
        self._n_text_tokens = max(1, max_text_tokens - self._tokenizer.num_special_tokens_to_add())
        self._lengths: dict[Demonstration, int] = {}
        self._n_behind = 0
        self.labels: list[list[int]] = []
        self._room = backbone.max_length - (n_answer_tokens if self._is_causal else 0)
        if answers and self._is_causal:
            before = self._join([wording.probe("a")])
            self.labels, self._n_behind = self._continuations(before, answers)
            self._room = backbone.max_length - max(len(label) for label in self.labels)
        elif answers:
            self.labels = [self._ids(words) for words in answers]
        self._check_labels(answers)

    def write(self, text: str, demonstrations: Sequence[Demonstration], *, room: int | None = None) -> Prompt:
        """The prompt of a text behind demonstrations, shortened to fit the positions.

        Args:
            text: of the row.
            demonstrations: in the order in which they are shown.
            room: tokens that there is room for; None leaves as many positions as the longest answer takes.

        Raises:
            UnsupportedError: instruction and template alone are longer than the positions allow.
        """
        room = self._room if room is None else room
        read = self.shorten(text)
        n_dropped = 0
        ids = self._prompt_ids(read, demonstrations)
        while len(ids) > room and n_dropped < len(demonstrations):
            n_dropped += self._n_to_drop(demonstrations[n_dropped:], len(ids) - room)
            ids = self._prompt_ids(read, demonstrations[n_dropped:])
        while len(ids) > room:
            n_read = len(self._tokenizer(read, add_special_tokens=False)["input_ids"])
            if n_read == 0:
                raise UnsupportedError(
                    f"The template and the instruction take {len(ids)} tokens without any text; the backbone's "
                    f"positions leave room for {room}. Shorten them."
                )
            read = self._some_tokens(read, max(0, n_read - (len(ids) - room)))
            ids = self._prompt_ids(read, ())
        written = self._written(read, demonstrations[n_dropped:])
        return Prompt(np.asarray(ids, dtype=np.int64), n_dropped, read != text, written)

    def write_with(
        self, text: str, demonstrations: Sequence[Demonstration], answers: Sequence[str]
    ) -> tuple[Prompt, list[Ints]]:
        """The prompt of a text, and the token ids of each of its own possible answers as they follow it."""
        if not self._is_causal:
            prompt = self.write(text, demonstrations)
            return prompt, [np.asarray(self._ids(answer), dtype=np.int64) for answer in answers]
        longest = max(len(self._tokenizer(a, add_special_tokens=False)["input_ids"]) for a in answers) + 1
        prompt = self.write(text, demonstrations, room=max(1, self._room - longest))
        rest, n_behind = self._continuations(prompt.written, answers)
        ids = self._ids(prompt.written)
        kept = ids[: len(ids) - n_behind] or [_start_id(self._tokenizer)]
        prompt = dataclasses.replace(prompt, ids=np.asarray(kept, dtype=np.int64))
        return prompt, [np.asarray(ids, dtype=np.int64) for ids in rest]

    def write_probe(self, text: str, demonstrations: Sequence[Demonstration]) -> Prompt:
        """The prompt of a row all of whose fields are `text`."""
        return self.write(self._wording.probe(text) if self._wording.is_whole else text, demonstrations)

    def shared(self, demonstrations: Sequence[Demonstration]) -> Ints:
        """The tokens that prompts with these demonstrations begin with, whatever their text; shape (tokens,).

        Found by comparing prompts, since a tokenizer may merge across the border between separator and template.
        """
        shown = self._shown(demonstrations)
        prompts = [self._ids_before_answer(self._join([*shown, self._wording.probe(probe)])) for probe in _PROBES]
        return np.asarray(prompts[0][: _n_common(prompts)], dtype=np.int64)

    def shorten(self, text: str) -> str:
        """The part of a text that the task's limit lets a method read."""
        return self._some_tokens(text, self._n_text_tokens)

    def _shown(self, demonstrations: Sequence[Demonstration]) -> list[str]:
        return [self._wording.ask(shown.text) + self._joint + shown.answer for shown in demonstrations]

    def _written(self, text: str, demonstrations: Sequence[Demonstration]) -> str:
        return self._join([*self._shown(demonstrations), self._wording.ask(text)])

    def _join(self, parts: Sequence[str]) -> str:
        return self._separator.join([*([self._instruction] if self._instruction else []), *parts])

    def _prompt_ids(self, text: str, demonstrations: Sequence[Demonstration]) -> list[int]:
        return self._ids_before_answer(self._written(text, demonstrations))

    def _ids_before_answer(self, written: str) -> list[int]:
        ids = self._ids(written)
        ids = ids[: len(ids) - self._n_behind]
        if self._is_causal and not self.labels and ids[-1:] == [self._tokenizer.eos_token_id]:
            ids = ids[:-1]  # the prompt is gone on from, and not over
        return ids or [_start_id(self._tokenizer)]  # nothing at all to go on from: an empty text in a bare template

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def _some_tokens(self, text: str, n_tokens: int) -> str:
        """The first tokens of a text, or the last of one that loses its beginning."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if len(encoded["input_ids"]) <= n_tokens:
            return text
        if n_tokens == 0:
            return ""
        offsets = encoded["offset_mapping"]
        return text[offsets[-n_tokens][0] :] if self._wording.is_whole else text[: offsets[n_tokens - 1][1]]

    def _n_to_drop(self, demonstrations: Sequence[Demonstration], n_over: int) -> int:
        """How many of the earliest to leave out for `n_over` tokens: at least one, and one less than is likely."""
        lengths = np.cumsum([self._length(shown) for shown in demonstrations])
        return max(1, int(np.searchsorted(lengths, n_over)))

    def _length(self, shown: Demonstration) -> int:
        """Tokens that a demonstration adds to a prompt, up to merges at its borders."""
        if shown not in self._lengths:
            self._lengths[shown] = len(self._prompt_ids("", [shown])) - len(self._prompt_ids("", ()))
        return self._lengths[shown]

    def _continuations(self, before: str, answers: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids of each answer as it continues a prompt, and how many of the prompt's own they replace.

        A tokenizer may merge the prompt's last character with what follows it, or end every text with a token: such
        tokens are no part of what is gone on from.
        """
        prompt = self._ids(before)
        wholes = [self._ids(before + self._joint + answer) for answer in answers]
        n_kept = min(_n_common([prompt, whole]) for whole in wholes)
        return [whole[n_kept:] for whole in wholes], len(prompt) - n_kept

    def _check_labels(self, answers: Sequence[str]) -> None:
        seen: dict[tuple[int, ...], str] = {}
        for words, label in zip(answers, self.labels, strict=True):
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
