"""Guess the kind of task from the columns that a user names, where their values make it plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.data.classes import is_missing
from harness.data.label_sets import as_list
from harness.data.targets import number_of

_MARKS = ("start", "end", "label")
"""Keys of a marked span, as annotation tools write them."""

_NEARLY_ALL = 0.9
"""Share of the rows that show the kind; the others are then refused by row, with the rule that they break."""


@dataclass(frozen=True)
class Guess:
    """A kind of task.

    Attributes:
        kind: its name.
        because: the reason, a clause that follows "since"; None for classes, the usual kind.
    """

    kind: str
    because: str | None = None


def guess_kind(
    columns: Mapping[str, Sequence[Any]], texts: Sequence[str], labels: Sequence[str], separator: str | None = None
) -> Guess:
    """Return the kind of task of some columns.

    Args:
        columns: values by column.
        texts: names of the columns of texts, one or two.
        labels: names of the columns of labels.
        separator: text between joined labels; None if none was given.
    """
    if separator is not None:
        return Guess("multi-label", "a separator of labels was given")
    if len(labels) > 1:
        return Guess("multi-label", f"{len(labels)} columns of labels were named")
    label = labels[0]
    values = [value for value in columns[label] if not is_missing(value)]
    inputs = [[value for value in columns[name] if not is_missing(value)] for name in texts]
    plain = Guess("classification" if len(texts) == 1 else "text-pair")
    if not values or not all(inputs):
        return plain
    if all(isinstance(value, dict) for value in values):
        if len(texts) > 1 and all("text" in value for value in values):
            return Guess("question-answering", f"'{label}' holds answers with their texts")
        return plain
    if len(texts) > 1 and all(map(_is_choices, inputs[1])):
        return Guess("multiple-choice", f"'{texts[1]}' holds the choices of each row")
    if all(as_list(value) is not None for value in values):
        return _of_lists(texts, label, columns) or plain
    numbers = [number for value in values if (number := number_of(value)) is not None]
    if len(numbers) >= _NEARLY_ALL * len(values) and any(number % 1 for number in numbers):
        every = "every" if len(numbers) == len(values) else "nearly every"
        what = f"{every} '{label}' is a number and some have a fraction"
        return Guess("regression" if len(texts) == 1 else "similarity", what)
    return plain


def _of_lists(texts: Sequence[str], label: str, columns: Mapping[str, Sequence[Any]]) -> Guess | None:
    """Return the kind of a task whose labels are lists; None if it is not plain."""
    if len(texts) > 1:
        return None
    pairs = [
        (value, as_list(labels))
        for value, labels in zip(columns[texts[0]], columns[label], strict=True)
        if not is_missing(value) and not is_missing(labels)
    ]
    found = [one for _, labels in pairs for one in labels or ()]
    if found and all(isinstance(one, dict) and all(key in one for key in _MARKS) for one in found):
        return Guess("token-classification", f"'{label}' holds marked spans of '{texts[0]}'")
    words = [as_list(value) for value, _ in pairs]
    if all(one is not None for one in words):
        alike = sum(len(one or ()) == len(labels or ()) for one, (_, labels) in zip(words, pairs, strict=True))
        if alike < _NEARLY_ALL * len(pairs):
            return None
        nearly = "" if alike == len(pairs) else "nearly always "
        return Guess("token-classification", f"'{texts[0]}' and '{label}' {nearly}hold lists of the same lengths")
    return Guess("multi-label", f"'{label}' holds lists of labels")


def _is_choices(value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("text"), list)
    return isinstance(value, list | tuple) and len(value) > 1 and all(isinstance(one, str) for one in value)
