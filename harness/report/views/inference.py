"""Table: the use of fitted models, where `--inference` measured it: seconds, texts a second, memory, disk."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import pandas as pd

from harness.analysis import INFERENCE_COLUMNS
from harness.report.blocks import Block, TableBlock, Words
from harness.report.tables import each
from harness.report.views.base import ReportData, Section, View, views
from harness.support import text

USE = Section("use", "Use of fitted models")

_KEYS = ("task", "backbone", "variant", "n_train", "device")
_UNSTEADY = " *"


def uses(report: ReportData) -> pd.DataFrame:
    """Return one row for each configuration and size whose use was measured: medians over its cells.

    Cells that the machine disturbed meanwhile count only where all were.

    Columns: task, backbone, variant, n_train, device, n_cells, n_unsteady and those of `INFERENCE_COLUMNS`.
    """
    frame = report.observations.frame
    frame = frame[frame["text_p50_seconds"].notna()]
    rows = []
    for _, cells in frame.groupby(list(_KEYS), sort=True, dropna=False):
        steady = cells[cells["use_unsteady"].isna()]
        counted = cells if steady.empty else steady
        medians = {name: counted[name].median() for name in INFERENCE_COLUMNS}
        numbers = {name: float(value) if text.present(value) else None for name, value in medians.items()}
        own = {**{name: cells.iloc[0][name] for name in _KEYS}, "n_cells": len(cells)}
        rows.append({**own, "n_unsteady": len(cells) - len(steady), **numbers})
    return pd.DataFrame(rows, columns=[*_KEYS, "n_cells", "n_unsteady", *INFERENCE_COLUMNS])


def _blocks(report: ReportData) -> Iterator[Block]:
    found = uses(report)
    if found.empty:
        return
    header = ["method", "task", "labels", "one text", "p95", "one, merged", "texts/s", "texts/s, merged", "batch"]
    header += ["memory", "on disk", "backbone", "to load"]
    rows = [_row(row) for row in each(found)]
    yield TableBlock("Use of fitted models", header, rows, n_names=2)
    said = " ".join(_said(found))
    yield Words(said, f'<p class="notes">{html.escape(said)}</p>')


def _row(row: Any) -> list[str]:
    mark = _UNSTEADY if row.n_unsteady == row.n_cells else ""
    return [
        text.plain(row.variant) + mark,
        text.plain(row.task),
        f"{row.n_train:,}",
        *(
            text.milliseconds(value)
            for value in (row.text_p50_seconds, row.text_p95_seconds, row.merged_text_p50_seconds)
        ),
        *(_rate(value) for value in (row.texts_per_second, row.merged_texts_per_second)),
        text.mean_count(float(row.batch_texts)) if text.present(row.batch_texts) else text.ABSENT,
        *(text.memory(value) for value in (row.use_memory_bytes, row.adapted_bytes, row.backbone_bytes)),
        text.seconds(row.open_seconds),
    ]


def _rate(value: Any) -> str:
    return f"{float(f'{value:.3g}'):,g}" if text.present(value) else text.ABSENT


def _said(found: pd.DataFrame) -> Iterator[str]:
    yield (
        "Medians over the cells of a configuration. One text: median seconds from one text alone to its answer, "
        "tokenising included, and the 95th percentile. Texts/s: in the best batches, whose size is given. Merged: with "
        "the method's addition merged into the weights. Memory: weights, and the peak above them. On disk: what the "
        "fit trained. To load: the backbone and the fitted model, from files that the system has in memory."
    )
    tokens = found["tokens_per_text"].dropna()
    if len(tokens):
        yield f"The test texts have {tokens.mean():.0f} tokens on average."
    if (found["n_unsteady"] == found["n_cells"]).any():
        yield "* The machine was busy meanwhile: seconds are unreliable."


views.add("inference", View(position=94, csv=uses, in_section=_blocks, section=USE))
