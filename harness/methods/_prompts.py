"""Convert texts and demonstrations to the token ids of prompts, and classes to the token ids of their words.

Prompts are tokenised whole, as running text. Tokenising pieces and joining them would give other tokens at the joints.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harness.backbones import Backbone
from harness.methods._chat import Chat
from harness.serving import Conversation
from harness.support import UnsupportedError
from harness.tasks import Ints, keep_ending

PLACE = "{text}"
"""Placeholder of the text in a method's template."""

_PROBES = ("", "a", "7")
"""Texts that begin differently under any tokenizer: tokens that prompts with them share, all prompts share."""


@dataclass(frozen=True)
class Demonstration:
    """A training row that a prompt shows.

    Attributes:
        text: the text, or the whole question (`Wording`).
        answer: the right answer, in words.
        choices: the row's own choices, in words; empty where rows have none.
    """

    text: str
    answer: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wording:
    """The form in which a language model sees a row.

    Attributes:
        template: a method's template, which holds `PLACE` once, or a task's own, whose fields name columns.
        is_whole: whether rows come as whole questions, so that the template only shows their ending.
        ending: words after the input in the task's wording, where a text that is too long loses the end of its input.
        instruction: beginning of every prompt, or the system message of a chat; "" for none.
        by_role: whether the template's fields name roles of the kind, from which questions are written here.
    """

    template: str
    is_whole: bool = False
    ending: str | None = None
    instruction: str = ""
    by_role: bool = False

    def ask(self, text: str) -> str:
        """Return the question without trailing spaces: a space usually belongs to the answer's first token."""
        return (text if self.is_whole else self.template.replace(PLACE, text)).rstrip(" ")

    def probe(self, text: str) -> str:
        """Return the question of a row whose fields are all `text`."""
        if not self.is_whole:
            return self.ask(text)
        return self.template.format_map(defaultdict(lambda: text)).rstrip(" ")

    def conversation(self, text: str, shown: Sequence[Demonstration], *, separator: str = "\n\n") -> Conversation:
        """Return what a language model is told about a text, before any tokenizer.

        Args:
            text: the row's text, or its whole question.
            shown: demonstrations in the order in which they are shown.
            separator: text between the parts of a plain prompt.
        """
        return self.about(self.ask(text), shown, separator=separator)

    def about(self, question: str, shown: Sequence[Demonstration], *, separator: str) -> Conversation:
        """Return the conversation about a question as `ask` or `probe` write it."""
        pairs = tuple((self.ask(one.text), one.answer) for one in shown)
        return Conversation(self.instruction, pairs, question, self.joint, separator)

    @property
    def cut_side(self) -> Literal["left", "right"]:
        """End that a text loses if it is too long."""
        return "left" if self.is_whole and self.ending is None else "right"

    @property
    def joint(self) -> str:
        """Separator between a question and its answer."""
        return "" if self.probe("a")[-1:].isspace() else " "


@dataclass(frozen=True, eq=False)
class Prompt:
    """One row's prompt.

    Attributes:
        ids: token ids, shape (tokens,).
        n_dropped: number of demonstrations, the earliest first, that did not fit into the positions.
        is_cut: whether the text was cut, by the task's limit or to fit.
        written: the prompt as text.
    """

    ids: Ints
    n_dropped: int
    is_cut: bool
    written: str = ""


class PromptWriter:
    """Writes prompts for one task and backbone.

    A prompt consists of the instruction, the demonstrations and the question, joined by separators. A demonstration is
    a question with its answer; the last question has none, and the language model continues it. An answer follows
    after one space, or directly if the question ends a line. The tokenizer's initial special tokens (BOS) come once,
    at the start. A chat has the same parts as messages, and the answer begins the assistant's turn.

    A text that is too long loses its end. A task's own wording loses its beginning instead, since its end holds the
    question, or the end of its input (`Wording.ending`).

    Args:
        backbone: if causal, answers continue the prompt. If sequence-to-sequence, the prompt is the encoder's input
            and answers are the decoder's targets, special tokens (T5: EOS) included, as in its training.
        wording: form of a row in the prompt.
        separator: text between instruction, demonstrations and question.
        instruction: beginning of every prompt; "" takes the wording's.
        max_text_tokens: maximum tokens of a text, special tokens included (`Bench.max_length`).
        answers: all answers in words, where every row has the same ones.
        n_answer_tokens: positions to leave for an answer where rows differ.
        chat: writer of chats; None writes plain text.

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
        instruction: str = "",
        max_text_tokens: int,
        answers: Sequence[str] = (),
        n_answer_tokens: int = 0,
        chat: Chat | None = None,
    ) -> None:
        self._tokenizer = backbone.tokenizer
        self._wording = dataclasses.replace(wording, instruction=instruction) if instruction else wording
        self._separator = separator
        self._chat = chat
        self._joint = wording.joint if chat is None else ""
        self._is_causal = backbone.files.architecture == "causal"
        self._n_text_tokens = max(1, max_text_tokens - self._tokenizer.num_special_tokens_to_add())
        self._lengths: dict[Demonstration, int] = {}
        self._n_behind = 0
        self.labels: list[list[int]] = []
        self._room = backbone.max_length - (n_answer_tokens if self._is_causal else 0)
        if answers and self._is_causal:
            before = self._written(wording.probe("a"), ())
            self.labels, self._n_behind = self._continuations(before, answers)
            self._room = backbone.max_length - max(len(label) for label in self.labels)
        elif answers:
            self.labels = [self._answer_ids(words) for words in answers]
        self._check_labels(answers)

    def write(self, text: str, demonstrations: Sequence[Demonstration], *, room: int | None = None) -> Prompt:
        """Return the prompt of a text after its demonstrations, shortened to fit the positions.

        Args:
            text: the row's text.
            demonstrations: demonstrations in the order in which the prompt shows them.
            room: maximum tokens of the prompt; None leaves positions for the longest answer.

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
            shorter = self._some_tokens(read, max(0, n_read - (len(ids) - room)))
            if shorter == read:
                raise UnsupportedError(
                    f"The end of the prompt takes {n_read} tokens; the backbone's positions leave room for {room}. "
                    "Shorten it."
                )
            read = shorter
            ids = self._prompt_ids(read, ())
        written = self._written(self._wording.ask(read), demonstrations[n_dropped:])
        return Prompt(np.asarray(ids, dtype=np.int64), n_dropped, read != text, written)

    def write_with(
        self, text: str, demonstrations: Sequence[Demonstration], answers: Sequence[str]
    ) -> tuple[Prompt, list[Ints]]:
        """Return the prompt of a text, and the token ids of each of its own possible answers after it."""
        if not self._is_causal:
            prompt = self.write(text, demonstrations)
            return prompt, [np.asarray(self._answer_ids(answer), dtype=np.int64) for answer in answers]
        longest = max(len(self._tokenizer(a, add_special_tokens=False)["input_ids"]) for a in answers) + 1
        prompt = self.write(text, demonstrations, room=max(1, self._room - longest))
        rest, n_behind = self._continuations(prompt.written, answers)
        ids = self._ids(prompt.written)
        kept = ids[: len(ids) - n_behind] or [_start_id(self._tokenizer)]
        prompt = dataclasses.replace(prompt, ids=np.asarray(kept, dtype=np.int64))
        return prompt, [np.asarray(ids, dtype=np.int64) for ids in rest]

    def write_probe(self, text: str, demonstrations: Sequence[Demonstration]) -> Prompt:
        """Return the prompt of a row whose fields are all `text`."""
        return self.write(self._wording.probe(text) if self._wording.is_whole else text, demonstrations)

    def shared(self, demonstrations: Sequence[Demonstration]) -> Ints:
        """Return the first tokens of all prompts with these demonstrations, whatever the text; shape (tokens,).

        They are found by comparing prompts, since a tokenizer may merge separator and template.
        """
        prompts = [
            self._ids_before_answer(self._written(self._wording.probe(probe), demonstrations)) for probe in _PROBES
        ]
        return np.asarray(prompts[0][: _n_common(prompts)], dtype=np.int64)

    def shorten(self, text: str) -> str:
        """Return the part of a text within the task's limit of tokens."""
        return self._some_tokens(text, self._n_text_tokens)

    def n_unfit(self, demonstrations: Sequence[Demonstration]) -> int:
        """Return how many demonstrations, the earliest first, to drop so that a text of the maximum length fits."""
        room = self._room - self._n_text_tokens
        low, high = 0, len(demonstrations)
        while low < high:
            middle = (low + high) // 2
            if len(self._prompt_ids("", demonstrations[middle:])) > room:
                low = middle + 1
            else:
                high = middle
        return low

    def _written(self, question: str, demonstrations: Sequence[Demonstration]) -> str:
        conversation = self._wording.about(question, demonstrations, separator=self._separator)
        return conversation.plain() if self._chat is None else self._chat.write(conversation)

    def _prompt_ids(self, text: str, demonstrations: Sequence[Demonstration]) -> list[int]:
        return self._ids_before_answer(self._written(self._wording.ask(text), demonstrations))

    def _ids_before_answer(self, written: str) -> list[int]:
        ids = self._ids(written)
        ids = ids[: len(ids) - self._n_behind]
        ends = self._chat is None and self._is_causal and not self.labels
        if ends and ids[-1:] == [self._tokenizer.eos_token_id]:
            ids = ids[:-1]  # the model must continue the prompt, not find it ended
        return ids or [_start_id(self._tokenizer)]  # an empty text in a bare template leaves nothing to continue

    def _ids(self, written: str) -> list[int]:
        return self._answer_ids(written) if self._chat is None else self._chat.ids(written)

    def _answer_ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def _some_tokens(self, text: str, n_tokens: int) -> str:
        """Return the first tokens of a text; the last ones, or both ends, where the task words the question."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if len(encoded["input_ids"]) <= n_tokens:
            return text
        if n_tokens == 0 and self._wording.ending is None:
            return ""
        if self._wording.ending is not None:
            return keep_ending(text, self._wording.ending, n_tokens, self._tokenizer)
        offsets = encoded["offset_mapping"]
        return text[offsets[-n_tokens][0] :] if self._wording.is_whole else text[: offsets[n_tokens - 1][1]]

    def _n_to_drop(self, demonstrations: Sequence[Demonstration], n_over: int) -> int:
        """Return how many of the earliest to drop to save `n_over` tokens: at least one, and one less than likely."""
        lengths = np.cumsum([self._length(shown) for shown in demonstrations])
        return max(1, int(np.searchsorted(lengths, n_over)))

    def _length(self, shown: Demonstration) -> int:
        """Return the tokens that a demonstration adds to a prompt, up to merges at its borders."""
        if shown not in self._lengths:
            self._lengths[shown] = len(self._prompt_ids("", [shown])) - len(self._prompt_ids("", ()))
        return self._lengths[shown]

    def _continuations(self, before: str, answers: Sequence[str]) -> tuple[list[list[int]], int]:
        """Return the token ids of each answer after a prompt, and how many of the prompt's own they replace.

        A tokenizer may merge the prompt's last character with the next one, or end every text with a token. Such
        tokens are not part of the prompt that the model continues.
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
    """Return the number of leading tokens that all rows share."""
    n_common = 0
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        n_common += 1
    return n_common


def _start_id(tokenizer: Any) -> int:
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return next(int(token) for token in known if token is not None)
