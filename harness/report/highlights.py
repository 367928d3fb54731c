"""Choose the methods that figures colour and name; all others are thin and grey."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pandas as pd
from matplotlib.colors import to_rgb

from harness.analysis import pareto_front
from harness.report.panels import Panel, curves_of
from harness.report.styles import COLOURS, Style

MOST_COLOURED = 8
"""Maximum number of coloured lines in a figure."""

_COMMON = ("full", "lora", "linear-probe", "tfidf")
"""Methods that readers compare others with, coloured where they are present."""

GREY = "#c8c8c8"
"""Colour of what is not highlighted."""

_COLOURS = tuple("#222222" if len(set(to_rgb(colour))) == 1 else colour for colour in COLOURS)  # grey means the others


def highlighted(panel: Panel, standings: pd.DataFrame) -> list[str]:
    """Return the lines of a panel's figures to colour, at most `MOST_COLOURED`, the most important first.

    These are the best method at each size, the Pareto front of score and training seconds, common methods, those tied
    with the best, and then others in order of their score.

    Args:
        panel: the panel.
        standings: its rows of `contrasts.standings`.
    """
    rows = panel.rows[panel.rows["score"].notna()]
    curves = curves_of(panel)
    lines = dict(zip(zip(rows["variant"], rows["draw"], strict=True), curves["line"], strict=True))
    front = pareto_front(rows["train_seconds"], rows["score"], panel.higher_is_better)
    largest_first = standings.sort_values("n_train", ascending=False, kind="stable")
    tied = largest_first[largest_first["is_tied"].fillna(False)]
    best = tied[tied["is_best"]]
    on_front = curves[front].sort_values("score", ascending=not panel.higher_is_better)
    as_usual = curves[curves["draw"] != "balanced"]
    common = [str(line) for name in _COMMON for line in as_usual.loc[as_usual["configuration"] == name, "line"]]
    order = [*_lines(best, lines), *on_front["line"], *common, *_lines(tied, lines), *curves["line"]]
    return list(dict.fromkeys(order))[:MOST_COLOURED]


def _lines(standings: pd.DataFrame, lines: Mapping[tuple[str, str], str]) -> Iterable[str]:
    """Return the lines of rows of standings; methods without labels stand at every size under their own draw."""
    for variant, draw in zip(standings["variant"], standings["draw"], strict=True):
        found = lines.get((variant, draw)) or next((line for key, line in lines.items() if key[0] == variant), None)
        if found is not None:
            yield found


def coloured(lines: Iterable[str], shown: Iterable[str], found: Mapping[str, Style]) -> dict[str, Style]:
    """Return the styles of a figure's lines: colours of their own for some, grey for all others.

    Args:
        lines: all lines.
        shown: those to colour, at most `MOST_COLOURED`; backbones of one configuration share a colour.
        found: the style of each line in the report; its colour is kept where it is free.
    """
    styles = {line: replace(found[line], colour=GREY, is_muted=True) for line in lines}
    free = list(_COLOURS)
    given: dict[str, str] = {}
    for line in shown:
        group = found[line].group or line
        if group not in given:
            given[group] = found[line].colour if found[line].colour in free else free[0]
            free.remove(given[group])
        styles[line] = replace(found[line], colour=given[group])
    return styles
