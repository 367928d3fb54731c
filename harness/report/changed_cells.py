"""Say which cells two collections of records do not share, and why: the parts of the identity that changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from harness.analysis import full_names
from harness.records import Record, canonical_text, storable
from harness.report.observations import Observations
from harness.support import text

Change = Literal["new", "missing", "changed identity", "another device", "failed", "succeeded"]
"""Kind of change of a cell: `failed` and `succeeded` say that its status changed from `ok`, or to it."""

_COLUMNS: dict[str, str] = {
    **dict.fromkeys(("change", "task", "backbone", "method", "variant"), "string"),
    "n_train": "Int64",
    **dict.fromkeys(("draw", "budget", "device_a", "device_b"), "string"),
    "n_cells": "Int64",
    **dict.fromkeys(("seeds", "reasons", "why"), "string"),
}

_Key = tuple[str, str]
"""Id and device of a cell."""


@dataclass(frozen=True)
class _Changed:
    """One cell that changed; `a` or `b` is None where a collection lacks it."""

    change: Change
    a: Record | None
    b: Record | None
    reasons: tuple[str, ...] = ()
    why: str = ""

    @property
    def record(self) -> Record:
        """The later record."""
        found = self.b or self.a
        assert found is not None
        return found


def changed_cells(a: Observations, b: Observations) -> pd.DataFrame:
    """Return the cells that are new, missing, of another identity or of another status in `b`, a row a configuration.

    Cells of `a` and `b` with the same task, backbone, method, size, draw, budget, seed and device are one cell whose
    identity changed, if their ids differ. Of several such cells, those with the fewest different settings are taken
    together; where two are equally near, none is.

    Columns: change (see `Change`), task, backbone, method, variant, n_train, draw, budget, device_a, device_b, n_cells,
    seeds, reasons (`method version`, `configuration`, `data`, `weights`, `device`), why (the same with the values).
    """
    found = sorted(_changes(a, b), key=_order)
    names = full_names(
        [one.record.cell for one in found],
        [one.record.facts.defaults for one in found],
        tables=[one.record.cell.task for one in found],
        is_evidence=[one.record.facts.is_evidence for one in found],
    )
    groups: defaultdict[tuple[Any, ...], list[_Changed]] = defaultdict(list)
    for one, name in zip(found, names, strict=True):
        cell = one.record.cell
        devices = (None if one.a is None else one.a.device, None if one.b is None else one.b.device)
        setting = (cell.task, cell.backbone, cell.method, name.variant, cell.n_train, cell.draw, cell.budget.label())
        groups[(one.change, *setting, *devices, ", ".join(one.reasons), one.why)].append(one)
    rows = [
        (*key[:-2], len(cells), ", ".join(map(str, sorted(one.record.cell.seed for one in cells))), *key[-2:])
        for key, cells in groups.items()
    ]
    columns: Iterable[tuple[Any, ...]] = zip(*rows, strict=True) if rows else [()] * len(_COLUMNS)
    return pd.DataFrame(
        {
            name: pd.Series([storable(one) if isinstance(one, str) else one for one in values], dtype=dtype)
            for (name, dtype), values in zip(_COLUMNS.items(), columns, strict=True)
        }
    )


def _order(one: _Changed) -> tuple[Any, ...]:
    cell = one.record.cell
    return (one.change, cell.task, cell.method, str(cell.backbone), cell.n_train, cell.seed, one.record.id)


def _changes(a: Observations, b: Observations) -> Iterator[_Changed]:
    left, right = ({(record.id, record.device): record for record in side.records} for side in (a, b))
    for key in left.keys() & right.keys():
        yield from _by_status(left[key], right[key])
    only_a, only_b = ({key: record for key, record in one.items() if key not in other} for one, other in
                      ((left, right), (right, left)))  # fmt: skip
    for ka, kb in _moved(only_a, only_b, {key[0] for key in left.keys() & right.keys()}):
        yield _Changed("another device", only_a.pop(ka), only_b.pop(kb), ("device",), f"{ka[1]} → {kb[1]}")
    for with_device in (True, False):
        for ka, kb in _nearest(only_a, only_b, with_device=with_device):
            before, after = only_a.pop(ka), only_b.pop(kb)
            parts = differing_parts(before, after)
            yield _Changed("changed identity", before, after, tuple(parts), "; ".join(parts.values()))
    for record in only_a.values():
        yield _Changed("missing", record, None)
    for record in only_b.values():
        yield _Changed("new", None, record)


def _by_status(before: Record, after: Record) -> Iterator[_Changed]:
    if (before.status == "ok") != (after.status == "ok"):
        change: Change = "succeeded" if after.status == "ok" else "failed"
        statuses = f"{before.status} → {after.status}".replace("_", " ")
        error = (after.error or "").strip().splitlines()
        yield _Changed(change, before, after, (), text.plain(": ".join([statuses, *error[:1]])))


def _moved(a: dict[_Key, Record], b: dict[_Key, Record], on_both: set[str]) -> list[tuple[_Key, _Key]]:
    """Return cells that each side has on one device, not the same."""
    by_id: tuple[defaultdict[str, list[_Key]], ...] = (defaultdict(list), defaultdict(list))
    for found, side in zip(by_id, (a, b), strict=True):
        for key in side:
            found[key[0]].append(key)
    return [
        (keys[0], by_id[1][name][0])
        for name, keys in by_id[0].items()
        if name not in on_both and len(keys) == len(by_id[1].get(name, ())) == 1
    ]


def _nearest(a: dict[_Key, Record], b: dict[_Key, Record], *, with_device: bool) -> list[tuple[_Key, _Key]]:
    """Return cells of the same place in the grid whose identities differ: the nearest in settings, without ties."""
    places: defaultdict[tuple[Any, ...], tuple[list[_Key], list[_Key]]] = defaultdict(lambda: ([], []))
    for i, side in enumerate((a, b)):
        for key, record in side.items():
            places[_place(record, with_device=with_device)][i].append(key)
    found = []
    for keys_a, keys_b in places.values():
        distances = {(ka, kb): _distance(a[ka], b[kb]) for ka in keys_a for kb in keys_b}
        while distances:
            least = min(distances.values())
            nearest = [pair for pair, distance in distances.items() if distance == least]
            for ka, kb in nearest:
                if sum(ka in pair for pair in nearest) == sum(kb in pair for pair in nearest) == 1:
                    found.append((ka, kb))
            taken = {key for pair in nearest for key in pair}
            distances = {pair: distance for pair, distance in distances.items() if not taken & set(pair)}
    return found


def _place(record: Record, *, with_device: bool) -> tuple[Any, ...]:
    cell = record.cell
    device = record.device if with_device else None
    return (cell.task, cell.backbone, cell.method, cell.n_train, cell.draw, cell.budget.label(), cell.seed, device)


def _distance(a: Record, b: Record) -> int:
    changed = len(differing_settings(a.cell.config, b.cell.config))
    parts = (a.cell.version != b.cell.version, a.cell.data != b.cell.data, a.cell.weights != b.cell.weights)
    return changed + sum(parts)


def differing_parts(a: Record, b: Record) -> dict[str, str]:
    """Return the parts of the identity that differ between two cells, each with its values in words."""
    found = {}
    if a.cell.version != b.cell.version:
        found["method version"] = f"method version {a.cell.version} → {b.cell.version}"
    if settings := differing_settings(a.cell.config, b.cell.config):
        found["configuration"] = f"configuration: {', '.join(settings)}"
    for name in ("data", "weights"):
        before, after = getattr(a.cell, name), getattr(b.cell, name)
        if before != after:
            found[name] = f"{name} {_start(before)} → {_start(after)}"
    if a.device != b.device:
        found["device"] = f"device {text.plain(a.device)} → {text.plain(b.device)}"
    return found


def differing_settings(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Return the settings that differ, in words: `rank 8 → 16`, `init gaussian is new`."""
    said = []
    for name in sorted(a.keys() | b.keys()):
        before, after = (canonical_text(side[name]) if name in side else None for side in (a, b))
        if before == after:
            continue
        if before is None:
            said.append(f"{name}={_brief(after)} is new")
        elif after is None:
            said.append(f"{name}={_brief(before)} is gone")
        else:
            said.append(f"{name} {_brief(before)} → {_brief(after)}")
    return said


def _brief(value: str | None) -> str:
    said = text.plain(value or "").strip('"')
    return said if len(said) <= 40 else f"{said[:39]}…"


def _start(fingerprint: str | None) -> str:
    """Return the start of a fingerprint; the whole where it is words, as for imported data."""
    if fingerprint is None:
        return "none"
    return _brief(fingerprint) if " " in fingerprint else text.plain(fingerprint)[:8]
