"""Figure: score against training size, one a panel; with one size, the scores in order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.report.axes import doublings, error_bars, look, markers, metric_of, others, panel_axes, titled
from harness.report.direct import LABEL_SIZE, Named, label_ends, settle
from harness.report.panels import curves_of
from harness.report.styles import Style
from harness.report.tables import each
from harness.report.views.base import panel_figure, views
from harness.support import text


def draw_learning_curves(data: pd.DataFrame, drawn: Mapping[str, Style]) -> Figure:
    """Draw `curves_of` one panel, at least one row; methods that use no labels are a level line across."""
    sizes = sorted(int(size) for size in data.loc[data["n_train"] > 0, "n_train"].unique())
    if len(sizes) < 2:
        return _draw_scores(data, drawn, sizes)
    with look():
        figure, axes = panel_axes(data)
        lines = list(data["line"].unique())
        coloured = [line for line in lines if not drawn[line].is_muted]
        for line in lines:
            own, style = data[data["line"] == line].sort_values("n_train"), drawn[line]
            for row in each(own[own["n_train"] == 0]):
                axes.axhline(row.score, color=style.colour, linestyle=(0, (1, 2)), linewidth=1.4, zorder=1)
                if text.present(row.low) and not style.is_muted:
                    axes.axhspan(row.low, row.high, color=style.colour, alpha=0.08, linewidth=0, zorder=0)
            own = own[own["n_train"] > 0]
            x, y = own["n_train"].to_numpy(float), own["score"].to_numpy(float)
            if style.is_muted:
                axes.plot(x, y, color=style.colour, linewidth=0.8, zorder=1)
                axes.scatter(x, y, s=5, color=style.colour, zorder=1)
                continue
            # Apart by a hair's breadth, so that intervals of methods that score alike can be told apart.
            spread = 0.16 * doublings(sizes)
            x = x * 2.0 ** (spread * (coloured.index(line) / max(1, len(coloured) - 1) - 0.5))
            error_bars(axes, x, own, style)
            axes.plot(x, y, color=style.colour, linestyle=style.dash, linewidth=1.8, zorder=3)
            markers(axes, x, y, style, filled=True)
        _size_axis(axes, sizes)
        axes.set_xlabel(f"{axes.get_xlabel()}{others(lines, drawn)}")
        axes.set_ylabel(metric_of(data))
        titled(figure, "Score against training size", data["panel"].iloc[0])
        names = {line: _name(data, line) for line in coloured}
        settle(figure, list(names.values()))
        label_ends(axes, [_end(axes, data[data["line"] == line], names[line], drawn[line]) for line in coloured])
    return figure


def _name(data: pd.DataFrame, line: str) -> str:
    return f"{line} (no labels)" if (data.loc[data["line"] == line, "n_train"] == 0).all() else line


def _end(axes: Axes, own: pd.DataFrame, name: str, style: Style) -> Named:
    last = own.sort_values("n_train").iloc[-1]
    x = float(last["n_train"]) or axes.get_xlim()[1]
    return Named(x, float(last["score"]), name, style.colour)


def _draw_scores(data: pd.DataFrame, drawn: Mapping[str, Style], sizes: Sequence[int]) -> Figure:
    """Draw the scores at one size in order, best on top: a row a method, with its interval."""
    data = _in_order(data)
    lines = list(data["line"].unique())
    with look():
        figure, axes = panel_axes(data, 1.6 + 0.22 * len(lines))
        for at, line in enumerate(lines):
            own, style = data[data["line"] == line].sort_values("n_train").tail(1), drawn[line]
            low, high = (own[end].to_numpy(float, na_value=np.nan) for end in ("low", "high"))
            axes.hlines(at, low, high, color=style.colour, linewidth=1.6, zorder=2)
            markers(axes, own["score"].to_numpy(float), [at], replace(style, marker="o"), filled=True, area=36)
        axes.set_yticks(range(len(lines)), [_name(data, line) for line in lines], fontsize=LABEL_SIZE)
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{metric_of(data)}, with its 95 % interval{others(lines, drawn)}")
        at_size = f"Scores at {text.counted(sizes[0], 'training label')}" if sizes else "Scores without training labels"
        titled(figure, at_size, data["panel"].iloc[0])
        settle(figure)
    return figure


def _in_order(data: pd.DataFrame) -> pd.DataFrame:
    """Return the rows best first; those of methods without labels stand among the others by their score."""
    labelled = data.loc[data["n_train"] > 0, "score"]
    ascending = bool(len(labelled) > 1 and labelled.iloc[0] < labelled.iloc[-1])
    return data.sort_values("score", ascending=ascending, kind="stable")


def _size_axis(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xlabel("training labels (n_train); points at one size stand side by side")
    axes.set_xscale("log", base=2)
    margin = 2 ** (0.35 * doublings(sizes))
    axes.set_xlim(sizes[0] / margin, sizes[-1] * margin)
    set_size_ticks(axes, sizes)


def set_size_ticks(axes: Any, sizes: Sequence[int]) -> None:
    """Set a tick at each training size, but for close neighbours, which would print over one another."""
    span = math.log2(sizes[-1] / sizes[0])
    shown: list[int] = []
    for size in sizes:
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
