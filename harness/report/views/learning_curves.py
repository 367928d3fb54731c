"""Figure: score against training size, one a panel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.report.axes import doublings, error_bars, legend, look, markers, panel_axes, wrapped
from harness.report.panels import curves_of
from harness.report.styles import Style
from harness.report.tables import each
from harness.report.views.base import panel_figure, views
from harness.support import text


def draw_learning_curves(data: pd.DataFrame, drawn: Mapping[str, Style]) -> Figure:
    """Draw `curves_of` one panel, at least one row; methods that use no labels are a level line across."""
    with look():
        figure, axes = panel_axes(data)
        labelled = data[data["n_train"] > 0]
        sizes = sorted(int(size) for size in labelled["n_train"].unique())
        lines = list(data["line"].unique())
        for i, line in enumerate(lines):
            own, style = data[data["line"] == line].sort_values("n_train"), drawn[line]
            without = own[own["n_train"] == 0]
            for row in each(without):
                axes.axhline(row.score, color=style.colour, linestyle=(0, (1, 2)), linewidth=1.4, zorder=1)
                if text.present(row.low):
                    axes.axhspan(row.low, row.high, color=style.colour, alpha=0.08, linewidth=0, zorder=0)
            own = own[own["n_train"] > 0]
            # Apart by a hair's breadth, so that intervals of methods that score alike can be told apart.
            spread = 0.16 * doublings(sizes) if len(sizes) > 1 else 1.0
            shift = 2.0 ** (spread * (i / max(1, len(lines) - 1) - 0.5))
            x = own["n_train"].to_numpy(float) * shift
            error_bars(axes, x, own, style)
            axes.plot(
                x, own["score"].to_numpy(float), color=style.colour, linestyle=style.dash, linewidth=1.8, zorder=3
            )
            markers(axes, x, own["score"].to_numpy(float), style, filled=True)
        _size_axis(axes, sizes)
        axes.set_ylabel(text.plain(str(data["metric"].iloc[0])))
        axes.set_title(f"Score against training size\n{wrapped(data['panel'].iloc[0])}", loc="left", fontsize=11)
        legend(axes, [(line, drawn[line], bool((data[data["line"] == line]["n_train"] == 0).all())) for line in lines])
    return figure


def _size_axis(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xlabel("training labels (n_train); points at one size stand side by side")
    if not sizes:
        axes.xaxis.set_major_locator(NullLocator())
        axes.set_xlabel("no training labels used")
        return
    axes.set_xscale("log", base=2)
    margin = 2 ** (0.35 * doublings(sizes) if len(sizes) > 1 else 1.0)
    axes.set_xlim(sizes[0] / margin, sizes[-1] * margin)
    span = math.log2(sizes[-1] / sizes[0])
    shown: list[int] = []
    for size in sizes:  # close neighbours would print over one another
        if not shown or math.log2(size / shown[-1]) >= span / 12:
            shown.append(size)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


views.add(
    "learning_curves",
    panel_figure(
        "learning-curves",
        "Score against training size",
        data=curves_of,
        draw=draw_learning_curves,
        position=30,
        on_page=False,  # the page's scripts draw these curves
    ),
)
