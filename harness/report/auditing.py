"""Compare each method's default settings with tuned ones, from the records of an audit's grid."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.records import AuditedDefault, Record
from harness.report.contrasts import Group, contrast
from harness.report.observations import Observations, RecordSource, observe


@dataclass(frozen=True)
class AuditedPlace:
    """Default and tuned settings of one method on one backbone, task and size, in points.

    Attributes:
        method, backbone, task, n_train: the place.
        default, tuned: mean scores over the seeds that both have.
        points: tuned less default, positive where tuned settings are better, whatever the metric's direction.
        low, high: its 95 % interval over seeds and test rows; None where it is unknown.
        n_seeds: number of seeds that both have.
        settings: settings that tuning chose, by seed.
    """

    method: str
    backbone: str
    task: str
    n_train: int
    default: float
    tuned: float
    points: float
    low: float | None
    high: float | None
    n_seeds: int
    settings: dict[int, dict[str, Any]]


@dataclass(frozen=True)
class Audits:
    """The outcome of an audit.

    Attributes:
        defaults: each method and backbone over all places.
        places: each method, backbone, task and size.
    """

    defaults: tuple[AuditedDefault, ...]
    places: tuple[AuditedPlace, ...]


def audit(source: RecordSource) -> Audits:
    """Compare configurations without `tune` with the same with it, paired by seed and test row.

    A method's difference on a backbone is the mean over its places, each of equal weight. Its interval treats tasks as
    independent. Sizes of one task share test rows, so their half widths are averaged. It covers the seeds and rows of
    these tasks; other tasks may differ more. Scores without an upper end, such as RMSE, are left out.

    Args:
        source: records of one device. A method and backbone has one configuration without `tune`.

    Raises:
        UsageError: there is no record.
    """
    observations = observe(source)
    sides: defaultdict[tuple[Any, ...], dict[bool, dict[int, Record]]] = defaultdict(lambda: {False: {}, True: {}})
    for record in observations.records:
        cell = record.cell
        if record.status != "ok" or record.score is None or cell.backbone is None or record.score.highest is None:
            continue
        key = (
            cell.draw,
            cell.method,
            cell.version,
            cell.backbone,
            cell.weights,
            cell.task,
            cell.data,
            record.device,
            cell.n_train,
        )
        sides[key]["tune" in cell.config][cell.seed] = record
    found: defaultdict[tuple[str, str], list[tuple[AuditedPlace, Record, int]]] = defaultdict(list)
    for _, both in sorted(sides.items(), key=lambda item: str(item[0])):
        seeds = sorted(both[False].keys() & both[True].keys())
        if seeds:
            default, tuned = ([both[side][seed] for seed in seeds] for side in (False, True))
            place = _place(default, tuned, observations)
            found[place.method, place.backbone].append((place, default[0], int(tuned[0].cell.config["tune"])))
    defaults = [_over_places([place for place, _, _ in own], own[0][1], own[0][2]) for _, own in sorted(found.items())]
    return Audits(tuple(defaults), tuple(place for own in found.values() for place, _, _ in own))


def _place(default: Sequence[Record], tuned: Sequence[Record], observations: Observations) -> AuditedPlace:
    difference = contrast(_group(tuned), _group(default), observations)
    assert default[0].score is not None
    sign = 100.0 if default[0].score.higher_is_better else -100.0
    ends = [None if end is None else sign * end for end in (difference.low, difference.high)]
    low, high = ends if sign > 0 else reversed(ends)
    cell = default[0].cell
    assert cell.backbone is not None
    return AuditedPlace(
        method=cell.method,
        backbone=cell.backbone,
        task=cell.task,
        n_train=cell.n_train,
        default=100.0 * _mean(default),
        tuned=100.0 * _mean(tuned),
        points=sign * difference.mean,
        low=low,
        high=high,
        n_seeds=len(default),
        settings={record.cell.seed: dict(record.facts.tuned_settings or {}) for record in tuned},
    )


def _group(records: Sequence[Record]) -> Group:
    group = Group(records[0].cell.n_train)
    for record in records:
        assert record.score is not None
        group.add(record.cell.seed, (record.id, record.device), record.score.value, record.score.low, record.score.high)
    return group


def _mean(records: Sequence[Record]) -> float:
    return float(np.mean([record.score.value for record in records if record.score is not None]))


def _over_places(places: Sequence[AuditedPlace], first: Record, n_trials: int) -> AuditedDefault:
    by_task: defaultdict[str, list[AuditedPlace]] = defaultdict(list)
    for place in places:
        by_task[place.task].append(place)
    points = float(np.mean([place.points for place in places]))
    halves = {task: [_half_width(place) for place in own] for task, own in by_task.items()}
    half: float | None = None
    if all(width is not None for own in halves.values() for width in own):
        # The sum of half widths within a task, for errors that are the same; roots of sums of squares over tasks.
        half = math.hypot(*(sum(width or 0.0 for width in own) for own in halves.values())) / len(places)
    cell = first.cell
    assert cell.backbone is not None
    return AuditedDefault(
        method=cell.method,
        version=cell.version,
        config=cell.config,
        backbone=cell.backbone,
        tasks=tuple(sorted(by_task)),
        sizes=tuple(sorted({place.n_train for place in places})),
        n_seeds=min(place.n_seeds for place in places),
        n_trials=n_trials,
        default=_rounded(float(np.mean([place.default for place in places]))),
        tuned=_rounded(float(np.mean([place.tuned for place in places]))),
        points=_rounded(points),
        low=None if half is None else _rounded(points - half),
        high=None if half is None else _rounded(points + half),
    )


def _half_width(place: AuditedPlace) -> float | None:
    return None if place.low is None or place.high is None else (place.high - place.low) / 2


def _rounded(value: float) -> float:
    return round(value, 3)
