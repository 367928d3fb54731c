"""Figure: peak memory against training size, one a panel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from harness.report.axes import look, others, panel_axes, titled
from harness.report.direct import LABEL_SIZE, Named, label_ends, settle
from harness.report.panels import Panel, curves_of
from harness.report.styles import Style
from harness.report.views.base import panel_figure, views
from harness.report.views.learning_curves import set_size_ticks
from harness.support import text


def memory_of(panel: Panel) -> pd.DataFrame:
    """Return memory against training size: the columns of `curves_of` and memory_bytes (median over seeds)."""
    rows = panel.rows[panel.rows["score"].notna()]
    return curves_of(panel).assign(memory_bytes=rows["memory_bytes"].array)


def draw_memory(data: pd.DataFrame, drawn: Mapping[str, Style]) -> Figure:
    """Draw `memory_of` one panel: a line a method; with one size, a row a method."""
    known = data[data["memory_bytes"].notna() & (data["n_train"] > 0)]
    if known["n_train"].nunique() < 2:
        return _draw_rows(data, drawn)
    lines = list(known["line"].unique())
    with look():
        figure, axes = panel_axes(data, 4.4)
        ends = []
        for line in lines:
            own, style = known[known["line"] == line].sort_values("n_train"), drawn[line]
            x, y = own["n_train"].astype(float), own["memory_bytes"].astype(float)
            if style.is_muted:
                axes.plot(x, y, color=style.colour, linewidth=0.8, zorder=1)
                axes.scatter(x, y, s=5, color=style.colour, zorder=1)
                continue
            looks: dict[str, Any] = {"color": style.colour, "linestyle": style.dash, "marker": style.marker}
            axes.plot(x, y, **looks, markeredgecolor="white", zorder=3)
            ends.append(Named(float(x.iloc[-1]), float(y.iloc[-1]), line, style.colour))
        axes.set_xscale("log", base=2)
        set_size_ticks(axes, sorted(int(size) for size in known["n_train"].unique()))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text.memory(value)))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"training labels (n_train){others(lines, drawn)}")
        axes.set_ylabel("peak memory above the baseline\n(median over seeds)")
        titled(figure, "Peak memory against training size", data["panel"].iloc[0])
        settle(figure, [end.name for end in ends])
        label_ends(axes, ends)
    return figure


def _draw_rows(data: pd.DataFrame, drawn: Mapping[str, Style]) -> Figure:
    """Draw the memory of each method as a bar, the least on top."""
    known = (
        data[data["memory_bytes"].notna()].sort_values(["memory_bytes", "line"]).drop_duplicates("line", keep="last")
    )
    with look():
        figure, axes = panel_axes(data, 1.6 + 0.22 * len(known))
        colours = [drawn[line].colour for line in known["line"]]
        axes.barh(range(len(known)), known["memory_bytes"].astype(float), color=colours, height=0.65)
        for at, value in enumerate(known["memory_bytes"].astype(float)):
            axes.text(value, at, f" {text.memory(value)}", va="center", fontsize=8)
        axes.set_yticks(range(len(known)), list(known["line"]), fontsize=LABEL_SIZE)
        axes.set_ylim(len(known) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1.12 * float(known["memory_bytes"].max() or 1) if len(known) else 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.memory(value)))
        axes.set_xlabel(f"peak memory above the baseline (median over seeds){others(list(known['line']), drawn)}")
        sizes = sorted(int(size) for size in known["n_train"].unique() if size > 0)
        at_size = f" at {text.counted(sizes[0], 'training label')}" if sizes else ""
        titled(figure, f"Peak memory{at_size}", data["panel"].iloc[0])
        settle(figure)
    return figure


views.add(
    "memory",
    panel_figure(
        "memory",
        "Peak memory against training size",
        data=memory_of,
        draw=draw_memory,
        needs="memory_bytes",
        position=60,
        on_page=False,
    ),
)
