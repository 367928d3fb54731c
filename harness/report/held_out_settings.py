"""Find how much better a method scores with other settings than its defaults, chosen where they are not judged.

The best of several settings is ahead by chance alone. So each task is judged with the settings that do best on the
other tasks. With one task, each seed and half of the test rows is judged with the settings that do best on the other
seeds and the other half.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.analysis import Difference, paired_difference
from harness.records import Record
from harness.report.observations import Observations, matrix
from harness.report.pairing import contrast, group_of, mean_score

Place = tuple[Any, ...]
"""Task, data, size, draw, budget and metric."""

ByPlace = Mapping[Place, Mapping[int, Record]]
"""Records of one configuration, by place and seed."""

HeldOut = Literal["tasks", "seeds and test rows"]
"""Units that are judged by settings which the others chose."""


@dataclass(frozen=True)
class BetterPlace:
    """Default and better settings at one place.

    Attributes:
        default: records with default settings.
        score: mean score of the settings that were chosen elsewhere.
        difference: their score less that of the default.
        settings: what they change of the default, by seed; empty where the default was chosen.
    """

    default: Sequence[Record]
    score: float
    difference: Difference
    settings: dict[int, dict[str, Any]]


@dataclass(frozen=True)
class BetterSettings:
    """Default settings of one method on one backbone beside others.

    Attributes:
        places: each place that was judged.
        n_settings: number of other settings.
        held_out: units that were judged by the choice of the others.
        settings: what the settings that do best over all places change of the default; empty where it does best.
    """

    places: tuple[BetterPlace, ...]
    n_settings: int
    held_out: HeldOut
    settings: dict[str, Any]


def better_settings(
    default: ByPlace, others: Mapping[str, ByPlace], observations: Observations
) -> BetterSettings | None:
    """Return how other settings compare with the defaults; None where they cannot be chosen apart from the judged rows.

    Settings that train more parameters than the default are left out: they are another size, not another tuning.

    Args:
        default: records with default settings.
        others: records of each other configuration.
        observations: observations that hold all of them.
    """
    kept = {name: own for name, own in others.items() if _fits(default, own)}
    places = [place for place in default if any(_seeds(place, default, own) for own in kept.values())]
    if not places:
        return None
    tasks = {place[:2] for place in places}
    judged = (
        [_on_other_tasks(place, places, default, kept, observations) for place in places]
        if len(tasks) > 1
        else _on_other_seeds(places, default, kept, observations)
    )
    found = tuple(one for one in judged if one is not None)
    if not found:
        return None
    best = _best(places, default, kept)
    return BetterSettings(
        found,
        len(kept),
        "tasks" if len(tasks) > 1 else "seeds and test rows",
        {} if best is None else _changes(default, kept[best]),
    )


def first_of(own: ByPlace) -> Record:
    """Return one record of a configuration."""
    return next(iter(next(iter(own.values())).values()))


def _seeds(place: Place, default: ByPlace, own: ByPlace) -> list[int]:
    """Return the seeds that a configuration shares with the default at a place."""
    return sorted(default.get(place, {}).keys() & own.get(place, {}).keys())


def _fits(default: ByPlace, own: ByPlace) -> bool:
    """Return whether a configuration trains no more parameters than the default, as far as that is known."""
    least, most = _trainable(default), _trainable(own)
    return least is None or most is None or most <= least


def _trainable(own: ByPlace) -> float | None:
    known = [r.cost.n_trainable for records in own.values() for r in records.values() if r.cost.n_trainable is not None]
    return float(np.median(known)) if known else None


def _changes(default: ByPlace, own: ByPlace) -> dict[str, Any]:
    """Return the settings of a configuration that differ from the default."""
    before, after = (first_of(of).cell.config for of in (default, own))
    return {name: value for name, value in after.items() if before.get(name) != value or name not in before}


def _best(places: Iterable[Place], default: ByPlace, others: Mapping[str, ByPlace]) -> str | None:
    """Return the configuration with the largest mean gain over tasks; None where the default does best."""
    gains: dict[str, float] = {}
    for name, own in others.items():
        by_task: defaultdict[Any, list[float]] = defaultdict(list)
        for place in places:
            if seeds := _seeds(place, default, own):
                by_task[place[:2]].append(float(np.mean([_gain(own[place][s], default[place][s]) for s in seeds])))
        if by_task:
            gains[name] = float(np.mean([np.mean(found) for found in by_task.values()]))
    best = max(sorted(gains), key=lambda name: gains[name], default=None)
    return best if best is not None and gains[best] > 0 else None


def _gain(of: Record, less: Record) -> float:
    assert of.score is not None
    assert less.score is not None
    return (of.score.value - less.score.value) * (1.0 if of.score.higher_is_better else -1.0)


# ---- chosen on other tasks


def _on_other_tasks(
    place: Place, places: Sequence[Place], default: ByPlace, others: Mapping[str, ByPlace], observations: Observations
) -> BetterPlace | None:
    here = {name: own for name, own in others.items() if _seeds(place, default, own)}
    elsewhere = [other for other in places if other[:2] != place[:2]]
    if not any(other in own for own in here.values() for other in elsewhere):
        return None
    best = _best(elsewhere, default, here)
    if best is None:
        records = [default[place][seed] for seed in sorted(default[place])]
        return BetterPlace(records, mean_score(records), _no_difference(records, observations), {})
    seeds = _seeds(place, default, here[best])
    both = [here[best][place][seed] for seed in seeds], [default[place][seed] for seed in seeds]
    changes = _changes(default, here[best])
    difference = contrast(group_of(both[0]), group_of(both[1]), observations)
    return BetterPlace(both[1], mean_score(both[0]), difference, dict.fromkeys(seeds, changes))


def _no_difference(records: Sequence[Record], observations: Observations) -> Difference:
    """Return the difference of the default to itself: exactly 0, on whatever rows."""
    rows = _rows(records, observations)
    return Difference(0.0, 0.0, 0.0, 1.0, len(records), 0 if rows is None else rows.shape[1], "none")


def _rows(records: Sequence[Record], observations: Observations) -> npt.NDArray[np.float64] | None:
    scores = [record.score.value for record in records if record.score is not None]
    found = matrix(observations, [(record.id, record.device) for record in records], scores)
    return None if found is None else np.asarray(found.values, dtype=np.float64)


# ---- chosen on other seeds and test rows


def _on_other_seeds(
    places: Sequence[Place], default: ByPlace, others: Mapping[str, ByPlace], observations: Observations
) -> list[BetterPlace]:
    """Judge the places of one task, each with settings that its own other seeds and test rows choose."""
    found = []
    for place in places:
        here = {name: own[place] for name, own in others.items() if default[place].keys() <= own.get(place, {}).keys()}
        seeds = sorted(default[place])
        records = [default[place][seed] for seed in seeds]
        rows = _rows(records, observations)
        by_name = {name: _rows([own[seed] for seed in seeds], observations) for name, own in sorted(here.items())}
        alike = {name: values for name, values in by_name.items() if values is not None and rows is not None}
        if len(seeds) < 2 or rows is None or len(alike) < len(by_name) or not alike:
            continue
        if any(values.shape != rows.shape for values in alike.values()):
            continue
        assert records[0].score is not None
        sign = 1.0 if records[0].score.higher_is_better else -1.0
        chosen, names = _crossed(rows, alike, sign)
        settings: dict[int, dict[str, Any]] = {}
        for seed, name in zip(seeds, names, strict=True):
            settings[seed] = {} if name is None else _changes(default, others[name])
        difference = paired_difference(chosen, rows)
        found.append(BetterPlace(records, mean_score(records) + difference.mean, difference, settings))
    return found


def _crossed(
    rows: npt.NDArray[np.float64], others: Mapping[str, npt.NDArray[np.float64]], sign: float
) -> tuple[npt.NDArray[np.float64], list[str | None]]:
    """Return the scores of the settings that the other seeds and the other half of the rows choose.

    Args:
        rows: scores of the default by seed and test row, shape (n_seeds, n_rows).
        others: the same of other settings, by name.
        sign: 1 where higher is better, else -1.

    Returns:
        The scores, shape (n_seeds, n_rows), and the settings of each seed's first half of the rows (None: the default).
    """
    n_seeds, n_rows = rows.shape
    halves = np.arange(n_rows) % 2
    chosen, names = rows.copy(), []
    for seed in range(n_seeds):
        others_seeds = np.arange(n_seeds) != seed
        for half in (1, 0):
            elsewhere = np.ix_(others_seeds, halves != half)
            gains = {name: sign * float((values - rows)[elsewhere].mean()) for name, values in others.items()}
            best = max(gains, key=lambda name: gains[name])
            if gains[best] > 0:
                chosen[seed, halves == half] = others[best][seed, halves == half]
        names.append(best if gains[best] > 0 else None)
    return chosen, names
