"""Show the comparison of prompting with training in the terminal: trained methods beside each prompted one."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from harness.analysis import said_count
from harness.report.prompting import THOUSAND
from harness.report.prompting_tables import break_even_said, short_name
from harness.report.tables import each
from harness.support import text

_PROMPTED = ("task", "data", "metric", "against", "against_backbone", "against_device", "against_n_train")
"""Columns that tell prompted methods apart."""


def terminal_pairs(table: pd.DataFrame) -> list[Table]:
    """Return one table for each task and prompted method of `pairs_table`, with the trained methods beside it.

    Prices stand below the seconds that they are of.
    """
    found = []
    for _, own in table.groupby(list(_PROMPTED), sort=False, dropna=False):
        shown = Table(title=Text(_title(own.iloc[0]), style="bold"), title_justify="left", pad_edge=False)
        shown.box, shown.padding = box.SIMPLE_HEAD, (0, 0)
        shown.add_column("method", overflow="fold", min_width=16)
        has_total = bool(own["total"].notna().any())
        names = ["labels", text.plain(own["metric"].iloc[0]), "difference", "training", f"{THOUSAND:,}\npredictions"]
        if has_total:
            names.append(f"{said_count(float(own['n_predictions'].iloc[0]))}\nin total")
        for name in (*names, "training pays"):
            shown.add_column(Text(name), justify="right", no_wrap=True)
        for row in each(own):
            shown.add_row(*_fields(row, has_total=has_total))
        found.append(shown)
    return found


def _fields(row: Any, *, has_total: bool) -> list[Text]:
    backbone = short_name(row.backbone) if text.present(row.backbone) else ""
    budget = "" if row.budget == "default" else text.plain(row.budget)
    sign = "+" if row.difference >= 0 else "-"
    pays, _, interval = break_even_said(row).partition(" (")
    labels = text.price(row.label_price) if text.present(row.label_price) and row.label_price else ""
    fields = [
        (text.plain(row.method), "\n".join(filter(None, (backbone, budget)))),
        (text.size(row.n_train, row.draw), labels),
        (text.score(row.score), text.interval(row.score_low, row.score_high)),
        (f"{sign}{text.score(abs(row.difference))}", str(row.quality)),
        (text.seconds(row.train_seconds), _price(row.train_price)),
        (text.seconds(row.seconds_per_1000), _price(row.price_per_1000)),
    ]
    if has_total:
        fields.append((_total(row.total, row.unit), ""))
    fields.append((pays, interval.rstrip(")")))
    return [Text(first).append(f"\n{second}" if second else "", style="dim") for first, second in fields]


def _price(value: Any) -> str:
    return text.price(value) if text.present(value) else ""


def _total(value: Any, unit: Any) -> str:
    return text.price(value) if unit == "money" else text.seconds(value)


def _title(row: Any) -> str:
    """Return the prompted method that trained ones stand beside: its name, score and costs."""
    labels = f", {text.counted(int(row.against_n_train), 'label')}" if row.against_n_train else ""
    costs = [text.seconds(row.against_seconds_per_1000), text.price(row.against_price_per_1000)]
    costs = [cost for cost in costs if cost != text.ABSENT]
    said = [f"{text.plain(row.metric)} {text.score(row.against_score)}"]
    said += [f"{' or '.join(costs)} for {THOUSAND:,} predictions"] * bool(costs)
    if text.present(row.total_prompted):
        said.append(f"{_total(row.total_prompted, row.unit)} for {said_count(row.n_predictions)}")
    name = f"{text.plain(row.against)} · {short_name(row.against_backbone)}{labels}"
    return f"{text.plain(row.task)}, beside {name}\n{', '.join(said)}"
