"""Compare two collections of records: what got better or worse, beyond noise."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis import MIN_TESTED_SEEDS, Difference, full_names, holm
from harness.records import Record, storable
from harness.report.contrasts import LEVEL
from harness.report.observations import Observations, RecordSource, observe
from harness.report.pairing import Group, contrast
from harness.support import UsageError

_KEY = ("task", "backbone", "method", "config", "n_train", "draw", "budget")
_COSTS = ("train_seconds", "predict_seconds", "memory_bytes", "unsteady", "cells_at_a_time")
"""Columns that the ratios of costs are made of."""

_DTYPES: dict[str, Any] = {
    **dict.fromkeys(("task", "backbone", "method", "variant", "draw", "budget"), "string"),
    "n_train": "Int64",
    "metric": "string",
    **dict.fromkeys(("score_a", "score_b", "difference", "low", "high", "p_value", "p_corrected"), "Float64"),
    "verdict": "string",
    **dict.fromkeys(("n_seeds", "n_rows"), "Int64"),
    "basis": "string",
    **dict.fromkeys(("train_ratio", "predict_ratio", "memory_ratio"), "Float64"),
    "note": "string",
}


@dataclass(frozen=True)
class Compared:
    """The comparison of two collections of records.

    Attributes:
        rows: one row per configuration and size that both have; see `compare_methods`.
        only_a, only_b: number of configurations at a size that only one of them has.
    """

    rows: pd.DataFrame
    only_a: int
    only_b: int


@dataclass
class _Side:
    """The scored cells of one configuration at one size, on one side.

    Attributes:
        group: their scores by seed.
        by_seed: their records.
        costs: their values of `_COSTS`, by name, by seed.
        left_out: whether cells of an earlier version, other data or other weights were left out.
    """

    group: Group
    by_seed: dict[int, Record]
    costs: dict[int, dict[str, Any]]
    left_out: bool = False

    @property
    def records(self) -> list[Record]:
        """The records, by seed."""
        return [self.by_seed[seed] for seed in sorted(self.by_seed)]

    def only(self, seeds: Collection[int]) -> _Side:
        """Return only these seeds."""
        found = _Side(Group(self.group.n_train), {}, {}, self.left_out)
        for seed in seeds:
            found.add(self.by_seed[seed], self.costs[seed])
        return found

    def add(self, record: Record, costs: dict[str, Any]) -> None:
        """Take in a scored record, with its values of `_COSTS`."""
        score = record.score
        assert score is not None
        self.group.add(record.cell.seed, (record.id, record.device), score.value, score.low, score.high)
        self.by_seed[record.cell.seed] = record
        self.costs[record.cell.seed] = costs


def compare_methods(a: RecordSource, b: RecordSource) -> Compared:
    """Compare each configuration at each size in `b` with the same in `a`, such as another commit or machine.

    Cells match when task, backbone, method, settings, size and budget are the same. The method's version, the data's
    fingerprint and the device may differ; `note` says which does. Where one collection has several versions or
    fingerprints of a configuration, the latest counts. Columns: task, backbone, method, variant (label of the
    configuration), draw, budget, n_train, metric, score_a, score_b, difference (b less a), low and high (95 % interval,
    paired where seeds and test rows are the same), p_value, p_corrected (Holm, over all rows), verdict ("better",
    "worse", "no difference shown", "not known"), n_seeds, n_rows, basis, and b's median seconds of training, seconds of
    predicting and memory divided by a's (null where the devices differ).
    Scores, seconds and memory are over the seeds that both have, or over all where they share none; `note` says where
    seeds were left out. Scores of two metrics have no difference.

    Raises:
        UsageError: a collection has no record, or they have nothing in common.
    """
    observed = observe(a), observe(b)
    sides = tuple(_sides(observations) for observations in observed)
    pairs = _pairs(*sides)
    if not pairs:
        raise UsageError(
            "The two have no scored cell of the same task, backbone, method, settings, size and budget in common."
        )
    labels = _labels(sides)
    rows = [
        _row(key[0], labels[key], sides[0][key], sides[1][other], *observed) for key, other in sorted(pairs, key=str)
    ]
    corrected = holm([row["p_value"] for row in rows])
    for row, p_value in zip(rows, corrected, strict=True):
        row["p_corrected"] = p_value
        row["verdict"] = _verdict(row["difference"], p_value, row.pop("higher"))
    frame = pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in _DTYPES.items()}
    )
    return Compared(frame, len(sides[0]) - len(pairs), len(sides[1]) - len(pairs))


_NOTHING = Difference(0.0, None, None, None, 0, 0, "none")
"""The difference between scores of two metrics."""

_Key = tuple[tuple[Any, ...], str]
"""Values of `_KEY`, and the device."""


_Costed = tuple[Record, dict[str, Any]]
"""A record with its values of `_COSTS`."""


def _sides(observations: Observations) -> dict[_Key, _Side]:
    columns = observations.columns((*_KEY, *_COSTS))
    keys, costs = (zip(*(columns[name] for name in names), strict=True) for names in (_KEY, _COSTS))
    found: dict[_Key, _Side] = {}
    by_state: dict[_Key, dict[tuple[int, str, str | None], list[_Costed]]] = {}
    for record, key, cost in zip(observations.records, keys, costs, strict=True):
        if record.status != "ok" or record.score is None:
            continue
        of_state = by_state.setdefault((key, record.device), {})
        cell = record.cell
        state = (cell.version, cell.data, cell.weights)
        of_state.setdefault(state, []).append((record, dict(zip(_COSTS, cost, strict=True))))
    for name, states in by_state.items():
        latest = next(iter(states)) if len(states) == 1 else max(states, key=lambda state: _age(state, states[state]))
        side = found[name] = _Side(Group(name[0][_KEY.index("n_train")]), {}, {}, left_out=len(states) > 1)
        for record, values in states[latest]:
            side.add(record, values)
    return found


def _age(state: tuple[int, str, str | None], records: list[_Costed]) -> tuple[int, str, str]:
    return state[0], max(_started(record) for record, _ in records), str(state)


def _started(record: Record) -> str:
    return record.provenance.started_at


def _pairs(a: dict[_Key, _Side], b: dict[_Key, _Side]) -> list[tuple[_Key, _Key]]:
    """Return matching keys: first those on the same device, then those that each side has on one device only."""
    pairs = [(key, key) for key in a if key in b]
    left = [_by_configuration(side, {pair[i] for pair in pairs}) for i, side in enumerate((a, b))]
    pairs += [
        (keys[0], left[1][name][0])
        for name, keys in left[0].items()
        if len(keys) == 1 and len(left[1].get(name, ())) == 1
    ]
    return pairs


def _by_configuration(side: dict[_Key, _Side], taken: set[_Key]) -> dict[tuple[Any, ...], list[_Key]]:
    found: dict[tuple[Any, ...], list[_Key]] = {}
    for key in side:
        if key not in taken:
            found.setdefault(key[0], []).append(key)
    return found


def _labels(sides: Iterable[dict[_Key, _Side]]) -> dict[_Key, str]:
    """Return the label of each configuration, unique among both sides; `note` says where versions differ."""
    records = [(key, side.records[0]) for found in sides for key, side in found.items()]
    names = full_names(
        [replace(record.cell, version=1, weights=None) for _, record in records],
        [record.facts.defaults for _, record in records],
        tables=[record.cell.task for _, record in records],
        is_evidence=[record.facts.is_evidence for _, record in records],
    )
    return {key: name.variant for (key, _), name in zip(records, names, strict=True)}


def _row(
    key: tuple[Any, ...], label: str, a: _Side, b: _Side, of_a: Observations, of_b: Observations
) -> dict[str, Any]:
    shared = a.by_seed.keys() & b.by_seed.keys()
    differ = a.by_seed.keys() != b.by_seed.keys()
    if shared:
        a, b = a.only(shared), b.only(shared)
    named = dict(zip(_KEY, key, strict=True))
    metrics = sorted({(r.score.metric, r.score.higher_is_better) for r in (*a.records, *b.records) if r.score})
    found = contrast(b.group, a.group, of_b, of_a) if len(metrics) == 1 else _NOTHING
    changed = {
        "metric": len(metrics) > 1,
        "data": {record.cell.data for record in a.records} != {record.cell.data for record in b.records},
        "version": {record.cell.version for record in a.records} != {record.cell.version for record in b.records},
        "device": {record.device for record in a.records} != {record.device for record in b.records},
    }
    names = {"train_ratio": "train_seconds", "predict_ratio": "predict_seconds", "memory_ratio": "memory_bytes"}
    notes = [f"another {name}" for name, is_other in changed.items() if is_other]
    if differ:
        notes.append(f"over the {len(shared)} seeds that both have" if shared else "over different seeds")
    if a.left_out or b.left_out:
        notes.append("the latest of several versions or fingerprints")
    if found.p_value is None and 1 < found.n_seeds < MIN_TESTED_SEEDS and found.n_rows:
        notes.append("a test needs at least three seeds")
    return {
        **{name: named[name] for name in ("task", "backbone", "method", "draw", "budget", "n_train")},
        "variant": label,
        "metric": " / ".join(storable(metric) for metric, _ in metrics),
        "score_a": float(np.mean(list(a.group.scores.values()))),
        "score_b": float(np.mean(list(b.group.scores.values()))),
        "difference": found.mean if len(metrics) == 1 else None,
        **{name: getattr(found, name) for name in ("low", "high", "p_value", "n_seeds", "n_rows", "basis")},
        "higher": metrics[0][1],
        **{name: None if changed["device"] else _ratio(a, b, cost) for name, cost in names.items()},
        "note": "; ".join(notes) or None,
    }


def _ratio(a: _Side, b: _Side, name: str) -> float | None:
    medians = []
    for costs in (list(a.costs.values()), list(b.costs.values())):
        if name != "memory_bytes":  # those that nothing disturbed, where there are any
            costs = [cost for cost in costs if cost["unsteady"] is None] or costs
        values = [cost[name] for cost in costs if cost[name] is not None]
        alone = all(cost["cells_at_a_time"] == 1 for cost in costs)
        if not values or (name != "memory_bytes" and not alone):
            return None
        medians.append(float(np.median(values)))
    return medians[1] / medians[0] if medians[0] > 0 else None


def _verdict(difference: float | None, p_value: float | None, higher_is_better: bool) -> str:
    if p_value is None or difference is None:
        return "not known"
    if p_value >= LEVEL:
        return "no difference shown"
    return "better" if (difference > 0) == higher_is_better else "worse"
