"""Label sets in words: the question to a language model, right answers in words, and written answers read as sets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harness.tasks._json_answers import object_of, read_json, under, without_fence
from harness.tasks.base import Floats, Ints, Reply

NOTHING: Final = "none"
"""Answer for a text without labels."""

REPLY: Final = Reply(max_new_tokens=64, stop=("\n\n",))
"""Settings of generation for a prompted language model."""

_MARKS: Final = frozenset(',;[]{}"`')
"""Characters with which a name cannot stand in a list with commas."""

_BULLET: Final = re.compile(r"^(?:[-*\u2022]|\d+[.)])\s+")


def is_plain(names: Sequence[str]) -> bool:
    """Return whether sets of these labels can be written with commas; otherwise they are written as JSON."""
    folded = {_folded(name) for name in names}
    return (
        len(folded) == len(names)
        and NOTHING not in folded
        and all(
            name == name.strip() and name.splitlines() == [name] and not _MARKS & set(name) and not _BULLET.match(name)
            for name in names
        )
    )


def question(names: Sequence[str]) -> str:
    """Return the template of a prompt, with `{text}` for the text, that states the labels and the format."""
    if is_plain(names):
        listed, how = ", ".join(names), f"separated by commas. Write {NOTHING} if no label fits"
    else:
        listed, how = json.dumps(list(names), ensure_ascii=False), "as a JSON list. Write [] if no label fits"
    return f"Which of these labels fit the text? Labels: {listed}.\nWrite all that fit, {how}.\nText: {{text}}\nLabels:"


def schema(names: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of an answer."""
    return object_of("labels", {"type": "array", "items": {"type": "string", "enum": list(names)}})


def as_words(labels: Sequence[str], names: Sequence[str]) -> str:
    """Return a set of labels as a language model would write it.

    Args:
        labels: the labels of one text.
        names: names of all labels.
    """
    if not is_plain(names):
        return json.dumps(list(labels), ensure_ascii=False)
    return ", ".join(labels) or NOTHING


def read_labels(text: str, names: Sequence[str]) -> list[int] | None:
    """Return the positions of the labels in a written answer; None where no label is recognised.

    JSON lists are read by their items. Otherwise, names are found in the first line, or in the lines of a list with
    bullets: whole names, the longest first, whatever the case. Other words are ignored.
    """
    found = under(read_json(text), "labels", "answer")
    if isinstance(found, str):
        found = [found]
    if isinstance(found, list):
        known = _places(names)
        named = [_place(item, known) for item in found if isinstance(item, str)]
        places = sorted({place for place in named if place is not None})
        return places if places or not found else None
    lines = _lines(without_fence(text))
    places = sorted({place for line in lines for place in _in_line(line, names)})
    if places:
        return places
    return [] if lines and lines[0].strip(" .!\"'").casefold() in (NOTHING, "no labels", "no label") else None


def read_answers(texts: Sequence[str], names: Sequence[str]) -> tuple[Floats, int]:
    """Return 1 for each label of each answer, shape (rows, labels), and the number of unreadable answers.

    An unreadable answer counts as a set without labels.
    """
    scores = np.zeros((len(texts), len(names)), dtype=np.float32)
    n_unread = 0
    for row, text in enumerate(texts):
        places = read_labels(text, names)
        n_unread += places is None
        scores[row, places or []] = 1.0
    return scores, n_unread


def labels_of(flags: Ints, names: Sequence[str]) -> list[str]:
    """Return the names of the labels that are 1."""
    return [names[int(place)] for place in np.flatnonzero(flags)]


def _lines(text: str) -> list[str]:
    """Return the lines that hold the answer: the first, the lines of a list, or the one after an introduction."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0].endswith(":") and len(lines) > 1:
        lines = lines[1:]
    listed = next((at for at, line in enumerate(lines) if not _BULLET.match(line)), len(lines))
    return lines[: max(1, listed)]


def _in_line(line: str, names: Sequence[str]) -> list[int]:
    known = _places(names)
    whole = [_place(piece.strip(), known) for piece in line.split(",")]
    if None not in whole:  # names of any characters, each a whole piece
        return [place for place in whole if place is not None]
    found: list[int] = []
    rest = _folded(_BULLET.sub("", line))
    for name in sorted(known.folded, key=len, reverse=True):
        pattern = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
        if pattern.search(rest):
            found.append(known.folded[name])
            rest = pattern.sub("\n", rest)
    return found


@dataclass(frozen=True)
class _Places:
    """Positions of the labels, by their names and by their names in small letters where those are clear."""

    exact: Mapping[str, int]
    folded: Mapping[str, int]


def _places(names: Sequence[str]) -> _Places:
    folded: dict[str, list[int]] = {}
    for at, name in enumerate(names):
        folded.setdefault(_folded(name), []).append(at)
    clear = {name: places[0] for name, places in folded.items() if len(places) == 1 and name}
    return _Places({name: at for at, name in enumerate(names)}, clear)


def _place(written: str, known: _Places) -> int | None:
    """Return the position of the label that a piece of an answer names: as it stands, or without case and marks."""
    if written in known.exact:
        return known.exact[written]
    bare = _BULLET.sub("", written)
    for tried in (written, bare, bare.strip(" .!\"'")):
        if _folded(tried) in known.folded:
            return known.folded[_folded(tried)]
    return None


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()
