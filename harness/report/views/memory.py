"""Figure: peak memory against training size, one a panel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from harness.report.axes import height_for, look, wrapped
from harness.report.panels import Panel, curves_of
from harness.report.styles import Style
from harness.report.views.base import panel_figure, views
from harness.support import text


def memory_of(panel: Panel) -> pd.DataFrame:
    """Return peak memory against training size: the columns of `curves_of` and peak_bytes (median over seeds)."""
    rows = panel.rows[panel.rows["score"].notna()]
    return curves_of(panel).assign(peak_bytes=rows["peak_bytes"].array)


def draw_memory(data: pd.DataFrame, drawn: Mapping[str, Style]) -> Figure:
    """Draw `memory_of` one panel: a line a method."""
    known = data[data["peak_bytes"].notna() & (data["n_train"] > 0)]
    with look():
        figure = Figure(figsize=(7.2, height_for(known["line"].nunique(), 4.4)), layout="constrained")
        axes = figure.subplots()
        for line in known["line"].unique():
            own, style = known[known["line"] == line].sort_values("n_train"), drawn[str(line)]
            looks: dict[str, Any] = {"color": style.colour, "linestyle": style.dash, "marker": style.marker}
            axes.plot(
                own["n_train"].astype(float),
                own["peak_bytes"].astype(float),
                **looks,
                markeredgecolor="white",
                label=f" {str(line)[:34]}",
            )
        if len(known):
            axes.set_xscale("log", base=2)
            axes.set_xticks(sorted(known["n_train"].astype(int).unique()))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text.memory(value)))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("training labels (n_train)")
        axes.set_ylabel("peak memory above the baseline (median over seeds)")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, borderaxespad=0.0)
        title = str(data["panel"].iloc[0]) if len(data) else ""
        axes.set_title(f"Peak memory against training size\n{wrapped(title, 64)}", loc="left", fontsize=11)
        sns.despine(ax=axes)
    return figure


views.add(
    "memory",
    panel_figure(
        "memory",
        "Peak memory against training size",
        data=memory_of,
        draw=draw_memory,
        needs="peak_bytes",
        position=60,
        on_page=False,
    ),
)
