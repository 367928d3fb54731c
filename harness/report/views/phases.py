"""Figure: seconds of each phase by method, one a panel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from harness.report.axes import look, wrapped
from harness.report.direct import LABEL_SIZE, settle
from harness.report.panels import Panel
from harness.report.styles import Style
from harness.report.views.base import panel_figure, views
from harness.support import text

PHASES = ("encode_seconds", "tune_seconds", "fit_seconds", "predict_seconds")
"""Phases of a cell, in order; loading a backbone is no cost of a method."""


def phases_of(panel: Panel) -> pd.DataFrame:
    """Return seconds by phase at the largest size that each method has (median over seeds).

    Columns: panel (its title), variant, n_train, phase, seconds (null where unknown).
    """
    rows = panel.rows[panel.rows["score"].notna()].sort_values("n_train").drop_duplicates("variant", keep="last")
    long = rows.melt(["variant", "n_train"], list(PHASES), var_name="phase", value_name="seconds")
    order = {variant: i for i, variant in enumerate(panel.rows["variant"].drop_duplicates())}
    long = long.assign(panel=panel.title, _order=long["variant"].map(order))
    return long.sort_values(["_order"], kind="stable").drop(columns="_order")


def draw_phases(data: pd.DataFrame, _: Mapping[str, Style] | None = None) -> Figure:
    """Draw `phases_of` one panel as stacked bars on a linear axis, on which phases add up; the fastest is on top.

    The seconds stand beside each bar, since a fast method's bar may be too short to see.
    """
    wide = data.pivot_table(index="variant", columns="phase", values="seconds", sort=False, dropna=False)
    wide = wide.reindex(columns=list(PHASES)).astype(float)
    total = wide.sum(axis=1, min_count=1)
    wide = wide.loc[total.sort_values(kind="stable").index]
    is_known = wide.notna().any(axis=1).to_numpy()
    wide = wide.fillna(0.0)
    names = [text.plain(str(name)) for name in wide.index]
    palette = sns.color_palette("colorblind").as_hex()
    colours = dict(zip(PHASES, (palette[9], palette[1], palette[0], palette[7]), strict=True))
    with look():
        figure = Figure(figsize=(8.4, 1.7 + 0.24 * len(names)), layout="constrained")
        axes = figure.subplots()
        at = np.arange(len(names))
        left = np.zeros(len(names))
        for phase in PHASES:
            if wide[phase].sum() > 0:
                label = phase.removesuffix("_seconds")
                axes.barh(at, wide[phase], left=left, color=colours[phase], label=label, height=0.7)
                left += wide[phase].to_numpy()
        for y, seconds, known in zip(at, left, is_known, strict=True):
            said = text.seconds(float(seconds)) if known else "not known"
            axes.text(float(seconds), float(y), f" {said}", va="center", fontsize=8)
        axes.set_yticks(at, names, fontsize=LABEL_SIZE)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, (left.max() or 1.0) * 1.14)
        axes.set_xlabel("seconds at the largest size of each method (median over seeds)")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=True, framealpha=1, edgecolor="white", loc="upper right", fontsize=LABEL_SIZE)
        axes.set_title(f"Seconds by phase\n{wrapped(data['panel'].iloc[0])}", loc="left", fontsize=11)
        sns.despine(ax=axes)
        settle(figure)
    return figure


views.add(
    "phases",
    panel_figure(
        "phases", "Seconds by phase", data=phases_of, draw=draw_phases, needs="seconds", position=50, on_page=False
    ),
)
