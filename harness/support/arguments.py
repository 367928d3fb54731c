"""Check the types of arguments that a caller gives in Python; the command line parses its own."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from harness.support.errors import UsageError

_Item = TypeVar("_Item")

_LONGEST = 60
"""Characters of a value that a message shows in full."""


def wrong_argument(name: str, value: object, expected: str) -> UsageError:
    """Return the error for an argument of a wrong type: its name, the value or its type, and what is expected."""
    shown = "" if hasattr(value, "shape") and getattr(value, "shape", ()) != () else repr(value)
    if shown and len(shown) <= _LONGEST and "\n" not in shown:
        return UsageError(f"{name}={shown} was given; expected {expected}.")
    return UsageError(f"{name} is of type {type(value).__name__}; expected {expected}.")


def whole_number(name: str, value: Any, expected: str = "a whole number") -> int:
    """Return a number of any integral type (Python's, NumPy's) as an `int`.

    Raises:
        UsageError: a boolean, a fraction, a text or anything else.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise wrong_argument(name, value, expected)
    return int(value)


def real_number(name: str, value: Any, expected: str = "a number") -> int | float:
    """Return a number of any real type as an `int` or `float`.

    Raises:
        UsageError: a boolean, a text or anything else.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise wrong_argument(name, value, expected)
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def checked_text(name: str, value: Any, expected: str = "a text") -> str:
    """Return a text.

    Raises:
        UsageError: anything else.
    """
    if not isinstance(value, str):
        raise wrong_argument(name, value, expected)
    return value


def checked_path(name: str, value: Any, expected: str = "a path") -> str | Path:
    """Return a path, as a text or a `Path`.

    Raises:
        UsageError: anything else.
    """
    if not isinstance(value, str | Path):
        raise wrong_argument(name, value, expected)
    return value


def given(check: Callable[[str, Any], _Item], name: str, value: Any) -> _Item | None:
    """Return a checked argument; None, which takes the default, stays None."""
    return None if value is None else check(name, value)


def several(
    name: str, values: Any, types: tuple[type, ...], expected: str, *, split: Callable[[str], list[Any]]
) -> list[Any] | None:
    """Return the values of an argument that is a list, one value, or a text to split; None stays None.

    Raises:
        UsageError: something else, or an item of none of the types.
    """
    if values is None:
        return None
    if isinstance(values, str):
        return split(values)
    if isinstance(values, types):
        values = [values]
    is_list = isinstance(values, Iterable) and not isinstance(values, bytes) and getattr(values, "shape", None) != ()
    items = list(values) if is_list else [None]
    for item in items:
        if isinstance(item, bool) or not isinstance(item, types):
            raise wrong_argument(name, values, expected)
    return items
