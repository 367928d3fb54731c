"""One method as an answer has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from harness.support import text

SHOWN: Final[dict[str, Callable[[float], str]]] = {
    "train_seconds": text.seconds,
    "peak_memory_bytes": text.memory,
    "predict_milliseconds": lambda value: f"{value:.3g} ms a text",
    "trainable_parameters": lambda value: f"{text.number(value)} trainable parameters",
}
"""Costs that may be limited, and how they are said."""


@dataclass(frozen=True)
class AdvisedMethod:
    """One method, as it is expected to do.

    Attributes:
        method: label of the configuration; "cut at" a budget where its fits were ended by one.
        score, low, high: expected score and its 80 % interval.
        train_seconds, peak_memory_bytes, predict_milliseconds: expected on the device; None where nothing was measured.
        trainable_parameters, stored_bytes: as measured.
        fits: whether it is within all limits.
        why_not: what it needs that is beyond them, in words.
        is_tied: whether it cannot be told from the best that fits (95 %).
        basis: `measured` (this task and size), `interpolated`, `extrapolated` or `seen at one size`.
        n_records, n_tasks: that say something of the method in tasks of this kind.
    """

    method: str
    family: str
    score: float
    low: float
    high: float
    train_seconds: float | None
    peak_memory_bytes: float | None
    predict_milliseconds: float | None
    trainable_parameters: float | None
    stored_bytes: float | None
    fits: bool
    why_not: tuple[str, ...]
    is_tied: bool
    basis: str
    n_records: int
    n_tasks: int
