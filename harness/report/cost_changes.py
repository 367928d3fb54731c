"""Compare seconds and memory of the same cells in two collections, on the same device only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from harness.analysis import MIN_TESTED_SEEDS, mean_log_ratio
from harness.records import Record

COST_TOLERANCE = 0.1
"""Relative change of seconds or memory that does not count: machines vary by as much from day to day."""

CostVerdict = Literal["more", "less", "no change shown", "not known"]
"""Whether a cost changed by more than the tolerance, beyond the variation of the seeds."""

MEASURES: dict[str, str] = {"train": "train_seconds", "predict": "predict_seconds", "memory": "memory_bytes"}
"""Costs that are compared, by the start of their columns."""


@dataclass(frozen=True)
class CostChange:
    """The cost in `b` divided by that in `a`.

    Attributes:
        ratio: geometric mean over the seeds that both have; ratio of the medians where they share none.
        low, high: ends of the 95 % interval over seeds; None for fewer than three.
        p_value: two-sided p-value of a change within the tolerance; None where `low` is.
        logs: logarithms of the ratios, by seed.
    """

    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    logs: tuple[float, ...] = ()


NOT_COMPARED = CostChange()
"""The change of a cost on two devices."""


def cost_change(a: Mapping[int, Record], b: Mapping[int, Record], measure: str, tolerance: float) -> CostChange:
    """Return the change of one cost between two groups of cells, given by seed.

    Seconds of cells that shared their device are not compared. Seconds that the machine disturbed count only where
    all were disturbed.

    Args:
        a: records of one collection, by seed.
        b: records of the other, on the same device.
        measure: one of `MEASURES`.
        tolerance: relative change that does not count.
    """
    sides = tuple(_values(side, measure) for side in (a, b))
    shared = sorted(sides[0].keys() & sides[1].keys())
    if not shared:
        if not all(sides):
            return NOT_COMPARED
        medians = [float(np.median(list(side.values()))) for side in sides]
        return CostChange(medians[1] / medians[0])
    logs = tuple(math.log(sides[1][seed] / sides[0][seed]) for seed in shared)
    mean = float(np.mean(logs))
    if len(logs) < MIN_TESTED_SEEDS:
        return CostChange(math.exp(mean), logs=logs)
    found = mean_log_ratio(logs, tolerance)
    return CostChange(found.ratio, found.low, found.high, found.p_value, logs)


def _values(side: Mapping[int, Record], measure: str) -> dict[int, float]:
    """Return the positive costs of a group by seed."""
    is_time = measure != "memory"
    if is_time and any(record.provenance.cells_at_a_time > 1 for record in side.values()):
        return {}
    steady = {seed: record for seed, record in side.items() if record.unsteady is None} if is_time else side
    costs = {seed: _cost(record, MEASURES[measure]) for seed, record in (steady or side).items()}
    return {seed: value for seed, value in costs.items() if value is not None and value > 0}


def _cost(record: Record, name: str) -> float | None:
    found: float | None = record.memory_bytes if name == "memory_bytes" else getattr(record.cost, name)
    return found


def cost_verdict(ratio: float | None, p_value: float | None, level: float) -> CostVerdict:
    """Return the verdict on a change, given its corrected p-value."""
    if ratio is None or p_value is None:
        return "not known"
    if p_value >= level:
        return "no change shown"
    return "more" if ratio > 1 else "less"


_OF_DEVICES: dict[str, str] = {
    **dict.fromkeys(("device", "measure"), "string"),
    "n_configurations": "Int64",
    **dict.fromkeys(("ratio", "low", "high"), "Float64"),
    **dict.fromkeys(("release_a", "release_b"), "string"),
}


def by_device(changes: Iterable[tuple[tuple[str, str], str, str, tuple[Any, ...], tuple[float, ...]]]) -> pd.DataFrame:
    """Return the change of each cost over all configurations of a device.

    Each configuration counts once, with the mean of its sizes. Columns: device, measure, n_configurations, ratio
    (geometric mean), low and high (95 % interval over configurations; null for fewer than three), release_a, release_b.

    Args:
        changes: releases, device, measure, configuration, and logarithms of ratios.
    """
    found: dict[tuple[tuple[str, str], str, str], dict[tuple[Any, ...], list[float]]] = {}
    for releases, device, measure, configuration, logs in changes:
        if logs:
            means = found.setdefault((releases, device, measure), {})
            means.setdefault(configuration, []).append(float(np.mean(logs)))
    rows = []
    for (releases, device, measure), means in found.items():
        logs_of = [float(np.mean(values)) for values in means.values()]
        ends: tuple[float | None, float | None] = (None, None)
        ratio = math.exp(float(np.mean(logs_of)))
        if len(logs_of) >= MIN_TESTED_SEEDS:
            over = mean_log_ratio(logs_of, 0.0)
            ends = (over.low, over.high)
        rows.append((device, measure, len(logs_of), ratio, *ends, *releases))
    return pd.DataFrame(
        {name: pd.Series([row[i] for row in rows], dtype=dtype) for i, (name, dtype) in enumerate(_OF_DEVICES.items())}
    )
