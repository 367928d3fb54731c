"""Table: costs of methods beside those that others published, with rank correlations (published.csv)."""

from __future__ import annotations

import html
from collections.abc import Iterator

import pandas as pd

from harness.report.blocks import Block, TableBlock, Words, said
from harness.report.published import COSTS, against_published
from harness.report.tables import each
from harness.report.views.base import ReportData, Section, View, views
from harness.support import text

PUBLISHED = Section("published", "Against published results")

_LEAD = (
    "Do these records put methods in the same order as published results? Spearman's rank correlation over the methods "
    "that both have: 1 is the same order, 0 is none. Backbones, tasks and devices differ, so only orders are compared."
)
_MOST_DISAGREEMENTS = 5


def _csv(report: ReportData) -> pd.DataFrame:
    return against_published(report.observations)


def _blocks(report: ReportData) -> Iterator[Block]:
    found = _csv(report)
    if found.empty:
        return
    yield said(_LEAD)
    for (their_task, their_backbone, their_device), of_theirs in found.groupby(
        ["their_task", "their_backbone", "their_device"], sort=False
    ):
        title = text.plain(f"{their_task} · {their_backbone} · {their_device}")
        yield Words(f"### {text.markdown(title)}", f"<h3>{html.escape(title)}</h3>")
        for (backbone, device, budget), own in of_theirs.groupby(["backbone", "device", "budget"], sort=False):
            where = f"{backbone} · {device}" + ("" if budget == "default" else f" · budget {budget}")
            yield said(f"Beside {text.plain(where)}:")
            yield _table(title, own)


def _table(title: str, of_place: pd.DataFrame) -> TableBlock:
    rows = []
    for _, own in of_place.groupby(["task", "n_train", "cost"], sort=False):
        first = own.iloc[0]
        apart = [
            f"{row.method} {row.our_rank:.3g} here, {row.their_rank:.3g} there"
            for row in each(own.head(_MOST_DISAGREEMENTS))
            if row.our_rank != row.their_rank
        ]
        interval = f"{first['low']:.2f} to {first['high']:.2f}" if text.present(first["low"]) else text.ABSENT
        rows.append(
            [
                text.plain(f"{first['task']}, {text.counted(int(first['n_train']), 'label')}"),
                COSTS[str(first["cost"])],
                text.plain("; ".join(apart)) or "none",
                f"{first['correlation']:.2f}" if text.present(first["correlation"]) else text.ABSENT,
                interval,
                f"{first['p_value']:.2g}" if text.present(first["p_value"]) else text.ABSENT,
                str(first["n_methods"]),
            ]
        )
    header = ["task", "cost", "largest differences of ranks (1 is the least)"]
    header += ["correlation", "95 % interval", "p", "methods"]
    return TableBlock(f"Rank correlations with {title}", header, rows, n_names=3)


views.add("published", View(position=115, csv=_csv, in_section=_blocks, section=PUBLISHED))
