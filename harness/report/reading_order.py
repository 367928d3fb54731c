"""Order the panels of a report: those that answer a reader's question best come first."""

from __future__ import annotations

from collections.abc import Iterable

from harness.report.panels import Panel


def in_reading_order(panels: Iterable[Panel]) -> list[Panel]:
    """Return the panels in the order of the page and of report.md.

    Panels on which the defaults were tuned and panels with one seed come last: their scores say less about other data.
    Otherwise those with more methods come first, then those with more methods that use a backbone, then those with more
    seeds and sizes.
    """
    return sorted(panels, key=_place)


def _place(panel: Panel) -> tuple[bool, int, int, int, int, str]:
    scored = panel.rows[panel.rows["score"].notna()]
    with_backbone = scored[scored["backbone"].notna()]
    n_seeds = int(scored["n_seeds"].max()) if len(scored) else 0
    return (
        panel.defaults_chosen_here or n_seeds < 2,
        -int(scored["variant"].nunique()),
        -int(with_backbone["variant"].nunique()),
        -n_seeds,
        -int(scored["n_train"].nunique()),
        panel.title,
    )
