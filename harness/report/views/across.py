"""Table and figures: mean ranks of methods over tasks; over at least five tasks, with their critical difference."""

from __future__ import annotations

import html
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.analysis import MIN_TESTED_TASKS, cliques
from harness.report.across import TaskRanking
from harness.report.axes import look, titled
from harness.report.blocks import Block, Picture, Words
from harness.report.direct import LABEL_SIZE, settle
from harness.report.highlights import GREY, MOST_COLOURED
from harness.report.views.base import ReportData, View, views
from harness.support import text


def across_frame(rankings: list[TaskRanking]) -> pd.DataFrame:
    """Return one row per ranking and method; methods that are not ranked have null ranks.

    Columns: title, variant, mean_rank, mean_score (null where metrics differ), n_tasks, n_tasks_in_all, n_ranked_on,
    friedman_p and critical_difference (null for fewer than five tasks).
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


def draw_ranks(ranked: TaskRanking) -> Figure:
    """Draw the mean rank of each method, a row each, best on top.

    Where ranks are tested, bars on the right join methods that are not shown to differ (Demsar, 2006).
    """
    ranking = ranked.ranking
    names = [text.plain(method) for method in ranked.methods]
    n, tasks = len(names), len(ranked.tasks)
    tested = "not tested" if ranking.p_value is None else f"Friedman p = {ranking.p_value:.2g}"
    with look():
        figure = Figure(figsize=(8.4, 1.7 + 0.22 * n), layout="constrained")
        axes = figure.subplots()
        colours = [_BLUE if i < MOST_COLOURED else GREY for i in range(n)]
        at = np.arange(n)
        axes.hlines(at, 1, ranking.mean_ranks, color=colours, linewidth=1.4, zorder=2)
        axes.scatter(ranking.mean_ranks, at, s=42, color=colours, zorder=3)
        for y, rank in zip(at, ranking.mean_ranks, strict=True):
            axes.annotate(f"{rank:.2f}", (rank, y), (6, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(at, names, fontsize=LABEL_SIZE)
        axes.set_ylim(n - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        joined = [] if ranking.critical_difference is None else cliques(ranking.mean_ranks, ranking.critical_difference)
        start = n + 0.09 * n
        for i, (first, last) in enumerate(joined):
            axes.plot([start + 0.018 * n * i] * 2, [first - 0.3, last + 0.3], color=_ORANGE, linewidth=2.5)
        axes.set_xlim(1 - 0.02 * n, start + 0.018 * n * len(joined) if joined else n * 1.07)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))
        said = "mean rank (1 is best)"
        if ranking.critical_difference is None:
            said += f"\ndifferences are not tested: that needs at least {MIN_TESTED_TASKS} tasks"
        else:
            said += "\norange bars join methods that are not shown to differ "
            said += f"(critical difference {ranking.critical_difference:.2f})"
        axes.set_xlabel(said)
        titled(figure, f"Mean rank over {text.counted(tasks, 'task')} ({tested})", ranked.title)
        sns.despine(ax=axes, left=True)
        settle(figure)
    return figure


_MOST_PICTURES = 8
_MOST_METHODS = 24  # more of them make a picture too tall for the page

_LEAD = (
    "Mean ranks (1 is best) over the tasks that all ranked methods ran on. Bars join methods that are not shown to "
    "differ (Nemenyi's test at the 5 % level, after Friedman's). Few tasks show hardly any difference, and fewer than "
    f"{MIN_TESTED_TASKS} are not tested."
)
_NOTHING = "No two methods ran on the same two tasks at the same size, so there is nothing to rank."
_BLUE, _ORANGE = "#0173b2", "#d55e00"


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
        width = ranked.ranking.critical_difference
        alt += "; not tested." if width is None else f"; critical difference {width:.2f}."
        draw = partial(draw_ranks, ranked)
        name, data = f"ranks {ranked.title}", across_frame([ranked])
        title = f"Mean ranks: {ranked.title}"
        yield Picture(f"ranks-{i + 1}", title, draw, alt, on_page=on_page, data=data, name=name)


views.add("across", View(position=100, csv=lambda report: across_frame(report.rankings), in_section=_blocks))
