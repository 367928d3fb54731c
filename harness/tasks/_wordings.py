"""Wordings of prompts: how a language model is asked about a row where neither task nor user words the question.

The first wording of each kind is the default. The order comes from accuracies of small instruct models on training rows
of public tasks (decision 0046).
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MOST_LISTED: Final = 25
"""Maximum number of labels that a prompt lists."""


@dataclass(frozen=True)
class PromptWording:
    """One way to ask a language model about a row.

    Attributes:
        instruction: beginning of the prompt, or the system message of a chat; "" for none.
        template: form of a row. It holds `{text}` once, which a text replaces as it is; or it is a format that names
            roles of the kind (`{question}`), in which a brace itself is written as two.
        names_labels: whether it lists the labels, as a model must know them that writes one.
    """

    instruction: str
    template: str
    names_labels: bool = False

    @property
    def ending(self) -> str:
        """Words after the last field of the template."""
        return ending_of(self.template)


PLAIN: Final = PromptWording("", "Input: {text}\nLabel:")
"""Wording that states no task."""


_NOUNS: Final = (
    ("Sentiment", frozenset({"negative", "positive", "neutral", "mixed", "very negative", "very positive"})),
    ("Emotion", frozenset({"anger", "disgust", "fear", "joy", "love", "neutral", "sadness", "surprise"})),
)
"""Nouns for labels that are known by their names."""


def class_wordings(names: Sequence[str]) -> tuple[PromptWording, ...]:
    """Return wordings for a text that has one of some labels.

    Args:
        names: the labels in words.
    """
    known = {name.strip().lower() for name in names}
    noun = next((noun for noun, members in _NOUNS if known <= members), "Category")
    asked = f"Text: {{text}}\n{noun}:"
    if not 1 < len(names) <= MOST_LISTED:
        return (
            PromptWording("", asked),
            PromptWording("Give the label of each text.", "Text: {text}\nLabel:"),
            PromptWording("", "Text: {text}\nTopic:"),
        )
    choice = in_prose(names)
    return (
        PromptWording("", asked),
        PromptWording(f"Give the {noun.lower()} of each text: {choice}.", asked, names_labels=True),
        PromptWording("", f"Text: {{text}}\nQuestion: Is this {choice}?\nAnswer:", names_labels=True),
        PromptWording("", "Text: {text}\nThis text is"),
    )


def pair_wordings(names: Sequence[str]) -> tuple[PromptWording, ...]:
    """Return wordings for two texts that have one of some labels together.

    Args:
        names: the labels in words.
    """
    pair = "First text: {first}\nSecond text: {second}"
    if not 1 < len(names) <= MOST_LISTED:
        return (
            PromptWording("Give the label of each pair of texts.", f"{pair}\nLabel:"),
            PromptWording("", f"{pair}\nAnswer:"),
            PromptWording("", "{first}\n{second}\nLabel:"),
        )
    choice = _escaped(in_prose(names))
    return (
        PromptWording(f"Give the label of each pair of texts: {choice}.", f"{pair}\nLabel:", names_labels=True),
        PromptWording("", f"{pair}\nQuestion: How do these texts relate: {choice}?\nAnswer:", names_labels=True),
        PromptWording("", f"{pair}\nLabel ({choice}):", names_labels=True),
        PromptWording("", f"{pair}\nAnswer:"),
    )


CHOICE_WORDINGS: Final = (
    PromptWording("", "Question: {question}\nAnswer:"),
    PromptWording("", "Question: {question}\nChoices:\n{choices}\nAnswer:"),
    PromptWording("Answer each question.", "{question}\nAnswer:"),
)
"""Wordings for a question with its own choices."""

SPAN_WORDINGS: Final = (
    PromptWording("", "{context}\nQuestion: {question}\nAnswer:"),
    PromptWording(
        "Answer each question with words from the text, as few as possible.",
        "Text: {context}\nQuestion: {question}\nAnswer:",
    ),
    PromptWording("", "{context}\nQuestion: {question}\nAnswer with a few words from the text:"),
)
"""Wordings for a question whose answer is a part of a text."""


def ending_of(template: str) -> str:
    """Return the words of a prompt's template after its last field."""
    *_, last = string.Formatter().parse(template)
    return last[0] if last[1] is None else ""


def in_prose(names: Sequence[str]) -> str:
    """Return names as a list with an "or": `a, b or c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _escaped(text: str) -> str:
    """Return a text for a template, where a brace itself is written as two."""
    return text.replace("{", "{{").replace("}", "}}")
