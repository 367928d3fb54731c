"""Inputs of a saved model: texts, or pairs of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.data import BETWEEN, TextColumns, is_frame, text_columns, texts_of_frame
from harness.support import UsageError
from harness.tasks import Kind

if TYPE_CHECKING:
    import pandas as pd

_PAIR = 2


def read_inputs(texts: Iterable[Any] | pd.DataFrame, text: TextColumns, kind: Kind) -> list[Any]:
    """Return the inputs of a saved model, one per row: texts, or pairs of them.

    Args:
        texts: a list of texts or of pairs, or a data frame.
        text: columns of a data frame that hold them.
        kind: kind of the model's task.

    Raises:
        UsageError: one text instead of a list, or columns of another number.
        DataError: the data frame lacks a column.
    """
    if isinstance(texts, str | bytes):
        raise UsageError("One text was given to predict; expected a list of texts.")
    if not is_frame(texts):
        return list(texts)
    names = text_columns(text)
    check_columns(names, kind)
    return texts_of_frame(texts, names)


def check_columns(names: Sequence[str], kind: Kind) -> None:
    """Refuse two columns for a model of single texts, and one for a model of pairs.

    Raises:
        UsageError: the number is wrong.
    """
    if (len(names) == _PAIR) != kind.reads_pairs:
        expected = "two columns, such as --text premise,hypothesis" if kind.reads_pairs else "one column"
        reads = "pairs of texts" if kind.reads_pairs else "single texts"
        raise UsageError(f"--text {','.join(names)} was given; the model reads {reads}. Expected {expected}.")


def fields_of(inputs: Sequence[Any], kind: Kind) -> tuple[list[str], dict[str, list[str]]]:
    """Return the whole text of each row, and the texts by role."""
    if not kind.reads_pairs:
        return list(inputs), {"text": list(inputs)}
    first, second = ([pair[at] for pair in inputs] for at in range(_PAIR))
    return [BETWEEN.join(pair) for pair in inputs], {"first": first, "second": second}


def why_not_input(value: Any, *, pair: bool = False) -> str | None:
    """Return the reason why no class can be predicted for a text, or for a pair of texts; None where one can."""
    if not pair:
        return _why_not_text(value)
    if not isinstance(value, list | tuple) or len(value) != _PAIR:
        return "missing" if value is None else f"of type {type(value).__name__}, not a pair of texts"
    return next((reason for one in value if (reason := _why_not_text(one)) is not None), None)


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
