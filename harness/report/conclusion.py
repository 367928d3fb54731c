"""Say the outcome of a run in one sentence: the choice of `answer` without limits, which the page's answer says too."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.answer import MOST_NAMED, Choice, Size, at_labels, choose, has_two_seeds, main_size, sizes_of_panels
from harness.report.observations import RecordSource, observe
from harness.report.panels import Panel, panels
from harness.report.rows import Row, columns_of, each_row, floors
from harness.support import text


@dataclass(frozen=True)
class _Settled:
    """The choice at the main size of one panel.

    Attributes:
        panel: the panel.
        size: its main size.
        rows: the rows that compete there, in the order of `size.rows`.
        choice: the choice among them.
        is_last: whether no size has more labels.
    """

    panel: Panel
    size: Size
    rows: Sequence[Row]
    choice: Choice
    is_last: bool

    @property
    def best(self) -> Row:
        """Row of the best method."""
        assert self.choice.best is not None  # without limits everything fits
        return self.rows[self.choice.best]

    @property
    def tied(self) -> list[Row]:
        """Rows of methods that tie with the best, but for the majority baseline: the best mean score first."""
        return [self.rows[place] for place in self.choice.tied if place != self.choice.floor]


def conclude(source: RecordSource) -> str | None:
    """Return the answer of a comparison as one sentence; None if nothing was scored.

    For one table, the sentence is about its main size (`answer.main_size`). It names the best method, and what ties
    with it. Several tables are counted: nothing is tested across them.

    Raises:
        UsageError: there is no record.
    """
    observations = observe(source)
    found = panels(observations)
    sizes = sizes_of_panels(observations, found)
    of_floors = floors(observations)
    settled = [_settle(panel, sizes[panel.title], of_floors) for panel in found if sizes[panel.title]]
    if not settled:
        return None
    return f"{_of_one(settled[0]) if len(settled) == 1 else _of_several(settled)}."


def _settle(panel: Panel, sizes: Sequence[Size], of_floors: set[str]) -> _Settled:
    rows = each_row(columns_of(panel, of_floors))
    at = main_size(sizes, rows)
    own = [rows[i] for i in sizes[at].rows]
    return _Settled(panel, sizes[at], own, choose(sizes[at], rows, {}), is_last=at == len(sizes) - 1)


def _of_one(settled: _Settled) -> str:
    best, choice, tied = settled.best, settled.choice, settled.tied
    without = best["n_train"] == 0 and any(row["n_train"] > 0 for row in settled.rows)  # one cell counts for all seeds
    labels = at_labels(settled.rows) + " and one seed" * (best["n_seeds"] == 1 and not without)
    result = f"{settled.panel.metric} {_result(best, settled.panel)}{_after(best, ' of training')}"
    if len(settled.rows) == 1:
        return f"{labels}, {best['name']} scores {result}{_if_disturbed(settled, choice.best)}"
    said = f"{labels}, {best['name']} scores best{' without any' * without}: {result}"
    if choice.saver is not None:
        saver = settled.rows[choice.saver]
        said += f"; {saver['name']}, which is not shown to be worse, scores {text.score(saver['score'])}{_after(saver)}"
    elif tied:
        said += f"; {_listed(tied)} {_is(tied)} not shown to be worse"
    elif choice.untested:
        untested = [settled.rows[place] for place in choice.untested]
        said += f"; whether {_listed(untested)} {_is(untested)} worse could not be tested"
        said += " with two seeds" * has_two_seeds(choice, settled.rows)
    elif not choice.tied:
        n = len(settled.rows) - 1
        said += f"; {'the other method is' if n == 1 else f'each of the {n} other methods is'} shown to be worse"
    if choice.beats_floor is False and choice.floor not in (None, choice.best):
        floor = settled.rows[choice.floor]
        said += f"; it is not shown to beat {floor['name']} ({text.score(floor['score'])})"
    return said + _if_disturbed(settled, choice.best, choice.saver)


def _of_several(settled: Sequence[_Settled]) -> str:
    """Count the tables in which methods are best, or not shown to be worse than the best."""
    best = Counter(one.best["name"] for one in settled)
    not_worse = Counter(best)
    seconds: defaultdict[str, float] = defaultdict(float)
    for one in settled:
        not_worse.update(row["name"] for row in one.tied)
        for row in (one.best, *one.tied):
            seconds[row["name"]] += row["train"] if row["train"] is not None else float("inf")
    by_task = len({one.panel.task for one in settled}) == len(settled)
    noun = "task" if by_task else "table"
    at = "its largest size" if all(one.is_last for one in settled) else "the largest size that most methods have"
    first, n_first = min(best.items(), key=lambda item: (-item[1], item[0]))
    said = f"{first} scores best on {n_first} of {text.counted(len(settled), noun)}, each at {at}"
    if all(one.choice.untested and not one.tied for one in settled):
        return f"{said}; differences could not be tested"
    often, n_often = min(not_worse.items(), key=lambda item: (-item[1], seconds[item[0]] / item[1], item[0]))
    return f"{said}; {'it' if often == first else often} is best or not shown to be worse on {n_often}"


def _result(row: Row, panel: Panel) -> str:
    direction = "" if panel.higher_is_better else " (lower is better)"
    interval = f" [{text.score(row['low'])}, {text.score(row['high'])}]" if row["low"] is not None else ""
    return f"{text.score(row['score'])}{interval}{direction}"


def _after(row: Row, of_what: str = "") -> str:
    return f" after {text.seconds(row['train'])}{of_what}" if row["train"] is not None else ""


def _if_disturbed(settled: _Settled, *places: int | None) -> str:
    """Return a warning if seconds in the sentence were measured on a busy machine."""
    rows: Iterable[Any] = (
        settled.panel.rows.iloc[settled.size.rows[place]]
        for place in places
        if place is not None and settled.rows[place]["train"] is not None
    )
    disturbed = any(row.n_unsteady and row.n_unsteady == row.n_seeds for row in rows)
    return " (the machine was busy: these seconds are unreliable)" if disturbed else ""


def _is(rows: Sequence[Row]) -> str:
    return "is" if len(rows) == 1 else "are"


def _listed(rows: Sequence[Row]) -> str:
    shown = [row["name"] for row in rows[:MOST_NAMED]]
    if len(rows) > MOST_NAMED:
        shown.append(f"{len(rows) - MOST_NAMED} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
