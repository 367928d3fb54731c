"""Tags in words: the question to a language model, right answers as lines, and written answers read as tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from harness.data import OUTSIDE
from harness.metrics import find_spans, types_of
from harness.tasks._json_answers import object_of, read_json, under, without_fence
from harness.tasks._wordings import PromptWording
from harness.tasks.base import Floats, Reply

NOTHING: Final = "none"
"""Answer for a sentence without entities."""

REPLY: Final = Reply(max_new_tokens=96, stop=("\n\n",))
"""Settings of generation for a prompted language model."""


def question(names: Sequence[str]) -> str:
    """Return the template of a prompt, with `{text}` for the sentence, that states the types and the format.

    Args:
        names: names of the tags.
    """
    return (
        f"Find all names of these types in the text: {', '.join(types_of(names))}.\n"
        f"Write one per line as type: words. Write {NOTHING} if there are no such names.\n"
        "Text: {text}\nNames:\n"
    )


def tag_wordings(names: Sequence[str]) -> tuple[PromptWording, ...]:
    """Return ways to ask for the entities of a sentence; all of them ask for the same format.

    Args:
        names: names of the tags.
    """
    types = ", ".join(types_of(names))
    task = f"Find all names of these types in each text: {types}. Write one per line as type: words."
    return (
        PromptWording("", question(names)),
        PromptWording(f"{task} Write {NOTHING} if there are no such names.", "Text: {text}\nNames:\n"),
        PromptWording(
            "", f"Text: {{text}}\nNames in this text, one per line as type: words ({types}), or {NOTHING}:\n"
        ),
    )


def schema(names: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of an answer: the entities in a list, each with its type and its words."""
    entity = {
        "type": "object",
        "properties": {"type": {"type": "string", "enum": list(types_of(names))}, "text": {"type": "string"}},
        "required": ["type", "text"],
        "additionalProperties": False,
    }
    return object_of("entities", {"type": "array", "items": entity})


def as_lines(words: Sequence[str], tags: Sequence[str]) -> str:
    """Return the entities of a sentence as a language model would write them: one `type: words` per line."""
    lines = [f"{kind}: {' '.join(words[first : last + 1])}" for kind, first, last in find_spans(list(tags))]
    return "\n".join(lines) or NOTHING


def read_lines(text: str, words: Sequence[str], names: Sequence[str]) -> tuple[list[str], bool]:
    """Return a tag for each word of a sentence, and whether every line of an answer could be read.

    A line is read if it has the form `type: words` with one of the types, and the words stand in the sentence. They
    are their first occurrence that no earlier line has taken, whatever the case and the spaces. JSON of the `schema`
    is read likewise.

    Args:
        text: the written answer.
        words: words of the sentence.
        names: names of the tags.
    """
    types = {kind.lower(): kind for kind in types_of(names)}
    tags = [OUTSIDE] * len(words)
    found = _entities(text)
    if found is None:
        return tags, True
    is_read = bool(found)
    for written, entity in found:
        kind = types.get(written.strip().lower())
        place = _find(entity, words, tags) if kind is not None else None
        if kind is None or place is None:
            is_read = False
            continue
        for at in range(*place):
            tags[at] = _tag(kind, at, *place, names)
    return tags, is_read


def _entities(text: str) -> list[tuple[str, str]] | None:
    """Return the type and the words of each line of an answer, or of each entity in JSON.

    Returns:
        None where the answer says that there are no entities. A line of another form has no words.
    """
    found = under(read_json(text), "entities", "names")
    if isinstance(found, list):
        pairs = [(one.get("type"), one.get("text")) if isinstance(one, dict) else ("", "") for one in found]
        return [(str(kind or ""), str(words or "")) for kind, words in pairs] or None
    lines = [line.strip().lstrip("-*• ") for line in without_fence(text).splitlines() if line.strip()]
    if [line.rstrip(".").lower() for line in lines] == [NOTHING]:
        return None
    return [(written, entity) for written, _, entity in (line.partition(":") for line in lines)]


def _find(entity: str, words: Sequence[str], tags: Sequence[str]) -> tuple[int, int] | None:
    """Return the first and the end of the words that spell an entity and are free; None without any."""
    wanted = "".join(entity.split()).lower()
    for first in range(len(words) if wanted else 0):
        spelled, at = "", first
        while at < len(words) and tags[at] == OUTSIDE and len(spelled) < len(wanted):
            spelled += "".join(words[at].split()).lower()
            at += 1
        if spelled == wanted:
            return first, at
    return None


def _tag(kind: str, at: int, first: int, end: int, names: Sequence[str]) -> str:
    """Return the tag of a word of an entity in the scheme of these tags."""
    if f"S-{kind}" in names and end - first == 1:
        return f"S-{kind}"
    if f"E-{kind}" in names and at == end - 1:
        return f"E-{kind}"
    return f"B-{kind}" if f"B-{kind}" in names and at == first else f"I-{kind}"


def read_answers(texts: Sequence[str], sentences: Sequence[Sequence[str]], names: Sequence[str]) -> tuple[Floats, int]:
    """Return 1 for the tag of each word, shape (words of all sentences, tags), and the number of unreadable answers."""
    place = {name: at for at, name in enumerate(names)}
    read = [read_lines(text, words, names) for text, words in zip(texts, sentences, strict=True)]
    flat = np.array([place[tag] for tags, _ in read for tag in tags], dtype=np.int64)
    return np.eye(len(names), dtype=np.float32)[flat], sum(not is_read for _, is_read in read)
