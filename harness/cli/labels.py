"""`harness labels`: print what more labels would buy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.api import labels_needed
from harness.cli.as_json import print_json
from harness.cli.console import CommandDisplay, make_console
from harness.support import plain
from harness.support import text as wording

if TYPE_CHECKING:
    from harness.labels import Crossing, Interval, LabelsNeeded, MethodCurve

_UNTOLD = "cannot be told"


def labels_command(*, as_json: bool = False, **asked: Any) -> int:
    """Measure, print the table and the conclusions; return 0. Arguments are those of `api.labels_needed`."""
    console = Console(stderr=True) if as_json else make_console()
    found = labels_needed(progress=CommandDisplay(console), **asked)
    if as_json:
        print_json(found.to_dict())
    else:
        _show(console, found)
    return 0


def validate_labels_command(kind: str, store: str, *, reference: bool, as_json: bool = False) -> None:
    """Forecast recorded scores from smaller sizes, and print how far the forecasts are from them."""
    from harness.advice import LABEL_RULES, own_records, validate_labels
    from harness.store import reference_records

    found = validate_labels([*own_records(store), *(reference_records() if reference else ())], kind)
    if as_json:
        print_json(found.to_dict())
        return
    console = make_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("task", no_wrap=True)
    for name in ("forecasts", *LABEL_RULES, "80 % hold"):
        table.add_column(name, justify="right")
    for task in found.tasks:
        n = sum(trial.task == task for trial in found.trials)
        errors = (f"{found.error(rule, task):.2f}" for rule in LABEL_RULES)
        table.add_row(Text(plain(task)), str(n), *errors, wording.percent(found.coverage(task)))
    errors = (f"{found.error(rule):.2f}" for rule in LABEL_RULES)
    table.add_row(Text("mean", style="bold"), str(len(found.trials)), *errors, wording.percent(found.coverage()))
    console.print(table)
    console.print(
        "Mean absolute errors in points of scores at 2.8 to 6.5 times the labels that a forecast saw; each task is "
        "forecast with the curves of the others as prior.",
        soft_wrap=True,
    )


def _show(console: Console, found: LabelsNeeded) -> None:
    console.print(_table(found))
    for line in conclusions(found):
        console.print(plain(line), highlight=False, markup=False, soft_wrap=True)


def _table(found: LabelsNeeded) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    table.add_column(f"{found.metric}, {found.n_labels:,} labels", justify="right")
    for times in found.methods[0].gains:
        table.add_column(f"{times * found.n_labels:,} labels", justify="right")
    for one in found.methods:
        now = one.scores[1]
        table.add_row(
            Text(one.method),
            f"{wording.score(now.value)} ({wording.score(now.low)} to {wording.score(now.high)})",
            *(_gain(gain, found) for gain in one.gains.values()),
        )
    return table


def _gain(gain: Interval, found: LabelsNeeded) -> str:
    if not gain.is_told:
        return _UNTOLD
    form = "{:+.1f} ({:+.1f} to {:+.1f})" if found.in_points else "{:+.3g} ({:+.3g} to {:+.3g})"
    return form.format(gain.value, gain.low, gain.high)


def conclusions(found: LabelsNeeded) -> list[str]:
    """Return what follows from the figures, one line each."""
    leader = found.methods[0]
    unit = "points" if found.in_points else f"units of {found.metric}"
    lines = [
        f"Gains in {unit} over {wording.counted(found.n_labels, 'label')}, with 80 % intervals. Scores are of new "
        f"rows; {wording.counted(found.n_scored, 'row')} were scored."
    ]
    fewer = [f"{one.method} ({one.n_scored:,})" for one in found.methods if one.n_scored < found.n_scored]
    if fewer:
        lines.append(f"Scored on fewer rows, since the time was short: {', '.join(fewer)}. Try a longer --within.")
    ahead = [one for one in found.crossings if one.labels.is_told or not one.labels.value < found.n_labels]
    lines += [crossing_in_words(one, 2 * max(leader.gains) * found.n_labels) for one in ahead]
    rivals = [one for one in found.methods[1:] if one.best[4] >= _WORTH_SAYING]
    followers = {crossing.follower for crossing in ahead}
    lines += [
        f"{one.method} may be ahead of the others with {4 * found.n_labels:,} labels "
        f"(chance {wording.percent(one.best[4])})."
        for one in rivals
        if one.method not in followers
    ]
    if not ahead and not rivals and len(found.methods) > 1:
        lines.append(f"{leader.method} probably stays the best of these methods up to {4 * found.n_labels:,} labels.")
    if found.min_score is not None:
        lines += [needed_in_words(one, found) for one in found.methods]
    lines += [f"Left out {label}: {why}." for label, why in found.skipped.items()]
    if not found.n_prior:
        lines.append("No learning curve of another task was used, so that intervals are wide.")
    return lines


_WORTH_SAYING = 0.2
"""Chance of being the best from which another method is mentioned."""


def crossing_in_words(crossing: Crossing, most: int) -> str:
    """Return from how many labels on a method is ahead of another.

    Args:
        crossing: the change of the leader.
        most: most labels that curves are read up to.
    """
    labels = crossing.labels
    if not labels.is_told or not math.isfinite(labels.value):
        span = _span(labels)
        where = f"from how many labels on {_UNTOLD}" + (f" (80 %: {span})" if span else "")
        chance = (
            f"is ahead of {crossing.leader} with {most:,} labels with a chance of {wording.percent(crossing.chance)}"
        )
        return f"{crossing.follower} {chance}; {where}."
    return (
        f"From about {_round(labels.value)} labels on, {crossing.follower} overtakes {crossing.leader} "
        f"(80 %: {_span(labels)})."
    )


def needed_in_words(one: MethodCurve, found: LabelsNeeded) -> str:
    """Return how many labels a method needs for the score that was asked for."""
    needed = one.needed
    assert needed is not None
    goal = f"{found.metric} {found.min_score:g}"
    labels = needed.labels
    if not math.isfinite(labels.low):
        return (
            f"{one.method} does not reach {goal} with {_round(needed.most)} labels "
            f"(chance {wording.percent(needed.chance)})."
        )
    if labels.high <= found.n_labels:  # even where the number that was enough cannot be told
        return f"{one.method} reaches {goal} with the labels there are."
    if not labels.is_told:
        return f"{one.method}: how many labels {goal} needs {_UNTOLD} (80 %: {_span(labels)})."
    return f"{one.method} needs about {_round(labels.value)} labels for {goal} (80 %: {_span(labels)})."


def _span(labels: Interval) -> str:
    """Return the interval of a number of labels in words; empty where not even its lower end is known."""
    if not math.isfinite(labels.low):
        return ""
    if not math.isfinite(labels.high):
        return f"{_round(labels.low)} or more"
    return f"{_round(labels.low)} to {_round(labels.high)}"


def _round(n: float) -> str:
    """Return a number of labels with two significant digits."""
    return f"{int(float(f'{n:.2g}')):,}"
