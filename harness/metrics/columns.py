"""Inputs of a metric: one prediction and one reference a row, checked before anything is computed.

A wrong type here would not fail later but give a wrong figure: a text is a sequence of texts to Python, a class
index is a fine probability, and a mean over no rows is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Content = Literal["class", "count", "flag", "labels", "real", "scores", "tags", "text", "texts"]
"""Content of one row of a column:

- `class`, `count`, `flag`, `real`: a class index, a count, true or false, a real number;
- `labels`, `scores`: a 0 or 1, or a real number, for each label of the task;
- `tags`: a list of tags, one a token;
- `text`: one text; `texts`: its references, a list of texts, or one text where there is one reference."""

CheckedColumn = npt.NDArray[Any] | list[str] | list[list[str]]
"""Checked rows: an array of shape (rows,) or (rows, labels), or a list of `rows` texts or lists of texts."""

_STORED_AS: Final = {
    "class": "int64",
    "count": "int64",
    "flag": "bool",
    "labels": "uint8",
    "real": "float64",
    "scores": "float64",
    "tags": "string",
    "text": "string",
    "texts": "string",
}
_LISTS: Final = frozenset({"labels", "scores", "tags", "texts"})


def feature(content: Content) -> Any:
    """Return the type of `content` as the `datasets` library, and so `evaluate`, declares it."""
    import datasets

    value = datasets.Value(_STORED_AS[content])
    return [value] if content in _LISTS else value


def read_columns(
    metric: str,
    contents: tuple[Content, Content],
    predictions: npt.NDArray[Any] | Sequence[Any],
    references: npt.NDArray[Any] | Sequence[Any],
) -> tuple[CheckedColumn, CheckedColumn]:
    """Return checked predictions and references.

    Args:
        metric: its name, for messages.
        contents: content of a prediction and of a reference.
        predictions: one per row.
        references: one per row, as many.

    Raises:
        ValueError: there are no rows, not as many predictions as references, or one of another type than expected.
    """
    for role, column in (("predictions", predictions), ("references", references)):
        if isinstance(column, str):
            raise ValueError(f"{metric}: the {role} are the text {column!r}, not a sequence of one item per row.")
    if len(predictions) != len(references):
        raise ValueError(f"{metric}: {len(predictions)} predictions for {len(references)} references; one each a row.")
    check_n_rows(metric, len(predictions))
    return (
        _READERS[contents[0]](f"{metric}: the prediction", predictions),
        _READERS[contents[1]](f"{metric}: the reference", references),
    )


def check_n_rows(metric: str, n_rows: int) -> None:
    """Refuse to compute a metric of no rows."""
    if n_rows == 0:
        raise ValueError(f"{metric} of no rows is not defined; give at least one.")


def _array(where: str, rows: Any, kinds: str, expected: str) -> npt.NDArray[Any]:
    array = np.asarray(rows)
    if array.ndim != 1 or array.dtype.kind not in kinds:
        raise ValueError(
            f"{where} of each row is to be {expected}; given an array of shape {array.shape} and type {array.dtype}."
        )
    return array


def _integers(where: str, rows: Any) -> npt.NDArray[Any]:
    return _array(where, rows, "iub", "a whole number").astype(np.int64)


def _flags(where: str, rows: Any) -> npt.NDArray[Any]:
    return _array(where, rows, "b", "true or false")


def _reals(where: str, rows: Any) -> npt.NDArray[Any]:
    array = _array(where, rows, "fiu", "a real number")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _matrix(where: str, rows: Any, kinds: str, expected: str) -> npt.NDArray[Any]:
    try:
        array = np.asarray(rows)
    except ValueError:  # rows of several lengths
        array = np.empty(len(rows), dtype=object)
    if array.ndim != 2 or array.dtype.kind not in kinds:
        raise ValueError(
            f"{where} of each row is to be {expected} for each label; "
            f"given an array of shape {array.shape} and type {array.dtype}."
        )
    return array


def _label_sets(where: str, rows: Any) -> npt.NDArray[Any]:
    array = _matrix(where, rows, "iub", "0 or 1")
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"{where} of each row is to be 0 or 1 for each label; given {np.unique(array)[:9].tolist()}.")
    return array.astype(np.uint8)


def _scores(where: str, rows: Any) -> npt.NDArray[Any]:
    array = _matrix(where, rows, "fiu", "a real number")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _tags(where: str, rows: Any) -> list[list[str]]:
    lists = []
    for row, tags in enumerate(rows):
        if isinstance(tags, str) or not isinstance(tags, Sequence | np.ndarray):
            raise ValueError(f"{where} of row {row} is {tags!r}, not a list of tags.")
        lists.append([_text(where, row, tag) for tag in tags])
    return lists


def _text(where: str, row: int, text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{where} of row {row} is a {type(text).__name__}, not a text.")
    # A lone surrogate can come out of JSON, and Arrow, which `evaluate` keeps texts in, cannot hold it.
    return text.encode("utf-8", "replace").decode("utf-8")


def _texts(where: str, rows: Any) -> list[str]:
    return [_text(where, row, text) for row, text in enumerate(rows)]


def _lists_of_texts(where: str, rows: Any) -> list[list[str]]:
    lists = []
    for row, texts in enumerate(rows):
        several = [texts] if isinstance(texts, str) else texts
        if not isinstance(several, Sequence | np.ndarray) or len(several) == 0:
            raise ValueError(f"{where} of row {row} is {several!r}, not a text or a list of at least one.")
        lists.append([_text(where, row, text) for text in several])
    return lists


_READERS: Final[dict[Content, Callable[[str, Any], CheckedColumn]]] = {
    "class": _integers,
    "count": _integers,
    "flag": _flags,
    "labels": _label_sets,
    "real": _reals,
    "scores": _scores,
    "tags": _tags,
    "text": _texts,
    "texts": _lists_of_texts,
}
