"""Parse and format durations as people write them."""

from __future__ import annotations

import re
from itertools import pairwise

from harness.support.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PIECE = re.compile(r"([0-9]*\.?[0-9]+)\s*([a-z]*)\s*")
_BARE = re.compile(r"[0-9]*\.?[0-9]+")


def parse_duration(text: str, option: str, *, bare: bool = False) -> float:
    """Return the seconds of `90s`, `30m`, `1.5h` or `1h30m`: numbers with units, larger units first.

    Args:
        text: the duration as typed.
        option: name of the option, for messages.
        bare: whether a number without a unit means seconds, for options named in seconds (`--train-seconds`).

    Raises:
        UsageError: the text is no duration above 0, or lacks a unit. The message names the option, the given text and
            a valid form.
    """
    given = text.strip().lower()
    is_bare = _BARE.fullmatch(given) is not None
    if is_bare and bare:
        seconds = float(given)
    else:
        pieces = _PIECE.findall(given)
        whole = "".join(found[0] for found in _PIECE.finditer(given))
        sizes = [_UNITS.get(unit, 0.0) for _, unit in pieces]
        ordered = all(a > b for a, b in pairwise(sizes))
        known = whole == given and ordered and 0.0 not in sizes
        seconds = sum(float(number) * size for (number, _), size in zip(pieces, sizes, strict=True)) if known else 0.0
    if 0 < seconds < float("inf"):
        return seconds
    example = f" Give the unit too: {option} {given}m or {option} {given}s." if is_bare and float(given) > 0 else ""
    seconds_too = ", or a number of seconds such as 600" if bare else ""
    raise UsageError(
        f"{option} '{text}' was given; expected a duration such as 90s, 30m, 1.5h or 1h30m{seconds_too}.{example}"
    )


def describe_duration(seconds: float | None) -> str:
    """Return `45 s`, `2 min 05 s` or `3 h 20 min`; `?` for None."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
