"""Durations as people type and read them."""

from __future__ import annotations

import re

from harness.errors import UsageError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str, option: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `1.5h` or `1h30m`.

    Raises:
        UsageError: anything else, or nothing above 0; the message names `option`.
    """
    pieces = re.findall(r"([0-9]*\.?[0-9]+)\s*([a-z]*)", text.strip().lower())
    seconds = sum(float(number) * _UNITS.get(unit, float("nan")) for number, unit in pieces)
    whole = re.sub(r"\s+", "", "".join(number + unit for number, unit in pieces))
    if whole != re.sub(r"\s+", "", text.strip().lower()) or not 0 < seconds < float("inf"):
        raise UsageError(f"{option} was '{text}'; expected a duration such as 90s, 30m, 1.5h or 1h30m.")
    return seconds


def describe_duration(seconds: float | None) -> str:
    """`45 s`, `2 min 05 s`, `3 h 20 min`; `?` where it is not known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
