"""Style of all figures: settings, axes and markers; saving figures as files.

Figures are made without pyplot, so that drawing picks no backend and leaves no state behind.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.panels import scored_by
from harness.report.styles import Style
from harness.support import text

FIGURE_FORMATS: tuple[str, ...] = ("png", "svg", "pdf")


_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Metadata left out, since they would differ from one run to the next."""


_RC = {
    "text.parse_math": False,  # dollar signs in a name do not start mathematics
    "svg.hashsalt": "adaptation-harness",  # the same data gives the same bytes
    "svg.fonttype": "path",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.edgecolor": "#888888",
    "font.size": 10.0,
}


def save_figure(figure: Figure, stem: Path, formats: Sequence[str] = FIGURE_FORMATS) -> list[Path]:
    """Write a figure as STEM.png and so on, and return the paths. The same data give the same bytes."""
    paths = [stem.with_name(f"{stem.name}.{name}") for name in formats]
    with look():
        for path, name in zip(paths, formats, strict=True):
            figure.savefig(path, dpi=150, bbox_inches="tight", metadata=_METADATA[name])
    return paths


@contextmanager
def look() -> Iterator[None]:
    """Apply the settings of all figures; draw and save them within."""
    settings: Any = {**sns.axes_style("whitegrid"), **_RC}
    with warnings.catch_warnings(), mpl.rc_context(settings):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as a box: no harm
        yield


def panel_axes(data: pd.DataFrame, height: float = 4.6) -> tuple[Figure, Axes]:
    """Return an empty figure for the data of one panel, of a height in inches.

    Raises:
        ValueError: the data are those of no panel, or of several.
    """
    if data.empty or data["panel"].nunique() != 1:
        raise ValueError(f"Rows of {data['panel'].nunique()} panels were given; expected those of one.")
    figure = Figure(figsize=(8.4, height), layout="constrained")
    axes = figure.subplots()
    sns.despine(ax=axes)
    return figure, axes


def metric_of(data: pd.DataFrame) -> str:
    """Return the metric of the data of one panel in words, with its direction where lower is better."""
    return scored_by(str(data["metric"].iloc[0]), higher_is_better=bool(data["higher_is_better"].all()))


def others(lines: Sequence[str], drawn: Mapping[str, Style]) -> str:
    """Return a note on the grey lines of a figure, on a line of its own; empty where there are none."""
    n = sum(drawn[line].is_muted for line in lines)
    return f"\ngrey: {text.counted(n, 'other method')}" if n else ""


def error_bars(axes: Axes, x: Any, own: pd.DataFrame, style: Style, alpha: float = 0.75) -> None:
    """Draw the 95 % intervals of a line at `x`."""
    has = (own["low"].notna() & own["high"].notna()).to_numpy(bool)
    low, high = own["low"].to_numpy(float, na_value=np.nan), own["high"].to_numpy(float, na_value=np.nan)
    axes.vlines(np.asarray(x)[has], low[has], high[has], color=style.colour, linewidth=1.3, alpha=alpha, zorder=2)


def markers(axes: Axes, x: Any, y: Any, style: Style, *, filled: bool, area: float = 46) -> None:
    """Draw the markers of a line, of an area in square points."""
    face, edge = (style.colour, "white") if filled else ("white", style.colour)
    width = 0.8 if filled else 1.4
    axes.scatter(x, y, s=area, marker=style.marker, facecolor=face, edgecolor=edge, linewidth=width, zorder=4)


def doublings(sizes: Sequence[int]) -> float:
    """Return the least distance between neighbouring sizes in doublings; 1 where there is one size."""
    gaps = [math.log2(high / low) for low, high in pairwise(sizes)]
    return min(gaps, default=1.0)


def titled(figure: Figure, shows: str, where: str) -> None:
    """Write the title of a figure: what it shows, and below it the panel or the setting, on at most two lines."""
    figure.suptitle(f"{shows}\n{wrapped(where, 90)}".rstrip(), x=0.012, ha="left", fontsize=11)


def wrapped(title: str, width: int) -> str:
    """Break a title into at most two lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(text.plain(str(title)), width, max_lines=2, placeholder=" …"))
