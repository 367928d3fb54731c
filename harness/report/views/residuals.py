"""Figure and table: estimates and residuals of the best method of each panel of numbers (residuals.csv)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.analysis import NumberAnswers, residuals_by_truth
from harness.report.axes import look, titled
from harness.report.blocks import Block, Picture, Words, said
from harness.report.number_tables import NOT_ON_SCALE, RESIDUAL, by_truth_table
from harness.report.panels import Panel
from harness.report.views.base import ReportData, View, views
from harness.support import text

_BLUE, _ORANGE, _GREY = "#0173b2", "#d55e00", "#555555"
_OPAQUE_POINTS = 300
"""Number of points up to which a figure draws them at full strength; more points are drawn fainter."""


def draw_residuals(answers: NumberAnswers, title: str, panel: str) -> Figure:
    """Draw estimates against true numbers, and residuals against estimates: a point for each test row and seed.

    Without a common scale only the estimates are drawn.
    """
    truth = np.tile(np.asarray(answers.truth, dtype=float), answers.n_fits)
    estimate = np.asarray(answers.estimate, dtype=float).reshape(-1)
    with look():
        figure = Figure(figsize=(8.4, 4.4), layout="constrained")
        if not answers.is_on_scale:
            axes = figure.subplots()
            _points(axes, truth, estimate)
            axes.set_xlabel("true number")
            axes.set_ylabel("estimate (only its order has a meaning)")
        else:
            left, right = figure.subplots(1, 2)
            _points(left, truth, estimate)
            ends = _padded(np.concatenate([truth, estimate]))
            left.plot(ends, ends, color=_GREY, linewidth=1.2, linestyle="--", zorder=3)
            left.set(xlim=ends, ylim=ends, xlabel="true number\n(dashed: estimate and true number are equal)")
            left.set_ylabel("estimate")
            left.set_aspect("equal")
            _points(right, estimate, estimate - truth)
            right.axhline(0.0, color=_GREY, linewidth=1.2, linestyle="--", zorder=3)
            _mean_line(right, estimate, estimate - truth)
            right.set_xlabel("estimate\n(orange: mean residual of a tenth of the points)")
            right.set_ylabel("residual: estimate less true number")
        titled(figure, title, panel)
        for axes in figure.axes:
            sns.despine(ax=axes)
    return figure


def _points(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    # Thousands of points as one image: as shapes they would make the page large.
    strength = min(0.6, max(0.08, 0.6 * (_OPAQUE_POINTS / max(1, len(x))) ** 0.5))
    axes.scatter(x, y, s=12, color=_BLUE, alpha=strength, linewidth=0, rasterized=True, zorder=2)


def _mean_line(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Draw the mean of `y` over ten groups of equal count in the order of `x`, where there are enough points."""
    if len(x) < 50 or np.ptp(x) == 0:
        return
    parts = np.array_split(np.argsort(x, kind="stable"), 10)
    at = [float(x[part].mean()) for part in parts]
    axes.plot(at, [float(y[part].mean()) for part in parts], color=_ORANGE, linewidth=1.8, zorder=4)


def _padded(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    pad = 0.04 * (high - low) or 1.0
    return low - pad, high + pad


def _points_frame(answers: NumberAnswers) -> pd.DataFrame:
    """Return a row for each fit and test row: the true number and the estimate."""
    n_fits, n_rows = answers.n_fits, answers.n_rows
    return pd.DataFrame(
        {
            "fit": np.repeat(np.arange(n_fits), n_rows),
            "test_row": np.tile(np.arange(n_rows), n_fits),
            "truth": np.tile(np.asarray(answers.truth, dtype=np.float64), n_fits),
            "estimate": np.asarray(answers.estimate, dtype=np.float64).reshape(-1),
        }
    )


def _blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
    winner = report.winner(panel, NumberAnswers)
    if winner is None:
        return
    yield Words(f"### Where {text.markdown(winner.variant)} is wrong")
    told = RESIDUAL if winner.answers.is_on_scale else NOT_ON_SCALE
    yield said(f"The best of this panel at its largest size is {winner.basis}. {told}")
    shows = "Estimates and residuals" if winner.answers.is_on_scale else "Estimates"
    title = f"{shows} of {winner.variant}"
    draw = partial(draw_residuals, winner.answers, title, panel.title)
    alt = f"{title} against the true numbers, a point for each test row and seed"
    yield Picture("residuals", f"{title}: {panel.title}", draw, text.plain(alt), data=_points_frame(winner.answers))
    found = residuals_by_truth(winner.answers)
    if not found.empty:
        yield by_truth_table(found)


def _csv(report: ReportData) -> pd.DataFrame:
    return report.tabulated(NumberAnswers, lambda winner: residuals_by_truth(winner.answers))


views.add("residuals", View(position=82, csv=_csv, in_panel=_blocks))
