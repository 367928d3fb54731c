"""Table: methods by training size (comparison.csv, and LaTeX for papers)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.report.blocks import Block, Words
from harness.report.caption import COSTS, cautions, coverage, scores_said
from harness.report.latex import latex_pivot
from harness.report.panels import Panel
from harness.report.pivot import pivot_table
from harness.report.tables import each
from harness.report.views.base import ReportData, View, views
from harness.support import text


def _caption(panel: Panel) -> list[str]:
    said = [f"{scores_said(panel)}, in brackets; the best at each size is bold", COSTS]
    return [*said, *coverage(panel), *cautions(panel)]


def _blocks(_: ReportData, panel: Panel) -> Iterator[Block]:
    caption = _caption(panel)
    yield pivot_table(panel, " ".join(f"{text.plain(line)}." for line in caption))
    yield Words(" ".join(f"{text.markdown(line)}." for line in caption))
    if panel.metric is None:
        yield Words("Nothing was scored, so there is nothing to draw.")


def _latex(report: ReportData, panel: Panel) -> str:
    own = report.standings_of(panel)
    is_tied = own["is_tied"]
    return latex_pivot(panel, _at_sizes(panel, own[is_tied.fillna(False)]), _at_sizes(panel, own[is_tied.isna()]))


def _at_sizes(panel: Panel, standings: pd.DataFrame) -> set[tuple[str, str]]:
    """Return (method, label of the size) of some rows of the standings."""
    per_class = {(row.n_train, row.draw): row.n_per_class for row in each(panel.rows)}
    return {
        (text.plain(row.variant), text.size(row.n_train, row.draw, per_class.get((row.n_train, row.draw))))
        for row in each(standings)
    }


def _csv(report: ReportData) -> pd.DataFrame:
    """Return the comparison; parts of names with a backbone, and audited defaults, only where there are some."""
    found = report.comparison
    if not found["backbone_label"].notna().any():
        found = found.drop(columns=["configuration", "backbone_label"])
    is_flagged = found["default_points_behind"].notna().any()
    return found if is_flagged else found.drop(columns=["default_points_behind", "default_better"])


views.add("comparison", View(position=10, csv=_csv, in_panel=_blocks, latex=_latex))
