"""Plots of the report: plain functions that return the data of a figure, and functions that draw it.

Figures are made without pyplot, so drawing one neither picks a backend nor leaves state behind. Methods keep their
colour and marker through all figures of a report, configurations of a method share its colour.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.analysis import pareto_front
from harness.report.observations import Source
from harness.report.panels import Panel, panels
from harness.report.styles import Style, lines_in, styles
from harness.report.tables import each
from harness.support import text

_RC = {
    "text.parse_math": False,  # a name with dollar signs in it is a name, not mathematics
    "svg.hashsalt": "adaptation-harness",  # the same data gives the same bytes
    "svg.fonttype": "path",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.edgecolor": "#888888",
    "font.size": 10.0,
}
_FRONT = "#555555"
_FLOOR_SECONDS = 1e-3  # a logarithmic axis has no 0: what took less is drawn here, and the tick says so


# ---- data


def learning_curves_data(source: Source) -> pd.DataFrame:
    """Score against training size: one row per panel, line and size that has a score.

    Columns: panel (its title), line (the configuration, with its draw where that is balanced), method, n_train, draw,
    score, low, high (95 % interval; null where there is none), n_seeds, metric.
    """
    return pd.concat([curves_of(panel) for panel in panels(source)], ignore_index=True)


def score_against_seconds_data(source: Source) -> pd.DataFrame:
    """Score against seconds of training (encoding, tuning and fitting): one row per panel, line and size.

    Columns: those of `learning_curves_data`, train_seconds (median over seeds; null where it is not known) and
    on_front (whether no other row of the panel is at least as good in no more seconds).
    """
    return pd.concat([seconds_of(panel) for panel in panels(source)], ignore_index=True)


def curves_of(panel: Panel) -> pd.DataFrame:
    """`learning_curves_data` of one panel."""
    rows = panel.rows[panel.rows["score"].notna()]
    balanced = rows["draw"] == "balanced"
    line = rows["variant"].map(text.plain).astype("string")
    return pd.DataFrame(
        {
            "panel": pd.Series(panel.title, index=rows.index, dtype="string"),
            "line": line.mask(balanced, line + ", balanced"),
            "method": rows["method"],
            "n_train": rows["n_train"],
            "draw": rows["draw"],
            "score": rows["score"],
            "low": rows["score_low"],
            "high": rows["score_high"],
            "n_seeds": rows["n_seeds"],
            "metric": rows["metric"],
        }
    ).reset_index(drop=True)


def seconds_of(panel: Panel) -> pd.DataFrame:
    """`score_against_seconds_data` of one panel."""
    rows = panel.rows[panel.rows["score"].notna()]
    higher = bool(rows["higher_is_better"].all())
    front = pareto_front(rows["train_seconds"], rows["score"], higher)
    return curves_of(panel).assign(train_seconds=rows["train_seconds"].array, on_front=front)


# ---- drawing


def draw_learning_curves(data: pd.DataFrame, drawn: dict[str, Style] | None = None) -> Figure:
    """Draw one panel of `learning_curves_data`; methods that use no labels are a level line across.

    Args:
        data: its rows, at least one.
        drawn: the style of each line; by default made from `data`.
    """
    drawn = drawn or styles(lines_in(data))
    with look():
        figure, axes = _figure(data)
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
            spread = 0.16 * _doublings(sizes) if len(sizes) > 1 else 1.0
            shift = 2.0 ** (spread * (i / max(1, len(lines) - 1) - 0.5))
            x = own["n_train"].to_numpy(float) * shift
            _errors(axes, x, own, style)
            axes.plot(
                x, own["score"].to_numpy(float), color=style.colour, linestyle=style.dash, linewidth=1.8, zorder=3
            )
            _markers(axes, x, own["score"].to_numpy(float), style, filled=True)
        _size_axis(axes, sizes)
        axes.set_ylabel(text.plain(str(data["metric"].iloc[0])))
        axes.set_title(f"Score against training size\n{wrapped(data['panel'].iloc[0])}", loc="left", fontsize=11)
        _legend(axes, [(line, drawn[line], bool((data[data["line"] == line]["n_train"] == 0).all())) for line in lines])
    return figure


def draw_score_against_seconds(data: pd.DataFrame, drawn: dict[str, Style] | None = None) -> Figure:
    """Draw one panel of `score_against_seconds_data`: filled markers are on the Pareto front, area grows with labels.

    Args:
        data: its rows, at least one; those without seconds are counted below the figure.
        drawn: the style of each line; by default made from `data`.
    """
    drawn = drawn or styles(lines_in(data))
    with look():
        figure, axes = _figure(data)
        known = data[data["train_seconds"].notna()]
        sizes = sorted(int(size) for size in known["n_train"].unique())
        areas = dict(zip(sizes, np.linspace(34, 120, len(sizes)) if len(sizes) > 1 else [64.0], strict=False))
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
            axes.plot(x, y, color=style.colour, linewidth=0.9, alpha=0.45, zorder=1)
            _errors(axes, x, own, style, alpha=0.35)
            for at, score, row in zip(x, y, each(own), strict=True):
                _markers(axes, [at], [score], style, filled=bool(row.on_front), area=areas[int(row.n_train)])
        _seconds_axis(axes, known["x"])
        axes.set_ylabel(text.plain(str(data["metric"].iloc[0])))
        axes.set_title(f"Score against seconds of training\n{wrapped(data['panel'].iloc[0])}", loc="left", fontsize=11)
        points = [(line, replace(drawn[line], dash="none"), False) for line in lines]
        _legend(axes, points, extra=_keys(areas))
        if n_unknown := len(data) - len(known):
            axes.text(0, -0.2, f"{n_unknown} not drawn: seconds unknown", transform=axes.transAxes, fontsize=8)
    return figure


FORMATS: tuple[str, ...] = ("png", "svg", "pdf")

_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""What would differ from one writing to the next."""


def save(figure: Figure, stem: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write a figure as STEM.png and so on, byte for byte the same for the same data; returns the paths."""
    paths = [stem.with_name(f"{stem.name}.{name}") for name in formats]
    with look():
        for path, name in zip(paths, formats, strict=True):
            figure.savefig(path, dpi=150, bbox_inches="tight", metadata=_METADATA[name])
    return paths


@contextmanager
def look() -> Iterator[None]:
    """What all figures of a report share: to be drawn and saved within."""
    settings: Any = {**sns.axes_style("whitegrid"), **_RC}
    with warnings.catch_warnings(), mpl.rc_context(settings):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as a box: no harm
        yield


def _figure(data: pd.DataFrame) -> tuple[Figure, Axes]:
    if data.empty or data["panel"].nunique() != 1:
        raise ValueError(f"Rows of {data['panel'].nunique()} panels were given; expected those of one.")
    figure = Figure(figsize=(7.2, height_for(data["line"].nunique(), 4.6)), layout="constrained")
    axes = figure.subplots()
    sns.despine(ax=axes)
    return figure, axes


def height_for(n_lines: int, least: float) -> float:
    """Inches that a figure needs for a legend of so many lines beside it."""
    return max(least, 1.4 + 0.22 * n_lines)


def _errors(axes: Axes, x: Any, own: pd.DataFrame, style: Style, alpha: float = 0.75) -> None:
    has = (own["low"].notna() & own["high"].notna()).to_numpy(bool)
    low, high = own["low"].to_numpy(float, na_value=np.nan), own["high"].to_numpy(float, na_value=np.nan)
    axes.vlines(np.asarray(x)[has], low[has], high[has], color=style.colour, linewidth=1.3, alpha=alpha, zorder=2)


def _markers(axes: Axes, x: Any, y: Any, style: Style, *, filled: bool, area: float = 46) -> None:
    face, edge = (style.colour, "white") if filled else ("white", style.colour)
    width = 0.8 if filled else 1.4
    axes.scatter(x, y, s=area, marker=style.marker, facecolor=face, edgecolor=edge, linewidth=width, zorder=4)


def _doublings(sizes: Sequence[int]) -> float:
    """Distance between neighbouring sizes on the axis, in doublings; 1 where there is one size."""
    gaps = [math.log2(high / low) for low, high in pairwise(sizes)]
    return min(gaps, default=1.0)


def _size_axis(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xlabel("training labels (n_train); points at one size stand side by side")
    if not sizes:
        axes.xaxis.set_major_locator(NullLocator())
        axes.set_xlabel("no training labels used")
        return
    axes.set_xscale("log", base=2)
    margin = 2 ** (0.35 * _doublings(sizes) if len(sizes) > 1 else 1.0)
    axes.set_xlim(sizes[0] / margin, sizes[-1] * margin)
    span = math.log2(sizes[-1] / sizes[0])
    shown: list[int] = []
    for size in sizes:  # close neighbours would print over one another
        if not shown or math.log2(size / shown[-1]) >= span / 12:
            shown.append(size)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _seconds_axis(axes: Axes, seconds: pd.Series[float]) -> None:
    axes.set_xlabel("seconds of training: encoding, tuning and fitting (median over seeds)")
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


def _keys(areas: dict[int, float]) -> list[Line2D]:
    """Legend of what the markers mean: on the front or not, and how many labels."""
    dot: dict[str, Any] = {"linestyle": "none", "marker": "o"}
    front = Line2D([], [], color=_FRONT, linestyle="--", linewidth=1.3, marker="o", markersize=7, label="Pareto front")
    off = Line2D([], [], markeredgecolor=_FRONT, markerfacecolor="white", markersize=7, label="not on it", **dot)
    ends = sorted({min(areas), max(areas)}) if areas else []
    sizes = [
        Line2D([], [], color="#aaaaaa", markersize=math.sqrt(areas[size]), label=f"{size:,} labels", **dot)
        for size in ends
    ]
    return [front, off, *sizes]


def _legend(axes: Axes, lines: Sequence[tuple[str, Style, bool]], extra: Sequence[Line2D] = ()) -> None:
    handles = []
    for line, style, level in lines:
        name = _shortened(line, 34)
        # Legends drop labels that begin with an underscore.
        label = f" {name}" if name.startswith("_") else name
        if level:
            handle = Line2D([], [], color=style.colour, linestyle=(0, (1, 2)), label=f"{label} (no labels)")
        else:
            handle = Line2D([], [], color=style.colour, linestyle=style.dash, marker=style.marker, label=label)
            handle.set_markeredgecolor("white")
            handle.set_markersize(8)
        handles.append(handle)
    axes.legend(
        handles=[*handles, *extra], loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, borderaxespad=0.0
    )


def _shortened(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"


def wrapped(title: str, width: int = 72) -> str:
    """A title on lines of at most `width` characters, two at most: no wider than the axes that it stands over."""
    return "\n".join(textwrap.wrap(text.plain(str(title)), width, max_lines=2, placeholder=" …"))
