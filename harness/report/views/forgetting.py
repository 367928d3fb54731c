"""Figure: score against forgetting with the Pareto front, one a panel."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from harness.analysis import pareto_front
from harness.report.axes import error_bars, look, markers, metric_of, others, panel_axes, titled
from harness.report.direct import Named, label_points, settle
from harness.report.panels import Panel, curves_of
from harness.report.styles import Style
from harness.report.tables import each
from harness.report.views.base import panel_figure, views
from harness.support import text

_FRONT = "#555555"


def forgetting_of(panel: Panel) -> pd.DataFrame:
    """Return score against forgetting: one row per line and size.

    Columns: those of `curves_of`, forgetting (mean over seeds; null where unknown), forgetting_unit and on_front
    (whether no other row of the panel is at least as good and forgets no more). A panel whose backbones are measured
    in different units has null throughout.
    """
    rows = panel.rows[panel.rows["score"].notna()]
    amounts = rows["forgetting"] if rows["forgetting_unit"].nunique() == 1 else _unknown(rows)
    front = pareto_front(amounts, rows["score"], bool(rows["higher_is_better"].all()))
    unit = rows["forgetting_unit"].array
    return curves_of(panel).assign(forgetting=amounts.array, forgetting_unit=unit, on_front=front)


def _trained(panel: Panel) -> pd.DataFrame:
    """Return `forgetting_of`, null throughout where every row is 0: there is nothing to see."""
    found = forgetting_of(panel)
    is_moved = bool((found["forgetting"].fillna(0.0) != 0).any())
    return found if is_moved else found.assign(forgetting=_unknown(found).array)


def _unknown(rows: pd.DataFrame) -> pd.Series[float]:
    return pd.Series([None] * len(rows), index=rows.index, dtype="Float64")


def draw_score_against_forgetting(data: pd.DataFrame, drawn: Mapping[str, Style]) -> Figure:
    """Draw `forgetting_of` one panel, each method at its largest size; filled markers are on the Pareto front.

    The front is that of all sizes. Rows without a figure are counted below the axis.
    """
    with look():
        figure, axes = panel_axes(data)
        known = data[data["forgetting"].notna()].sort_values("n_train")
        last = known.drop_duplicates("line", keep="last")
        x_of, y_of = known["forgetting"].astype(float), known["score"].astype(float)
        front = known[known["on_front"]].sort_values("forgetting")
        if len(front) > 1:
            axes.plot(
                front["forgetting"].astype(float), front["score"].astype(float), color=_FRONT, linestyle="--", zorder=2
            )
            axes.lines[-1].set_drawstyle("steps-post")
        axes.scatter(x_of, y_of, s=10, color="#bbbbbb", zorder=1)
        named = []
        for row in each(last):
            style, at = drawn[row.line], [float(row.forgetting)]
            if style.is_muted:
                continue
            error_bars(axes, at, last[last["line"] == row.line], style, alpha=0.35)
            markers(axes, at, [float(row.score)], style, filled=bool(row.on_front), area=60)
            named.append(Named(at[0], float(row.score), row.line, style.colour))
        n_unknown = data["line"].nunique() - last["line"].nunique()
        sizes = "small points: other sizes; " if len(known) > len(last) else ""
        said = f"\n{sizes}dashed line and filled markers: Pareto front"
        said += f"\n{text.counted(n_unknown, 'method')} not drawn: forgetting unknown" if n_unknown else ""
        units = data["forgetting_unit"].dropna()
        axes.set_xlabel(f"forgetting on outside text, {units.iloc[0]}{said}{others(list(last['line']), drawn)}")
        axes.set_ylabel(metric_of(data))
        titled(figure, "Score against forgetting", data["panel"].iloc[0])
        axes.margins(x=0.08, y=0.12)
        settle(figure)
        label_points(axes, named, pd.DataFrame({"x": x_of, "y": y_of}).to_numpy())
    return figure


views.add(
    "forgetting",
    panel_figure(
        "forgetting",
        "Score against forgetting",
        data=_trained,
        draw=draw_score_against_forgetting,
        needs="forgetting",
        position=45,
        on_page=False,  # the page's scripts draw the same
    ),
)
