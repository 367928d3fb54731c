"""Table and figure: how many trainable parameters a task needs (ladders.csv)."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.analysis import pareto_front
from harness.report.axes import error_bars, look, markers, metric_of, titled
from harness.report.blocks import Block, Picture, Words
from harness.report.direct import Named, label_points, settle
from harness.report.highlights import GREY
from harness.report.ladder import MARGIN, ladders, places, said_of
from harness.report.panels import Panel
from harness.report.styles import Style, styles
from harness.report.tables import each
from harness.report.views.base import ReportData, Section, View, views
from harness.support import text

LADDERS = Section("ladders", "Learning ladders", "How many parameters do I need?")

_REFERENCES = ("linear-probe", "head", "full")
"""Methods whose scores are level lines to compare with."""

_MOST_SIZES = 3
"""Maximum number of training sizes in one figure: the smallest, the largest, and one between."""

_MOST_LINES = 6
"""Maximum number of coloured lines."""

_MOST_NAMED = 24
"""Maximum number of grey points that all have names; of more, only those on the front of score and parameters do."""

_LEAD = (
    "Score against trainable parameters, for each task, backbone and number of labels. A configuration may be enough "
    f"if its mean is within {100 * MARGIN:g} point of the best and it is not shown to be worse (paired test over seeds "
    "and test rows, Holm's correction). It is enough if the whole interval of the difference lies within that point. "
    "Few seeds or test rows show few differences: more of them may raise the number."
)


def draw_ladder(data: pd.DataFrame) -> Figure:
    """Draw `ladders` of one panel and backbone: a plot for each of at most `_MOST_SIZES` training sizes.

    Points of one method that differ in size are joined. Dashed level lines are the methods to compare with, the green
    band is within one point of the best, and the dotted upright line marks the fewest parameters that may be enough.
    """
    shown = _chosen(sorted({(int(row.n_train), str(row.draw)) for row in each(data)}))
    drawn = _styles(data)
    with look():
        figure = Figure(figsize=(8.4, 0.9 + 3.5 * len(shown)), layout="constrained")
        plots = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        named = []
        for axes, (n_train, draw) in zip(plots, shown, strict=True):
            own = data[(data["n_train"] == n_train) & (data["draw"] == draw)]
            named.append(_plot(axes, own, drawn))
            axes.set_title(f"{text.size(n_train, draw)} labels", loc="left", fontsize=10)
            axes.set_ylabel(metric_of(data))
        _parameters_axis(plots[-1], data["n_trainable"].astype(int))
        titled(figure, "Score against trainable parameters", _where(data))
        settle(figure)
        for axes, (labels, obstacles) in zip(plots, named, strict=True):
            label_points(axes, labels, obstacles)
    return figure


def _where(data: pd.DataFrame) -> str:
    panel, backbone = str(data["panel"].iloc[0]), str(data["backbone"].iloc[0]).rsplit("/", 1)[-1]
    return panel if backbone in panel else f"{panel} · {backbone}"


def _chosen(sizes: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    if len(sizes) <= _MOST_SIZES:
        return list(sizes)
    return [sizes[round(i * (len(sizes) - 1) / (_MOST_SIZES - 1))] for i in range(_MOST_SIZES)]


def _styles(data: pd.DataFrame) -> dict[str, Style]:
    """Return the style of each line: methods of several sizes and those to compare with are coloured."""
    found = styles((str(line), str(method)) for line, method in zip(data["line"], data["method"], strict=True))
    at_size = data.groupby(["line", "n_train", "draw"])["n_trainable"].nunique()
    numbers = at_size.groupby("line").max().sort_values(ascending=False, kind="stable")
    several = [str(line) for line, n in numbers.items() if n > 1][:_MOST_LINES]
    important = {*several, *(line for line in found if line in _REFERENCES)}
    return {
        line: style if line in important else replace(style, colour=GREY, marker="o", is_muted=True)
        for line, style in found.items()
    }


def _plot(axes: Axes, own: pd.DataFrame, drawn: Mapping[str, Style]) -> tuple[list[Named], Any]:
    """Draw one ladder; return the labels that it should have, and the points that they should not cover."""
    own = own.assign(x=_x(own["n_trainable"].astype(int)))
    best, first = own[own["is_best"]].iloc[0], own[own["saturates"]].iloc[0]
    labels = [Named(float(first["x"]), float(first["score"]), text.plain(str(first["variant"])), "#222222")]
    if best["variant"] != first["variant"]:
        labels.append(Named(float(best["x"]), float(best["score"]), text.plain(str(best["variant"])), "#222222"))
    if text.present(best["margin"]):
        sign = 1.0 if best["higher_is_better"] else -1.0
        edges = (float(best["score"]), float(best["score"]) - sign * float(best["margin"]))
        axes.axhspan(min(edges), max(edges), color="#029e73", alpha=0.12, lw=0)
    axes.axvline(float(first["x"]), color="#444444", linestyle=(0, (1, 2)), linewidth=1.1, zorder=1)
    for line, points in own.groupby("line", sort=True):
        style, points = drawn[str(line)], points.sort_values("x")
        x, y = points["x"].to_numpy(float), points["score"].to_numpy(float)
        error_bars(axes, x, points, style, alpha=0.7)
        if str(line) in _REFERENCES:
            axes.axhline(y[-1], color=style.colour, linestyle=(0, (5, 2)), linewidth=1.0, alpha=0.8, zorder=1)
        axes.plot(x, y, color=style.colour, linestyle=style.dash, linewidth=1.6, zorder=3)
        markers(axes, x, y, style, filled=True, area=20 if style.is_muted else 40)
        if not style.is_muted and not {first["variant"], best["variant"]} & set(points["variant"]):
            labels.append(Named(float(x[-1]), float(y[-1]), text.plain(str(line)), style.colour))
    ringed = own[own["saturates"]]
    axes.scatter(ringed["x"], ringed["score"].astype(float), s=120, facecolor="none", edgecolor="#222222", zorder=5)
    is_muted = own["line"].map(lambda line: drawn[str(line)].is_muted).astype(bool)
    muted = own[is_muted & ~own["saturates"] & ~own["is_best"]]
    if len(muted) > _MOST_NAMED:
        front = pareto_front(own["x"], own["score"], bool(best["higher_is_better"]))
        muted = muted[pd.Series(front, own.index)[muted.index]]
    labels += [Named(float(row.x), float(row.score), text.plain(str(row.line)), "#888888") for row in each(muted)]
    axes.margins(y=0.12)
    sns.despine(ax=axes)
    return labels, own[["x", "score"]].astype(float).to_numpy()


def _x(numbers: pd.Series[int]) -> Any:
    """Return positions on the axis; 0 parameters stand left of all others, since a logarithm has no 0."""
    return np.where(numbers > 0, numbers, _zero(numbers)).astype(float)


def _zero(numbers: pd.Series[int]) -> float:
    return max(1.0, 10.0 ** math.floor(math.log10(float(numbers[numbers > 0].min())) - 0.5))


def _tick(value: float) -> str:
    """Return a power of ten without decimals: `10k`, `1B`."""
    return re.sub(r"\.0+(?=[kMB]$)", "", text.number(value))


def _parameters_axis(axes: Axes, numbers: pd.Series[int]) -> None:
    axes.set_xscale("log")
    positive = numbers[numbers > 0]
    low, high = math.floor(math.log10(positive.min())), math.ceil(math.log10(positive.max()))
    ticks = [10.0**power for power in range(low, high + 1)]
    has_none = bool((numbers == 0).any())
    zero = _zero(numbers)
    if has_none:
        ticks = [zero, *(tick for tick in ticks if tick > 1.5 * zero)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: "none" if has_none and value <= zero else _tick(value))
    )
    axes.set_xlabel(
        "trainable parameters; bars are 95 % intervals\n"
        "ring and dotted line: the fewest within one point of the best (green) that are not shown to be worse"
    )


def _blocks(report: ReportData) -> Iterator[Block]:
    found = _ladders(report)
    if found.empty:
        return
    yield Words(_LEAD, f"<p>{html.escape(_LEAD)}</p>")
    for panel, stem in _stems(report, found):
        of_panel = found[found["panel"] == panel.title]
        for _, own in of_panel.groupby("backbone", sort=False):
            where = _where(own)
            said = [(text.size(int(p["n_train"].iloc[0]), str(p["draw"].iloc[0])), said_of(p)) for p in places(own)]
            yield Words(
                "\n".join([f"### {text.markdown(where)}", "", *(f"- {n} labels: {text.markdown(s)}" for n, s in said)]),
                f"<h3>{html.escape(where)}</h3>\n<ul>"
                + "".join(f"<li><strong>{html.escape(n)} labels:</strong> {html.escape(s)}</li>" for n, s in said)
                + "</ul>",
            )
            own_stem = f"{stem}-{text.slug(str(own['backbone'].iloc[0]).rsplit('/', 1)[-1])}"
            alt = f"Score against trainable parameters: {where}. {' '.join(s for _, s in said)}"
            title = f"Score against trainable parameters: {where}"
            setting = (panel.task, own["backbone"].iloc[0], panel.device, panel.budget, panel.data[:8])
            name = " ".join(map(str, ("ladder", *setting)))
            yield Picture(own_stem, title, partial(draw_ladder, own), alt, data=own, name=name)


def _stems(report: ReportData, found: pd.DataFrame) -> Iterator[tuple[Panel, str]]:
    """Return the panels that have ladders, and the start of the names of their files."""
    titles = set(found["panel"])
    for i, panel in enumerate(panel for panel in report.panels if panel.title in titles):
        yield panel, f"ladder-{i + 1}-{text.slug(panel.task)}"


def _ladders(report: ReportData) -> pd.DataFrame:
    return ladders(report.observations)


views.add("ladders", View(position=95, csv=_ladders, in_section=_blocks, section=LADDERS))
