"""Fields of dataclasses, and the canonical JSON that identities hash; both fast enough for huge grids."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode
"""Canonical JSON of a value: keys sorted, no blanks, ASCII; ValueError for NaN and infinities."""

_MOST_TEXTS = 1024
_texts: dict[int, tuple[Any, str]] = {}


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


def canonical_of(value: Any, to_json: Callable[[Any], Any]) -> str:
    """Return `encode` of a budget or configuration, cached by object, since thousands of cells share a few objects."""
    known = _texts.get(id(value))
    if known is None or known[0] is not value:
        if len(_texts) >= _MOST_TEXTS:
            _texts.clear()
        known = _texts[id(value)] = (value, encode(to_json(value)))  # the object is kept, so its number stays its own
    return known[1]


def shared_config(config: dict[str, Any]) -> Any:
    """Return one shared object for all cells with equal configurations, since many records have few of them."""
    try:
        return _shared_flat(tuple(config), *config.values())
    except TypeError:  # nested, so not hashable
        return _shared_text(encode(config))


@functools.lru_cache(maxsize=1024, typed=True)  # or a 1 would be the same as a true, and an identity another
def _shared_flat(names: tuple[str, ...], *values: Any) -> Any:
    return dict(zip(names, values, strict=True))


@functools.lru_cache(maxsize=1024)
def _shared_text(text: str) -> Any:
    return json.loads(text)
