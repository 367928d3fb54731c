"""Arrange the comparison of a panel as methods by training sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.report.blocks import TableBlock
from harness.report.panels import Panel
from harness.report.tables import each
from harness.support import text


@dataclass(frozen=True)
class PivotField:
    """One field of the pivot: the score of a method at a size, or why there is none."""

    score: str
    interval: str
    note: str
    is_best: bool


@dataclass(frozen=True)
class PivotRow:
    """One method of the pivot: its scores by size, and its costs at its largest size with a score.

    `shown` is its name with a mark where its default settings are behind other ones.
    """

    variant: str
    shown: str
    entries: tuple[PivotField, ...]
    train: str
    memory: str
    trainable: str


def pivot(panel: Panel) -> tuple[list[str], list[PivotRow]]:
    """Return labels of the training sizes, and one line per configuration with its score at each of them."""
    rows = panel.rows
    sizes = (
        rows[["n_train", "draw", "n_per_class"]].drop_duplicates(["n_train", "draw"]).sort_values(["n_train", "draw"])
    )
    labels = [text.size(*row) for row in sizes.itertuples(index=False, name=None)]
    keys = [(n_train, draw) for n_train, draw, _ in sizes.itertuples(index=False, name=None)]
    found = {(row.variant, row.n_train, row.draw): row for row in each(rows)}
    best: dict[tuple[Any, Any], float] = {}
    for key in keys:
        at_size = rows[(rows["n_train"] == key[0]) & (rows["draw"] == key[1])]
        scores = at_size["score"].dropna()
        if len(scores) > 1:
            best[key] = scores.max() if at_size["higher_is_better"].dropna().all() else scores.min()
    lines = []
    for variant in rows["variant"].drop_duplicates():
        own = [found.get((variant, *key)) for key in keys]
        costed = [row for row in own if row is not None and text.present(row.score)]
        last: Any = costed[-1] if costed else None
        lines.append(
            PivotRow(
                variant=text.plain(variant),
                shown=panel.shown(variant),
                entries=tuple(_entry(row, best.get(key)) for row, key in zip(own, keys, strict=True)),
                train=text.seconds(last.train_seconds if last else None),
                memory=text.memory(last.memory_bytes if last else None),
                trainable=text.number(last.n_trainable if last else None),
            )
        )
    return labels, lines


def _entry(row: Any, best: float | None) -> PivotField:
    if row is None:
        return PivotField(text.ABSENT, "", "", False)
    note = row.note if text.present(row.note) else ""
    if not text.present(row.score):
        return PivotField(text.ABSENT, "", note or "not run", False)
    return PivotField(text.score(row.score), text.interval(row.score_low, row.score_high), note, row.score == best)


def pivot_table(panel: Panel, note: str = "") -> TableBlock:
    """Return the pivot as a table: score [interval] by size; train, memory, parameters at the largest size."""
    labels, lines = pivot(panel)
    rows = []
    for line in lines:
        cells = []
        for entry in line.entries:
            score = f"**{entry.score}**" if entry.is_best else entry.score
            shown = f"{score} [{entry.interval.replace('–', ', ')}]" if entry.interval else score
            cells.append(f"{shown} ({entry.note})" if entry.note else shown)
        rows.append([line.shown, *cells, line.train, line.memory, line.trainable])
    header = ["method", *labels, "train", "peak memory", "trainable"]
    return TableBlock("Methods by number of labels", header, rows, on_page=False, data=panel.rows, note=note)
