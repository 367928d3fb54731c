"""Scores of methods on nested parts of a user's labels, each on rows that the fit has not seen."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.choose import Candidate, Runner, Tried, validation_folds, with_test_rows
from harness.data import Size
from harness.forecast import Scores
from harness.metrics import IN_UNITS, metrics
from harness.planning import PlannedCell, plan_cells
from harness.records import Budget
from harness.support import UsageError, describe_duration, text
from harness.tasks import Kind, Task

N_SIZES: Final = 4
"""Numbers of labels that each method is fitted to: an eighth, a quarter, a half and all."""

LEAST_SPAN: Final = 4.0
"""Least ratio of the most labels to the fewest for a curve."""

_LEAST_LABELS: Final = 16
"""Fewest labels of a fit."""

_SEEDS_OF_ONE_FOLD: Final = 3
"""Draws of labels where all fits are scored on the same rows."""


@dataclass(frozen=True)
class MeasuredCurve:
    """Scores of one method at several numbers of labels.

    Attributes:
        method: label of the method.
        name: name of the method without its settings.
        scores: scores by number of labels, the fewest first.
        seconds: duration of all its fits.
        facts: facts about the data that the fits were scored on, which place errors between worst and best.
        n_scored: number of different rows that its fits were scored on.
    """

    method: str
    name: str
    scores: tuple[Scores, ...]
    seconds: float
    facts: Mapping[str, Any] = field(repr=False, default_factory=dict)
    n_scored: int = 0


@dataclass(frozen=True)
class Part:
    """A task that scores fits: a fold of the user's rows, or the task with the user's own test rows.

    Attributes:
        task: the task.
        seed: seed of the draws.
    """

    task: Task
    seed: int


def parts_of(task: Task) -> list[Part]:
    """Return what the fits of each size are scored on.

    Test rows that the user gave score all fits, each size drawn three times. Without them, all rows are divided into
    folds; where there are so many rows that one fold suffices, its sizes are drawn three times.
    """
    if not task.provenance.get("held_out"):
        return [Part(task, seed) for seed in range(_SEEDS_OF_ONE_FOLD)]
    folds = validation_folds(with_test_rows(task))
    if len(folds) == 1:
        return [Part(folds[0], seed) for seed in range(_SEEDS_OF_ONE_FOLD)]
    return [Part(fold, 0) for fold in folds]


def labels_of(task: Task) -> int:
    """Return the number of labels of a task: its training rows, and rows held out from them for a test."""
    return len(task.train_labels) + (task.n_test if task.provenance.get("held_out") else 0)


def sizes_of(task: Task) -> list[int]:
    """Return the numbers of labels of a part's fits, in equal ratios; empty where the labels are too few for a curve.

    The fewest are an eighth of them, and at least one of each class.
    """
    most = len(task.train_labels)
    least = max(most / 2 ** (N_SIZES - 1), float(task.n_strata), _LEAST_LABELS)
    if most / least < LEAST_SPAN:
        return []
    ratio = (most / least) ** (1 / (N_SIZES - 1))
    return [*(math.ceil(least * ratio**step) for step in range(N_SIZES - 1)), most]


def scoring_in_words(task: Task, parts: Sequence[Part]) -> str:
    """Return what the fits are scored on, in a line."""
    names = {part.task.name for part in parts}
    if not task.provenance.get("held_out"):
        return f"scored on the {text.counted(task.n_test, 'test row')}, with {len(parts)} draws of the labels"
    n = text.counted(labels_of(task), "row")
    if len(names) == 1:
        return f"all {n} are used; {parts[0].task.n_test:,} of them score, with {len(parts)} draws of the others"
    scored = sum(part.task.n_test for part in parts)
    return f"{scored:,} of {n} score, in {len(names)} parts; the fits that a part scores learn from the other rows"


def check_scored(kind: Kind, metric: str) -> None:
    """Refuse a kind or a metric whose scores have no learning curve here.

    Raises:
        UsageError: answers are texts, or the metric has no worst value.
    """
    spec = metrics.get(metric)
    if kind.form == "text" or (spec.high is None and metric not in IN_UNITS):
        raise UsageError(
            f"The data make a task of the kind '{kind.name}' with the metric {metric}, for which there are no learning "
            "curves. `harness run --sizes 64,128,256,all` measures methods at several numbers of labels."
        )


def check_parts(task: Task, parts: Sequence[Part]) -> None:
    """Refuse a task whose labels are too few for a curve.

    Raises:
        UsageError: they are.
    """
    if parts and all(sizes_of(part.task) for part in parts):
        return
    n = labels_of(task)
    needed = math.ceil(1.25 * LEAST_SPAN * max(task.n_strata, _LEAST_LABELS))
    of_classes = f" of {text.counted(task.n_strata, 'class', 'classes')}" if task.has_classes else ""
    raise UsageError(
        f"{text.counted(n, 'labelled row')}{of_classes} cannot tell what more labels would buy: a learning curve needs "
        f"about {needed:,}, a few of each class. Label more, or ask `harness advise --n-train {n}` what other tasks "
        "lead to expect."
    )


def measure_curves(
    task: Task,
    parts: Sequence[Part],
    candidates: Sequence[Candidate],
    runner: Callable[[Sequence[Task]], Runner],
    end: float,
    say: Callable[[str], None],
) -> tuple[list[MeasuredCurve], dict[str, str]]:
    """Fit each method to several numbers of labels, and return their scores, and why others were left out.

    Args:
        task: the user's data.
        parts: what the fits are scored on (`parts_of`).
        candidates: the methods.
        runner: returns what runs the fits of some tasks.
        end: time by which all is done (`time.monotonic`).
        say: called with a line on each method.
    """
    runs = runner([task, *{part.task.name: part.task for part in parts}.values()])
    found, out = [], {}
    planned = {c.label: [(part, _cells(c, part, runs)) for part in parts] for c in candidates}
    # Cheap methods first: an unfinished curve of a slow one says nothing.
    for candidate in sorted(
        candidates, key=lambda c: sum(runs.estimate(cell).seconds for _, cells in planned[c.label] for cell in cells)
    ):
        own, left = planned[candidate.label], end - time.monotonic()
        while len(own) > 1 and _seconds(own, runs) > left:
            own = own[:-1]
        if _seconds(own, runs) > left:
            needs = describe_duration(_seconds(own, runs))
            why = f"its fits would take about {needs}, and {describe_duration(max(0.0, left))} were left"
            out[candidate.label] = why
            say(f"skipped, {why}: {candidate.label}")
            continue
        curve, why = _measure(candidate, own, runs, end, labels_of(task))
        if curve is None:
            out[candidate.label] = why
            say(f"{candidate.label}: {why}")
            continue
        shown = ", ".join(f"{one.mean:.3f} with {one.n_train:,.0f}" for one in curve.scores)
        say(f"{curve.method}: {shown} labels (shares of the best score; {describe_duration(curve.seconds)})")
        found.append(curve)
    return found, out


def _seconds(own: Sequence[tuple[Part, Sequence[PlannedCell]]], runs: Runner) -> float:
    return sum(runs.estimate(cell).seconds for _, cells in own for cell in cells)


def _cells(candidate: Candidate, part: Part, runs: Runner) -> list[PlannedCell]:
    """Return the cells of a method on a part, the fewest labels first."""
    files = {} if candidate.files is None else {part.task.name: (candidate.files,)}
    sizes = sizes_of(part.task)
    seeds = [part.seed]
    return sorted(
        plan_cells(
            tasks=[part.task],
            backbones=files,
            methods=[candidate.method],
            sizes=[Size(n) for n in sizes],
            seeds=seeds,
            budgets=[Budget()],
            device=runs.device.kind,
        ),
        key=lambda planned: planned.cell.n_train,
    )


def _measure(
    candidate: Candidate, own: Sequence[tuple[Part, Sequence[PlannedCell]]], runs: Runner, end: float, n_labels: int
) -> tuple[MeasuredCurve | None, str]:
    """Return the scores of a method; None, with the reason, where a fit of the first part failed or did not end."""
    by_step: defaultdict[int, list[Tried]] = defaultdict(list)
    seconds = 0.0
    for at, (part, cells) in enumerate(own):
        tried = []
        for planned in cells:
            began = time.monotonic()
            record = runs.run(planned, part.task, end)
            took = time.monotonic() - began
            seconds += took
            if record is None or record.score is None:
                why = "the time was over" if record is None else (record.error or record.status)
                if at == 0:
                    return None, why
                break
            tried.append(Tried(candidate, record, float(planned.cell.n_train), at, took))
        if len(tried) < len(cells):
            break  # a part without its largest size would tilt the curve
        for step, one in enumerate(tried):
            by_step[step].append(one)
    same_rows = len({part.task.name for part, _ in own}) == 1
    scores = tuple(_scores(by_step[step], n_labels, same_rows=same_rows) for step in sorted(by_step))
    facts = by_step[0][0].record.provenance.dataset
    parts = {part.task.name: part.task.n_test for part, _ in own[: len(by_step[0])]}
    return MeasuredCurve(candidate.label, candidate.method.name, scores, seconds, facts, sum(parts.values())), ""


def _scores(tried: Sequence[Tried], n_labels: int, *, same_rows: bool) -> Scores:
    """Return the scores of all draws of a size.

    Two draws of a share f of the same labels have the share f of their rows in common, so that they tell less.
    """
    n_train = sum(one.n_train for one in tried) / len(tried)
    common = min(1.0, n_train / n_labels)
    apart = len(tried) / (1 + (len(tried) - 1) * common)
    worth = [one.rows_worth for one in tried]
    rows = sum(worth) / len(worth) if same_rows else sum(worth)
    shares = tuple(one.score for one in tried if one.score is not None)
    return Scores(n_train, shares, rows, apart, same_rows=same_rows)
