"""Rows of a panel as plain values: the answer, the sentence of a run and the page's scripts read the same ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from harness.report.observations import Observations
from harness.report.panels import BEHIND, Panel
from harness.report.tables import each
from harness.support import text

Row = Mapping[str, Any]
"""One row of the page's data."""


def each_row(columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Return the rows of columns, one dictionary each."""
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def floors(observations: Observations) -> set[str]:
    """Return the methods that predict without looking at the text."""
    variants = observations.columns(("variant",))["variant"]
    return {
        str(variant)
        for variant, record in zip(variants, observations.records, strict=True)
        if record.facts.role == "floor"
    }


def columns_of(panel: Panel, of_floors: Collection[str]) -> dict[str, list[Any]]:
    """Return columns of a panel's rows, in their order, rounded to what a reader can use.

    Args:
        panel: the panel.
        of_floors: methods that predict without looking at the text (`floors`).
    """
    columns: dict[str, list[Any]] = {}
    one_unit = panel.rows["forgetting_unit"].nunique() == 1
    for row in each(panel.rows):
        name = text.plain(row.variant)
        n_test = None if pd.isna(row.n_test) else row.n_test
        predict = None if pd.isna(row.predict_seconds) or not n_test else row.predict_seconds / n_test * 1000
        gap = None
        if not (pd.isna(row.train_score) or pd.isna(row.score)):
            gap = (row.train_score - row.score) * (1 if panel.higher_is_better else -1)
        values = {
            "line": name + (", balanced" if row.draw == "balanced" else ""),
            "name": name,
            "settings": _in_full(row),
            "family": text.plain(row.family),
            "behind": _behind(row),
            "floor": row.variant in of_floors,
            "n_train": row.n_train,
            "draw": row.draw,
            "label": text.size(row.n_train, row.draw, row.n_per_class),
            "score": row.score,
            "low": row.score_low,
            "high": row.score_high,
            "n_seeds": row.n_seeds,
            "basis": row.basis,
            "gap": gap,
            "train": row.train_seconds,
            "predict": predict,
            "memory": row.memory_bytes,
            "trainable": row.n_trainable,
            "stored": row.artifact_bytes,
            "forgetting": row.forgetting if one_unit else None,
            "note": row.note,
        }
        for column, value in values.items():
            columns.setdefault(column, []).append(rounded(value))
    return columns or {"line": []}


def _in_full(row: Any) -> str:
    """Return the settings of a row that its name leaves out or shortens, with the backbone where the name holds it."""
    backbone = f"backbone={row.backbone}" if text.present(row.backbone_label) else ""
    return ", ".join(filter(None, (backbone, row.settings if text.present(row.settings) else "")))


def _behind(row: Any) -> str | None:
    """Return in words that the default settings of a row are behind other ones; None where they are not."""
    if not text.present(row.default_points_behind):
        return None
    return f"{BEHIND} default settings, {row.default_points_behind:.1f} points behind {row.default_better}"


def rounded(value: Any) -> Any:
    """Return a value for the page: plain text, None for null, and numbers with five digits."""
    if isinstance(value, str):
        return text.plain(value)
    if value is None or pd.isna(value):
        return None
    if isinstance(value, bool):
        return value
    number = float(value)
    return int(number) if number.is_integer() else float(f"{number:.5g}")
