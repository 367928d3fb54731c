"""What a fit may spend."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
from dataclasses import dataclass
from typing import Any

from harness.canonical import fields_of
from harness.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """What a fit may spend. Progress is the largest fraction spent of the first four; training stops at 1.

    Attributes:
        train_seconds: seconds of encoding training rows, tuning, fitting and validation.
        train_flops: floating-point operations of the same.
        epochs: passes over the training rows.
        steps: optimiser steps.
        peak_memory_bytes: a limit, not progress: exceeding it is `out_of_memory`.
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
                raise UsageError(f"Budget '{name}' was {value!r}; expected a number above 0, or leave it out.")
            if name in ("steps", "peak_memory_bytes"):
                if value != int(value):
                    raise UsageError(f"Budget '{name}' was {value!r}; expected a whole number.")
                object.__setattr__(self, name, int(value))
            else:
                object.__setattr__(self, name, float(value))  # 3 and 3.0 are one budget, so one identity

    def to_json(self) -> dict[str, float | int]:
        """Only what is set, so that a new kind of budget does not change old identities."""
        return {name: value for name, value in fields_of(self).items() if value is not None}

    def label(self) -> str:
        """A short text for tables: `train_seconds=60, epochs=3`; `default` where nothing is set."""
        return ", ".join(f"{name}={value:.15g}" for name, value in self.to_json().items()) or "default"


@functools.lru_cache(maxsize=1024, typed=True)
def shared_budget(items: tuple[tuple[str, float], ...]) -> Budget:
    """One object for all equal budgets."""
    return Budget(**dict(items))  # type: ignore[arg-type]


_SUFFIX = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_budget(text: str) -> Budget:
    """Read `train_seconds=60,epochs=3`. Bytes take kB, MB, GB (powers of ten) or KiB, MiB, GiB (powers of two)."""
    known = [item.name for item in dataclasses.fields(Budget)]
    values: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, raw = (piece.strip() for piece in part.partition("="))
        if name not in known or not equals:
            raise UsageError(f"Budget '{part}' was given; expected NAME=NUMBER with NAME one of {', '.join(known)}.")
        if name in values:
            raise UsageError(f"Budget '{name}' was given twice in '{text}'.")
        matched = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Z]*)", raw)
        unit = matched.group(2).lower() if matched else ""
        allowed = _SUFFIX if name == "peak_memory_bytes" else {"": 1}
        try:
            if matched is None or unit not in allowed:
                raise ValueError
            number = float(matched.group(1)) * allowed[unit]
        except ValueError:
            units = ", a plain number or one in MB, GB, MiB, GiB" if name == "peak_memory_bytes" else ""
            raise UsageError(f"Budget '{name}' was '{raw}'; expected a number above 0{units}.") from None
        # 0.1 GiB is no whole number of bytes; what is infinite is refused below.
        values[name] = round(number) if unit and math.isfinite(number) else number
    return Budget(**values)
