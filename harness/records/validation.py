"""Check the JSON of a foreign record field by field, before it becomes a record.

The checks follow from the annotations of the types in `harness.records.record`, so a new field is checked as soon as it
exists. `_RANGES`, `_TEXTS` and `_NOTES` add limits that annotations cannot express. Records of schema 1 are checked by
the same
rules: they have `provenance.measured` in place of facts.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.records.budgets import Budget
from harness.records.record import MAX_SEED, SCHEMA, Record
from harness.support import HarnessError, StoreError

MAX_WHOLE = 2**53
"""Largest whole number of a field: every JSON reader holds it exactly."""

MAX_NUMBER = 1e30
MAX_SECONDS = 1e10
MAX_TEXT = 10_000
MAX_NAME = 1_000
MAX_ENTRIES = 10_000
MAX_POINTS = 100_000
MAX_DEPTH = 8
MAX_CLASSES = 100_000
"""Largest number of classes or choices; statistics make a table of that many rows."""

FieldCheck = Callable[[Any], str | None]
"""Function that returns what was expected of a value; None if the value is valid."""

_RANGES: dict[str, tuple[float, float]] = {
    "version": (0, 2**31 - 1),
    "attempt": (1, 2**31 - 1),
    "seed": (0, MAX_SEED),
    "cells_at_a_time": (1, 10**6),
    "price_per_hour": (0, 1e12),
    "matrix_flops_per_second": (1e-300, MAX_NUMBER),
    "energy_joules": (0, 1e18),
    "train_flops": (0, MAX_NUMBER),
    "flops": (0, MAX_NUMBER),
    "value": (-MAX_NUMBER, MAX_NUMBER),
    "low": (-MAX_NUMBER, MAX_NUMBER),
    "high": (-MAX_NUMBER, MAX_NUMBER),
    "train_score": (-MAX_NUMBER, MAX_NUMBER),
    "train_loss": (-MAX_NUMBER, MAX_NUMBER),
    "validation": (-MAX_NUMBER, MAX_NUMBER),
    "highest": (1e-9, MAX_NUMBER),
    **dict.fromkeys(("mean", "n_terms", "penalty", "encoded", "passes_per_text", "additions"), (0, MAX_NUMBER)),
    **dict.fromkeys(("copies", "texts_per_answer"), (0, MAX_NUMBER)),
    "share_trained": (0, 1),
    "epochs": (1e-9, 1e9),
    **dict.fromkeys(("batch_size", "pieces", "items_per_label", "texts_per_item"), (1, MAX_WHOLE)),
}
"""Smallest and largest value of a number, by field; others are 0 or more, and seconds end at `MAX_SECONDS`."""

_TEXTS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("task", "method", "device", "kind", "family", "metric"), (1, MAX_NAME)),
    **dict.fromkeys(("suite", "backbone", "stopped_by"), (0, MAX_NAME)),
    **dict.fromkeys(("data", "weights"), (1, MAX_NAME)),
    "error": (1, 1_000_000),
}
"""Shortest and longest text, by field; others are at most `MAX_TEXT` characters long."""


def check_record(value: Any) -> None:
    """Refuse the JSON of a record if a field violates the schema in type, range, size or meaning.

    Args:
        value: result of `json.loads`. `check_predictions` checks its predictions.

    Raises:
        StoreError: the message names the field, what it holds and what was expected.
    """
    if not isinstance(value, dict):
        raise StoreError(f"it is {_shown(value)}; expected an object with the fields of a record")
    if (schema := value.get("schema")) not in (1, SCHEMA) or type(schema) is not int:
        raise StoreError(f"schema is {_shown(schema)}; this version reads schema 1 and {SCHEMA}")
    if schema == 1:
        value = _without_notes(value)
    _check_fields(value, Record, "")
    if value.get("status") == "ok":
        if value["score"] is None:
            raise StoreError("status is 'ok', but score is null; expected a score")
        if value["error"] is not None:
            raise StoreError("status is 'ok', but error is a text; expected null")
    elif value["score"] is not None or value.get("predictions") is not None:
        raise StoreError(f"status is '{value['status']}', but there is a score or predictions; expected null")
    elif value["error"] is None:
        raise StoreError(f"status is '{value['status']}', but error is null; expected the reason")
    _check_cell(value["cell"])
    if value["score"] is not None:
        _check_score(value["score"])
    _check_notes(value["provenance"].get("dataset") or {})
    for part in ("train_texts", "test_texts"):
        _check_lengths(value["facts"].get(part) or {}, f"facts.{part}")


def _without_notes(value: dict[str, Any]) -> dict[str, Any]:
    """Check the notes on measuring of schema 1; return the JSON without them and with empty facts."""
    if "facts" in value:
        raise StoreError("facts is no field of a record of schema 1")
    provenance = value.get("provenance")
    if type(provenance) is not dict or "measured" not in provenance:
        return {**value, "facts": {}}
    notes = provenance["measured"]
    if (expected := _check_notes_of_1(notes)) is not None:
        raise StoreError(_message("provenance.measured", notes, expected))
    for part in ("train", "test"):
        name = f"longest_{part}_tokens"
        if name in notes and not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", notes[name]):
            raise StoreError(_message(f"provenance.measured.{name}", notes[name], "a number of tokens"))
    rest = {name: item for name, item in provenance.items() if name != "measured"}
    return {**value, "provenance": rest, "facts": {}}


def check_predictions(record: Record) -> None:
    """Refuse predictions that do not fit the record's score.

    Raises:
        StoreError: the message names the field, what it holds and what was expected.
    """
    found, score = record.predictions, record.score
    if found is None or score is None:
        return
    for name, length in found.lengths().items():
        if length != score.n_test:
            raise StoreError(f"predictions.{name} has {length} rows; expected score.n_test = {score.n_test}")
    if (found.predicted is None) != (found.target is None):
        raise StoreError("predictions has one of predicted and target; expected both or neither")
    n_classes = record.provenance.dataset.get("n_classes", MAX_CLASSES)
    for name, indices in (("predicted", found.predicted), ("target", found.target)):
        if indices is not None and indices.size and not (indices.min() >= -1 and indices.max() < n_classes):
            raise StoreError(
                f"predictions.{name} goes from {indices.min()} to {indices.max()}; expected classes below {n_classes}"
            )
    if found.confidence is not None and not _all_shares(found.confidence):
        raise StoreError("predictions.confidence holds a value outside 0 to 1; expected probabilities")
    for name, values in found.statistics.items():
        if not np.all(np.isfinite(values)):
            raise StoreError(f"predictions.statistics.{name} holds a value that is not finite; expected numbers")
    if score.metric == "accuracy" and found.predicted is not None and found.target is not None and score.n_test:
        accuracy = float(np.mean(found.predicted == found.target))
        if not math.isclose(accuracy, score.value, abs_tol=1e-6):
            raise StoreError(f"score.value is {score.value:g}; expected the accuracy of predictions, {accuracy:g}")


_ONE_AS_BITS = 0x3C00


def _all_shares(values: npt.NDArray[np.float16]) -> bool:
    """Return whether all values are from 0 to 1."""
    # The bits of positive half floats sort like their values, and integers compare ten times as fast.
    if not values.size or values.view(np.uint16).max() <= _ONE_AS_BITS:
        return True
    return bool(np.all((values >= 0) & (values <= 1)))


# ---- fields


def _check_fields(value: Any, of: type, where: str) -> None:
    if type(value) is not dict:
        raise StoreError(f"{where or 'the record'} is {_shown(value)}; expected an object")
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
            raise StoreError(_message(_join(where, name), item, expected))
    if missing := required - value.keys():
        raise StoreError(f"{_join(where, min(missing))} is missing")


def _message(where: str, item: Any, expected: str) -> str:
    """Return the message about a field; an inner check may have named a part of it already."""
    if expected.startswith(_INNER):
        return f"{where}{expected[len(_INNER) :]}"
    return f"{where} is {_shown(item)}; expected {expected}"


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
    return _check_of(hint, name), type(None) in kinds, least, most


def _range_of(name: str) -> tuple[float, float]:
    default = (0.0, MAX_SECONDS) if name.endswith("seconds") else (-MAX_NUMBER, MAX_NUMBER)
    return _RANGES.get(name, default)


def _check_of(hint: Any, name: str) -> FieldCheck:
    """Return the check for an annotation."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (kind,) = (one for one in inner if one is not type(None))
        check = _check_of(kind, name)
        return lambda value: None if value is None else check(value)
    if origin is Literal:
        return lambda value: None if type(value) is str and value in inner else f"one of {', '.join(inner)}"
    if origin is tuple:
        return functools.partial(_check_list, _check_of(inner[0], name))
    if origin is dict or hint is dict:
        return functools.partial(_check_dict, _check_of(inner[1], "") if inner[1] is not Any else None)
    if hint is bool:
        return lambda value: None if type(value) is bool else "true or false"
    if hint is str:
        return functools.partial(_check_text, *_TEXTS.get(name, (0, MAX_TEXT)))
    if hint is int:
        return functools.partial(_check_whole, *_RANGES.get(name, (0, MAX_WHOLE)))
    if hint is float:
        return functools.partial(_check_number, *_range_of(name))
    if hint is Budget:
        return _check_budget
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return functools.partial(_check_inner, hint)
    raise TypeError(f"No check for the annotation {hint} of field '{name}'.")  # a bug: a test covers all fields


def _check_inner(of: type, value: Any) -> str | None:
    try:
        _check_fields(value, of, "")
    except StoreError as error:
        return f"{_INNER} is {_shown(value)}; expected an object" if type(value) is not dict else f"{_INNER}.{error}"
    return None


def _check_text(least: int, most: int, value: Any) -> str | None:
    if type(value) is str and least <= len(value) <= most:
        return None
    return f"a text of {least} to {most:,} characters"


def _check_whole(least: float, most: float, value: Any) -> str | None:
    return None if type(value) is int and least <= value <= most else f"a whole number from {least:g} to {most:.16g}"


def _check_number(least: float, most: float, value: Any) -> str | None:
    # A comparison with NaN is false.
    if (type(value) is float or type(value) is int) and least <= value <= most:
        return None
    return f"a number from {least:g} to {most:g}"


def _check_list(check: FieldCheck, value: Any) -> str | None:
    if type(value) is not list or len(value) > MAX_POINTS:
        return f"a list of at most {MAX_POINTS:,} entries"
    for position, item in enumerate(value):
        if (expected := check(item)) is not None:
            return _INNER + _message(f"[{position}]", item, expected)
    return None


def _check_dict(check: FieldCheck | None, value: Any) -> str | None:
    if type(value) is not dict or len(value) > MAX_ENTRIES:
        return f"an object of at most {MAX_ENTRIES:,} entries"
    for name, item in value.items():
        if len(name) > MAX_NAME:
            return f"an object with names of at most {MAX_NAME:,} characters"
        if check is not None and (expected := check(item)) is not None:
            return _INNER + _message(f".{_clip(name)}", item, expected)
    if check is None:
        n_values, problem = _look_into(value, 1)
        if problem is not None or n_values > MAX_ENTRIES:
            return _INNER + (problem or f" holds {n_values:,} values; expected at most {MAX_ENTRIES:,}")
    return None


def _look_into(value: Any, depth: int) -> tuple[int, str | None]:
    """Return the number of values in a value, and the fault of one of them."""
    if type(value) is str:
        return 1, None if len(value) <= MAX_TEXT else f" holds a text of {len(value):,} characters; too long"
    if type(value) is int:
        return 1, None if abs(value) <= MAX_WHOLE else f" holds the number {_shown(value)}; too large"
    if type(value) is float:
        return 1, None if math.isfinite(value) else f" holds {value}; expected finite numbers"
    if not isinstance(value, (dict, list)):
        return 1, None
    if depth > MAX_DEPTH:
        return 1, f" is nested more than {MAX_DEPTH} deep"
    if len(value) > MAX_ENTRIES:
        return len(value), None
    n_values = 1
    names = list(value) if isinstance(value, dict) else []
    if any(len(name) > MAX_NAME for name in names):
        return n_values, f" holds a name of more than {MAX_NAME:,} characters; too long"
    for item in value.values() if isinstance(value, dict) else value:
        found, problem = _look_into(item, depth + 1)
        n_values += found
        if problem is not None or n_values > MAX_ENTRIES:
            return n_values, problem
    return n_values, None


def _check_budget(value: Any) -> str | None:
    if type(value) is not dict:
        return "an object"
    known = {field.name for field in dataclasses.fields(Budget)}
    for name, item in value.items():
        if name not in known:
            return f"{_INNER}.{_clip(name)} is no part of a budget; expected some of {', '.join(sorted(known))}"
        most = MAX_WHOLE if name in ("steps", "peak_memory_bytes") else MAX_NUMBER
        if type(item) not in (int, float) or not 0 < item <= most:
            return _INNER + _message(f".{name}", item, f"a number above 0, at most {most:g}")
    try:
        Budget(**value)
    except HarnessError as error:
        return f"{_INNER}: {error}"
    return None


def _check_id(value: Any) -> str | None:
    return None if type(value) is str and re.fullmatch("[0-9a-f]{32}", value) else "32 hexadecimal digits"


# ---- what fields mean together


def _check_cell(cell: Mapping[str, Any]) -> None:
    if (cell["backbone"] is None) != (cell["weights"] is None):
        raise StoreError("cell has one of backbone and weights; expected both or neither")
    for name in ("data", "weights"):
        text = cell[name]
        if text is not None and (not text.isprintable() or text != text.strip()):
            raise StoreError(f"cell.{name} is {_shown(text)}; expected a fingerprint, without blanks around it")
    _check_settings(cell["config"])


_SETTINGS: dict[str, FieldCheck] = {
    "batch_size": functools.partial(_check_whole, 1, MAX_WHOLE),
    "epochs": functools.partial(_check_number, 1e-9, 1e9),
    "min_steps": functools.partial(_check_whole, 0, MAX_WHOLE),
    "max_steps": functools.partial(_check_whole, 0, MAX_WHOLE),
    "n_pairs": functools.partial(_check_whole, 0, MAX_WHOLE),
}
"""Checks of settings that forecasts compute with."""

_check_notes_of_1 = _check_of(dict[str, str], "")
_optional_text = _check_of(str | None, "")
_NOTES: dict[str, FieldCheck] = {
    **dict.fromkeys(("hub", "config", "revision"), _optional_text),
    "n_classes": functools.partial(_check_whole, 1, MAX_CLASSES),
    **dict.fromkeys(
        ("overlaps", "seen_by"), functools.partial(_check_list, functools.partial(_check_text, 0, MAX_NAME))
    ),
}
"""Checks of notes on the data that reports and advice read."""


def _check_settings(config: Mapping[str, Any]) -> None:
    for name, check in _SETTINGS.items():
        item = config.get(name)
        if item is not None and (expected := check(item)) is not None:
            raise StoreError(_message(f"cell.config.{name}", item, expected))


def _check_notes(dataset: Mapping[str, Any]) -> None:
    for name, check in _NOTES.items():
        item = dataset.get(name)
        if item is not None and (expected := check(item)) is not None:
            raise StoreError(_message(f"provenance.dataset.{name}", item, expected))


def _check_lengths(texts: Mapping[str, Any], where: str) -> None:
    n_cut, n_texts = texts.get("n_cut"), texts.get("n_texts")
    if (n_cut is None) != (n_texts is None) or (n_cut is not None and n_cut > n_texts):
        raise StoreError(f"{where}.n_cut is {n_cut}; expected at most {where}.n_texts = {n_texts}")


def _check_score(score: Mapping[str, Any]) -> None:
    low, high, available = score["low"], score["high"], score.get("n_test_available")
    if low is not None and high is not None and low > high:
        raise StoreError(f"score.low is {low:g} and score.high is {high:g}; expected low to be at most high")
    if available is not None and available < score["n_test"]:
        raise StoreError(f"score.n_test_available is {available}; expected at least score.n_test = {score['n_test']}")


# ---- messages


def _shown(value: Any) -> str:
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
