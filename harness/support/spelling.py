"""Name arguments in messages as the caller spells them: `--cell-limit` on the command line, `cell_limit` in Python."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from harness.support.errors import HarnessError

P = ParamSpec("P")
R = TypeVar("R")

_AS_OPTIONS = ContextVar("as_options", default=False)
_COMMAND = re.compile(r"(`[^`]*`)")
_OPTION = re.compile(
    r"--([a-z][a-z-]*)"
    r"(?: ('[^']*'|[^\s']*(?= was given)|[\d.]+\w*|[A-Z]+\b|\w+=\w+|(?<=--kind )[a-z]+(?:-[a-z]+)*))?"
)
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?|'[^']*'|[A-Z]+")
_NAMES = {"budget": "budgets", "figures": "formats", "map": "mapping"}
"""Python's names of options, where they are more than the option with underscores."""


@contextmanager
def named_as_options() -> Iterator[None]:
    """Have messages name arguments as the command line does."""
    token = _AS_OPTIONS.set(True)
    try:
        yield
    finally:
        _AS_OPTIONS.reset(token)


def spelt_for_caller(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function of the API, so that its errors name arguments as its caller spells them."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except HarnessError as error:
            if not _AS_OPTIONS.get():
                error.args = (as_python(str(error)), *error.args[1:])
            raise

    return wrapped


def as_caller_spells(message: str) -> str:
    """Return a message of the command line as its reader spells arguments: with options, or with Python's names."""
    return message if _AS_OPTIONS.get() else as_python(message)


def as_python(message: str) -> str:
    """Return a message with options named as arguments: `--within 5m` becomes `within='5m'`.

    Whole commands, in backticks, stay as they are.
    """
    parts = _COMMAND.split(message)
    return "".join(part if part.startswith("`") else _OPTION.sub(_argument, part) for part in parts)


def _argument(found: re.Match[str]) -> str:
    name, value = found.groups()
    name = _NAMES.get(name, name.replace("-", "_"))
    if value is None:
        return name
    return f"{name}={value if _NUMBER.fullmatch(value) else repr(value)}"
