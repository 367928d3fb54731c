"""Check the fields of a record's JSON by the annotations of the types that they become.

A new field is checked as soon as it exists. `_RANGES` and `_TEXTS` add limits that annotations cannot express.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

from harness.records.budgets import Budget
from harness.records.record import MAX_SEED, Record
from harness.support import HarnessError, StoreError

MAX_WHOLE = 2**53
"""Largest whole number of a field: every JSON reader holds it exactly."""

_MAX_NUMBER = 1e30
_MAX_SECONDS = 1e10
_MAX_TEXT = 10_000
MAX_NAME = 1_000
_MAX_ENTRIES = 10_000
_MAX_POINTS = 100_000
_MAX_DEPTH = 8

FieldCheck = Callable[[Any], str | None]
"""Function that returns what was expected of a value; None if the value is valid."""

_RANGES: dict[str, tuple[float, float]] = {
    "version": (0, 2**31 - 1),
    "attempt": (1, 2**31 - 1),
    "seed": (0, MAX_SEED),
    "cells_at_a_time": (1, 10**6),
    "price_per_hour": (0, 1e12),
    "matrix_flops_per_second": (1e-300, _MAX_NUMBER),
    "energy_joules": (0, 1e18),
    "train_flops": (0, _MAX_NUMBER),
    "flops": (0, _MAX_NUMBER),
    "value": (-_MAX_NUMBER, _MAX_NUMBER),
    "low": (-_MAX_NUMBER, _MAX_NUMBER),
    "high": (-_MAX_NUMBER, _MAX_NUMBER),
    "train_score": (-_MAX_NUMBER, _MAX_NUMBER),
    "train_loss": (-_MAX_NUMBER, _MAX_NUMBER),
    "validation": (-_MAX_NUMBER, _MAX_NUMBER),
    "highest": (1e-9, _MAX_NUMBER),
    **dict.fromkeys(("mean", "n_terms", "penalty", "encoded", "passes_per_text", "additions"), (0, _MAX_NUMBER)),
    "texts_per_answer": (0, _MAX_NUMBER),
    "share_trained": (0, 1),
    "epochs": (1e-9, 1e9),
    **dict.fromkeys(("batch_size", "pieces", "items_per_label", "texts_per_item"), (1, MAX_WHOLE)),
}
"""Smallest and largest value of a number, by field; others are 0 or more, and seconds end at `_MAX_SECONDS`."""

_TEXTS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("task", "method", "device", "kind", "family", "metric"), (1, MAX_NAME)),
    **dict.fromkeys(("suite", "backbone", "stopped_by"), (0, MAX_NAME)),
    **dict.fromkeys(("data", "weights"), (1, MAX_NAME)),
    "error": (1, 1_000_000),
}
"""Shortest and longest text, by field; others are at most `_MAX_TEXT` characters long."""


def check_fields(value: Any, of: type, where: str) -> None:
    """Refuse an object that is not the JSON of a type; `where` is its path in the record, empty for the record.

    Raises:
        StoreError: a field is unknown, missing or not as its annotation says; the message names it.
    """
    if type(value) is not dict:
        raise StoreError(f"{where or 'the record'} is {shown(value)}; expected an object")
    rules, required = _rules_of(of)
    for name, item in value.items():
        rule = rules.get(name)
        if rule is None:
            raise StoreError(
                f"{_join(where, name)} is no field of a record. Upgrade the harness if a newer version wrote it"
            )
        check, is_optional, least, most = rule
        # The most frequent values, without a call: a record has hundreds of numbers.
        if (item is None and is_optional) or (type(item) is float and least <= item <= most):
            continue
        if (expected := check(item)) is not None:
            raise StoreError(explain(_join(where, name), item, expected))
    if missing := required - value.keys():
        raise StoreError(f"{_join(where, min(missing))} is missing")


def explain(where: str, item: Any, expected: str) -> str:
    """Return the message about a field; an inner check may have named a part of it already."""
    if expected.startswith(_INNER):
        return f"{where}{expected[len(_INNER) :]}"
    return f"{where} is {shown(item)}; expected {expected}"


_INNER = "\0"
"""Prefix of a check's result that is already a message about a part of its value."""


_Rule = tuple[FieldCheck, bool, float, float]
"""A field's check; whether null is valid; smallest and largest valid fraction."""


@functools.cache
def _rules_of(of: type) -> tuple[dict[str, _Rule], frozenset[str]]:
    """Return the rule of each field of a type, and the required fields."""
    hints = typing.get_type_hints(of)
    fields = dataclasses.fields(of)
    rules = {field.name: _rule_of(hints[field.name], field.name) for field in fields}
    required = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    if of is Record:
        rules |= {"id": (_check_id, False, 1.0, 0.0), "predictions": (lambda _: None, True, 1.0, 0.0)}
        required |= {"id", "score", "train_score", "cost", "curve", "error", "attempt", "facts"}
    return rules, frozenset(required)


def _rule_of(hint: Any, name: str) -> _Rule:
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    least, most = _range_of(name) if float in kinds else (1.0, 0.0)
    return check_of(hint, name), type(None) in kinds, least, most


def _range_of(name: str) -> tuple[float, float]:
    default = (0.0, _MAX_SECONDS) if name.endswith("seconds") else (-_MAX_NUMBER, _MAX_NUMBER)
    return _RANGES.get(name, default)


def check_of(hint: Any, name: str) -> FieldCheck:
    """Return the check for an annotation."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return functools.partial(_check_any, [check_of(kind, name) for kind in inner if kind is not type(None)])
    if origin is Literal:
        return lambda value: None if type(value) is str and value in inner else f"one of {', '.join(inner)}"
    if origin is tuple:
        return functools.partial(check_list, check_of(inner[0], name))
    if origin is dict or hint is dict:
        return functools.partial(_check_dict, check_of(inner[1], "") if inner[1] is not Any else None)
    if hint is bool:
        return lambda value: None if type(value) is bool else "true or false"
    if hint is str:
        return functools.partial(check_text, *_TEXTS.get(name, (0, _MAX_TEXT)))
    if hint is int:
        return functools.partial(check_whole, *_RANGES.get(name, (0, MAX_WHOLE)))
    if hint is float:
        return functools.partial(check_number, *_range_of(name))
    if hint is Budget:
        return _check_budget
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return functools.partial(_check_inner, hint)
    raise TypeError(f"No check for the annotation {hint} of field '{name}'.")  # a bug: a test covers all fields


def _check_any(checks: Sequence[FieldCheck], value: Any) -> str | None:
    """Return what was expected if a value is not null and passes none of the checks."""
    if value is None:
        return None
    found = [check(value) for check in checks]
    return None if None in found else " or ".join(str(one) for one in found)


def _check_inner(of: type, value: Any) -> str | None:
    try:
        check_fields(value, of, "")
    except StoreError as error:
        return f"{_INNER} is {shown(value)}; expected an object" if type(value) is not dict else f"{_INNER}.{error}"
    return None


def check_text(least: int, most: int, value: Any) -> str | None:
    """Return what was expected if a value is no text of `least` to `most` characters."""
    if type(value) is str and least <= len(value) <= most:
        return None
    return f"a text of {least} to {most:,} characters"


def check_whole(least: float, most: float, value: Any) -> str | None:
    """Return what was expected if a value is no whole number from `least` to `most`."""
    return None if type(value) is int and least <= value <= most else f"a whole number from {least:g} to {most:.16g}"


def check_number(least: float, most: float, value: Any) -> str | None:
    """Return what was expected if a value is no number from `least` to `most`."""
    # A comparison with NaN is false.
    if (type(value) is float or type(value) is int) and least <= value <= most:
        return None
    return f"a number from {least:g} to {most:g}"


def check_list(check: FieldCheck, value: Any) -> str | None:
    """Return what was expected if a value is no list, or an entry does not pass the check."""
    if type(value) is not list or len(value) > _MAX_POINTS:
        return f"a list of at most {_MAX_POINTS:,} entries"
    for position, item in enumerate(value):
        if (expected := check(item)) is not None:
            return _INNER + explain(f"[{position}]", item, expected)
    return None


def _check_dict(check: FieldCheck | None, value: Any) -> str | None:
    if type(value) is not dict or len(value) > _MAX_ENTRIES:
        return f"an object of at most {_MAX_ENTRIES:,} entries"
    for name, item in value.items():
        if len(name) > MAX_NAME:
            return f"an object with names of at most {MAX_NAME:,} characters"
        if check is not None and (expected := check(item)) is not None:
            return _INNER + explain(f".{_clip(name)}", item, expected)
    if check is None:
        n_values, problem = _look_into(value, 1)
        if problem is not None or n_values > _MAX_ENTRIES:
            return _INNER + (problem or f" holds {n_values:,} values; expected at most {_MAX_ENTRIES:,}")
    return None


def _look_into(value: Any, depth: int) -> tuple[int, str | None]:
    """Return the number of values in a value, and the fault of one of them."""
    if type(value) is str:
        return 1, None if len(value) <= _MAX_TEXT else f" holds a text of {len(value):,} characters; too long"
    if type(value) is int:
        return 1, None if abs(value) <= MAX_WHOLE else f" holds the number {shown(value)}; too large"
    if type(value) is float:
        return 1, None if math.isfinite(value) else f" holds {value}; expected finite numbers"
    if not isinstance(value, (dict, list)):
        return 1, None
    if depth > _MAX_DEPTH:
        return 1, f" is nested more than {_MAX_DEPTH} deep"
    if len(value) > _MAX_ENTRIES:
        return len(value), None
    n_values = 1
    names = list(value) if isinstance(value, dict) else []
    if any(len(name) > MAX_NAME for name in names):
        return n_values, f" holds a name of more than {MAX_NAME:,} characters; too long"
    for item in value.values() if isinstance(value, dict) else value:
        found, problem = _look_into(item, depth + 1)
        n_values += found
        if problem is not None or n_values > _MAX_ENTRIES:
            return n_values, problem
    return n_values, None


def _check_budget(value: Any) -> str | None:
    if type(value) is not dict:
        return "an object"
    known = {field.name for field in dataclasses.fields(Budget)}
    for name, item in value.items():
        if name not in known:
            return f"{_INNER}.{_clip(name)} is no part of a budget; expected some of {', '.join(sorted(known))}"
        most = MAX_WHOLE if name in ("steps", "peak_memory_bytes") else _MAX_NUMBER
        if type(item) not in (int, float) or not 0 < item <= most:
            return _INNER + explain(f".{name}", item, f"a number above 0, at most {most:g}")
    try:
        Budget(**value)
    except HarnessError as error:
        return f"{_INNER}: {error}"
    return None


def _check_id(value: Any) -> str | None:
    return None if type(value) is str and re.fullmatch("[0-9a-f]{32}", value) else "32 hexadecimal digits"


# ---- messages


def shown(value: Any) -> str:
    """Return a short text of a value, whatever its size."""
    if isinstance(value, (dict, list)):
        return f"an {'object' if isinstance(value, dict) else 'array'} of {len(value):,} entries"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    if isinstance(value, int) and abs(value) > 10**40:
        return "a whole number of more than 40 digits"
    return _clip(repr(value[:100] if isinstance(value, str) else value))


def _clip(text: str) -> str:
    shown = text if text.isascii() and text.isprintable() else ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _join(where: str, name: str) -> str:
    return f"{where}.{_clip(name)}" if where else _clip(name)
