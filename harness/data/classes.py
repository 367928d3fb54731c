"""Read texts and class indices from raw splits, with a check of every row before anything is trained.

Each error names the data set and the row, and says what to do.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.data.labels import nearest_label, some
from harness.data.raw import Origin, RawSplits
from harness.data.rows import overlap_key
from harness.data.spec import TaskSpec
from harness.support import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class ClassRows:
    """The rows of a classification task, before overlaps are dropped from training and the test is capped.

    Attributes:
        train_texts, test_texts: one text per row.
        train_labels, test_labels: class index of each row, shapes (n_train_rows,) and (n_test_rows,).
        label_names: class names in the order of their indices.
    """

    train_texts: list[str]
    train_labels: npt.NDArray[np.int64]
    test_texts: list[str]
    test_labels: npt.NDArray[np.int64]
    label_names: tuple[str, ...]


def read_classes(
    spec: TaskSpec, splits: RawSplits, texts_of: Callable[[Dataset, Origin], list[str]] | None = None
) -> ClassRows:
    """Check every row of both splits and turn labels into class indices.

    Args:
        spec: the task.
        splits: the loaded splits.
        texts_of: function that returns the checked input of each row; None reads the column of texts.

    Raises:
        DataError: a split has no rows or lacks a column; a text is empty or not a text; a label is missing or not one
            of the task's; a label occurs in the test rows only.
    """
    texts: dict[str, list[str]] = {}
    labels: dict[str, list[str]] = {}
    for part, data in (("train", splits.train), ("test", splits.test)):
        origin = splits.origins.get(part, Origin(f"{spec.data.label()}, {part}"))
        if len(data) == 0:
            raise DataError(f"{origin.name}: there are no {part} rows.")
        texts[part] = (texts_of or _text_column(spec))(data, origin)
        labels[part] = check_labels(data.data.column(spec.columns.label).to_pylist(), spec.columns.label, origin)
    names = spec.label_names or sorted_labels(labels["train"])
    origins = {part: splits.origins.get(part, Origin(f"{spec.data.label()}, {part}")) for part in texts}
    check_known_to_training(labels["train"], labels["test"], origins["test"])
    indices = {part: class_indices(labels[part], names, spec.columns.label, origins[part]) for part in labels}
    absent = sorted(set(range(len(names))) - set(indices["train"].tolist()))
    if absent:
        raise DataError(f"{origins['train'].name}: no training row has the label '{names[absent[0]]}'.")
    return ClassRows(texts["train"], indices["train"], texts["test"], indices["test"], tuple(names))


def _text_column(spec: TaskSpec) -> Callable[[Dataset, Origin], list[str]]:
    """Return a function that reads and checks the column of texts of a split."""

    def texts_of(data: Dataset, origin: Origin) -> list[str]:
        return check_texts(data.data.column(spec.columns.text).to_pylist(), spec.columns.text, origin)

    return texts_of


def check_texts(values: Sequence[Any], column: str, origin: Origin) -> list[str]:
    """Return the values as texts; refuse missing, empty and other values."""
    other = [at for at, value in enumerate(values) if value is not None and not isinstance(value, str)]
    if other:
        kind = type(values[other[0]]).__name__
        raise DataError(
            f"{origin.name}: {origin.at(*other)}: column '{column}' holds a value of type {kind}; expected text."
            + (_LISTS if kind == "list" else _as_texts(origin))
        )
    empty = [at for at, value in enumerate(values) if value is None or not value.strip()]
    if empty:
        raise DataError(
            f"{origin.name}: {origin.at(*empty)}: the text in column '{column}' is empty. Fill it in or drop the row."
        )
    _check_encodable(values, column, origin)
    return list(values)


def _check_encodable(values: Sequence[Any], column: str, origin: Origin) -> None:
    """Refuse half a surrogate pair, which JSON can spell but no file can store."""
    broken = [at for at, value in enumerate(values) if isinstance(value, str) and _SURROGATE.search(value)]
    if broken:
        raise DataError(
            f"{origin.name}: {origin.at(*broken)}: column '{column}' holds half a surrogate pair (\\ud800 to \\udfff), "
            "which is no text. Drop the character or the row."
        )


_LISTS = " Lists of words, with a tag for each, are for --kind token-classification."


def _as_number(value: object) -> str:
    """Return the kinds that predict a number; empty for another value."""
    if not isinstance(value, float):
        return ""
    return " To predict a number, use --kind regression, or --kind similarity for pairs of texts."


def _as_texts(origin: Origin) -> str:
    """Return the remedy for a data frame's values of another type; empty for a file."""
    # `astype(str)` would make the text "nan" of a missing value.
    return ' Make them texts: `df[column].astype("string")`.' if origin.unit == "position" else ""


def check_labels(values: Sequence[Any], column: str, origin: Origin) -> list[str]:
    """Return labels as names: strings unchanged, whole numbers as digits, booleans as `true` and `false`.

    Refuse missing labels, labels of another type, and two that would get the same name (1 and "1").
    """
    missing = [at for at, value in enumerate(values) if is_missing(value)]
    if missing:
        raise DataError(
            f"{origin.name}: {origin.at(*missing)}: the label in column '{column}' is missing. Fill it in or drop the "
            "row."
        )
    _check_encodable(values, column, origin)
    first: dict[str, int] = {}
    labels = []
    for at, value in enumerate(values):
        name = _label_name(value)
        if name is None:
            raise DataError(
                f"{origin.name}: {origin.at(at)}: the label in column '{column}' is {value!r}; expected a string, "
                "a whole number, true or false." + (_as_number(value) or _as_texts(origin))
            )
        before = first.setdefault(name, at)
        if type(values[before]) is not type(value):
            raise DataError(
                f"{origin.name}: {origin.at(before, at)}: column '{column}' holds both {values[before]!r} and "
                f"{value!r}; write a label in one way."
            )
        labels.append(name)
    return labels


def sorted_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct labels, sorted by number if all are whole numbers (2 before 10), else by character."""
    distinct = set(labels)
    if all(_WHOLE.fullmatch(label) for label in distinct):
        return tuple(sorted(distinct, key=int))
    return tuple(sorted(distinct))


def class_indices(labels: Sequence[str], names: Sequence[str], column: str, origin: Origin) -> npt.NDArray[np.int64]:
    """Return the index of each label in `names`, shape (n_rows,).

    If no label is a name and all are whole numbers, they count as indices, as is usual on the hub.

    Raises:
        DataError: a label is neither.
    """
    index = {name: at for at, name in enumerate(names)}
    distinct = set(labels)
    if distinct.isdisjoint(index) and all(_WHOLE.fullmatch(label) for label in distinct):
        index = {str(at): at for at in range(len(names))}
    unknown = [at for at, label in enumerate(labels) if label not in index]
    if unknown:
        label = labels[unknown[0]]
        hint = " A test split of -1 has no labels: let `splits.test` be null." if label == "-1" else ""
        raise DataError(
            f"{origin.name}: {origin.at(*unknown)}: the label '{label}' in column '{column}' is not one of the "
            f"task's: {', '.join(names)} (or 0 to {len(names) - 1}).{hint}"
        )
    return np.fromiter((index[label] for label in labels), dtype=np.int64, count=len(labels))


def check_known_to_training(train: Sequence[str], test: Sequence[str], origin: Origin) -> None:
    """Refuse labels that occur in the test rows only: no method can learn them."""
    known = set(train)
    strange = [at for at, label in enumerate(test) if label not in known]
    if strange:
        near = nearest_label(test[strange[0]], sorted_labels(train))
        guess = f" Did you mean '{near}'?" if near is not None else ""
        raise DataError(
            f"{origin.name}: {origin.at(*strange)}: the label '{test[strange[0]]}' occurs in the test rows only."
            f"{guess} Add training rows of it, or drop these. Labels of the training rows: "
            f"{some(sorted_labels(train))}."
        )


def check_can_hold_out(texts: Sequence[str], labels: Sequence[str], origin: Origin) -> None:
    """Refuse a class that cannot be on both sides of a held-out split: one example, or copies of one text."""
    rows = Counter(labels)
    pairs = {(overlap_key(text), label) for text, label in zip(texts, labels, strict=True)}
    distinct = Counter(label for _, label in pairs)
    lonely = [label for label in sorted_labels(labels) if distinct[label] < 2]
    if lonely:
        at = [row for row, label in enumerate(labels) if label == lonely[0]]
        what = "one example" if rows[lonely[0]] == 1 else f"{rows[lonely[0]]} examples of the same text"
        others = f" The same holds for {some(lonely[1:])}." if len(lonely) > 1 else ""
        raise DataError(
            f"{origin.name}: {origin.at(*at)}: the class '{lonely[0]}' has only {what}; a held-out test needs another. "
            f"Add examples, drop the class, or name a test file.{others}"
        )


def is_missing(value: object) -> bool:
    """Return whether a cell of a table is empty: null, not a number, or a text of white space."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _label_name(value: object) -> str | None:
    """Return the name of a label; None if its type cannot name classes."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas writes whole numbers as floats to Parquet if any is missing
    return None
