"""Choose the style of methods in figures: one colour and marker each, the same in all figures of a report.

Configurations of a method share its colour and differ in marker and dashes. Where tables hold several backbones,
colours tell configurations apart, and markers and dashes tell backbones apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import seaborn as sns

from harness.support import text

# Seaborn's colour-blind palette without its yellow and its pale pink, too faint for a line on white.
COLOURS = tuple(color for i, color in enumerate(sns.color_palette("colorblind").as_hex()) if i not in (6, 8))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_SETTLED = {"full": 0, "lora": 1, "linear-probe": 2, "head": 4, "tfidf": 7, "majority": 6}
"""Fixed colours of the most common methods, the same in all reports; others take free colours."""


@dataclass(frozen=True)
class Style:
    """Style of a configuration in every figure.

    Attributes:
        colour: its colour.
        marker: shape of its markers.
        dash: dashes of its line.
        is_muted: whether it is a thin grey line without a name.
        group: configuration whose backbones share a colour; None where there is one backbone.
    """

    colour: str
    marker: str
    dash: Any
    is_muted: bool = False
    group: str | None = None


def styles(methods: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """Return a style for each line, from (line, method): colour by method, marker and dashes by line within it.

    Colours do not depend on the order; two methods share one only where there are more methods than colours.
    """
    lines = dict(sorted(methods))
    slots: dict[str, int] = {}
    for method in sorted(set(lines.values()), key=lambda name: (name not in _SETTLED, name)):
        digest = hashlib.sha256(method.encode("utf-8", "backslashreplace")).digest()[0]
        slot = _SETTLED.get(method, digest % len(COLOURS))
        while slot % len(COLOURS) in {taken % len(COLOURS) for taken in slots.values()} and len(slots) < len(COLOURS):
            slot += 1
        while slot in slots.values():  # more methods than colours: the marker tells them apart
            slot += len(COLOURS)
        slots[method] = slot
    found: dict[str, Style] = {}
    n_drawn: dict[str, int] = {}
    for line, method in lines.items():
        nth = n_drawn[method] = n_drawn.get(method, -1) + 1
        slot = slots[method]
        marker = _MARKERS[(slot % len(COLOURS) + 5 * (slot // len(COLOURS)) + 7 * nth) % len(_MARKERS)]
        found[line] = Style(COLOURS[slot % len(COLOURS)], marker, _DASHES[nth % len(_DASHES)])
    return found


def with_backbones(found: Mapping[str, Style], groups: Mapping[str, tuple[str, str | None]]) -> dict[str, Style]:
    """Return styles whose markers and dashes tell backbones apart.

    Args:
        found: the style of each line.
        groups: configuration and short name of the backbone of each line; None for methods without a backbone, which
            have a marker of their own.
    """
    backbones = sorted({backbone for _, backbone in groups.values() if backbone is not None})
    nth: dict[str | None, int] = {None: len(backbones), **{name: i for i, name in enumerate(backbones)}}
    made: dict[str, Style] = {}
    for line, (group, backbone) in groups.items():
        i = nth[backbone]
        marker, dash = _MARKERS[i % len(_MARKERS)], _DASHES[i % len(_DASHES)]
        made[line] = replace(found[line], marker=marker, dash=dash, group=group)
    return made


def groups_in(data: pd.DataFrame) -> dict[str, tuple[str, str | None]]:
    """Return configuration and backbone of each line in a figure's data, for `with_backbones`."""
    balanced = data["draw"].eq("balanced")
    group = data["configuration"].map(text.plain).astype("string")
    group = group.mask(balanced, group + ", balanced")
    backbone = [None if pd.isna(name) else str(name) for name in data["backbone_label"]]
    return {str(line): (str(own), name) for line, own, name in zip(data["line"], group, backbone, strict=True)}


def lines_in(data: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the (line, method) of each line in a figure's data, for `styles`."""
    return [(str(line), str(method)) for line, method in data[["line", "method"]].drop_duplicates().to_numpy()]
