"""Compare collections of records, such as those of two releases: what got better or worse, beyond noise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis import MIN_TESTED_SEEDS, Difference, full_names, holm
from harness.records import Record, storable
from harness.report.changed_cells import changed_cells, differing_settings
from harness.report.contrasts import LEVEL
from harness.report.cost_changes import COST_TOLERANCE, MEASURES, NOT_COMPARED, by_device, cost_change, cost_verdict
from harness.report.observations import Observations, RecordSource, observe
from harness.report.pairing import Group, contrast
from harness.support import UsageError

SAME = "the same records"
"""Note where both collections have one measurement."""

_KEY = ("task", "backbone", "method", "config", "n_train", "draw", "budget")
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
    **{
        f"{name}_{part}": "string" if part == "verdict" else "Float64"
        for name in MEASURES
        for part in ("low", "high", "p", "verdict")
    },
    **dict.fromkeys(("device", "release_a", "release_b"), "string"),
}


@dataclass(frozen=True)
class Compared:
    """The comparison of two or more collections of records, each with the one before it.

    Attributes:
        rows: one row per configuration and size that both have; see `compare_releases`.
        only_a, only_b: number of configurations at a size that only the earlier or only the later one has.
        cells: cells that are new, missing or changed; see `changed_cells`.
        devices: change of seconds and memory over all configurations of a device; see `by_device`.
    """

    rows: pd.DataFrame
    only_a: int
    only_b: int
    cells: pd.DataFrame
    devices: pd.DataFrame

    def regressions(self) -> dict[str, int]:
        """Return the number of rows with a worse score, of rows with a higher cost, and of cells that got lost.

        Keys: `scores`, `train`, `predict`, `memory`, `failed` and `missing`.
        """
        n_cells = self.cells.groupby("change")["n_cells"].sum()
        return {
            "scores": int((self.rows["verdict"] == "worse").sum()),
            **{name: int((self.rows[f"{name}_verdict"] == "more").sum()) for name in MEASURES},
            **{name: int(n_cells.get(name, 0)) for name in ("failed", "missing")},
        }


@dataclass
class _Side:
    """The scored cells of one configuration at one size, on one side.

    Attributes:
        group: their scores by seed.
        by_seed: their records.
        left_out: whether cells of an earlier version, other data or other weights were left out.
    """

    group: Group
    by_seed: dict[int, Record]
    left_out: bool = False

    @property
    def records(self) -> list[Record]:
        """The records, by seed."""
        return [self.by_seed[seed] for seed in sorted(self.by_seed)]

    def only(self, seeds: Collection[int]) -> _Side:
        """Return only these seeds."""
        found = _Side(Group(self.group.n_train), {}, self.left_out)
        for seed in seeds:
            found.add(self.by_seed[seed])
        return found

    def add(self, record: Record) -> None:
        """Take in a scored record."""
        score = record.score
        assert score is not None
        self.group.add(record.cell.seed, (record.id, record.device), score.value, score.low, score.high)
        self.by_seed[record.cell.seed] = record


def compare_methods(a: RecordSource, b: RecordSource) -> Compared:
    """Compare `b` with `a`, such as the records of another commit or machine (see `compare_releases`)."""
    return compare_releases([("a", a), ("b", b)])


def compare_releases(
    releases: Sequence[tuple[str, RecordSource]], *, tolerance: float = COST_TOLERANCE, may_be_disjoint: bool = False
) -> Compared:
    """Compare each configuration at each size in a collection of records with the same in the collection before it.

    Cells match when task, backbone, method, settings, size and budget are the same. The method's version, the data's
    fingerprint and the device may differ; `note` says which does. Where one collection has several versions or
    fingerprints of a configuration, the latest counts. The default configuration of a method matches that of the
    other collection where the defaults have changed.

    Columns: task, backbone, method, variant (label of the configuration), draw, budget, n_train, metric, score_a,
    score_b, difference (b less a), low and high (95 % interval, paired where seeds and test rows are the same),
    p_value, p_corrected (Holm, over all rows), verdict ("better", "worse", "no difference shown", "not known"),
    n_seeds, n_rows, basis; note; device (null where there are two); release_a and release_b. For seconds of training
    (`train`), of predicting (`predict`) and `memory`: the ratio b / a, the ends of its interval over seeds, its
    corrected p-value (Holm, over all rows) and verdict ("more", "less", "no change shown", "not known"), such as
    `train_ratio`, `train_low`, `train_high`, `train_p` and `train_verdict`; null where the devices differ.
    Scores, seconds and memory are over the seeds that both have, or over all where they share none; `note` says where
    seeds were left out. Scores of two metrics have no difference. Records of one measurement that both have show no
    difference, and count for no correction.

    Args:
        releases: name and records of each collection, at least two, the earliest first.
        tolerance: relative change of a cost that does not count.
        may_be_disjoint: whether two collections may have no scored cell in common.

    Raises:
        UsageError: a collection has no record, or two have nothing in common.
    """
    observed = [(name, observe(source)) for name, source in releases]
    steps = [_step(a, b, tolerance, may_be_disjoint=may_be_disjoint) for a, b in pairwise(observed)]
    rows = [row for step in steps for row in step.rows]
    # What nobody measured again is no test, so that it does not weaken the others.
    tested = [row for row in rows if not row["is_same"]]
    for row, p_value in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
        row["p_corrected"] = p_value
    for row in rows:
        verdict = _verdict(row["difference"], row.get("p_corrected"), row.pop("higher"))
        row["verdict"] = "no difference shown" if row["is_same"] else verdict
    for name in MEASURES:
        for row, p_value in zip(tested, holm([row[f"{name}_p"] for row in tested]), strict=True):
            row[f"{name}_p"] = p_value
            row[f"{name}_verdict"] = cost_verdict(row[f"{name}_ratio"], p_value, LEVEL)
        for row in rows:
            if row["is_same"]:
                row |= {f"{name}_p": None, f"{name}_verdict": "no change shown"}
    changes = [
        ((row["release_a"], row["release_b"]), row["device"], name, row["configuration"], row["logs"][name])
        for row in tested
        for name in MEASURES
        if row["device"] is not None
    ]
    return Compared(
        pd.DataFrame(
            {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in _DTYPES.items()}
        ),
        sum(step.only_a for step in steps),
        sum(step.only_b for step in steps),
        pd.concat([step.cells for step in steps], ignore_index=True),
        by_device(changes),
    )


@dataclass(frozen=True)
class _Step:
    """The comparison of two collections before p-values are corrected."""

    rows: list[dict[str, Any]]
    only_a: int
    only_b: int
    cells: pd.DataFrame


def _step(
    a: tuple[str, Observations], b: tuple[str, Observations], tolerance: float, *, may_be_disjoint: bool
) -> _Step:
    sides = _sides(a[1]), _sides(b[1])
    pairs = _pairs(*sides)
    if not pairs and not may_be_disjoint:
        raise UsageError(
            "The two have no scored cell of the same task, backbone, method, settings, size and budget in common."
        )
    labels = _labels(sides)
    names = {"release_a": storable(a[0]), "release_b": storable(b[0])}
    rows = [
        {**_row(key[0], labels[key], sides[0][key], sides[1][other], a[1], b[1], tolerance), **names}
        for key, other in sorted(pairs, key=str)
    ]
    cells = changed_cells(a[1], b[1])
    for name, release in names.items():
        cells[name] = pd.Series(release, index=cells.index, dtype="string")
    return _Step(rows, len(sides[0]) - len(pairs), len(sides[1]) - len(pairs), cells)


_NOTHING = Difference(0.0, None, None, None, 0, 0, "none")
"""The difference between scores of two metrics."""

_Key = tuple[tuple[Any, ...], str]
"""Values of `_KEY`, and the device."""


def _sides(observations: Observations) -> dict[_Key, _Side]:
    columns = observations.columns(_KEY)
    found: dict[_Key, _Side] = {}
    by_state: dict[_Key, dict[tuple[int, str, str | None], list[Record]]] = {}
    for record, *key in zip(observations.records, *columns.values(), strict=True):
        if record.status != "ok" or record.score is None:
            continue
        of_state = by_state.setdefault((tuple(key), record.device), {})
        cell = record.cell
        of_state.setdefault((cell.version, cell.data, cell.weights), []).append(record)
    for name, states in by_state.items():
        latest = max(states, key=lambda state: (state[0], max(_started(r) for r in states[state]), str(state)))
        side = found[name] = _Side(Group(name[0][_KEY.index("n_train")]), {}, left_out=len(states) > 1)
        for record in states[latest]:
            side.add(record)
    return found


def _started(record: Record) -> str:
    return record.provenance.started_at


def _pairs(a: dict[_Key, _Side], b: dict[_Key, _Side]) -> list[tuple[_Key, _Key]]:
    """Return matching keys: on the same device, then those that each side has on one device only.

    What is left are default configurations whose defaults have changed: on the same device, then on one device.
    """
    pairs = [(key, key) for key in a if key in b]
    for place_of in (lambda key, _: key[0], _place_of_default, lambda key, side: _place_of_default(key, side, "")):
        left = [_by_place(side, {pair[i] for pair in pairs}, place_of) for i, side in enumerate((a, b))]
        pairs += [
            (keys[0], left[1][place][0])
            for place, keys in left[0].items()
            if place is not None and len(keys) == 1 and len(left[1].get(place, ())) == 1
        ]
    return pairs


def _place_of_default(key: _Key, side: _Side, device: str | None = None) -> tuple[Any, ...] | None:
    """Return the key without the configuration where that is the method's default one; else None."""
    if not all(record.facts.at_defaults for record in side.records):
        return None
    others = (value for name, value in zip(_KEY, key[0], strict=True) if name != "config")
    return (*others, key[1] if device is None else device)


def _by_place(
    side: dict[_Key, _Side], taken: set[_Key], place_of: Callable[[_Key, _Side], tuple[Any, ...] | None]
) -> dict[tuple[Any, ...] | None, list[_Key]]:
    found: dict[tuple[Any, ...] | None, list[_Key]] = {}
    for key, own in side.items():
        if key not in taken:
            found.setdefault(place_of(key, own), []).append(key)
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
    key: tuple[Any, ...],
    label: str,
    a: _Side,
    b: _Side,
    of_a: Observations,
    of_b: Observations,
    tolerance: float,
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
    costs = {
        name: NOT_COMPARED if changed["device"] else cost_change(a.by_seed, b.by_seed, name, tolerance)
        for name in MEASURES
    }
    notes = [f"another {name}" for name, is_other in changed.items() if is_other]
    if settings := differing_settings(a.records[0].cell.config, b.records[0].cell.config):
        notes.append(f"other defaults: {', '.join(settings)}")
    is_same = not differ and all(_is_one(a.by_seed[seed], b.by_seed[seed]) for seed in shared)
    if is_same:
        notes.append(SAME)
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
        **{f"{name}_ratio": change.ratio for name, change in costs.items()},
        **{f"{name}_{end}": getattr(change, end) for name, change in costs.items() for end in ("low", "high")},
        **{f"{name}_p": change.p_value for name, change in costs.items()},
        "is_same": is_same,
        "logs": {name: change.logs for name, change in costs.items()},
        "configuration": (named["task"], named["backbone"], named["method"], label, named["draw"], named["budget"]),
        "device": None if changed["device"] else storable(b.records[0].device),
        "note": storable("; ".join(notes)) or None,
    }


def _is_one(a: Record, b: Record) -> bool:
    """Return whether two records are of one measurement."""
    same = (a.id, a.device, a.provenance.started_at) == (b.id, b.device, b.provenance.started_at)
    return same and (a.score, a.cost) == (b.score, b.cost)


def _verdict(difference: float | None, p_value: float | None, higher_is_better: bool) -> str:
    if p_value is None or difference is None:
        return "not known"
    if p_value >= LEVEL:
        return "no difference shown"
    return "better" if (difference > 0) == higher_is_better else "worse"
