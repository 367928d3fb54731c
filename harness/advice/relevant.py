"""The basis of an answer: points that are relevant to a question, and the device whose costs are given."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from harness.advice.question import Question
from harness.cost import Probed
from harness.forecast import Evidence, Point, Scale, matching
from harness.support import UsageError, text, unknown_name

_MEASURED: Final = "among the records"
MOST_BEYOND: Final = 100
"""Largest ratio between the size that is asked for and the nearest measured size."""

_ROUNDING: Final = 1e-6

NOT_FOR_WORDS: Final = "and is not advised for texts of words."
"""End of the note on methods that count characters."""

_MOST_POINTS: Final = 1500
"""Largest number of points that are used: the nearest in size, where there are more."""


def relevant(question: Question, evidence: Evidence) -> tuple[list[Point], list[str]]:
    """Return the points that count, and sentences on where they come from.

    Points on other backbones than those asked for count too where several are asked for.

    Raises:
        UsageError: there are none; or their metric has no such score as is asked for.
    """
    if not evidence.points and evidence.n_left_out:
        raise UsageError(
            f"There is no record to advise from: {text.counted(evidence.n_left_out, 'scored record')} of results that "
            "other tools or projects published, which are no evidence of the methods here. Run a suite first, or name "
            "another store."
        )
    if not evidence.points:
        raise UsageError("There is no record with a score to advise from. Run a suite first, or name another store.")
    points = [point for point in evidence.points if point.kind == question.kind]
    if not points:
        raise unknown_name("kind of task", question.kind, evidence.kinds, _MEASURED)
    if question.task is not None:
        tasks = {point.task for point in points}
        if question.task not in tasks:
            raise unknown_name("task", question.task, tasks, _MEASURED)
    if question.backbone is not None:
        backbones = {point.backbone for point in points if point.backbone is not None}
        if question.backbone not in backbones:
            raise unknown_name("backbone", question.backbone, backbones, _MEASURED)
        points = [point for point in points if point.backbone in (None, question.backbone)]
    notes: list[str] = []
    points = _of_like_texts(question, points, evidence, notes)
    own = {metric: _tasks(points, metric, question.task) for metric in sorted({point.metric for point in points})}
    metric = max(own, key=lambda metric: own[metric])
    others = sorted({point.metric for point in points} - {metric})
    if others:
        n_left_out = sum(point.n_records for point in points if point.metric != metric)
        records = text.counted(n_left_out, "record")
        notes.append(f"Methods are compared by {metric}; {records} with {_listed(others)} alone do not count.")
    points = [point for point in points if point.metric == metric]
    highest = Scale(points[0].higher_is_better, points[0].highest).best
    beyond = [point for point in points if point.score > highest * (1 + _ROUNDING)]
    points = [point for point in points if point not in beyond]
    if not points:
        raise UsageError(
            f"All scores of {metric} lie above {highest:g}, the highest there is: they seem to be percents. Import "
            "them again as fractions."
        )
    below = [point for point in points if points[0].highest is None and point.score < 0]
    if below:
        raise UsageError(
            f"There is no advice by {metric}: it has no upper end, and {text.counted(len(below), 'score')} below 0, as "
            f"on {_listed(sorted({point.task for point in below}))}. Expected scores of 0 or more."
        )
    if question.min_score is not None and not question.min_score < highest:
        raise UsageError(
            f"--min-score {question.min_score:g} was given; expected less than {highest:g}, the highest {metric}."
        )
    sizes = [point.n_train for point in points if point.n_train]
    if sizes and question.n_train and not min(sizes) / MOST_BEYOND <= question.n_train <= max(sizes) * MOST_BEYOND:
        raise UsageError(
            f"There is no advice for {text.counted(question.n_train, 'label')}: {question.kind} tasks were measured "
            f"with {min(sizes):,} to {max(sizes):,}, and the number lies more than {MOST_BEYOND} times outside that "
            "range. Run a suite with a nearer size first."
        )
    if len(points) > _MOST_POINTS:
        points.sort(key=lambda point: abs(math.log(max(point.n_train, 1) / max(question.n_train, 1))))
        points = points[:_MOST_POINTS]
    named = sorted({point.task for point in points})
    bases = sorted({point.backbone.rpartition("/")[2] for point in points if point.backbone})
    n_records = sum(point.n_records for point in points)
    notes = [
        *notes,
        f"From {text.counted(n_records, 'record')} of {text.counted(len(named), 'task')} ({_listed(named, 3)}) on "
        f"{_listed(bases) or 'no backbone'}.",
    ]
    if beyond:
        of_tasks = _listed(sorted({point.task for point in beyond}))
        n_left_out = sum(point.n_records for point in beyond)
        are = "record of {} is left out: its" if n_left_out == 1 else "records of {} are left out: their"
        notes.append(f"{n_left_out:,} {are.format(of_tasks)} {metric} is above {highest:g}.")
    if question.task is None and len(named) < 4:
        notes.append("Few tasks say little about another one, so the intervals are wide.")
    if sizes and question.n_train and not min(sizes) <= question.n_train <= max(sizes):
        between = f"{min(sizes):,} to {max(sizes):,}"
        given = text.counted(question.n_train, "label")
        notes.append(f"Scores are extrapolated: {given} is outside the measured sizes ({between}).")
    return points, notes


def _tasks(points: Sequence[Point], metric: str, task: str | None) -> tuple[bool, int, int]:
    """Return the place of a metric: that of the task asked for first, then that of most tasks, then of most records."""
    own = [point for point in points if point.metric == metric]
    return any(p.task == task for p in own), len({p.task for p in own}), sum(p.n_records for p in own)


_FEWEST_TERMS: Final = 0.15
"""Fewest terms for each token of prose, at the smallest measured size. Sequences of characters have hardly any."""


def _of_characters(evidence: Evidence) -> frozenset[str]:
    """Return the tasks whose texts are sequences of characters, such as proteins: they hold no words to count."""
    found = set()
    for task, sizes in evidence.texts.terms.items():
        n_train = min((size for size in sizes if size), default=0)
        tokens = evidence.texts.tokens.get(task)
        if n_train and tokens and sizes[n_train] < _FEWEST_TERMS * n_train * tokens:
            found.add(task)
    return frozenset(found)


def _of_like_texts(question: Question, points: list[Point], evidence: Evidence, notes: list[str]) -> list[Point]:
    """Return the points of texts like those asked about, and add notes on those left out.

    For sequences of characters they are the points of such tasks, where there are any. Else methods that count
    characters are not judged by such tasks.
    """
    of_characters = _of_characters(evidence)
    task = question.task
    is_of_characters = bool(question.characters) if task is None else task in of_characters
    if is_of_characters:
        kept = [point for point in points if point.task in of_characters]
        if kept:
            notes.append("Only tasks of character sequences count, since the texts are such sequences.")
            return kept
        notes.append("The texts are sequences of characters. All records are of prose, so trust the intervals little.")
        return points
    left_out = [p for p in points if not p.facts.counts_words and p.task in of_characters]
    if left_out:
        names = _listed(sorted({point.method for point in left_out}))
        notes.append(f"{names} was measured on sequences of characters, {NOT_FOR_WORDS}")
    return [point for point in points if point not in left_out]


def _listed(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def points_with_costs(question: Question, points: Sequence[Point], evidence: Evidence) -> list[Point]:
    """Return the points whose costs count: those of other texts too, since costs go by lengths alone."""
    methods = {point.method for point in points}
    known = {(point.task, point.method, point.n_train, point.backbone) for point in points}
    return [
        *points,
        *(
            point
            for point in evidence.points
            if point.kind == question.kind
            and point.backbone in (None, *{one.backbone for one in points})
            and (point.method in methods or point.backbone is not None)
            and (point.task, point.method, point.n_train, point.backbone) not in known
        ),
    ][:_MOST_POINTS]


def device_of(
    question: Question,
    evidence: Evidence,
    points: list[Point],
    probes: Sequence[Probed],
    own_devices: Sequence[str] = (),
) -> tuple[str | None, list[str]]:
    """Return the device whose costs are given, and all devices with timings, those with the most points first.

    The former is the one asked for; else the last that was probed with a measured method; else the user's own with the
    most timings; else the first of the latter.
    """
    counted = Counter(device for point in points for device in point.seconds)
    timed = sorted(counted, key=lambda device: (-counted[device], device))
    most = timed[0] if timed else None
    if question.device is None:
        probed = [one.device for one in probes if matching(one, points)]
        own = [device for device in own_devices if counted[device]]
        wanted = next(iter([*probed[-1:], *own]), most)
    else:
        known = set(timed) | set(evidence.devices) | {one.device for one in probes}
        if question.device not in known:
            raise unknown_name("device", question.device, known, "among the records and probes")
        wanted = question.device
    return wanted, timed
