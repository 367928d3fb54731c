"""Find each method's best learning rate on a grid of rates, and its ratio to that of full fine-tuning."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.records import Record, canonical_text
from harness.report.auditing import half_width_over_tasks
from harness.report.observations import Observations, RecordSource, observe
from harness.report.pairing import contrast, group_of

_SETTING = "learning_rate"

FULL = "full"
"""Method whose best rate the others are compared with."""


@dataclass(frozen=True)
class BestRate:
    """The best learning rate of one method on one backbone, over a grid of rates.

    Attributes:
        method, backbone: the method and the backbone.
        rate: peak learning rate with the best mean score over tasks and sizes, as it was used.
        low, high: smallest and largest rate that are not shown to be worse than it.
        rates: all rates that were tried, in order.
        score: mean score at `rate`, in points.
        tasks, sizes: places that have all these rates.
        n_seeds: fewest seeds of a place.
        is_at_end: whether `rate` is the smallest or largest one that was tried, so that a better one may lie beyond.
        ratio: `rate` as a multiple of that of `full` on the same backbone; None without one.
        ratio_low, ratio_high: least and largest ratio of rates that are not shown to be worse.
    """

    method: str
    backbone: str
    rate: float
    low: float
    high: float
    rates: tuple[float, ...]
    score: float
    tasks: tuple[str, ...]
    sizes: tuple[int, ...]
    n_seeds: int
    is_at_end: bool
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


_Place = tuple[Any, ...]
_Rates = dict[float, dict[_Place, dict[int, Record]]]
"""Records by learning rate, place and seed."""


def best_rates(source: RecordSource) -> tuple[BestRate, ...]:
    """Return the best learning rate of each method and backbone that was run with at least two rates.

    Only configurations that differ in the learning rate alone are compared, and only on tasks, sizes and seeds that all
    of the rates share. A rate counts as used: a default that falls with the width of the backbone counts as what it
    fell to. Scores without an upper end, such as RMSE, are left out.

    Args:
        source: records of one device.

    Raises:
        UsageError: there is no record.
    """
    observations = observe(source)
    found = [
        one
        for key, own in sorted(_by_configuration(observations).items(), key=lambda item: str(item[0]))
        if (one := _best(key[0], key[1], own, observations)) is not None
    ]
    # A method may have several other settings: the grid with the most rates counts.
    largest: dict[tuple[str, str], BestRate] = {}
    for one in found:
        known = largest.get((one.method, one.backbone))
        if known is None or len(one.rates) > len(known.rates):
            largest[one.method, one.backbone] = one
    return tuple(_with_ratio(one, largest.get((FULL, one.backbone))) for one in largest.values())


def _by_configuration(observations: Observations) -> dict[tuple[str, str, str], _Rates]:
    """Return scored records by method, backbone and all settings but the learning rate."""
    found: defaultdict[tuple[str, str, str], _Rates] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for record in observations.records:
        cell, rate = record.cell, _rate(record)
        if record.status != "ok" or record.score is None or record.score.highest is None:
            continue
        if rate is None or cell.backbone is None or "tune" in cell.config:
            continue
        others = canonical_text({name: value for name, value in cell.config.items() if name != _SETTING})
        key = (cell.method, cell.backbone, f"{cell.weights} {record.device} {others}")
        place = (cell.task, cell.data, cell.n_train, cell.draw, cell.budget.label(), record.score.metric)
        found[key][rate][place][cell.seed] = record
    return found


def _rate(record: Record) -> float | None:
    """Return the learning rate that a record used; None where it is not known."""
    if record.facts.learning_rate is not None:
        return record.facts.learning_rate
    given = record.cell.config.get(_SETTING)
    # Records of earlier versions say in a remark that the rate was not the setting's.
    return float(given) if isinstance(given, int | float) and _SETTING not in record.facts.remarks else None


def _best(method: str, backbone: str, own: _Rates, observations: Observations) -> BestRate | None:
    counts = {place: sum(place in of_rate for of_rate in own.values()) for rate in own.values() for place in rate}
    places = [place for place, n in counts.items() if n == max(counts.values())]
    rates = sorted(rate for rate, of_rate in own.items() if all(place in of_rate for place in places))
    seeds = {place: sorted(set.intersection(*(set(own[rate][place]) for rate in rates))) for place in places if rates}
    if len(rates) < 2 or not all(seeds.values()):
        return None
    kept = {rate: {place: [own[rate][place][seed] for seed in seeds[place]] for place in places} for rate in rates}
    means = {rate: _mean(of_rate) for rate, of_rate in kept.items()}
    best = max(rates, key=lambda rate: means[rate])
    tied = [rate for rate in rates if rate == best or not _is_worse(kept[rate], kept[best], observations)]
    return BestRate(
        method=method,
        backbone=backbone,
        rate=best,
        low=min(tied),
        high=max(tied),
        rates=tuple(rates),
        score=round(100.0 * abs(means[best]), 3),
        tasks=tuple(sorted({place[0] for place in places})),
        sizes=tuple(sorted({place[2] for place in places})),
        n_seeds=min(len(of_place) for of_place in seeds.values()),
        is_at_end=best in (rates[0], rates[-1]),
    )


def _mean(of_rate: Mapping[_Place, Sequence[Record]]) -> float:
    """Return the mean score over places, negative where lower is better."""
    return float(np.mean([np.mean([_signed(record) for record in records]) for records in of_rate.values()]))


def _signed(record: Record) -> float:
    assert record.score is not None
    return record.score.value if record.score.higher_is_better else -record.score.value


def _is_worse(
    of_rate: Mapping[_Place, Sequence[Record]], best: Mapping[_Place, Sequence[Record]], observations: Observations
) -> bool:
    """Return whether a rate is shown to be worse: the 95 % interval of its distance over places lies above 0."""
    halves: defaultdict[str, list[float | None]] = defaultdict(list)
    behind = []
    for place, records in best.items():
        found = contrast(group_of(records), group_of(of_rate[place]), observations)
        assert records[0].score is not None
        behind.append(found.mean if records[0].score.higher_is_better else -found.mean)
        halves[place[0]].append(None if found.low is None or found.high is None else (found.high - found.low) / 2)
    half = half_width_over_tasks(halves.values())
    return half is not None and float(np.mean(behind)) - half > 0


def _with_ratio(one: BestRate, full: BestRate | None) -> BestRate:
    if full is None:
        return one
    values = asdict(one) | {
        "ratio": one.rate / full.rate,
        "ratio_low": one.low / full.high,
        "ratio_high": one.high / full.low,
    }
    return BestRate(**values)
