"""Figures across tasks and phases: heat map, critical differences, seconds by phase, memory against training size.

As in `plots`, under each figure lies a plain function that returns its data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from harness.analysis import cliques
from harness.report.across import Standing
from harness.report.panels import Panel
from harness.report.plots import curves_of, height_for, look, wrapped
from harness.report.styles import Style, lines_in, styles
from harness.report.tables import each
from harness.support import text

PHASES = ("encode_seconds", "tune_seconds", "fit_seconds", "predict_seconds")
"""What a cell's seconds are spent on, in order; loading a backbone is a cost of the session, not of a method."""


# ---- data


def one_setting(panels: list[Panel], n_train: int) -> list[Panel]:
    """The panels of the device, budget and backbone that the most tasks were scored with at a size; the first of such.

    Scores of several machines or backbones have no place in one heat map.
    """
    settings: dict[tuple[str, str, str | None], list[Panel]] = {}
    for panel in panels:
        if (panel.rows.loc[panel.rows["score"].notna(), "n_train"] == n_train).any():
            settings.setdefault((panel.device, panel.budget, panel.backbone), []).append(panel)
    return max(settings.values(), key=lambda found: len({panel.task for panel in found}), default=[])


def heat_map_data(panels: list[Panel], n_train: int, draw: str = "stratified") -> pd.DataFrame:
    """Method x task: the score less the best of the task at one size; rows in the order of their mean.

    Columns: task, variant, score, behind (0 for the best, positive for the others, in the metric's own unit divided
    by the task's range of scores at that size, so that tasks of different metrics share one scale).
    """
    rows: list[dict[str, Any]] = []
    for panel in panels:
        at_size = panel.rows[
            ((panel.rows["n_train"] == n_train) & (panel.rows["draw"] == draw)) | (panel.rows["n_train"] == 0)
        ]
        scored = at_size[at_size["score"].notna()]
        if len(scored) < 2 or not (scored["n_train"] == n_train).any():
            continue
        # Two states of one task's data, or two metrics, are two columns.
        name = panel.task if panel.task not in {row["task"] for row in rows} else panel.title
        scores = scored["score"].astype(float)
        gain = scores if panel.higher_is_better else -scores
        spread = float(gain.max() - gain.min())
        for row, value in zip(each(scored), gain, strict=True):
            behind = 0.0 if spread == 0 else (float(gain.max()) - float(value)) / spread
            rows.append({"task": name, "variant": str(row.variant), "score": float(row.score), "behind": behind})
    return pd.DataFrame(rows, columns=["task", "variant", "score", "behind"]).drop_duplicates(["task", "variant"])


def heat_map_title(panels: list[Panel], n_train: int) -> str:
    """Name the size, backbone, device and budget whose scores the heat map of `one_setting` shows."""
    first = panels[0]
    parts = [f"Scores at {n_train:,} labels", (first.backbone or "").rsplit("/", 1)[-1], first.device]
    parts += [f"budget {first.budget}"] if first.budget != "default" else []
    return text.plain(" · ".join(part for part in parts if part))


def phases_of(panel: Panel) -> pd.DataFrame:
    """Seconds by phase at the largest size that each method has: one row a method and phase (median over seeds).

    Columns: variant, n_train, phase, seconds (null where it is not known).
    """
    rows = panel.rows[panel.rows["score"].notna()].sort_values("n_train").drop_duplicates("variant", keep="last")
    long = rows.melt(["variant", "n_train"], list(PHASES), var_name="phase", value_name="seconds")
    order = {variant: i for i, variant in enumerate(panel.rows["variant"].drop_duplicates())}
    return long.assign(_order=long["variant"].map(order)).sort_values(["_order"], kind="stable").drop(columns="_order")


def memory_of(panel: Panel) -> pd.DataFrame:
    """Peak memory against training size: the columns of `curves_of` and peak_bytes (median over seeds)."""
    rows = panel.rows[panel.rows["score"].notna()]
    return curves_of(panel).assign(peak_bytes=rows["peak_bytes"].array)


# ---- drawing


def draw_heat_map(data: pd.DataFrame, title: str) -> Figure:
    """Draw `heat_map_data`: the score in each field, the colour by how far it is behind the task's best."""
    scores = data.pivot_table(index="variant", columns="task", values="score", sort=False)
    behind = data.pivot_table(index="variant", columns="task", values="behind", sort=False)
    order = behind.mean(axis=1).sort_values(kind="stable").index
    scores, behind = scores.loc[order], behind.loc[order]
    names = [text.plain(str(name))[:40] for name in scores.index]
    with look():
        figure = Figure(
            figsize=(1.6 + 0.25 * max(map(len, names)) / 2.5 + 1.1 * len(scores.columns), 1.4 + 0.32 * len(names)),
            layout="constrained",
        )
        axes = figure.subplots()
        sns.heatmap(
            behind,
            annot=scores.map(lambda value: "" if pd.isna(value) else text.score(value)),
            fmt="",
            cmap=sns.color_palette("crest", as_cmap=True).reversed(),
            vmin=0,
            vmax=1,
            cbar_kws={"label": "behind the best (share of the task's range)"},
            linewidths=1,
            ax=axes,
        )
        axes.grid(visible=False)
        axes.set_yticklabels(names, rotation=0)
        axes.set_xticklabels([text.plain(str(task))[:24] for task in scores.columns], rotation=30, ha="right")
        axes.set_xlabel("")
        axes.set_ylabel("")
        axes.set_title(wrapped(title), loc="left", fontsize=11)
    return figure


def draw_critical_differences(standing: Standing) -> Figure:
    """Draw mean ranks on a line, best on the left; bars join methods that are not shown to differ (Demsar, 2006)."""
    ranking = standing.ranking
    n = len(standing.methods)
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
        for i, (method, rank) in enumerate(zip(standing.methods, ranking.mean_ranks, strict=True)):
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
        tasks = len(standing.tasks)
        axes.set_title(
            f"Mean rank over {tasks} tasks (Friedman p = {ranking.p_value:.2g})\n{wrapped(standing.title)}",
            loc="left",
            fontsize=11,
        )
    return figure


def draw_phases(data: pd.DataFrame, title: str) -> Figure:
    """Draw `phases_of` one panel: seconds of each phase side by side on a logarithmic axis would not add up, so linear.

    Methods that take a hundred times another's seconds leave that one's bar too short to see: its seconds stand beside.
    """
    wide = data.pivot_table(index="variant", columns="phase", values="seconds", sort=False, dropna=False)
    wide = wide.reindex(columns=list(PHASES)).astype(float)
    is_known = wide.notna().any(axis=1).to_numpy()
    wide = wide.fillna(0.0)
    names = [text.plain(str(name))[:40] for name in wide.index]
    palette = sns.color_palette("colorblind").as_hex()
    colours = dict(zip(PHASES, (palette[9], palette[1], palette[0], palette[7]), strict=True))
    with look():
        figure = Figure(figsize=(7.6, 1.4 + 0.3 * len(names)), layout="constrained")
        axes = figure.subplots()
        at = np.arange(len(names))
        left = np.zeros(len(names))
        for phase in PHASES:
            label = phase.removesuffix("_seconds")
            axes.barh(at, wide[phase], left=left, color=colours[phase], label=label, height=0.7)
            left += wide[phase].to_numpy()
        for y, total, known in zip(at, left, is_known, strict=True):
            said = text.seconds(float(total)) if known else "not known"
            axes.text(float(total), float(y), f" {said}", va="center", fontsize=8)
        axes.set_yticks(at, names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, (left.max() or 1.0) * 1.14)
        axes.set_xlabel("seconds at the largest size of each method (median over seeds)")
        axes.legend(frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8)
        axes.set_title(f"Seconds by phase\n{wrapped(title, 64)}", loc="left", fontsize=11, pad=22)
        sns.despine(ax=axes)
    return figure


def draw_memory(data: pd.DataFrame, drawn: dict[str, Style] | None = None) -> Figure:
    """Draw `memory_of` one panel: a line a method."""
    drawn = drawn or styles(lines_in(data))
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
