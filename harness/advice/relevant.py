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

_MOST_POINTS: Final = 1500
"""Largest number of points that are used: the nearest in size, where there are more."""


def relevant(question: Question, evidence: Evidence) -> tuple[list[Point], list[str]]:
    """Return the points that count, and sentences on where they come from.

    Points on other backbones than those asked for count too where several are asked for.

    Raises:
        UsageError: there are none; or their metric has no such score as is asked for.
    """
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
    own = [point.metric for point in points if question.task in (None, point.task)]
    metric = max(sorted(set(own)), key=own.count)
    points = [point for point in points if point.metric == metric]
    highest = Scale(points[0].higher_is_better, points[0].highest).best
    beyond = [point for point in points if point.score > highest * (1 + _ROUNDING)]
    points = [point for point in points if point not in beyond]
    if not points:
        raise UsageError(
            f"All scores of {metric} lie above {highest:g}, the highest there is: they seem to be percents. Import "
            "them again as fractions."
        )
    if question.min_score is not None and not question.min_score < highest:
        raise UsageError(
            f"--min-score {question.min_score:g} was given; expected less than {highest:g}, the highest {metric}."
        )
    sizes = [point.n_train for point in points if point.n_train]
    if sizes and not min(sizes) / MOST_BEYOND <= question.n_train <= max(sizes) * MOST_BEYOND:
        raise UsageError(
            f"There is no advice for {text.counted(question.n_train, 'label')}: {question.kind} tasks were measured "
            f"with {min(sizes):,} to {max(sizes):,}, and the number lies more than {MOST_BEYOND} times outside that "
            "range. Run a suite with a nearer size first."
        )
    if len(points) > _MOST_POINTS:
        points.sort(key=lambda point: abs(math.log(max(point.n_train, 1) / question.n_train)))
        points = points[:_MOST_POINTS]
    named = sorted({point.task for point in points})
    bases = sorted({point.backbone.rpartition("/")[2] for point in points if point.backbone})
    n_records = sum(point.n_records for point in points)
    notes = [
        f"From {text.counted(n_records, 'record')} of {text.counted(len(named), 'task')} ({_listed(named)}) on "
        f"{_listed(bases) or 'no backbone'}."
    ]
    if beyond:
        of_tasks = _listed(sorted({point.task for point in beyond}))
        n_left_out = sum(point.n_records for point in beyond)
        are = "record of {} is left out: its" if n_left_out == 1 else "records of {} are left out: their"
        notes.append(f"{n_left_out:,} {are.format(of_tasks)} {metric} is above {highest:g}.")
    if question.task is None and len(named) < 4:
        notes.append("Few tasks say little about another one, so the intervals are wide.")
    if sizes and not min(sizes) <= question.n_train <= max(sizes):
        between = f"{min(sizes):,} to {max(sizes):,}"
        given = text.counted(question.n_train, "label")
        notes.append(f"Scores are extrapolated: {given} is outside the measured sizes ({between}).")
    return points, notes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


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
