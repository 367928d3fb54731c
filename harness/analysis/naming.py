"""Names of configurations in tables: the method, its settings and, where a table holds several, the backbone."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from harness.records import MAX_LABEL, BackboneKey, Cell, configuration_names, short_backbones
from harness.support import text

_SEPARATOR = " · "
_LEAST_ROOM = 9
"""Characters that a short name of a backbone may always take: `MiniLM-L6`."""

_MOST_ROOM = 14
"""Characters that it may take at the cost of the method's name: `roberta-large`."""


class FullName(NamedTuple):
    """Name of one configuration in tables.

    Attributes:
        variant: its name of at most `MAX_LABEL` characters, such as `lora[rank=4]`; with the backbone where some table
            holds several: `lora · all-mpnet-base-v2`.
        settings: the distinguishing settings in full; empty where there are none.
        configuration: the name without the backbone.
        backbone_label: short name of the backbone; None where `variant` does not name it.
    """

    variant: str
    settings: str
    configuration: str
    backbone_label: str | None


def full_names(
    cells: Sequence[Cell],
    defaults: Sequence[Mapping[str, Any]],
    *,
    tables: Sequence[Hashable],
    devices: Sequence[str] | None = None,
    is_evidence: Sequence[bool] | None = None,
) -> list[FullName]:
    """Return the name of each cell's configuration; no two configurations of one table share one.

    Where a table holds several backbones, the names in all tables hold the backbone, so that one name means one
    configuration in all of them.

    Args:
        cells: cells of any methods.
        defaults: see `configuration_names`.
        tables: the table in which each cell stands.
        devices: see `configuration_names`.
        is_evidence: see `configuration_names`.
    """
    by_table: defaultdict[Hashable, set[BackboneKey]] = defaultdict(set)
    for cell, table in zip(cells, tables, strict=True):
        if cell.backbone is not None:
            by_table[table].add((cell.backbone, cell.weights))
    named = configuration_names(cells, defaults, devices=devices, is_evidence=is_evidence)
    if all(len(found) < 2 for found in by_table.values()):
        return [FullName(name.label, name.settings, name.label, None) for name in named]
    short = _short_names(by_table.values())
    longest = max(len(name.label) for name, cell in zip(named, cells, strict=True) if cell.backbone is not None)
    room = MAX_LABEL - len(_SEPARATOR)
    if longest + max(map(len, short.values())) > room:
        shorter = _readable(set(short.values()), max(_LEAST_ROOM, room - longest))
        short = {backbone: shorter[name] for backbone, name in short.items()}
        limit = room - max(map(len, short.values()))
        named = configuration_names(cells, defaults, devices=devices, is_evidence=is_evidence, limit=limit)
    return [
        FullName(name.label, name.settings, name.label, None)
        if cell.backbone is None
        else _with_backbone(name.label, name.settings, short[cell.backbone, cell.weights])
        for name, cell in zip(named, cells, strict=True)
    ]


def _with_backbone(label: str, settings: str, backbone: str) -> FullName:
    return FullName(f"{label}{_SEPARATOR}{backbone}", settings, label, backbone)


def _short_names(by_table: Collection[set[BackboneKey]]) -> dict[BackboneKey, str]:
    """Return short names of backbones, of which no two of one table look alike."""
    found = short_backbones(backbone for backbones in by_table for backbone in sorted(backbones, key=str))
    short = {backbone: text.plain(name) for backbone, name in found.items()}
    for backbones in by_table:
        seen: set[str] = set()
        for backbone in sorted(backbones, key=str):
            name, n = short[backbone], 1
            while short[backbone] in seen:  # no fingerprint, or names that differ in invisible characters only
                n += 1
                short[backbone] = f"{name} ({n})"
            seen.add(short[backbone])
    return short


def _readable(names: Collection[str], longest: int) -> dict[str, str]:
    """Return abbreviations of at most `longest` characters; of up to `_MOST_ROOM` where that cuts no name off."""
    for room in range(longest, max(longest, _MOST_ROOM) + 1):
        found = abbreviated(names, room)
        if not any("…" in name for name in found.values()):
            return found
    return abbreviated(names, longest)


def abbreviated(names: Iterable[str], longest: int) -> dict[str, str]:
    """Return for each name a long run of its parts that no other name has: `MiniLM-L6` of `all-MiniLM-L6-v2`.

    Args:
        names: names whose parts are separated by hyphens, underscores, slashes, colons or spaces.
        longest: maximum number of characters; a name without such a run is cut off.
    """
    names = sorted(set(names))
    runs = {name: _runs(name) for name in names}
    met = Counter(run for own in runs.values() for run in set(own))
    found: dict[str, str] = {}
    for name in names:
        own = [run for run in runs[name] if len(run) <= longest and met[run] == 1]
        enough = max(map(len, own), default=0) - 1  # a run that starts earlier says more than one more character
        cut = name if len(name) <= longest else f"{name[: longest - 1]}…"
        short = next((run for run in own if len(run) >= enough), cut)
        n = 1
        while short in found.values():
            n += 1
            suffix = f"#{n}"
            short = f"{name[: longest - len(suffix) - 1]}…{suffix}"
        found[name] = short
    return found


def _runs(name: str) -> list[str]:
    """Return all runs of neighbouring parts of a name, with the separators between them."""
    parts = re.split(r"([-_/ :])", name)
    words = [i for i in range(0, len(parts), 2) if parts[i]]
    return ["".join(parts[first : last + 1]) for first in words for last in words if last >= first]
