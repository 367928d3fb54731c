"""Read JSON that a language model wrote: alone, in a code fence, or between other words."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_FENCE: Final = re.compile(r"```[\w-]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
"""A code fence, closed or cut off."""

_MOST_STARTS: Final = 8
"""Maximum number of braces and brackets at which an answer is tried as JSON."""


def read_json(text: str) -> Any:
    """Return the first object or list of JSON in a written answer; None without any.

    Args:
        text: the answer. Numbers and texts that are JSON by themselves are no objects.
    """
    inside = _FENCE.search(text)
    for part in [*([inside.group(1)] if inside else []), text]:
        starts = [match.start() for match in re.finditer(r"[{\[]", part)]
        for start in starts[:_MOST_STARTS]:
            try:
                found, _ = json.JSONDecoder().raw_decode(part, start)
            except (ValueError, RecursionError):
                continue
            return found
    return None


def without_fence(text: str) -> str:
    """Return the contents of a code fence around an answer, or the answer."""
    whole = _FENCE.fullmatch(text.strip())
    return whole.group(1).strip() if whole else text.strip()


def under(found: Any, *keys: str) -> Any:
    """Return the value of the first of `keys` that an object has; what is no object stays as it is.

    An object with one key of another name gives that key's value.
    """
    if not isinstance(found, dict):
        return found
    named = next((found[key] for key in keys if key in found), None)
    if named is None and len(found) == 1:
        return next(iter(found.values()))
    return named


def object_of(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with one required key."""
    return {"type": "object", "properties": {name: value}, "required": [name], "additionalProperties": False}
