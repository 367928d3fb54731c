"""Figure: scores of all methods on all tasks at the size that most tasks have."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from harness.report.axes import look, titled
from harness.report.blocks import Picture
from harness.report.direct import LABEL_SIZE, settle
from harness.report.panels import Panel
from harness.report.tables import each
from harness.report.views.base import ReportData, View, views
from harness.support import text


def one_setting(panels: list[Panel], n_train: int) -> list[Panel]:
    """Return the panels of one device, budget and backbone: those that scored the most tasks at a size.

    A heat map never mixes the scores of several machines. It holds several backbones where names tell them apart.
    """
    settings: dict[tuple[str, str, str | None], list[Panel]] = {}
    for panel in panels:
        if (panel.rows.loc[panel.rows["score"].notna(), "n_train"] == n_train).any():
            backbone = None if panel.backbones else panel.backbone
            settings.setdefault((panel.device, panel.budget, backbone), []).append(panel)
    return max(settings.values(), key=lambda found: len({panel.task for panel in found}), default=[])


def heat_map_data(panels: list[Panel], n_train: int, draw: str = "stratified") -> pd.DataFrame:
    """Return the score of each method on each task at one size.

    Columns: task, variant, score, behind (distance to the task's best score as a share of the task's range of scores
    at that size, so that tasks of different metrics share one scale; 0 for the best).
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
    backbone = "" if first.backbones else first.backbone or ""
    parts = [f"Scores at {n_train:,} labels", backbone.rsplit("/", 1)[-1], first.device]
    parts += [f"budget {first.budget}"] if first.budget != "default" else []
    return text.plain(" · ".join(part for part in parts if part))


def draw_heat_map(data: pd.DataFrame, title: str) -> Figure:
    """Draw `heat_map_data`: each field shows the score, its colour the distance to the task's best."""
    scores = data.pivot_table(index="variant", columns="task", values="score", sort=False)
    behind = data.pivot_table(index="variant", columns="task", values="behind", sort=False)
    n_missing = behind.isna().sum(axis=1)  # a mean over fewer tasks is another mean
    order = pd.DataFrame({"missing": n_missing, "mean": behind.mean(axis=1)}).sort_values(["missing", "mean"]).index
    scores, behind = scores.loc[order], behind.loc[order]
    names = [text.plain(str(name)) for name in scores.index]
    with look():
        figure = Figure(
            figsize=(
                max(8.4, 1.6 + 0.1 * max(map(len, names)) + 1.1 * len(scores.columns)),
                max(3.4, 1.9 + 0.32 * len(names)),
            ),
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
            cbar_kws={"label": "behind the best\n(share of the task's range)"},
            linewidths=1,
            ax=axes,
        )
        axes.grid(visible=False)
        axes.set_yticklabels(names, rotation=0, fontsize=LABEL_SIZE)
        axes.set_xticklabels([text.plain(str(task))[:24] for task in scores.columns], rotation=30, ha="right")
        axes.set_xlabel("")
        axes.set_ylabel("")
        shows, _, where = title.partition(" · ")
        titled(figure, shows, where)
        settle(figure)
    return figure


def _blocks(report: ReportData) -> Iterator[Picture]:
    sizes = [int(n) for panel in report.panels for n in panel.rows["n_train"] if n > 0]
    if not sizes or not report.rankings:
        return
    # The size that the most tasks of one setting have; the largest of several.
    n_train = max(set(sizes), key=lambda n: (len({panel.task for panel in one_setting(report.panels, n)}), n))
    shown = one_setting(report.panels, n_train)
    data = heat_map_data(shown, n_train)
    if data["task"].nunique() > 1 and data["variant"].nunique() > 1:
        title = heat_map_title(shown, n_train)
        alt = f"{title}, a method a row, a task a column"
        yield Picture("heat-map", title, partial(draw_heat_map, data, title), alt, has_heading=True, data=data)


views.add("heat_map", View(position=110, in_section=_blocks))
