"""The contract of a table or figure: one file of this folder adds one `View`, and nothing else needs an edit.

A view gives a CSV file, blocks of report.md and of the page, or both. `write` and `page` render the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import pandas as pd
from matplotlib.figure import Figure

from harness.analysis import NO_PRICES, Prices
from harness.report.across import TaskRanking, across_tasks
from harness.report.blocks import Block, Picture
from harness.report.contrasts import groups, standings
from harness.report.highlights import coloured, highlighted
from harness.report.known_rows import KnownTexts
from harness.report.observations import Observations, RecordSource, observe
from harness.report.panels import Panel, curves_of, panels
from harness.report.reading_order import in_reading_order
from harness.report.styles import Style, groups_in, lines_in, styles, with_backbones
from harness.report.tables import comparison
from harness.report.winners import A, Answers, Winner, of_form, tabulated, winner_of
from harness.support import Registry


class ReportData:
    """The data that the views of one report share, each computed once.

    Args:
        source: records with their predictions; without them, intervals over several seeds cover seeds only.
        texts: texts of test rows, for the errors that a report shows.
        prices: the user's prices of machines and served models.

    Raises:
        UsageError: there is no record.
    """

    def __init__(self, source: RecordSource, texts: KnownTexts | None = None, prices: Prices = NO_PRICES) -> None:
        self.observations: Observations = observe(source)
        self.texts: KnownTexts = texts or {}
        self.prices = prices
        self._styles_by_panel: dict[str, dict[str, Style]] = {}

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """One row per configuration and size (see `tables.comparison`)."""
        return comparison(self.observations)

    @cached_property
    def panels(self) -> list[Panel]:
        """The rows of `comparison` that may stand in one table, in the order of the report."""
        return in_reading_order(panels(self.comparison))

    @cached_property
    def standings(self) -> pd.DataFrame:
        """The methods in order at each size (see `contrasts.standings`)."""
        return standings(self.observations)

    @cached_property
    def rankings(self) -> list[TaskRanking]:
        """Methods ranked over tasks."""
        return across_tasks(self.observations)

    @cached_property
    def styles(self) -> dict[str, Style]:
        """The style of each line, the same in all figures."""
        curves = [curves_of(panel) for panel in self.panels]
        found = styles({pair for data in curves for pair in lines_in(data)})
        groups = {line: of_line for data in curves for line, of_line in groups_in(data).items()}
        has_backbones = any(backbone is not None for _, backbone in groups.values())
        return with_backbones(found, groups) if has_backbones else found

    @cached_property
    def winners(self) -> dict[str, Winner[Answers]]:
        """The best configuration of each panel at its largest size, by the title of the panel."""
        scored = groups(self.observations)
        found = {panel.title: winner_of(panel, self.observations, scored, self.texts) for panel in self.panels}
        return {title: winner for title, winner in found.items() if winner is not None}

    def winner(self, panel: Panel, form: type[A]) -> Winner[A] | None:
        """Return the winner of a panel if its answers are of a form, such as `ClassAnswers`; else None."""
        return of_form(self.winners.get(panel.title), form)

    def tabulated(self, form: type[A], table: Callable[[Winner[A]], pd.DataFrame]) -> pd.DataFrame:
        """Return one table of the winners of all panels whose answers are of a form (see `winners.tabulated`)."""
        return tabulated(self.panels, self.winners, form, table)

    def styles_of(self, panel: Panel) -> dict[str, Style]:
        """Return the style of each line in the figures of one panel: the most important are coloured."""
        if panel.title not in self._styles_by_panel:
            lines = list(curves_of(panel)["line"].unique())
            found = coloured(lines, highlighted(panel, self.standings_of(panel)), self.styles)
            self._styles_by_panel[panel.title] = found
        return self._styles_by_panel[panel.title]

    def standings_of(self, panel: Panel) -> pd.DataFrame:
        """Return the rows of `standings` of one panel."""
        return self.standings[self.standings["panel"] == panel.title]


@dataclass(frozen=True)
class Section:
    """A part of the report after the panels.

    Attributes:
        anchor: its name in links on the page.
        heading: its heading.
        page_heading: a longer heading on the page, where it has one.
    """

    anchor: str
    heading: str
    page_heading: str = ""


ACROSS = Section("across", "Across tasks")
FAILURES = Section("failures", "What did not work", "What did not work, and what is missing")


@dataclass(frozen=True, kw_only=True)
class View:
    """One table or figure of the report.

    Attributes:
        position: order among the views, and of the section among the sections; panels come first.
        csv: computes the table that is written to NAME.csv; an empty one is not written.
        in_panel: returns its blocks in the part of a panel.
        in_section: returns its blocks in `section`.
        section: where `in_section` stands.
        latex: writes a table for papers, to tables/PANEL.tex.
    """

    position: int = 80
    csv: Callable[[ReportData], pd.DataFrame] | None = None
    in_panel: Callable[[ReportData, Panel], Iterable[Block]] | None = None
    in_section: Callable[[ReportData], Iterable[Block]] | None = None
    section: Section = ACROSS
    latex: Callable[[ReportData, Panel], str] | None = None


def panel_figure(
    stem: str,
    title: str,
    *,
    data: Callable[[Panel], pd.DataFrame],
    draw: Callable[[pd.DataFrame, Mapping[str, Style]], Figure],
    needs: str = "score",
    position: int = 80,
    on_page: bool = True,
) -> View:
    """Return the view of a figure that every panel with a score has.

    Args:
        stem: end of its files' names.
        title: what the figure shows.
        data: computes its data from a panel.
        draw: draws the data, given the style of each line.
        needs: column of the data; panels in which it is null throughout have no such figure.
        position: order among the views.
        on_page: whether the page shows it too.
    """

    def blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
        if panel.metric is None:
            return
        found = data(panel)
        if found[needs].notna().any():
            drawn = partial(draw, found, report.styles_of(panel))
            yield Picture(stem, f"{title}: {panel.title}", drawn, on_page=on_page, data=found)

    return View(position=position, in_panel=blocks)


views: Registry[View] = Registry("view", "harness.report.views")
"""All tables and figures, by the name of their file."""


def in_order() -> list[tuple[str, View]]:
    """Return the names and views in the order of the report."""
    return sorted(((name, views.get(name)) for name in views.names()), key=lambda item: (item[1].position, item[0]))


def sections(report: ReportData) -> Iterator[tuple[Section, list[Block]]]:
    """Return the sections after the panels, with the blocks of their views."""
    found: dict[Section, list[Block]] = {}
    for _, view in in_order():
        if view.in_section is not None:
            found.setdefault(view.section, []).extend(view.in_section(report))
    return iter(found.items())


def panel_blocks(report: ReportData, panel: Panel) -> Iterator[Block]:
    """Return the blocks of all views in the part of one panel."""
    for _, view in in_order():
        if view.in_panel is not None:
            yield from view.in_panel(report, panel)
