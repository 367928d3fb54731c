"""Read sentences with a tag for each word: from lists, from columns of text, or from texts with character spans.

Each error names the data set, the row and the rule. The readers of spans take the forms of annotation tools: Prodigy
(`{start, end, label}`), doccano (`[start, end, label]`, or `start_offset` and `end_offset`) and Label Studio
(`{start, end, labels: [label]}`).
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from harness.data.raw import Origin
from harness.data.schemes import OUTSIDE
from harness.support import DataError

Words = tuple[str, ...]
"""The words of a sentence, or their tags."""

_WORD = re.compile(r"\w+|[^\w\s]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 40


@dataclass(frozen=True)
class Sentences:
    """The sentences of a split, in the order of its rows; an empty sentence has no words.

    Attributes:
        tokens: words of each sentence.
        tags: a tag for each word.
    """

    tokens: list[Words]
    tags: list[Words]


def split_words(text: str, cuts: Sequence[int] = ()) -> list[tuple[int, int]]:
    """Return the start and the end of each word of a text, in characters.

    A word is a run of letters, digits, underscores and the marks that combine with them. Every other character that
    is no white space is a word of its own.

    Args:
        text: the text.
        cuts: positions at which a word is split in two.
    """
    places: list[list[int]] = []
    for found in _WORD.finditer(text):
        start, end = found.span()
        joins = bool(places) and places[-1][1] == start and _is_mark(text[start - 1 if start else 0], text[start])
        if joins:
            places[-1][1] = end
        else:
            places.append([start, end])
    wanted = sorted(set(cuts))
    pieces: list[tuple[int, int]] = []
    at = 0
    for start, end in places:
        while at < len(wanted) and wanted[at] <= start:
            at += 1
        begin = start
        while at < len(wanted) and wanted[at] < end:
            pieces.append((begin, wanted[at]))
            begin = wanted[at]
            at += 1
        pieces.append((begin, end))
    return pieces


def _is_mark(before: str, character: str) -> bool:
    """Return whether two adjacent characters belong to one word, because one of them is a combining mark."""
    if character.isspace() or before.isspace():
        return False
    is_mark = unicodedata.category(character).startswith("M")
    return (is_mark and _is_letter(before)) or (
        unicodedata.category(before).startswith("M") and (is_mark or _is_letter(character))
    )


def _is_letter(character: str) -> bool:
    return character.isalnum() or character == "_"


def read_tokens(values: Sequence[object], column: str, origin: Origin) -> list[Words]:
    """Return the words of each row: of a list of tokens, or of a text, which is split into words.

    Raises:
        DataError: a token is not a text, or blank; the message names the row.
    """
    found = []
    for row, value in enumerate(values):
        given = _unpacked(value)
        if isinstance(given, str):
            _check_encodable(given, row, column, origin)
            found.append(tuple(given[start:end] for start, end in split_words(given)))
        else:
            found.append(_words(given, row, column, origin))
    return found


def read_sentences(
    tokens: Sequence[object],
    tags: Sequence[object],
    columns: tuple[str, str],
    origin: Origin,
    label_names: Sequence[str] = (),
) -> Sentences:
    """Return the words and tags of each row.

    A row is a list of tokens and a list of tags; a text and a list of spans, which become IOB2 tags; or two texts with
    white space between tokens and between tags. A cell of a CSV file may hold a list in JSON or as Python writes it.

    Args:
        tokens: lists of tokens, or texts.
        tags: lists of tags or of spans, or texts. An empty list of spans means a text without any.
        columns: names of the two columns, for messages.
        origin: positions of the rows, for messages.
        label_names: tags in the order of their numbers, where the data hold numbers.

    Raises:
        DataError: a token is not a text, or blank; a tag is missing, or a number without a name; there are more or
            fewer tags than tokens; a span is empty, outside the text, without a word or a label, or overlaps another.
    """
    found = Sentences([], [])
    for row, (words, marks) in enumerate(zip(tokens, tags, strict=True)):
        words, marks = _unpacked(words), _unpacked(marks, numbers=True)
        if isinstance(words, str) and not isinstance(marks, str):
            own_tokens, own_tags = _from_spans(words, marks, row, columns, origin)
        else:
            both_texts = isinstance(words, str) and isinstance(marks, str)
            words = words.split() if isinstance(words, str) and both_texts else words
            marks = marks.split() if isinstance(marks, str) else marks
            own_tokens = _words(words, row, columns[0], origin)
            own_tags = _tags(marks, row, columns[1], origin, label_names)
        if len(own_tokens) != len(own_tags):
            raise DataError(
                f"{origin.name}: {origin.at(row)}: column '{columns[0]}' has {len(own_tokens)} tokens and column "
                f"'{columns[1]}' has {len(own_tags)} tags; expected one tag for each token."
            )
        found.tokens.append(own_tokens)
        found.tags.append(own_tags)
    return found


def _unpacked(value: Any, *, numbers: bool = False) -> Any:
    """Return a cell's value as a list or a text: arrays and tuples become lists, and so do lists written as text.

    A text such as `[1]` is a list only where `numbers` may stand for tags; otherwise it is the text of a sentence.
    """
    if isinstance(value, str):
        written = value.strip()
        if written.startswith("[") and written.endswith("]"):
            for parse in (json.loads, ast.literal_eval):
                try:
                    parsed = parse(written)
                except (ValueError, SyntaxError, RecursionError, MemoryError):
                    continue
                if isinstance(parsed, list) and (numbers or not any(isinstance(item, (int, float)) for item in parsed)):
                    return parsed
        return value
    if value is None or isinstance(value, (list, dict)):
        return value
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, float) and value != value:
        return None
    return value.tolist() if hasattr(value, "tolist") else value


def _words(value: Any, row: int, column: str, origin: Origin) -> Words:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DataError(
            f"{origin.name}: {origin.at(row)}: column '{column}' holds {_brief(value)}; expected a list of tokens, or "
            "a text whose spans are in the other column."
        )
    words: list[Any] = [
        word.get("text") if isinstance(word, dict) else word for word in value
    ]  # Prodigy's tokens are objects
    for place, word in enumerate(words):
        if not isinstance(word, str) or not word.strip():
            what = "blank" if isinstance(word, str) else f"{_brief(word)}, which is no text"
            raise DataError(
                f"{origin.name}: {origin.at(row)}: token {place + 1} in column '{column}' is {what}; expected a text. "
                "Drop the token and its tag."
            )
        _check_encodable(word, row, column, origin)
    return tuple(words)


def _tags(value: Any, row: int, column: str, origin: Origin, label_names: Sequence[str]) -> Words:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DataError(
            f"{origin.name}: {origin.at(row)}: column '{column}' holds {_brief(value)}; expected a list with a tag for "
            "each token."
        )
    found = []
    for place, tag in enumerate(value):
        where = f"{origin.name}: {origin.at(row)}: tag {place + 1} in column '{column}'"
        if isinstance(tag, int) and not isinstance(tag, bool):
            if not label_names:
                raise DataError(
                    f"{where} is the number {tag}, and the task does not name its tags. List the names in "
                    "`label_names`, in the order of their numbers, or write the tags as texts."
                )
            if not 0 <= tag < len(label_names):
                raise DataError(f"{where} is {tag}; expected 0 to {len(label_names) - 1}, as `label_names` has it.")
            found.append(label_names[tag])
        elif isinstance(tag, str) and tag.strip():
            found.append(tag.strip())
        elif isinstance(tag, (list, dict)):
            raise DataError(f"{where} is {_brief(tag)}; spans need the text that they are in, not a list of tokens.")
        else:
            what = "missing" if tag is None or isinstance(tag, str) else f"{_brief(tag)}, which is no text"
            raise DataError(f"{where} is {what}; expected a text such as '{OUTSIDE}' or 'B-PER'.")
    return tuple(found)


# ---- spans


def _from_spans(text: str, value: Any, row: int, columns: tuple[str, str], origin: Origin) -> tuple[Words, Words]:
    """Return the words of a text and their IOB2 tags. A span that starts or ends inside a word splits it."""
    _check_encodable(text, row, columns[0], origin)
    value = [] if value is None else value
    if not isinstance(value, list):
        raise DataError(
            f"{origin.name}: {origin.at(row)}: column '{columns[1]}' holds {_brief(value)}; expected a list of spans, "
            "each with start, end and label."
        )
    where = f"{origin.name}: {origin.at(row)}: a span in column '{columns[1]}'"
    spans = sorted(_span(item, text, where) for item in value)
    for before, after in pairwise(spans):
        if after[0] < before[1]:
            raise DataError(
                f"{where} overlaps another: {_named(before)} and {_named(after)}. Keep one of them; each word has one "
                "tag."
            )
    places = split_words(text, [edge for start, end, _ in spans for edge in (start, end)])
    tags = [OUTSIDE] * len(places)
    at = 0
    for span in spans:
        start, end, label = span
        while at < len(places) and places[at][0] < start:
            at += 1
        first = at
        while at < len(places) and places[at][1] <= end:
            tags[at] = f"{'B' if at == first else 'I'}-{label}"
            at += 1
        if at == first:
            raise DataError(f"{where} covers no word: {_named(span)}.")
    return tuple(text[start:end] for start, end in places), tuple(tags)


def _span(item: Any, text: str, where: str) -> tuple[int, int, str]:
    """Return the start, the end and the label of one span."""
    start = end = label = None
    if isinstance(item, dict):
        start, end = item.get("start", item.get("start_offset")), item.get("end", item.get("end_offset"))
        label = item.get("label", item.get("labels"))
    elif isinstance(item, (list, tuple)) and len(item) == 3:
        start, end, label = item
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    whole = all(isinstance(edge, int) and not isinstance(edge, bool) for edge in (start, end))
    if not whole or not isinstance(label, str) or not label.strip():
        raise DataError(
            f"{where} is {_brief(item)}; expected {{start, end, label}} or [start, end, label], with whole numbers of "
            "characters and one label."
        )
    assert isinstance(start, int)
    assert isinstance(end, int)
    span = start, end, label.strip()
    if end <= start:
        raise DataError(f"{where} is empty: {_named(span)}; the end is the position behind the last character.")
    if start < 0 or end > len(text):
        raise DataError(f"{where} is outside the text: {_named(span)}; the text has {len(text)} characters.")
    return span


def _named(span: tuple[int, int, str]) -> str:
    return f"{span[0]} to {span[1]} '{span[2]}'"


def _check_encodable(text: str, row: int, column: str, origin: Origin) -> None:
    if _SURROGATE.search(text):
        raise DataError(
            f"{origin.name}: {origin.at(row)}: column '{column}' holds half a surrogate pair (\\ud800 to \\udfff), "
            "which is no text. Drop the character or the row."
        )


def _brief(value: Any) -> str:
    written = repr(value)
    return written if len(written) <= _SHOWN else written[: _SHOWN - 3] + "..."
