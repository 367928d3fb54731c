"""Table and figure: prompting beside training, with the number of predictions after which training pays."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from harness.analysis import said_count
from harness.report.axes import look, titled
from harness.report.blocks import Block, Picture, Words
from harness.report.direct import Named, label_ends, settle
from harness.report.panels import Panel
from harness.report.prompting import every_pair, prompting_table
from harness.report.prompting_lines import CostFigure, cost_figures
from harness.report.prompting_tables import prompting_blocks, prompting_latex, prompting_notes
from harness.report.styles import COLOURS
from harness.report.views.base import ReportData, Section, View, views
from harness.support import text

PROMPTING = Section("prompting", "Fine-tune or prompt?")

_PROMPTED = ("#333333", "#777777", "#aaaaaa")
"""Colours of prompted methods, the best first."""


def draw_total_costs(data: CostFigure) -> Figure:
    """Draw the total cost of some methods on one task against the number of predictions, both on logarithmic axes.

    Prompted methods are dashed. A dot marks where a trained method begins to cost less than the best prompted one, and
    a bar its 95 % interval.
    """
    low, high = _range(data)
    x = np.logspace(math.log10(low), math.log10(high), 200)
    is_money = data.unit == "money"
    with look():
        figure = Figure(figsize=(8.4, 4.8), layout="constrained")
        axes = figure.subplots()
        ends = []
        colours, greys = cycle(COLOURS), cycle(_PROMPTED)
        for line in data.lines:
            colour = next(greys if line.is_prompted else colours)
            y = line.fixed + line.each * x
            axes.plot(x, y, color=colour, linewidth=1.8, linestyle="--" if line.is_prompted else "-", zorder=3)
            ends.append(Named(float(x[-1]), float(y[-1]), f"{line.name}: {text.score(line.score)}", colour))
            if line.crosses_at is None or not low <= line.crosses_at <= high:
                continue
            at, height = line.crosses_at, line.fixed + line.each * line.crosses_at
            if line.low is not None:
                span = (max(low, line.low), high if line.high is None else min(high, line.high))
                axes.hlines(height, *span, color=colour, linewidth=6, alpha=0.35, zorder=2)
            axes.scatter([at], [height], s=46, color=colour, edgecolor="white", linewidth=0.9, zorder=5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        bottom = min(line.fixed + line.each * low for line in data.lines)
        top = max(line.fixed + line.each * high for line in data.lines)
        if bottom > 0:
            axes.set_ylim(max(bottom, top * _MOST_DECADES) / 1.6, top * 1.6)
        axes.xaxis.set_major_locator(LogLocator(numticks=8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_count(value)))
        if not is_money:
            axes.yaxis.set_major_locator(FixedLocator(list(_TIMES)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _money(value) if is_money else _TIMES[value]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(
            "number of predictions\ndot: training begins to cost less than the best prompted method; bar: 95 % interval"
        )
        axes.set_ylabel("price of labels, training and predictions" if is_money else "time of training and predictions")
        trained = f"trained on {text.counted(data.n_train, 'label')}"
        titled(
            figure,
            "Total cost against the number of predictions",
            f"{data.where} · {trained} · with each name its {data.metric}",
        )
        settle(figure, [end.name for end in ends])
        label_ends(axes, ends)
    return figure


_MOST_DECADES = 1e-9
"""Smallest cost that a figure shows, as a share of the largest."""

_TIMES: dict[float, str] = {
    **{10.0**i: f"{10.0**i:g} s" for i in range(-6, 1)},
    **{10.0: "10 s", 60.0: "1 min", 600.0: "10 min", 3600.0: "1 h", 36_000.0: "10 h"},
    **{86_400.0 * 10**i: f"{10**i:,} d" for i in range(8)},
}
"""Ticks of an axis of seconds."""


def _money(value: float) -> str:
    return f"{value:,.10f}".rstrip("0").rstrip(".") if value < 1 else f"{value:,.0f}"


def _short_count(value: float) -> str:
    return f"{value / 1000:,.0f}k" if 1e4 <= value < 1e6 else said_count(value)


def _range(data: CostFigure) -> tuple[float, float]:
    """Return the numbers of predictions to draw: from 10 to a million, and further where lines cross outside."""
    known = [line.crosses_at for line in data.lines if line.crosses_at and 1 <= line.crosses_at < _FAR]
    low = 10 ** math.floor(math.log10(min([10.0, *known])))
    high = 10 ** math.ceil(math.log10(max([1e6, *known])) - 1e-9)
    return float(low), float(high)


_FAR = 1e12
"""Number of predictions beyond which no figure goes."""


def _table(report: ReportData) -> pd.DataFrame:
    return prompting_table(report.observations, report.prices)


def _blocks(report: ReportData) -> Iterator[Block]:
    table = _table(report)
    if table.empty:
        return
    said = [f"{sentence}." for sentence in prompting_notes(table)]
    for block in prompting_blocks(table):
        yield Words(f"### {text.markdown(block.title)}", f"<h3>{html.escape(block.title)}</h3>")
        yield block
    yield Words(
        "\n".join(f"- {text.markdown(one)}" for one in said), f'<p class="notes">{html.escape(" ".join(said))}</p>'
    )
    for i, data in enumerate(cost_figures(every_pair(report.observations, report.prices))):
        alt = "Total cost by number of predictions: " + "; ".join(line.said for line in data.lines) + "."
        title = f"Total cost against the number of predictions: {data.where}"
        name = f"fine-tune-or-prompt {data.where}"
        draw, lines = partial(draw_total_costs, data), pd.DataFrame([asdict(line) for line in data.lines])
        yield Picture(f"fine-tune-or-prompt-{i + 1}", title, draw, alt, data=lines, name=name)


def _latex(report: ReportData, panel: Panel) -> str:
    """Return the table of a panel's task, in the first panel of the task; else nothing."""
    same = [one for one in report.panels if (one.task, one.data, one.metric) == (panel.task, panel.data, panel.metric)]
    if same[0] is not panel:
        return ""
    table = _table(report)
    own = (table["task"] == panel.task) & (table["data"] == panel.data) & (table["metric"] == panel.metric)
    return prompting_latex(table[own.fillna(False)])


views.add(
    "fine_tune_or_prompt",
    View(position=95, csv=_table, in_section=_blocks, section=PROMPTING, latex=_latex),
)
