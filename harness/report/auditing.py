"""Compare each method's default settings with tuned ones, from the records of an audit's grid."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.analysis import Difference
from harness.records import AuditedDefault, Cell, Record, canonical_text
from harness.report.held_out_settings import BetterSettings, ByPlace, Place, better_settings, first_of
from harness.report.observations import Observations, RecordSource, observe
from harness.report.pairing import contrast, group_of, mean_score

DefaultConfigs = Mapping[str, Mapping[str, Any]]
"""Default configuration of each method, by its name."""


@dataclass(frozen=True)
class AuditedPlace:
    """Default and tuned settings of one method on one backbone, task and size, in points.

    Attributes:
        method, backbone, task, n_train: the place.
        default, tuned: mean scores over the seeds that both have.
        points: tuned less default, positive where tuned settings are better, whatever the metric's direction.
        low, high: its 95 % interval over seeds and test rows; None where it is unknown.
        n_seeds: number of seeds that both have.
        settings: settings that tuning chose, by seed; or those that other tasks or seeds chose.
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


_Found = list[tuple[AuditedPlace, Record, int]]
"""Places, with a record of the default and the number of other settings."""


def audit(source: RecordSource, defaults: DefaultConfigs | None = None) -> Audits:
    """Compare default settings with the same method's `tune`, or with other settings that were measured beside them.

    With `tune`, settings were chosen on validation rows of each fit. Other settings count where they train no more
    parameters. Which of them counts is chosen on other tasks, or with one task on other seeds and test rows
    (`held_out_settings`), so that the best of many by chance is no evidence. Differences are paired by seed and test
    row.

    A method's difference on a backbone is the mean over its places, each of equal weight. Its interval treats tasks as
    independent. Sizes of one task share test rows, so their half widths are averaged. It covers the seeds and rows of
    these tasks; other tasks may differ more. Scores without an upper end, such as RMSE, are left out.

    Args:
        source: records of one device.
        defaults: default configurations; None takes what the records state (`Facts.at_defaults`), and configurations
            that have a counterpart with `tune`.

    Raises:
        UsageError: there is no record.
    """
    observations = observe(source)
    audited = [
        one
        for key, own in sorted(_by_method(observations).items(), key=lambda item: str(item[0]))
        if (one := _audited(own, observations, defaults)) is not None
    ]
    return Audits(tuple(one for one, _ in audited), tuple(place for _, places in audited for place in places))


_Name = tuple[int, str]
"""Version and configuration (JSON)."""

_Configurations = dict[_Name, dict[Place, dict[int, Record]]]
"""Records of one method and backbone: by configuration, place and seed."""


def _by_method(observations: Observations) -> dict[tuple[Any, ...], _Configurations]:
    """Return the scored records of each method, backbone and device whose scores have an upper end."""
    found: defaultdict[tuple[Any, ...], _Configurations] = defaultdict(dict)
    written: dict[int, str] = {}  # cells of one configuration mostly share it
    for record in _beside_others(observations):
        cell = record.cell
        if record.status != "ok" or record.score is None or cell.backbone is None or record.score.highest is None:
            continue
        places = found[cell.method, cell.backbone, cell.weights, record.device]
        config = written.get(id(cell.config)) or written.setdefault(id(cell.config), canonical_text(cell.config))
        of_configuration = places.setdefault((cell.version, config), {})
        place = (cell.task, cell.data, cell.n_train, cell.draw, cell.budget.label(), record.score.metric)
        of_configuration.setdefault(place, {})[cell.seed] = record
    return found


def _beside_others(observations: Observations) -> list[Record]:
    """Return the records of methods with several configurations on one backbone; the others are not looked at."""
    columns = observations.columns(("method", "backbone", "version", "config"))
    configurations: defaultdict[tuple[Any, ...], set[tuple[Any, ...]]] = defaultdict(set)
    for method, backbone, *configuration in zip(*columns.values(), strict=True):
        configurations[method, backbone].add(tuple(configuration))
    several = {of for of, own in configurations.items() if of[1] is not None and len(own) > 1}
    named = zip(observations.records, columns["method"], columns["backbone"], strict=True)
    return [record for record, *of in named if tuple(of) in several]


def _audited(
    own: _Configurations, observations: Observations, defaults: DefaultConfigs | None
) -> tuple[AuditedDefault, list[AuditedPlace]] | None:
    """Return the audit of one method on one backbone; None without a default, or without anything beside it."""
    if len(own) < 2:
        return None
    name = _default_of(own, defaults)
    if name is None:
        return None
    default, others = own[name], _beside(name, own)
    pairs = [
        (default[place], records)
        for other, places in others.items()
        if _untuned(other, own) == name[1]
        for place, records in places.items()
        if default.get(place, {}).keys() & records.keys()
    ]
    if pairs:
        return _by_tuning(pairs, observations)
    untuned = {other[1]: places for other, places in others.items() if "tune" not in first_of(places).cell.config}
    better = better_settings(default, untuned, observations)
    return None if better is None else _by_others(better)


def _beside(name: _Name, own: _Configurations) -> _Configurations:
    """Return the configurations that may be compared with the default: those of its version.

    A default rate that falls with the width of the backbone raises the version by one; given rates do not.
    """
    is_scaled = first_of(own[name]).facts.learning_rate is not None
    versions = {name[0], name[0] - 1} if is_scaled else {name[0]}
    return {other: places for other, places in own.items() if other != name and other[0] in versions}


def _untuned(name: _Name, own: _Configurations) -> str | None:
    """Return the configuration without `tune`; None for one that is not tuned."""
    config = first_of(own[name]).cell.config
    return canonical_text({key: value for key, value in config.items() if key != "tune"}) if "tune" in config else None


def _default_of(own: _Configurations, defaults: DefaultConfigs | None) -> _Name | None:
    """Return the default among some configurations of a method; None where it is not among them, or not known."""
    if defaults is None:
        untuned = {_untuned(name, own) for name in own}
        stated = [name for name in own if _is_stated_default(own[name])]
        found = stated or [name for name in own if name[1] in untuned]
    else:
        config = defaults.get(first_of(next(iter(own.values()))).cell.method)
        found = [] if config is None else [name for name in own if name[1] == canonical_text(dict(config))]
    return max(found, default=None)


def _is_stated_default(places: ByPlace) -> bool:
    return any(record.facts.at_defaults for records in places.values() for record in records.values())


# ---- tuned on validation rows


def _by_tuning(
    pairs: Sequence[tuple[Mapping[int, Record], Mapping[int, Record]]], observations: Observations
) -> tuple[AuditedDefault, list[AuditedPlace]]:
    found: _Found = []
    for default, tuned in pairs:
        seeds = sorted(default.keys() & tuned.keys())
        both = [default[seed] for seed in seeds], [tuned[seed] for seed in seeds]
        difference = contrast(group_of(both[1]), group_of(both[0]), observations)
        settings = {record.cell.seed: dict(record.facts.tuned_settings or {}) for record in both[1]}
        place = _place(both[0], 100.0 * mean_score(both[1]), difference, settings)
        found.append((place, both[0][0], int(both[1][0].cell.config["tune"])))
    return _over_places(found), [place for place, _, _ in found]


def _place(
    default: Sequence[Record], tuned: float, difference: Difference, settings: dict[int, dict[str, Any]]
) -> AuditedPlace:
    """Return one place from the difference of tuned less default scores."""
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
        default=100.0 * mean_score(default),
        tuned=tuned,
        points=sign * difference.mean,
        low=low,
        high=high,
        n_seeds=len(default),
        settings=settings,
    )


# ---- other settings, chosen elsewhere


def _by_others(better: BetterSettings) -> tuple[AuditedDefault, list[AuditedPlace]]:
    found: _Found = [
        (_place(one.default, 100.0 * one.score, one.difference, one.settings), one.default[0], better.n_settings)
        for one in better.places
    ]
    return _over_places(found, better), [place for place, _, _ in found]


# ---- over places


def _over_places(found: _Found, better: BetterSettings | None = None) -> AuditedDefault:
    places, first, n_trials = [place for place, _, _ in found], found[0][1], found[0][2]
    by_task: defaultdict[str, list[AuditedPlace]] = defaultdict(list)
    for place in places:
        by_task[place.task].append(place)
    points = float(np.mean([place.points for place in places]))
    half = half_width_over_tasks([[half_width(place) for place in own] for own in by_task.values()])
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
        held_out=None if better is None else better.held_out,
        better=None if better is None else better.settings,
    )


def half_width(place: AuditedPlace) -> float | None:
    """Return half the width of a place's interval; None without one."""
    return None if place.low is None or place.high is None else (place.high - place.low) / 2


def half_width_over_tasks(by_task: Iterable[Sequence[float | None]]) -> float | None:
    """Return half the width of the interval of a mean over places; None where one place has none.

    Args:
        by_task: half widths of each task's places. Errors within a task are taken as the same, those of two tasks as
            independent.
    """
    own = list(by_task)
    if any(width is None for widths in own for width in widths):
        return None
    n = sum(len(widths) for widths in own)
    return math.hypot(*(sum(width or 0.0 for width in widths) for widths in own)) / n


def _rounded(value: float) -> float:
    return round(value, 3)


def behind_by_records(observations: Observations) -> dict[str, AuditedDefault]:
    """Return the defaults that the records themselves show to be behind, by `default_key`."""
    return {default_key(one): one for one in audit(observations).defaults if one.is_behind}


def default_key(of: AuditedDefault | Cell) -> str:
    """Return the identity of a method's default settings on a backbone."""
    return canonical_text([of.method, of.version, of.backbone, of.config])
