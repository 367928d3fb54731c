"""Figure: score against seconds of training with the Pareto front, one a panel."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.analysis import pareto_front
from harness.report.axes import error_bars, look, markers, metric_of, others, panel_axes, titled
from harness.report.direct import Named, label_points, settle
from harness.report.panels import Panel, curves_of
from harness.report.styles import Style
from harness.report.tables import each
from harness.report.views.base import panel_figure, views

_FRONT = "#555555"


_FLOOR_SECONDS = 1e-3  # a logarithmic axis has no 0: what took less is drawn here, and the tick says so


def seconds_of(panel: Panel) -> pd.DataFrame:
    """Return score against seconds of training (encoding, tuning and fitting): one row per line and size.

    Columns: those of `curves_of`, train_seconds (median over seeds; null where unknown) and on_front (whether no other
    row of the panel is at least as good in no more seconds).
    """
    rows = panel.rows[panel.rows["score"].notna()]
    higher = bool(rows["higher_is_better"].all())
    front = pareto_front(rows["train_seconds"], rows["score"], higher)
    return curves_of(panel).assign(train_seconds=rows["train_seconds"].array, on_front=front)


def draw_score_against_seconds(data: pd.DataFrame, drawn: Mapping[str, Style]) -> Figure:
    """Draw `seconds_of` one panel: filled markers are on the Pareto front, and their area grows with labels.

    Rows without seconds are counted below the figure.
    """
    with look():
        figure, axes = panel_axes(data)
        known = data[data["train_seconds"].notna()]
        sizes = sorted(int(size) for size in known["n_train"].unique())
        labelled = [size for size in sizes if size > 0]
        areas = dict(zip(labelled, np.linspace(34, 120, len(labelled)) if len(labelled) > 1 else [64.0], strict=False))
        known = known.assign(x=known["train_seconds"].astype(float).clip(lower=_FLOOR_SECONDS))
        front = known[known["on_front"]].sort_values("x")
        if len(front) > 1:
            axes.plot(front["x"], front["score"].astype(float), color=_FRONT, linewidth=1.3, linestyle="--", zorder=2)
            # Steps: between two points of the front no more is reached than at the cheaper one.
            axes.lines[-1].set_drawstyle("steps-post")
        lines = list(known["line"].unique())
        for line in lines:
            own, style = known[known["line"] == line].sort_values("n_train"), drawn[line]
            x, y = own["x"].to_numpy(float), own["score"].to_numpy(float)
            if style.is_muted:
                axes.scatter(x, y, s=14, color=style.colour, zorder=1)
                continue
            axes.plot(x, y, color=style.colour, linewidth=0.9, alpha=0.45, zorder=1)
            error_bars(axes, x, own, style, alpha=0.35)
            for at, score, row in zip(x, y, each(own), strict=True):
                markers(axes, [at], [score], style, filled=bool(row.on_front), area=areas.get(int(row.n_train), 34.0))
        _seconds_axis(axes, known["x"], _keys(data, areas, len(front), lines, drawn))
        axes.set_ylabel(metric_of(data))
        titled(figure, "Score against seconds of training", data["panel"].iloc[0])
        axes.margins(y=0.12)
        settle(figure)
        coloured = [line for line in lines if not drawn[line].is_muted]
        named = [_labelled(known[known["line"] == line], line, drawn[line]) for line in coloured]
        label_points(axes, named, known[["x", "score"]].astype(float).to_numpy())
    return figure


def _labelled(own: pd.DataFrame, line: str, style: Style) -> Named:
    """Return the point that bears the name of a line: its best on the front, else the one of most labels."""
    on_front = own[own["on_front"]]
    last = (on_front if len(on_front) else own).sort_values("n_train").iloc[-1]
    return Named(float(last["x"]), float(last["score"]), line, style.colour)


def _keys(
    data: pd.DataFrame, areas: Mapping[int, float], n_front: int, lines: list[str], drawn: Mapping[str, Style]
) -> str:
    """Return what markers mean, on further lines below the axis."""
    front = "dashed line and filled markers: Pareto front" if n_front > 1 else "filled marker: Pareto front"
    parts = [front] if n_front else []
    if len(areas) > 1:
        parts.append(f"larger markers: more labels ({min(areas):,} to {max(areas):,})")
    said = f"\n{'; '.join(parts)}" if parts else ""
    if n_unknown := int(data["train_seconds"].isna().sum()):
        said += f"\n{n_unknown} not drawn: seconds unknown"
    return said + others(lines, drawn)


def _seconds_axis(axes: Axes, seconds: pd.Series[float], keys: str) -> None:
    axes.set_xlabel(f"seconds of training: encoding, tuning and fitting (median over seeds){keys}")
    if seconds.empty:
        axes.xaxis.set_major_locator(NullLocator())
        return
    axes.set_xscale("log")
    low, high = math.log10(seconds.min()), math.log10(seconds.max())
    pad = max(0.15, 0.05 * (high - low))
    axes.set_xlim(10 ** (low - pad), 10 ** (high + pad))
    step = max(1, math.ceil((high - low + 2 * pad) / 7))
    exponents = range(math.floor(low - pad), math.ceil(high + pad) + 1)
    # Within one power of ten there may be no tick at all: 1, 2, 5 then.
    factors = (1, 2, 5) if high - low < 1.5 else (1,)
    ticks = [factor * 10.0**exponent for exponent in exponents if (exponent + 3) % step == 0 for factor in factors]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _seconds_tick(value)))


def _seconds_tick(value: float) -> str:
    shown = f"{value:,.10f}".rstrip("0").rstrip(".")
    return f"≤ {shown}" if value <= _FLOOR_SECONDS * 1.01 else shown


views.add(
    "seconds",
    panel_figure(
        "seconds",
        "Score against seconds of training",
        data=seconds_of,
        draw=draw_score_against_seconds,
        needs="train_seconds",
        position=40,
        on_page=False,  # the page's scripts draw the same
    ),
)
