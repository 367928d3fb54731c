"""Budgets: limits on what a fit may spend."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
from dataclasses import dataclass
from typing import Any

from harness.records.canonical import fields_of
from harness.support import UsageError


@dataclass(frozen=True)
class Budget:
    """Limits on what a fit may spend. Progress is the largest fraction spent of the first four; training stops at 1.

    Attributes:
        train_seconds: seconds of encoding training rows, tuning, fitting and validation.
        train_flops: floating-point operations of the same.
        epochs: passes over the training rows.
        steps: optimiser steps.
        peak_memory_bytes: a limit, not progress: needing more (`Cost.memory_bytes`) is `out_of_memory`.
    """

    train_seconds: float | None = None
    train_flops: float | None = None
    epochs: float | None = None
    steps: int | None = None
    peak_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in fields_of(self).items():
            if value is None:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 < value <= sys.float_info.max:  # neither infinite nor more than a float holds
                raise UsageError(
                    f"Budget '{name}' was {value!r}; expected a number above 0, such as {_example(name)}. Leave it out "
                    "for no limit."
                )
            if name in ("steps", "peak_memory_bytes"):
                if value != int(value):
                    raise UsageError(
                        f"Budget '{name}' was {value!r}; expected a whole number, such as {_example(name)}."
                    )
                object.__setattr__(self, name, int(value))
            else:
                object.__setattr__(self, name, float(value))  # 3 and 3.0 are one budget, so one identity

    def to_json(self) -> dict[str, float | int]:
        """Return only the limits that are set, so that a new kind of budget does not change old identities."""
        return {name: value for name, value in fields_of(self).items() if value is not None}

    def label(self) -> str:
        """Return a short text for tables: `train_seconds=60, epochs=3`; `default` if no limit is set."""
        return ", ".join(f"{name}={value:.15g}" for name, value in self.to_json().items()) or "default"


@functools.lru_cache(maxsize=1024, typed=True)
def shared_budget(items: tuple[tuple[str, float], ...]) -> Budget:
    """Return one shared object for all equal budgets."""
    return Budget(**dict(items))  # type: ignore[arg-type]


_EXAMPLES = {
    "train_seconds": "60",
    "train_flops": "1e12",
    "epochs": "3",
    "steps": "100",
    "peak_memory_bytes": "8GB",
}


def _example(name: str) -> str:
    return f"{name}={_EXAMPLES[name]}"


_SUFFIX = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_NUMBER = re.compile(r"([0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*([a-zA-Z]*)")


def parse_budget(text: str) -> Budget:
    """Read `train_seconds=60,epochs=3`. Bytes take kB, MB, GB (powers of ten) or KiB, MiB, GiB (powers of two).

    Raises:
        UsageError: an unknown or repeated name, or a number that is not above 0. The message has an example.
    """
    known = [item.name for item in dataclasses.fields(Budget)]
    values: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, raw = (piece.strip() for piece in part.partition("="))
        if name not in known or not equals:
            raise UsageError(
                f"Budget '{part}' was given; expected NAME=NUMBER with NAME one of {', '.join(known)}, such as "
                f"{_example(name if name in known else 'train_seconds')}."
            )
        if name in values:
            raise UsageError(f"Budget '{name}' was given twice in '{text}'; expected it once: {name}={raw}.")
        matched = _NUMBER.fullmatch(raw)
        unit = matched[2].lower() if matched else ""
        allowed = _SUFFIX if name == "peak_memory_bytes" else {}
        if matched is None or (unit and unit not in allowed):
            units = ", a plain number or one in MB, GB, MiB, GiB" if name == "peak_memory_bytes" else ""
            raise UsageError(
                f"Budget '{name}' was '{raw}'; expected a number above 0{units}, such as {_example(name)}."
            )
        number = float(matched[1]) * allowed.get(unit, 1)
        # 0.1 GiB is no whole number of bytes; an infinite number is refused below.
        values[name] = round(number) if unit and math.isfinite(number) else number
    return Budget(**values)


def parse_bytes(text: str, option: str) -> int:
    """Return the bytes of a size with its unit: `8GB` (powers of ten) or `7.5GiB` (powers of two).

    Raises:
        UsageError: anything else, or a number without its unit. The message names `option` and a valid form.
    """
    given = text.strip()
    matched = _NUMBER.fullmatch(given)
    size = float(matched[1]) * _SUFFIX.get(matched[2].lower(), 0) if matched else 0.0
    if matched and math.isfinite(size) and size >= 1:
        return round(size)
    is_bare = matched is not None and not matched[2] and float(matched[1]) > 0
    example = f" Give the unit too: {option} {given}GB or {option} {given}MB." if is_bare else ""
    raise UsageError(
        f"{option} '{text}' was given; expected a size with its unit, such as 8GB, 500MB or 7.5GiB.{example}"
    )
