"""Table and figures: mean ranks of methods over tasks, with their critical difference."""

from __future__ import annotations

import html
from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from harness.analysis import cliques
from harness.report.across import TaskRanking
from harness.report.axes import look, wrapped
from harness.report.blocks import Block, Picture, Words
from harness.report.views.base import ReportData, View, views
from harness.support import text


def across_frame(rankings: list[TaskRanking]) -> pd.DataFrame:
    """Return one row per ranking and method; methods that are not ranked have null ranks.

    Columns: title, variant, mean_rank, mean_score (null where metrics differ), n_tasks, n_tasks_in_all, n_ranked_on,
    friedman_p, critical_difference.
    """
    rows = []
    for ranked in rankings:
        shared = {
            "n_tasks_in_all": ranked.n_tasks_in_all,
            "n_ranked_on": len(ranked.tasks),
            "friedman_p": ranked.ranking.p_value,
            "critical_difference": ranked.ranking.critical_difference,
        }
        for i, method in enumerate([*ranked.methods, *ranked.left_out]):
            is_ranked = i < len(ranked.methods)
            rows.append(
                {
                    "title": ranked.title,
                    "variant": method,
                    "mean_rank": ranked.ranking.mean_ranks[i] if is_ranked else None,
                    "mean_score": ranked.means[i] if is_ranked and ranked.means is not None else None,
                    "n_tasks": ranked.n_tasks[method],
                    **shared,
                }
            )
    dtypes = {
        **dict.fromkeys(("title", "variant"), "string"),
        **dict.fromkeys(("mean_rank", "mean_score"), "Float64"),
        **dict.fromkeys(("n_tasks", "n_tasks_in_all", "n_ranked_on"), "Int64"),
        **dict.fromkeys(("friedman_p", "critical_difference"), "Float64"),
    }
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in dtypes}
    return pd.DataFrame({name: pd.Series(columns[name], dtype=dtype) for name, dtype in dtypes.items()})


def draw_critical_differences(ranked: TaskRanking) -> Figure:
    """Draw mean ranks on a line, best on the left; bars join methods that are not shown to differ (Demsar, 2006)."""
    ranking = ranked.ranking
    n = len(ranked.methods)
    joined = cliques(ranking.mean_ranks, ranking.critical_difference)
    half = (n + 1) // 2
    with look():
        figure = Figure(figsize=(8.4, 1.7 + 0.26 * half + 0.14 * len(joined)), layout="constrained")
        axes = figure.subplots()
        axes.set_axis_off()
        low, high = 1.0, float(n)
        bottom = 0.55 + 0.22 * len(joined)
        axes.plot([low, high], [0, 0], color="#444444", linewidth=1.2)
        for tick in range(1, n + 1):
            axes.plot([tick, tick], [0, -0.12], color="#444444", linewidth=1.2)
            axes.text(tick, -0.2, str(tick), ha="center", va="bottom", fontsize=9)
        span = high - low
        for i, (method, rank) in enumerate(zip(ranked.methods, ranking.mean_ranks, strict=True)):
            on_left = i < half
            level = bottom + 0.42 * (i if on_left else n - 1 - i)
            edge = low - 0.04 * span if on_left else high + 0.04 * span
            axes.plot([rank, rank, edge], [0, level, level], color="#777777", linewidth=0.9)
            name = f"{text.plain(method)[:36]} ({rank:.2f})"
            axes.text(
                edge - 0.01 * span if on_left else edge + 0.01 * span,
                level,
                name,
                ha="right" if on_left else "left",
                va="center",
                fontsize=9,
            )
        for i, (first, last) in enumerate(joined):
            ends = [ranking.mean_ranks[first] - 0.02 * span, ranking.mean_ranks[last] + 0.02 * span]
            axes.plot(ends, [0.3 + 0.22 * i] * 2, color="#0173b2", linewidth=4, solid_capstyle="butt")
        width = ranking.critical_difference
        shown = min(width, span)
        axes.plot([low, low + shown], [-0.75, -0.75], color="#d55e00", linewidth=2)
        beyond = ", wider than the line" if width > span else ""
        axes.text(
            low, -0.83, f"critical difference {width:.2f}{beyond}", ha="left", va="bottom", fontsize=9, color="#a04000"
        )
        axes.set_xlim(low - 0.55 * span, high + 0.55 * span)
        axes.set_ylim(bottom + 0.42 * half, -1.15)
        tasks = len(ranked.tasks)
        axes.set_title(
            f"Mean rank over {tasks} tasks (Friedman p = {ranking.p_value:.2g})\n{wrapped(ranked.title)}",
            loc="left",
            fontsize=11,
        )
    return figure


_MOST_PICTURES = 8
_MOST_METHODS = 24  # more of them make a picture too tall for the page

_LEAD = (
    "Mean ranks (1 is best) over the tasks that all ranked methods ran on. Methods joined by a bar are not shown to "
    "differ (Nemenyi's test, 5 % level, after Friedman's). With few tasks almost no difference can be shown."
)
_NOTHING = "No two methods ran on the same two tasks at the same size, so there is nothing to rank."


def _blocks(report: ReportData) -> Iterator[Block]:
    yield Words(html=f"<p>{html.escape(_LEAD if report.rankings else _NOTHING)}</p>")
    n_on_page = 0
    for i, ranked in enumerate(report.rankings):
        yield Words(
            f"{text.markdown(ranked.title)}: {text.markdown(ranked.said)}",
            f"<h3>{html.escape(ranked.title)}</h3>\n<p class='notes'>{html.escape(ranked.said)}</p>",
        )
        on_page = n_on_page < _MOST_PICTURES and len(ranked.methods) <= _MOST_METHODS
        n_on_page += on_page
        ranks = zip(ranked.methods, ranked.ranking.mean_ranks, strict=True)
        alt = "Mean ranks: " + ", ".join(f"{text.plain(name)} {rank:.2f}" for name, rank in ranks)
        alt += f"; critical difference {ranked.ranking.critical_difference:.2f}."
        draw = partial(draw_critical_differences, ranked)
        yield Picture(f"ranks-{i + 1}", f"Mean ranks: {ranked.title}", draw, alt, on_page=on_page)


views.add("across", View(position=100, csv=lambda report: across_frame(report.rankings), in_section=_blocks))
