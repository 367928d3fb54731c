"""Answer which method to use within a budget, in words; `assets/answer.js` follows the same rule on the page.

The sentence of a run (`conclusion`) says the same choice without limits.

The rule, for a number of labels and limits on training seconds, memory and trainable parameters:

- Methods are compared at the largest measured size that has at most so many labels. Methods that need no labels compete
  at every size. A method fits if each limited cost is known and within its limit.
- **Use** the method with the best mean score among those that fit.
- Another method **ties** with it if the test on shared test rows and seeds does not show it to be worse: its p-value is
  0.05 or above after Holm's correction over the methods that fit. A method without a test is never called tied.
  The answer names the tied method that trains fastest, if it takes at most three quarters of the time.
- A method is **cheap** if it trains in a tenth of the time or less and is shown to beat the majority baseline, where
  that was measured. The answer names the cheap method with the best score; up to 3 % of the time is "nearly free". It
  names none if the best method itself trains within 5 seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import pandas as pd

from harness.analysis import holm
from harness.report.contrasts import LEVEL, contrasts, rivals_by_size
from harness.report.observations import Observations
from harness.report.panels import Panel
from harness.report.rows import Row
from harness.report.tables import each
from harness.support import text

LIMITS: dict[str, str] = {"train": "training time", "memory": "memory", "trainable": "trainable parameters"}
"""Costs that a reader may limit, by their column on the page."""

_MUCH_CHEAPER = 0.75
_CHEAP = 0.1
_NEARLY_FREE = 0.03
_WORTH_SAVING_SECONDS = 5.0

Spans = list[tuple[str, str]]
"""Parts of a text: ("", words) and ("use", method), or ("method", method)."""


@dataclass(frozen=True)
class Size:
    """The methods that compete at one training size of a panel, and the tests between them.

    Attributes:
        n_train: number of labels.
        draw: how they were drawn.
        rows: positions of their rows in the panel, best mean score first.
        p_values: for each place in `rows` that is the best of some budget, the p-values of its differences to all later
            places, uncorrected. None where no test is possible; negative where the later method is ahead on the seeds
            that both share.
        half_widths: for the same places, the median half width of the intervals of these differences.
    """

    n_train: int
    draw: str
    rows: list[int]
    p_values: dict[int, list[float | None]] = field(default_factory=dict)
    half_widths: dict[int, float | None] = field(default_factory=dict)

    def p_value(self, place: int, later: int) -> float | None:
        """Return the p-value of the difference between the methods at two places; see `p_values`."""
        found = self.p_values.get(place)
        return None if found is None else found[later - place - 1]


def sizes_of_panels(observations: Observations, found: Sequence[Panel]) -> dict[str, list[Size]]:
    """Return the training sizes of each panel, by its title, in order of the number of labels.

    Only methods that could be the answer to some budget are tested against others, since the tests take time.
    """
    by_size: dict[tuple[str, int, str], dict[tuple[str, str], Any]] = {}
    for test in each(contrasts(observations, _pairs)):
        by_size.setdefault((test.panel, test.n_train, test.draw), {})[test.variant, test.baseline] = test
    sizes: dict[str, list[Size]] = {}
    for panel in found:
        sizes[panel.title] = []
        places = {key: i for i, key in enumerate(zip(*(panel.rows[name] for name in _KEY), strict=True))}
        for n_train, draw, rivals in rivals_by_size(panel):
            size = Size(int(n_train), draw, [places[tuple(getattr(row, name) for name in _KEY)] for row in rivals])
            tests = by_size.get((panel.title, n_train, draw), {})
            for place in _candidates(rivals):
                own = [tests[rivals[place].variant, other.variant] for other in rivals[place + 1 :]]
                size.p_values[place] = [_p_value(test, panel.higher_is_better) for test in own]
                widths = [(test.high - test.low) / 2 for test in own if not pd.isna(test.low)]
                size.half_widths[place] = float(f"{median(widths):.2g}") if widths else None
            sizes[panel.title].append(size)
    return sizes


def main_size(sizes: Sequence[Size], rows: Sequence[Row]) -> int:
    """Return the position of the size that an answer is about by default.

    It is the largest at which more than half of the methods compete that were given labels. A run that stopped early
    may have few methods at its largest size.
    """
    given = [sum(rows[i]["n_train"] > 0 for i in size.rows) for size in sizes]
    return max(at for at, n in enumerate(given) if 2 * n > max(given) or not max(given))


_KEY = ("variant", "n_train", "draw")
_COSTS = ("train_seconds", "memory_bytes", "n_trainable")


def _pairs(rivals: list[Any]) -> list[list[tuple[Any, Any]]]:
    return [[(rivals[place], other) for place in _candidates(rivals) for other in rivals[place + 1 :]]]


def _candidates(rivals: Sequence[Any]) -> list[int]:
    """Return the places of methods that some budget allows while it excludes all that are ahead of them."""
    costs = [[getattr(row, name) for name in _COSTS] for row in rivals]
    kept: list[int] = []
    for place, own in enumerate(costs):
        if not any(all(map(_is_allowed_with, costs[ahead], own)) for ahead in kept):
            kept.append(place)
    return kept


def _is_allowed_with(cost: Any, other: Any) -> bool:
    """Return whether every limit that allows `other` allows `cost`; no limit allows an unknown cost."""
    return bool(pd.isna(other) or (not pd.isna(cost) and cost <= other))


def _p_value(test: Any, higher_is_better: bool) -> float | None:
    if pd.isna(test.p_value):
        return None
    p_value = float(f"{max(test.p_value, 1e-99):.4g}")
    return p_value if (test.difference > 0) == higher_is_better and test.difference != 0 else -p_value


# ---- the answer


@dataclass(frozen=True)
class Choice:
    """The methods that an answer names, as places in `Size.rows`.

    Attributes:
        best: the method to use; None where nothing fits.
        fitting: all that fit.
        tied: those that tie with the best.
        untested: those without a test against it.
        saver: the tied method that trains fastest, where it is much faster.
        cheap: the cheap method with the best score.
        floor: the majority baseline, where it was measured.
        beats_floor: whether the best is shown to beat that; None without a test.
    """

    best: int | None
    fitting: list[int]
    tied: list[int] = field(default_factory=list)
    untested: list[int] = field(default_factory=list)
    saver: int | None = None
    cheap: int | None = None
    floor: int | None = None
    beats_floor: bool | None = None


def choose(size: Size, rows: Sequence[Row], limits: Mapping[str, float]) -> Choice:
    """Return the choice at one size within limits (see the rule above).

    Args:
        size: the size.
        rows: all rows of the panel.
        limits: the largest cost allowed, by the names of `LIMITS`; no limit where one is missing.
    """
    own = [rows[i] for i in size.rows]
    fitting = [place for place, row in enumerate(own) if fits(row, limits)]
    if not fitting:
        return Choice(None, fitting)
    best, *others = fitting
    p_values = [size.p_value(best, other) for other in others]
    corrected = holm([None if p_value is None else abs(p_value) for p_value in p_values])
    tied, untested = [], []
    for other, p_value, adjusted in zip(others, p_values, corrected, strict=True):
        if p_value is None or adjusted is None:
            untested.append(other)
        elif adjusted >= LEVEL or p_value < 0:
            tied.append(other)
    seconds = [row["train"] for row in own]
    floor = next((place for place, row in enumerate(own) if row["floor"]), None)
    timed = [place for place in tied if seconds[place] is not None and place != floor]
    saver = min(timed, key=lambda place: seconds[place], default=None)
    if saver is not None and not (seconds[best] and seconds[saver] <= _MUCH_CHEAPER * seconds[best]):
        saver = None
    cheap = None
    if seconds[best] is not None and seconds[best] >= _WORTH_SAVING_SECONDS:
        for place in others:
            is_cheap = seconds[place] is not None and seconds[place] <= _CHEAP * seconds[best]
            if is_cheap and place != floor and (floor is None or _beats(size, place, floor)):
                cheap = None if place in tied else place
                break
    beats_floor = None if floor is None else floor not in tied and _beats(size, best, floor)
    return Choice(best, fitting, tied, untested, saver, cheap, floor, beats_floor)


def fits(row: Row, limits: Mapping[str, float]) -> bool:
    """Return whether a row's costs are known and within the limits."""
    return all(row[name] is not None and row[name] <= limit for name, limit in limits.items())


def _beats(size: Size, place: int, floor: int) -> bool | None:
    """Return whether a method is shown to beat the floor; None without a test."""
    if place >= floor:
        return False
    p_value = size.p_value(place, floor)
    return None if p_value is None else 0 <= p_value < LEVEL


# ---- the answer in words


def in_words(at: int, panel: Mapping[str, Any], rows: Sequence[Row], limits: Mapping[str, float]) -> Spans:
    """Return the answer as text.

    Args:
        at: position of the size among the panel's.
        panel: the page's data of the panel (`page_data.panels_data`).
        rows: all rows of the panel.
        limits: see `choose`.
    """
    size: Size = panel["sizes"][at]
    found = choose(size, rows, limits)
    own = [rows[i] for i in size.rows]
    if found.best is None:
        return _nothing_fits(own, at_labels(own), limits)
    best = own[found.best]
    said: Spans = [("", f"{at_labels(own)}{_within(limits)}, use "), ("use", best["name"])]
    ends = f" ({text.interval(best['low'], best['high'])})" if best["low"] is not None else ""
    cost = f", {text.seconds(best['train'])} of training" if best["train"] is not None else ""
    said.append(("", f": {panel['metric']} {text.score(best['score'])}{ends}{cost}."))
    said += _ties(found, own)
    if found.cheap is not None:
        row = own[found.cheap]
        share = row["train"] / best["train"]
        how = "nearly free" if share <= _NEARLY_FREE else "cheap"
        of_time = "" if share <= _NEARLY_FREE else f", {text.percent(share)} of the time"
        said += [("", " "), ("method", row["name"])]
        said.append(("", f" is {how}: {text.score(row['score'])} in {text.seconds(row['train'])}{of_time}."))
    if found.floor == found.best and len(own) > 1:
        said.append(("", " It gives all texts the same answer: nothing that fits is better."))
    elif found.beats_floor is False and found.floor is not None:
        floor = own[found.floor]
        said += [("", " It is not shown to beat "), ("method", floor["name"])]
        said.append(("", f" ({text.score(floor['score'])})."))
    return said + _fewer_labels(at, panel, rows, limits, best)


def at_labels(own: Sequence[Row]) -> str:
    """Return the number of labels of a size in words: `With 192 labels`."""
    label = next((row["label"] for row in own if row["n_train"] > 0), None)
    if label is None:
        return "Without labels"
    number, _, per_class = label.partition(" ")
    return f"With {number} label{'' if number == '1' else 's'}{' ' + per_class if per_class else ''}"


_SHOWN = {"train": text.seconds, "memory": text.memory, "trainable": text.number}


def _within(limits: Mapping[str, float]) -> str:
    units = {"train": " of training", "memory": " of memory", "trainable": " trainable parameters"}
    said = [_SHOWN[name](limits[name]) + units[name] for name in LIMITS if name in limits]
    return f" and at most {' and '.join(filter(None, (', '.join(said[:-1]), said[-1])))}" if said else ""


def _ties(found: Choice, own: Sequence[Row]) -> Spans:
    assert found.best is not None
    best = own[found.best]
    tied = [place for place in found.tied if place != found.floor]  # the floor has a sentence of its own
    n_tied = len(tied)
    said: Spans = []
    if found.saver is not None:
        saver = own[found.saver]
        said += [("", " "), ("method", saver["name"])]
        score, share = text.score(saver["score"]), _share(saver, best)
        said.append(("", f" is not shown to be worse ({score}), at {share} of the training time."))
        if n_tied > 1:
            said.append(("", f" Nor {'is' if n_tied == 2 else 'are'} {text.counted(n_tied - 1, 'other')}."))
    elif tied:
        said.append(("", " Not shown to be worse: "))
        named = tied[:MOST_NAMED]
        more = n_tied - len(named)
        for i, place in enumerate(named):
            joint = "" if i == 0 else " and " if i == len(named) - 1 and not more else ", "
            said += [("", joint), ("method", own[place]["name"])]
        said.append(("", f" and {more} more." if more else "."))
    elif len(own) == 1:
        said.append(("", " No other method was measured at this size."))
    elif len(found.fitting) == 1:
        said.append(("", " No other method fits."))
    elif not found.untested and not found.tied and not (len(found.fitting) == 2 and found.cheap is not None):
        n, some = len(found.fitting) - 1, len(found.fitting) < len(own)
        one, several = f"The other method{' that fits' * some} is", f"All {n} others{' that fit' * some} are"
        said.append(("", f" {one if n == 1 else several} worse."))
    if found.untested:
        others = text.counted(len(found.untested), "method")
        few = has_two_seeds(found, own)
        said.append(("", " Two seeds are too few for a test." if few else f" No test against {others} was possible."))
    return said


def has_two_seeds(found: Choice, own: Sequence[Row]) -> bool:
    """Return whether the best and the untested methods have two seeds; a method without labels needs one."""
    assert found.best is not None
    return {own[place]["n_seeds"] for place in (found.best, *found.untested) if own[place]["n_train"] > 0} == {2}


MOST_NAMED = 3
"""Most methods that a sentence lists by name."""


def _share(saver: Row, best: Row) -> str:
    """Return a share of the training time in words; below 7 % in figures."""
    share = saver["train"] / best["train"]
    names = {0.585: "two thirds", 0.415: "half", 0.29: "a third", 0.225: "a quarter", 0.15: "a fifth", 0.07: "a tenth"}
    small = text.percent(share) if share >= 0.0005 else "less than 0.1 %"
    return next((f"about {name}" for least, name in names.items() if share >= least), small)


def _nothing_fits(own: Sequence[Row], at: str, limits: Mapping[str, float]) -> Spans:
    """Say which limit excludes every method, and what the least is that one needs."""
    said: Spans = [("", f"{at}{_within(limits)}, nothing that was measured fits.")]
    alone = [name for name in LIMITS if name in limits and not any(fits(row, {name: limits[name]}) for row in own)]
    for name in alone:
        known = [row for row in own if row[name] is not None]
        if not known:
            said.append(("", f" No method has a known figure for {LIMITS[name]}."))
            continue
        least = min(known, key=lambda row: row[name])
        said += [("", f" The least {LIMITS[name]}: "), ("method", least["name"])]
        said.append(("", f" with {_SHOWN[name](least[name])} ({text.score(least['score'])})."))
    if not alone:
        said.append(("", " Each limit alone would allow some methods."))
    return said


def _fewer_labels(
    at: int, panel: Mapping[str, Any], rows: Sequence[Row], limits: Mapping[str, float], best: Row
) -> Spans:
    """Say which method scores higher within the limits on fewer labels, since fewer rows take less time."""
    sign = 1 if panel["higher"] else -1
    ahead = best
    for other in panel["sizes"][:at] if limits else []:
        row = next((rows[i] for i in other.rows if fits(rows[i], limits)), None)
        if row is not None and sign * row["score"] > sign * ahead["score"]:
            ahead = row
    if ahead is best:
        return []
    better = "higher" if panel["higher"] else "better"
    said = f" scores {better} on only {ahead['label']} of the labels: {text.score(ahead['score'])}."
    return [("", " "), ("method", ahead["name"]), ("", said)]


def footnote(size: Size, panel: Mapping[str, Any], rows: Sequence[Row], limits: Mapping[str, float]) -> str:
    """Return what the answer rests on, in one line: methods, seeds, the test."""
    found = choose(size, rows, limits)
    own = [rows[i] for i in size.rows]
    n_fit = len(found.fitting)
    among = text.counted(len(own), "method") if n_fit == len(own) else f"{n_fit} of {text.counted(len(own), 'method')}"
    seeds = sorted({row["n_seeds"] for row in own if row["n_train"] > 0} or {row["n_seeds"] for row in own})
    over = text.counted(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    said = f"Best mean of {among}{' within the budget' if n_fit < len(own) else ''}, {over}"
    if len(found.fitting) > 1 + len(found.untested):
        said += "; worse: shown by a test at the 5 % level (Holm)"
    width = None if found.best is None else size.half_widths.get(found.best)
    if seeds[0] == 1 and found.best is not None and len(found.fitting) > 1:
        small = "small differences" if width is None else f"differences below {text.score(width)}"
        said += f". {'One seed' if seeds[-1] == 1 else 'Some have one seed'}: {small} are noise"
    if not panel["higher"]:
        said += f". Lower {panel['metric']} is better"
    if panel["chosen"]:
        said += ". Defaults were tuned on this task"
    return said + "."
