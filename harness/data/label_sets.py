"""Read rows with any number of labels: lists, joined texts, or one column of 0 and 1 per label."""

from __future__ import annotations

import ast
import json
import numbers
import re
from collections.abc import Mapping, Sequence

import numpy as np

from harness.data.raw import Origin
from harness.support import DataError

_FLAGS = {"1": True, "0": False, "true": True, "false": False}
_ADJACENT = re.compile(r"""['"]\s+['"]""")
_LONGEST = 40


def read_label_sets(
    values: Sequence[object], column: str, origin: Origin, separator: str | None
) -> list[tuple[str, ...]]:
    """Return the labels of each row, sorted and without repeats.

    A value is a list of labels, a list written as text (`["a", "b"]`, `['a', 'b']`), or a text of labels joined by
    `separator`; an empty list or text has no label. Labels are texts or whole numbers, which become their digits.
    Spaces around a label do not count.

    Args:
        values: one value per row.
        column: name of the column, for messages.
        origin: positions of the rows in their source, for messages.
        separator: text between the labels of a joined text; None accepts lists only.

    Raises:
        DataError: a value is missing, is neither a list nor a text, or holds a label that is empty or no text; the
            message names the rows.
    """
    missing = [at for at, value in enumerate(values) if is_no_label_set(value)]
    if missing:
        raise DataError(
            f"{origin.name}: {origin.at(*missing)}: the labels in column '{column}' are missing. Write an empty list "
            "or text where a row has no label, or drop the row."
        )
    found = []
    for at, value in enumerate(values):
        parts = _parts(value, separator)
        if parts is None:
            where = f"{origin.name}: {origin.at(at)}: column '{column}'"
            raise DataError(f"{where} holds {_brief(value)}; expected {_expected(separator)}")
        names = [_name(part) for part in parts]
        wrong = next((place for place, name in enumerate(names) if not name), None)
        if wrong is not None:
            raise DataError(
                f"{origin.name}: {origin.at(at)}: label {wrong + 1} of {_brief(value)} in column '{column}' is "
                f"{_brief(parts[wrong])}; expected a text that is not empty, or a whole number."
            )
        found.append(tuple(sorted({name for name in names if name})))
    return found


def read_flags(columns: Mapping[str, Sequence[object]], origin: Origin) -> list[tuple[str, ...]]:
    """Return the labels of each row, sorted, from one column of 0 and 1 per label.

    A value is 0 or 1, true or false, or a text of these.

    Args:
        columns: values by label, one per row.
        origin: positions of the rows in their source, for messages.

    Raises:
        DataError: a value is another; the message names its row and column.
    """
    flags: dict[str, list[bool]] = {}
    for column, values in columns.items():
        read = [_flag(value) for value in values]
        wrong = [at for at, flag in enumerate(read) if flag is None]
        if wrong:
            where = f"{origin.name}: {origin.at(*wrong)}: column '{column}'"
            raise DataError(
                f"{where} holds {_brief(values[wrong[0]])}; expected 0 or 1, or true or false: whether the row has "
                "this label."
            )
        flags[column] = [bool(flag) for flag in read]
    names = sorted(flags)
    rows = zip(*(flags[name] for name in names), strict=True)
    return [tuple(name for name, flag in zip(names, row, strict=True) if flag) for row in rows]


def is_no_label_set(value: object) -> bool:
    """Return whether a row's labels are unknown: null or not a number; an empty list or text is no label instead."""
    return value is None or (isinstance(value, float) and value != value)


def as_list(value: object) -> list[object] | None:
    """Return a list, tuple, set or array of a table as a list, also where it is written as text; None for others.

    Texts are lists of JSON (`["a", "b"]`) or of Python, as pandas writes them (`['a', 'b']`).
    """
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, str):
        return _written_list(value.strip())
    if getattr(value, "ndim", 0) == 1 and hasattr(value, "tolist"):  # an array in a data frame
        return list(value.tolist())
    return None


def _written_list(text: str) -> list[object] | None:
    if not (text.startswith("[") and text.endswith("]")):
        return None
    for read in (json.loads, ast.literal_eval):
        # Python joins adjacent texts, so an array as NumPy prints it (`['a' 'b']`) would lose its bounds.
        if read is ast.literal_eval and _ADJACENT.search(text):
            return None
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return found if isinstance(found, list) else None
    return None


def _parts(value: object, separator: str | None) -> list[object] | None:
    """Return the labels of a value as they are written; None if it is neither a list nor a joined text."""
    listed = as_list(value)
    if listed is not None:
        return listed
    if isinstance(value, str) and not value.strip():
        return []
    if separator is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return list(value.split(separator))
    return [value] if _name(value) is not None else None


def _expected(separator: str | None) -> str:
    if separator is None:
        return "a list of labels. Where a text holds several labels, name what is between them: --label-separator '|'."
    return f"a list of labels, or a text of labels joined by '{separator}'."


def _name(value: object) -> str | None:
    """Return a label as text; None if it is empty, or no label."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer) or not float(value).is_integer():
        return None
    return str(int(value))


def _flag(value: object) -> bool | None:
    if isinstance(value, str):
        return _FLAGS.get(value.strip().casefold())
    if isinstance(value, numbers.Real | np.bool_) and value in (0, 1):  # booleans are whole numbers
        return bool(value)
    return None


def _brief(value: object) -> str:
    said = repr(value)
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 3]}..."
