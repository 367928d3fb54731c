"""Table: what requests to served models took: tokens, price, latency, retries, answers that could not be read."""

from __future__ import annotations

import html
from collections.abc import Iterator

import pandas as pd

from harness.analysis import SERVED_COLUMNS
from harness.report.blocks import Block, TableBlock, Words
from harness.report.tables import each
from harness.report.views.base import ReportData, View, views
from harness.report.views.fine_tune_or_prompt import PROMPTING
from harness.support import text

_KEYS = ("task", "backbone", "variant", "n_train", "device")


def served_requests(report: ReportData) -> pd.DataFrame:
    """Return one row for each configuration and size that asked a served model: means over its cells.

    Columns: task, backbone, variant, n_train, device, n_cells, n_test and those of `SERVED_COLUMNS`. Numbers of
    requests, tokens and prices are those of one cell.
    """
    frame = report.observations.frame
    frame = frame[frame["n_requests"].notna()]
    rows = []
    for _, cells in frame.groupby(list(_KEYS), sort=True, dropna=False):
        first = cells.iloc[0]
        numbers = {name: cells[name].mean() for name in SERVED_COLUMNS if name != "currency"}
        own = {**{name: first[name] for name in _KEYS}, "n_cells": len(cells), "n_test": cells["n_test"].mean()}
        rows.append({**own, **numbers, "currency": first["currency"]})
    return pd.DataFrame(rows, columns=[*_KEYS, "n_cells", "n_test", *SERVED_COLUMNS])


def _blocks(report: ReportData) -> Iterator[Block]:
    found = served_requests(report)
    if found.empty:
        return
    title = "Requests to served models"
    yield Words(f"### {title}", f"<h3>{html.escape(title)}</h3>")
    header = ["method", "task", "labels", "requests", "at a time", "sent again", "prompt tokens", "cached", "written"]
    header += ["price", "p50", "p95", "p99", "unreadable"]
    rows = []
    for row in each(found):
        price = text.price(row.request_price)
        rows.append(
            [
                text.plain(row.variant),
                text.plain(row.task),
                f"{row.n_train:,}",
                *(_number(value) for value in (row.n_requests, row.concurrency, row.n_retries)),
                *(_number(value) for value in (row.prompt_tokens, row.cached_prompt_tokens, row.completion_tokens)),
                f"{price} {text.plain(row.currency)}" if text.present(row.currency) and price != text.ABSENT else price,
                *(text.seconds(getattr(row, f"latency_{name}_seconds")) for name in ("p50", "p95", "p99")),
                text.percent(row.unreadable),
            ]
        )
    yield TableBlock(title, header, rows, n_names=2)
    said = (
        "Means over the cells of a configuration. p50, p95 and p99: percentiles of the seconds from a request to its "
        "answer, without failed tries. Unreadable: share of the rows from whose answers nothing could be read."
    )
    yield Words(said, f'<p class="notes">{html.escape(said)}</p>')


def _number(value: float) -> str:
    return text.mean_count(round(float(value), 1)) if text.present(value) else text.ABSENT


views.add("served", View(position=96, csv=served_requests, in_section=_blocks, section=PROMPTING))
