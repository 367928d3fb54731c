"""A question to a language model, before any tokenizer, and the model's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Sender = Literal["system", "user", "assistant"]
"""Author of a message of a chat."""


@dataclass(frozen=True)
class Message:
    """A message of a chat."""

    role: Sender
    content: str

    def to_json(self) -> dict[str, str]:
        """Return the message as chat templates and chat APIs take it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Conversation:
    """Content of a prompt about one row: an instruction, demonstrations and the question.

    Attributes:
        instruction: beginning of the prompt, or the system message; "" for none.
        shown: question and answer of each demonstration, in the order in which they are shown.
        question: question about the row, without its answer.
        joint: text between a question and its answer in a plain prompt: a space, or nothing.
        separator: text between the parts of a plain prompt.
        shown_as: place of demonstrations in a chat: `turns` shows each as a question of the user and an answer of the
            assistant; `message` puts all of them into the user's one message, before the question.
    """

    instruction: str
    shown: tuple[tuple[str, str], ...]
    question: str
    joint: str = " "
    separator: str = "\n\n"
    shown_as: Literal["turns", "message"] = "turns"

    def plain(self) -> str:
        """Return one text, which the model continues with the answer (after `joint`)."""
        shown = [f"{question}{self.joint}{answer}" for question, answer in self.shown]
        return self.separator.join([*([self.instruction] if self.instruction else []), *shown, self.question])

    def messages(self) -> tuple[Message, ...]:
        """Return a chat: the instruction as the system's message, then the questions as the user's."""
        system = [Message("system", self.instruction)] if self.instruction else []
        if self.shown_as == "message":
            parts = [f"{question}{self.joint}{answer}" for question, answer in self.shown]
            return (*system, Message("user", self.separator.join([*parts, self.question])))
        turns = [
            message
            for question, answer in self.shown
            for message in (Message("user", question), Message("assistant", answer))
        ]
        return (*system, *turns, Message("user", self.question))

    def without_first(self, n_dropped: int) -> Conversation:
        """Return the conversation without its first demonstrations."""
        return replace(self, shown=self.shown[n_dropped:])


@dataclass(frozen=True)
class Question:
    """One question to a served model.

    Attributes:
        conversation: what it is told.
        answers: possible answers, one of which it must choose, in words; empty where it writes freely.
        schema: JSON schema of a written answer that is no text of its own, such as a list of labels; None for none.
        max_new_tokens: maximum number of tokens of a written answer.
        stop: texts that end a written answer.
    """

    conversation: Conversation
    answers: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    max_new_tokens: int = 16
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answered:
    """A served model's answer to one question.

    Attributes:
        text: text that it wrote; None where it only gave log-probabilities.
        log_likelihoods: log-likelihood of each of the question's answers, in nats; None where the server gives none.
        chosen: position of the chosen answer among the question's; None where the written text names none of them,
            where the likeliest first token begins none, or where the question has none.
        n_dropped: number of demonstrations, the earliest first, that did not fit into the model's context.
        n_tokens: number of tokens of each of the question's answers; None where it is unknown.
        is_cut: whether the written text ended at its maximum length.
    """

    text: str | None = None
    log_likelihoods: Sequence[float] | None = None
    chosen: int | None = None
    n_dropped: int = 0
    n_tokens: Sequence[int] | None = None
    is_cut: bool = False
