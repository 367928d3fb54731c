"""Collect the figures and tables of a report, each with its permanent address, data and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.analysis import write_csv
from harness.report import (
    Block,
    Panel,
    Picture,
    ReportData,
    TableBlock,
    in_order,
    save_figure,
    sections,
)
from harness.site.addresses import address_of, panel_addresses

FORMATS = ("png", "svg")
"""Formats of the figures of a site."""

AS_FILES = "All results as files"
"""Heading of the tables that cover a whole report."""


@dataclass(frozen=True)
class Item:
    """One figure or table of a report.

    Attributes:
        address: its permanent address within the report.
        title: what it shows.
        part: heading under which it stands, such as the title of its panel.
        block: how it is drawn; None for a table that is a file alone.
        data: its numbers.
    """

    address: str
    title: str
    part: str
    block: Picture | TableBlock | None
    data: pd.DataFrame

    @property
    def is_figure(self) -> bool:
        """Whether it is a figure."""
        return isinstance(self.block, Picture)


class Addresses:
    """Addresses of the figures and tables of one report.

    Args:
        report: data of the report.
    """

    def __init__(self, report: ReportData) -> None:
        self._panels = panel_addresses(report.panels)

    def of(self, panel: Panel | None, block: Picture | TableBlock) -> str:
        """Return the address of a figure or table, given its panel or None for a section."""
        name = address_of((block.name or block.stem) if isinstance(block, Picture) else f"table {block.title}")
        return name if panel is None else f"{self._panels[panel.title]}-{name}"


def items_of(report: ReportData, addresses: Addresses) -> list[Item]:
    """Return the figures and tables of a report in its order; of two with one address, the first."""
    found: dict[str, Item] = {}
    for item in _items(report, addresses):
        found.setdefault(item.address, item)
    return list(found.values())


def _items(report: ReportData, addresses: Addresses) -> Iterator[Item]:
    for panel in report.panels:
        blocks = (
            block for _, view in in_order() if view.in_panel is not None for block in view.in_panel(report, panel)
        )
        yield from _of_blocks(blocks, panel.title, lambda block, panel=panel: addresses.of(panel, block))  # type: ignore[misc]
    for section, of_section in sections(report):
        yield from _of_blocks(of_section, section.heading, lambda block: addresses.of(None, block))
    for name, view in in_order():
        frame = view.csv(report) if view.csv is not None else pd.DataFrame()
        if not frame.empty:
            yield Item(address_of(f"all {name}"), f"{name}.csv", AS_FILES, None, frame)


def _of_blocks(blocks: Iterable[Block], part: str, address: Callable[[Picture | TableBlock], str]) -> Iterator[Item]:
    for block in blocks:
        if isinstance(block, Picture | TableBlock):
            title = block.title.removesuffix(f": {part}")
            yield Item(address(block), title, part, block, _data(block))


def _data(block: Picture | TableBlock) -> pd.DataFrame:
    if block.data is not None:
        return block.data
    if isinstance(block, Picture):
        return pd.DataFrame()
    return pd.DataFrame([list(row) for row in block.rows], columns=list(block.header))


def write_item(item: Item, folder: Path) -> None:
    """Write the data of a figure or table as CSV, and a figure as PNG and SVG."""
    write_csv(item.data, folder / f"{item.address}.csv")
    if isinstance(item.block, Picture):
        _draw(item.block, folder / item.address)


def _draw(picture: Picture, stem: Path) -> None:
    save_figure(picture.draw(), stem, FORMATS)
