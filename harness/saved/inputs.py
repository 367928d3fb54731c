"""Inputs of a saved model: texts, pairs of them, questions with choices, or lists of words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.data import BETWEEN, TextColumns, as_list, is_frame, split_words, text_columns, texts_of_frame
from harness.support import UsageError
from harness.tasks import Kind

if TYPE_CHECKING:
    import pandas as pd

_PAIR = 2


def input_columns(text: TextColumns | None, kind: Kind) -> tuple[str, ...]:
    """Return the columns of a table that hold a saved model's inputs; None takes the kind's own names.

    Raises:
        UsageError: the number is wrong, or the kind has no names of its own.
    """
    names = text_columns(text) if text is not None else tuple(kind.roles[role] or "" for role in _roles(kind))
    if len(names) != len(_roles(kind)) or not all(names):
        given = f"--text {','.join(names)} was given" if text is not None else "No --text was given"
        expected = "two columns, such as --text premise,hypothesis" if kind.reads_pairs else "one column"
        raise UsageError(f"{given}; the model reads {_reads(kind)}. Expected {expected}.")
    return names


def read_inputs(texts: Iterable[Any] | pd.DataFrame, text: TextColumns | None, kind: Kind) -> list[Any]:
    """Return the inputs of a saved model, one per row: texts, pairs of them, or lists of words.

    Args:
        texts: a list of texts, of pairs or of lists of words, or a data frame.
        text: columns of a data frame that hold them; None takes the kind's own names.
        kind: kind of the model's task.

    Raises:
        UsageError: one text instead of a list, or columns of another number.
        DataError: the data frame lacks a column.
    """
    if isinstance(texts, str | bytes):
        raise UsageError("One text was given to predict; expected a list of texts.")
    values = texts_of_frame(texts, input_columns(text, kind)) if is_frame(texts) else list(texts)
    return [as_input(value, kind) for value in values]


def as_input(value: Any, kind: Kind) -> Any:
    """Return an input as a model reads it: words for tags, choices as a tuple of texts; others stay as they are."""
    if reads_words(kind):
        return words_of(value)
    if kind.form == "choices" and isinstance(value, list | tuple) and len(value) == _PAIR:
        return value[0], choices_of(value[1])
    return value


def choices_of(value: Any) -> Any:
    """Return the texts of a row's choices: a list, one written as text, or the hub's `{text: [...], label: [...]}`."""
    listed = as_list(value.get("text") if isinstance(value, dict) else value)
    return value if listed is None else tuple(listed)


def reads_words(kind: Kind) -> bool:
    """Return whether the inputs are lists of words."""
    return kind.form == "tags"


def words_of(value: Any) -> Any:
    """Return the words of a list, of a list written as text, or of a text.

    A text is split as in training on texts with marked spans: into words and single punctuation marks. Another value
    stays as it is, and has no prediction.
    """
    listed = as_list(value)
    if listed is not None:
        return tuple(listed)
    return tuple(value[start:end] for start, end in split_words(value)) if isinstance(value, str) else value


def is_split(value: Any) -> bool:
    """Return whether `words_of` splits a value into words."""
    return isinstance(value, str) and bool(value.strip()) and as_list(value) is None


def fields_of(inputs: Sequence[Any], kind: Kind) -> tuple[list[str], dict[str, list[Any]]]:
    """Return the whole text of each row, and the inputs by role."""
    if reads_words(kind):
        return [" ".join(words) for words in inputs], {_roles(kind)[0]: [tuple(words) for words in inputs]}
    if not kind.reads_pairs:
        return list(inputs), {_roles(kind)[0]: list(inputs)}
    first, second = ([pair[at] for pair in inputs] for at in range(_PAIR))
    whole = [BETWEEN.join([one, *other] if kind.form == "choices" else [one, other]) for one, other in inputs]
    return whole, dict(zip(_roles(kind), (first, second), strict=True))


def why_not_input(value: Any, kind: Kind) -> str | None:
    """Return the reason why nothing can be predicted for an input of a model of this kind; None where it can."""
    if reads_words(kind):
        return _why_not_words(value)
    if not kind.reads_pairs:
        return _why_not_text(value)
    if not isinstance(value, list | tuple) or len(value) != _PAIR:
        return "missing" if value is None else f"of type {type(value).__name__}, not a pair of texts"
    if kind.form == "choices":
        return _why_not_text(value[0]) or _why_no_choices(value[1])
    return next((reason for one in value if (reason := _why_not_text(one)) is not None), None)


def _why_no_choices(value: Any) -> str | None:
    if not isinstance(value, tuple) or len(value) < _PAIR:
        return "without two choices"
    return next((f"with a choice that is {reason}" for one in value if (reason := _why_not_text(one))), None)


def _roles(kind: Kind) -> list[str]:
    return list(kind.roles)[:-1]


def _reads(kind: Kind) -> str:
    if reads_words(kind):
        return "lists of words"
    if kind.form == "choices":
        return "questions with their choices"
    return "pairs of texts" if kind.reads_pairs else "single texts"


def _why_not_words(value: Any) -> str | None:
    if not isinstance(value, list | tuple):
        return _why_not_text(value) or "not a list of words"
    if not value:
        return "blank"
    return next((f"with a word that is {reason}" for one in value if (reason := _why_not_text(one)) is not None), None)


def _why_not_text(value: Any) -> str | None:
    if value is None:
        return "missing"
    if not isinstance(value, str):
        return f"of type {type(value).__name__}, not text"
    if not value.strip():
        return "blank"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "not valid Unicode (it holds half a surrogate pair)"
    return None
