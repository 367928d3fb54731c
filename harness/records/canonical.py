"""Fields of dataclasses, and the canonical JSON that identities hash; fast enough for huge grids."""

from __future__ import annotations

import dataclasses
import functools
import json
import marshal
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")

encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode
"""Canonical JSON of a value: keys sorted, no blanks, ASCII; ValueError for NaN and infinities."""

_MOST_KEPT = 4096
"""Maximum number of objects that a cache keeps."""

_shared: dict[bytes, dict[str, Any]] = {}


def fields_of(value: Any) -> dict[str, Any]:
    """Return a dataclass's fields by name, without the deep copies of `dataclasses.asdict`."""
    return {name: getattr(value, name) for name in _names(type(value))}  # type: ignore[arg-type]


@functools.cache
def _names(of: Any) -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(of))


@functools.lru_cache(maxsize=4096, typed=True)
def canonical(value: str | int | None) -> str:
    """Return `encode` of a plain value, cached."""
    return encode(value)


def once_for_each(compute: Callable[[_T], _R]) -> Callable[[_T], _R]:
    """Return a function that computes the result for an object once, since thousands of records share a few objects."""
    known: dict[int, tuple[_T, _R]] = {}

    def find(value: _T) -> _R:
        found = known.get(id(value))
        if found is None or found[0] is not value:
            if len(known) >= _MOST_KEPT:
                known.clear()
            found = known[id(value)] = (value, compute(value))  # the object is kept, so its number stays its own
        return found[1]

    return find


def canonical_of(value: Any, to_json: Callable[[Any], Any]) -> str:
    """Return `encode` of a budget or configuration, computed once for each object."""
    return _canonical_by(to_json)(value)


@functools.cache
def _canonical_by(to_json: Callable[[Any], Any]) -> Callable[[Any], str]:
    return once_for_each(lambda value: encode(to_json(value)))


def made(of: Callable[..., _T], value: Mapping[str, Any]) -> _T:
    """Return a frozen dataclass without `__post_init__` from its values by field, seven times as fast as its call.

    Raises:
        TypeError: a field is unknown or missing.
    """
    names, required, factories = _fields(of)
    if type(value) is not dict or not required <= value.keys() <= names:
        return of(**value)  # raises the error of any other call
    instance = object.__new__(of)  # type: ignore[arg-type]  # a class
    instance.__dict__.update(value)
    for name, factory in factories:
        if name not in value:
            instance.__dict__[name] = factory()
    return instance


@functools.cache
def _fields(of: Any) -> tuple[frozenset[str], frozenset[str], tuple[tuple[str, Callable[[], Any]], ...]]:
    """Return the names of a dataclass's fields, of those without a default, and the factories of defaults.

    Plain defaults are attributes of the class, so that an instance need not hold them.
    """
    missing = dataclasses.MISSING
    fields = dataclasses.fields(of)
    factories = tuple((item.name, item.default_factory) for item in fields if item.default_factory is not missing)
    required = {item.name for item in fields if item.default is missing and item.default_factory is missing}
    return frozenset(_names(of)), frozenset(required), factories


def shared(value: dict[str, Any]) -> dict[str, Any]:
    """Return one shared object for all equal JSON objects, since many records have few configurations.

    Values of different types, such as 1 and true, are not equal here: an identity would be another.
    """
    key = marshal.dumps(value, 2)  # a key only; this version of the format depends on the values alone
    found = _shared.get(key)
    if found is None:
        if len(_shared) >= _MOST_KEPT:
            _shared.clear()
        found = _shared[key] = marshal.loads(key)  # a copy, which nobody changes
    return found
