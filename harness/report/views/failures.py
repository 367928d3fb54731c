"""Table: cells without a score, and why (failures.csv)."""

from __future__ import annotations

import html
from collections.abc import Iterator

import pandas as pd

from harness.report.blocks import Block, TableBlock, Words
from harness.report.observations import RecordSource, observe
from harness.report.tables import each
from harness.report.views.base import FAILURES, ReportData, View, views
from harness.support import text


def failures(source: RecordSource) -> pd.DataFrame:
    """Return cells that are not `ok`: one row per configuration, size, status and reason, with its seeds."""
    frame = observe(source).frame
    frame = frame[frame["status"] != "ok"].copy()
    frame["reason"] = frame["error"].fillna("").map(lambda error: text.plain((error.strip().splitlines() or [""])[0]))
    keys = ["task", "backbone", "device", "budget", "variant", "n_train", "draw", "status", "reason"]
    rows = [
        {**cells[keys].iloc[0].to_dict(), "seeds": ", ".join(map(str, sorted(cells["seed"])))}
        for _, cells in frame.groupby(keys, dropna=False, sort=True)
    ]
    return pd.DataFrame(rows, columns=[*keys, "seeds"])


_MOST_ON_PAGE = 200


def _blocks(report: ReportData) -> Iterator[Block]:
    failed = failures(report.observations)
    missing = int(report.comparison["n_missing"].fillna(0).sum())
    if missing:
        yield _said(
            f"{text.counted(missing, 'missing cell')}: other methods have those seeds at those sizes. Means are over "
            "the seeds that are there."
        )
    if failed.empty:
        yield _said("Everything that was tried ended with a score.")
        return
    full = ["status", "method", "labels", "task", "backbone", "device", "seeds", "reason"]
    rows = [
        [
            row.status.replace("_", " "),
            row.variant,
            text.size(row.n_train, row.draw),
            row.task,
            row.backbone if text.present(row.backbone) else text.ABSENT,
            row.device,
            row.seeds,
            row.reason[:300],
        ]
        for row in each(failed)
    ]
    yield TableBlock("What did not work", full, rows, n_names=len(full), on_page=False)
    if len(rows) > _MOST_ON_PAGE:
        yield _said(f"The first {_MOST_ON_PAGE} of {text.counted(len(rows), 'kind')}; failures.csv lists them all.")
    short = [
        [text.plain(method), status, labels, text.plain(task)[:60], seeds[:40], reason]
        for status, method, labels, task, _, _, seeds, reason in rows[:_MOST_ON_PAGE]
    ]
    header = ["method", "what", "labels", "task", "seeds", "reason"]
    yield TableBlock("What did not work", header, short, n_names=len(header), in_markdown=False)


def _said(words: str) -> Words:
    return Words(html=f"<p>{html.escape(words)}</p>")


views.add(
    "failures",
    View(position=200, csv=lambda report: failures(report.observations), in_section=_blocks, section=FAILURES),
)
