"""Answer "which method?" in one sentence that claims no more than the tests of `standings` show."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.report.contrasts import not_known, standings, tied_with_best
from harness.report.observations import RecordSource, observe
from harness.report.panels import Panel, panels
from harness.report.tables import each
from harness.support import text

_ABOUT_EQUAL = 1.25
"""Ratio of two training times below which they count as about equal."""

_MOST_NAMED = 3


@dataclass(frozen=True)
class _Settled:
    """The size of one panel that its answer is about.

    Attributes:
        panel: the panel.
        labels: the size in words: `With 192 labels`.
        best: row of `comparison` with the best mean.
        tied: rows of the other methods that are not shown to be worse, the cheapest first.
        unknown: methods that may or may not be worse.
        n_others: number of methods that compete with the best one.
    """

    panel: Panel
    labels: str
    best: Any
    tied: tuple[Any, ...]
    unknown: tuple[str, ...]
    n_others: int


def conclude(source: RecordSource) -> str | None:
    """Return the answer of a comparison as one sentence; None if nothing was scored.

    For one table, the sentence is about the largest of the sizes at which most methods compete. It names the best
    method, and the cheapest one that is not shown to be worse. Several tables are counted: nothing is tested across
    them.

    Raises:
        UsageError: there is no record.
    """
    observations = observe(source)
    found = standings(observations)
    settled = [one for panel in panels(observations) if (one := _settle(panel, found)) is not None]
    if not settled:
        return None
    return f"{_of_one(settled[0]) if len(settled) == 1 else _of_several(settled)}."


def _settle(panel: Panel, found: pd.DataFrame) -> _Settled | None:
    own = found[found["panel"] == panel.title]
    if own.empty:
        return None
    counts = own.groupby(["n_train", "draw"]).size()
    n_train, draw = max(counts.index, key=lambda key: (counts[key], key))
    at_size = own[(own["n_train"] == n_train) & (own["draw"] == draw)]
    scored = [row for row in each(panel.rows) if text.present(row.score)]
    sized = {row.variant: row for row in scored if (row.n_train, row.draw) == (n_train, draw)}
    rows = {row.variant: row for row in scored if row.n_train == 0} | sized  # the former compete at every size
    return _Settled(
        panel=panel,
        labels=_labels(next(iter(sized.values())), int(n_train), draw),
        best=rows[at_size.loc[at_size["is_best"], "variant"].iloc[0]],
        tied=tuple(sorted((rows[name] for name in tied_with_best(at_size)), key=_order_of_cost)),
        unknown=tuple(not_known(at_size)),
        n_others=len(at_size) - 1,
    )


def _labels(row: Any, n_train: int, draw: str) -> str:
    if n_train == 0:
        return "Without labels"
    if draw == "balanced" and text.present(row.n_per_class):
        words = f"With {text.counted(int(row.n_per_class), 'label')} of each class"
    else:
        words = f"With {text.counted(n_train, 'label')}"
    return f"{words} and one seed" if row.n_seeds == 1 else words


def _of_one(settled: _Settled) -> str:
    best, cheapest = settled.best, next(iter(settled.tied), None)
    name, result = text.plain(best.variant), f"{_score(best)}{_after(best)}"
    if not settled.n_others:
        return f"{settled.labels}, {name} scores {result}{_if_disturbed(best)}"
    said = f"{settled.labels}, {name} scores best: {result}"
    if cheapest is not None:
        return f"{said}; {_tied(cheapest, best)}{_if_disturbed(best, cheapest)}"
    if settled.unknown:
        are = "is" if len(settled.unknown) == 1 else "are"
        return f"{said}; whether {_listed(settled.unknown)} {are} worse could not be tested{_if_disturbed(best)}"
    others = "the other method is" if settled.n_others == 1 else f"each of the {settled.n_others} other methods is"
    return f"{said}; {others} shown to be worse{_if_disturbed(best)}"


def _tied(row: Any, best: Any) -> str:
    """Return what a method that is not shown to be worse costs: its own seconds if it is cheaper, else a ratio."""
    who = f"{text.plain(row.variant)}, which is not shown to be worse,"
    own, its = row.train_seconds, best.train_seconds
    if text.present(own) and text.present(its) and own > _ABOUT_EQUAL * its > 0:
        return f"{who} takes {_times(own / its)} as long"
    return f"{who} scores {text.score(row.score)}{_after(row, '')}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 9.95 else f"{ratio:,.0f} times"


def _of_several(settled: Sequence[_Settled]) -> str:
    """Count the tables in which methods are best, or not shown to be worse than the best."""
    best = Counter(text.plain(one.best.variant) for one in settled)
    not_worse = Counter(best)
    seconds: defaultdict[str, float] = defaultdict(float)
    for one in settled:
        not_worse.update(text.plain(row.variant) for row in one.tied)
        for row in (one.best, *one.tied):
            seconds[text.plain(row.variant)] += row.train_seconds if text.present(row.train_seconds) else float("inf")
    by_task = len({one.panel.task for one in settled}) == len(settled)
    noun = "task" if by_task else "table"
    first, n_first = min(best.items(), key=lambda item: (-item[1], item[0]))
    said = f"{first} scores best on {n_first} of {text.counted(len(settled), noun)}, each at its largest size"
    often, n_often = min(not_worse.items(), key=lambda item: (-item[1], seconds[item[0]] / item[1], item[0]))
    if often != first:
        return f"{said}; {often} is best or not shown to be worse on {n_often}"
    return f"{said}; it is best or not shown to be worse on {n_often}"


def _score(row: Any) -> str:
    ends = (row.score_low, row.score_high)
    interval = f" [{text.score(ends[0])}, {text.score(ends[1])}]" if all(map(text.present, ends)) else ""
    return f"{text.plain(row.metric)} {text.score(row.score)}{interval}"


def _after(row: Any, of_what: str = " of training") -> str:
    return f" after {text.seconds(row.train_seconds)}{of_what}" if text.present(row.train_seconds) else ""


def _if_disturbed(*rows: Any) -> str:
    """Return a warning if seconds in the sentence were measured on a busy machine."""
    disturbed = any(row.n_unsteady and row.n_unsteady == row.n_seeds for row in rows if text.present(row.train_seconds))
    return " (the machine was busy: these seconds are unreliable)" if disturbed else ""


def _order_of_cost(row: Any) -> tuple[float, str]:
    return (row.train_seconds if text.present(row.train_seconds) else float("inf"), row.variant)


def _listed(names: Sequence[str]) -> str:
    shown = [text.plain(name) for name in names[:_MOST_NAMED]]
    if len(names) > _MOST_NAMED:
        shown.append(f"{len(names) - _MOST_NAMED} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
