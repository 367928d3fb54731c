"""The blocks that a view consists of, which report.md and the page render each in its own syntax."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.support import text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Words:
    """Text, already written in the syntax of each rendering; an empty one is left out there."""

    markdown: str = ""
    html: str = ""


@dataclass(frozen=True)
class TableBlock:
    """A table of plain text.

    Attributes:
        title: accessible name of the table on the page.
        header: names of the columns.
        rows: one field a column.
        n_names: number of leading columns that hold names and other text, set left; the others hold figures.
        in_markdown: whether report.md shows it.
        on_page: whether the page shows it.
        data: the numbers behind it, unrounded; None where the rows are all there is.
        note: how to read it, where it stands alone.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_names: int = 1
    in_markdown: bool = True
    on_page: bool = True
    data: pd.DataFrame | None = None
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure, drawn when it is rendered.

    Attributes:
        stem: name of its files; in a panel it follows the panel's own stem.
        title: its title in report.md.
        draw: draws it.
        alt: description for readers who do not see it on the page; the title where empty.
        has_heading: whether the page shows the title above it.
        on_page: whether the page shows it; report.md always does.
        data: the numbers that it shows.
        name: what its permanent address in a published site ends in; `stem` where empty. It must not depend on which
            other figures there are.
    """

    stem: str
    title: str
    draw: Callable[[], Figure]
    alt: str = ""
    has_heading: bool = False
    on_page: bool = True
    data: pd.DataFrame | None = None
    name: str = ""


Block = Words | TableBlock | Picture
"""One part of a view in report.md or on the page."""


def said(words: str) -> Words:
    """Return a paragraph of plain text for both renderings."""
    return Words(text.markdown(words), f"<p>{html.escape(text.plain(words))}</p>")


def markdown_table(table: TableBlock) -> str:
    """Return a table in Markdown: names are escaped and set left, figures are set right as they are."""
    rule = [":--" if i < table.n_names else "--:" for i in range(len(table.header))]
    rows = [[text.markdown(field) if i < table.n_names else field for i, field in enumerate(row)] for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (table.header, rule, *rows))
