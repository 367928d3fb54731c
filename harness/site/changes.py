"""Keep what changed between two published states of a report, for the page of changes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

from harness.report import MEASURES, SAME, Compared, Observations, compare_releases
from harness.site.facts import Facts
from harness.site.state import RECORDS, load_state

MOST_KEPT = 200
"""Largest number of rows of each kind that an entry keeps; its counts cover all."""

_SCORES = ("task", "backbone", "variant", "n_train", "metric", "score_a", "score_b", "difference", "low", "high")
_COSTS = ("task", "backbone", "variant", "n_train", "device")
_CELLS = ("change", "task", "backbone", "variant", "n_train", "n_cells", "why")


def entry_of(facts: Facts, folder: Path) -> dict[str, Any]:
    """Return the entry of a state: a digest of its records, and facts of it; nothing that depends on the time of day.

    Args:
        facts: facts about the records.
        folder: folder into which `save_state` wrote them.
    """
    digest = hashlib.sha256((folder / RECORDS).read_bytes()).hexdigest()[:12]
    return {"digest": digest, "date": facts.last, "n_records": facts.n_records, "versions": list(facts.versions)}


def changes_since(earlier: Path, now: Observations) -> dict[str, Any]:
    """Return what changed between the published state in a folder and new observations, as JSON values."""
    compared = compare_releases([("before", load_state(earlier)), ("now", now)], may_be_disjoint=True)
    return changes_of(compared)


def changes_of(compared: Compared) -> dict[str, Any]:
    """Return the counts and the rows of a comparison that a reader should see, as JSON values."""
    rows = compared.rows
    changed = rows[rows["verdict"].isin(["worse", "better"])].sort_values("verdict", ascending=False, kind="stable")
    costs = []
    for name in MEASURES:
        own = rows[rows[f"{name}_verdict"].isin(["more", "less"])]
        found = own[list(_COSTS)].assign(
            measure=name, **{part: own[f"{name}_{part}"] for part in ("ratio", "low", "high", "verdict")}
        )
        costs += _values(found)
    cells = compared.cells.groupby("change")["n_cells"].sum()
    return {
        "n_compared": int((~rows["note"].str.startswith(SAME).fillna(False)).sum()),
        "n_not_known": int((rows["verdict"] == "not known").sum()),
        "n_better": int((rows["verdict"] == "better").sum()),
        **{f"n_{name}": n for name, n in compared.regressions().items()},
        "cells_by_change": {str(name): int(n) for name, n in cells.items()},
        "scores": _values(changed[["verdict", *_SCORES, "note"]])[:MOST_KEPT],
        "costs": costs[:MOST_KEPT],
        "devices": _values(compared.devices.drop(columns=["release_a", "release_b"])),
        "cells": _values(compared.cells[list(_CELLS)])[:MOST_KEPT],
    }


def _values(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain values: None for null."""
    found = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [
        {str(name): value.item() if hasattr(value, "item") else value for name, value in row.items()} for row in found
    ]
