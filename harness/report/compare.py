"""Two collections of records side by side: what got better or worse, beyond noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness import ranks
from harness.errors import UsageError
from harness.records import Record
from harness.report.contrasts import LEVEL, Group, contrast
from harness.report.observations import Observations, Source, observe
from harness.variants import storable

_KEY = ("task", "backbone", "method", "config", "n_train", "draw", "budget")
_DTYPES: dict[str, Any] = {
    **dict.fromkeys(("task", "backbone", "method", "variant", "draw", "budget"), "string"),
    "n_train": "Int64",
    "metric": "string",
    **dict.fromkeys(("score_a", "score_b", "difference", "low", "high", "p_value", "p_corrected"), "Float64"),
    "verdict": "string",
    **dict.fromkeys(("n_seeds", "n_rows"), "Int64"),
    "basis": "string",
    **dict.fromkeys(("fit_ratio", "predict_ratio", "memory_ratio"), "Float64"),
    "note": "string",
}


@dataclass(frozen=True)
class Compared:
    """What two collections have in common, and what only one of them has.

    Attributes:
        rows: one a configuration and size that both have; see `compare`.
        only_a, only_b: how many configurations at a size only one of them has.
    """

    rows: pd.DataFrame
    only_a: int
    only_b: int


@dataclass
class _Side:
    """The scored cells of one configuration at one size, on one side."""

    group: Group
    records: list[Record]


def compare(a: Source, b: Source) -> Compared:
    """Compare each configuration at each size in `b` with the same in `a`: another commit, another machine.

    Cells are the same when task, backbone, method, settings, size and budget are: not the method's version, not the
    data's fingerprint, not the device, which are what may have changed; `note` says which did. Columns: task,
    backbone, method, variant (with its settings), draw, budget, n_train, metric, score_a, score_b, difference (b less
    a), low and high (95 % interval, paired where seeds and test rows are the same), p_value, p_corrected (Holm, over
    all rows), verdict ("better", "worse", "no difference shown", "not known"), n_seeds, n_rows, basis, and b's median
    seconds and memory divided by a's: null where the devices differ, since those are not compared.

    Raises:
        UsageError: one of them has no record, or they have nothing in common.
    """
    observed = observe(a), observe(b)
    sides = tuple(_sides(observations) for observations in observed)
    pairs = _pairs(*sides)
    if not pairs:
        raise UsageError(
            "The two have no scored cell of the same task, backbone, method, settings, size and budget in common."
        )
    rows = [_row(key[0], sides[0][key], sides[1][other], *observed) for key, other in sorted(pairs, key=str)]
    corrected = ranks.holm([row["p_value"] for row in rows])
    for row, p_value in zip(rows, corrected, strict=True):
        row["p_corrected"] = p_value
        row["verdict"] = _verdict(row["difference"], p_value, row.pop("higher"))
    frame = pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in _DTYPES.items()}
    )
    return Compared(frame, len(sides[0]) - len(pairs), len(sides[1]) - len(pairs))


_Key = tuple[tuple[Any, ...], str]
"""What `_KEY` names, and the device."""


def _sides(observations: Observations) -> dict[_Key, _Side]:
    columns = observations.columns(_KEY)
    found: dict[_Key, _Side] = {}
    for record, *key in zip(observations.records, *columns.values(), strict=True):
        if record.status != "ok" or record.score is None:
            continue
        side = found.setdefault((tuple(key), record.device), _Side(Group(record.cell.n_train), []))
        score = record.score
        side.group.add(record.cell.seed, (record.id, record.device), score.value, score.low, score.high)
        side.records.append(record)
    return found


def _pairs(a: dict[_Key, _Side], b: dict[_Key, _Side]) -> list[tuple[_Key, _Key]]:
    """The same on the same device; then what is left where each side has it on one device only."""
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


def _row(key: tuple[Any, ...], a: _Side, b: _Side, of_a: Observations, of_b: Observations) -> dict[str, Any]:
    found = contrast(b.group, a.group, of_b, of_a)
    named = dict(zip(_KEY, key, strict=True))
    score = a.records[0].score
    assert score is not None
    changed = {
        "data": {record.cell.data for record in a.records} != {record.cell.data for record in b.records},
        "version": {record.cell.version for record in a.records} != {record.cell.version for record in b.records},
        "device": {record.device for record in a.records} != {record.device for record in b.records},
    }
    names = {"fit_ratio": "fit_seconds", "predict_ratio": "predict_seconds", "memory_ratio": "peak_bytes"}
    return {
        **{name: named[name] for name in ("task", "backbone", "method", "draw", "budget", "n_train")},
        "variant": _variant(named["method"], named["config"]),
        "metric": storable(score.metric),
        "score_a": float(np.mean(list(a.group.scores.values()))),
        "score_b": float(np.mean(list(b.group.scores.values()))),
        "difference": found.mean,
        **{name: getattr(found, name) for name in ("low", "high", "p_value", "n_seeds", "n_rows", "basis")},
        "higher": score.higher_is_better,
        **{name: None if changed["device"] else _ratio(a.records, b.records, cost) for name, cost in names.items()},
        "note": "; ".join(f"another {name}" for name, is_other in changed.items() if is_other) or None,
    }


def _variant(method: str, config: str) -> str:
    return method if config == "{}" else f"{method} {config}"


def _ratio(a: list[Record], b: list[Record], cost: str) -> float | None:
    medians = []
    for records in (a, b):
        values = [value for record in records if (value := getattr(record.cost, cost)) is not None]
        alone = all(record.provenance.cells_at_a_time == 1 for record in records)
        if not values or (cost != "peak_bytes" and not alone):
            return None
        medians.append(float(np.median(values)))
    return medians[1] / medians[0] if medians[0] > 0 else None


def _verdict(difference: float, p_value: float | None, higher_is_better: bool) -> str:
    if p_value is None:
        return "not known"
    if p_value >= LEVEL:
        return "no difference shown"
    return "better" if (difference > 0) == higher_is_better else "worse"
