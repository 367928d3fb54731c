"""Compare prompting with training: cost of a prediction, and the number of predictions after which training pays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pandas as pd

from harness.analysis import NO_PRICES, BreakEven, Difference, Prices, Spent, break_even, holm, spent
from harness.records import Record, prompts_model
from harness.report.contrasts import GROUP, LEVEL, groups, key_of
from harness.report.observations import Observations, RecordSource, observe
from harness.report.pairing import contrast
from harness.report.tables import comparison, each
from harness.support import text

Quality = Literal["better", "worse", "tied", "not tested"]
"""Verdict of a test on a trained method's score beside that of the prompted one; `tied` is not shown to differ."""

Unit = Literal["money", "seconds"]

THOUSAND: Final = 1000
"""Number of predictions whose cost tables show."""


@dataclass(frozen=True)
class Contender:
    """One configuration at one size, with its score and its costs.

    Attributes:
        row: its row of `comparison`.
        name: its configuration and its backbone's short name, for readers.
        is_prompted: whether it prompts a model; else it learns from labels, or compares frozen vectors.
        spent: its costs.
        records: its scored records.
    """

    row: Any
    name: str
    is_prompted: bool
    spent: Spent
    records: tuple[Record, ...]

    @property
    def task(self) -> tuple[str, str, str]:
        """The task, its data and the metric: what two scores must share to be compared."""
        return self.row.task, self.row.data, self.row.metric


@dataclass(frozen=True)
class Pair:
    """A trained method beside a prompted one on the same task.

    Attributes:
        unit: unit of the break-even: money where both have prices, else seconds on one device; None where neither
            compares.
        found: the break-even; None without a unit.
        difference: score of the trained one less that of the prompted one.
        quality: what a test says of the difference, with Holm's correction over the pairs of the task.
        is_across_devices: whether money compares seconds of different devices, or a served model with a machine.
    """

    trained: Contender
    prompted: Contender
    unit: Unit | None
    found: BreakEven | None
    difference: Difference
    quality: Quality
    is_across_devices: bool

    @property
    def is_better(self) -> bool:
        """Whether the trained method's mean score is the better one."""
        mean = self.difference.mean
        return mean > 0 if bool(self.trained.row.higher_is_better) else mean < 0


def contenders(source: RecordSource, prices: Prices = NO_PRICES) -> dict[tuple[str, str, str], list[Contender]]:
    """Return the scored configurations of each task that has both a prompted and a trained one.

    Methods that ignore the texts are left out.

    Args:
        source: records.
        prices: what machines, labels and tokens cost.

    Raises:
        UsageError: there is no record.
    """
    observations = observe(source)
    found: dict[tuple[str, str, str], list[Contender]] = defaultdict(list)
    kept = _records_by_key(observations)
    for row in each(comparison(observations)):
        records = kept.get(key_of(row), [])
        role = records[0].facts.role if records else None
        if role is None or role == "floor":
            continue
        is_prompted = prompts_model(role, records[0].cell.method)
        one = Contender(row, _name(row), is_prompted, spent(records, prices), tuple(records))
        found[one.task].append(one)
    return {task: own for task, own in found.items() if len({one.is_prompted for one in own}) == 2}


def _records_by_key(observations: Observations) -> dict[tuple[Any, ...], list[Record]]:
    found: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    columns = observations.columns(GROUP)
    for record, *values in zip(observations.records, *columns.values(), strict=True):
        if record.status == "ok" and record.score is not None:
            found[tuple(values)].append(record)
    return found


def _name(row: Any) -> str:
    """Return the name of a configuration with its backbone, and its budget where it has one."""
    parts = [text.plain(row.configuration)]
    if text.present(row.backbone):
        parts.append(text.plain(row.backbone).rpartition("/")[2])
    if row.budget != "default":
        parts.append(text.plain(row.budget))
    return " · ".join(parts)


def unit_of(one: Contender, other: Contender) -> Unit | None:
    """Return the unit in which the costs of two configurations compare; None where they do not."""
    if one.spent.money is not None and other.spent.money is not None:
        return "money"
    timed = one.spent.seconds is not None and other.spent.seconds is not None
    return "seconds" if timed and one.spent.is_timed_like(other.spent) else None


def every_pair(source: RecordSource, prices: Prices = NO_PRICES) -> list[Pair]:
    """Return each trained configuration beside each prompted one that saw no more labels, on the same task."""
    return _pairs(source, prices, _no_more_labels)


def pairs_with_best(source: RecordSource, prices: Prices = NO_PRICES) -> list[Pair]:
    """Return each trained configuration beside the best prompted one that saw no more labels, on the same task.

    Prompted configurations whose costs compare with its own come first, then those with the better mean score.
    """
    return _pairs(source, prices, _best)


def _no_more_labels(trained: Contender, prompted: Sequence[Contender]) -> list[Contender]:
    return [one for one in prompted if one.row.n_train <= trained.row.n_train]


def _best(trained: Contender, prompted: Sequence[Contender]) -> list[Contender]:
    sign = 1 if bool(trained.row.higher_is_better) else -1
    found = _no_more_labels(trained, prompted)
    return sorted(found, key=lambda one: (unit_of(trained, one) is None, -sign * one.row.score, one.name))[:1]


def _pairs(
    source: RecordSource, prices: Prices, choose: Callable[[Contender, Sequence[Contender]], list[Contender]]
) -> list[Pair]:
    observations = observe(source)
    scored = groups(observations)
    found: list[Pair] = []
    for own in contenders(observations, prices).values():
        prompted = [one for one in own if one.is_prompted]
        sets = [(one, other) for one in own if not one.is_prompted for other in choose(one, prompted)]
        differences = [
            contrast(scored[key_of(one.row)], scored[key_of(other.row)], observations) for one, other in sets
        ]
        corrected = holm([difference.p_value for difference in differences])
        for (one, other), difference, p_value in zip(sets, differences, corrected, strict=True):
            found.append(_pair(one, other, difference, p_value))
    return found


def _pair(trained: Contender, prompted: Contender, difference: Difference, p_value: float | None) -> Pair:
    unit = unit_of(trained, prompted)
    costs = [one.spent.money if unit == "money" else one.spent.seconds for one in (trained, prompted)]
    even = None
    if unit is not None and costs[0] is not None and costs[1] is not None:
        even = break_even(costs[0], costs[1])
    is_higher = difference.mean > 0 if bool(trained.row.higher_is_better) else difference.mean < 0
    quality: Quality = "not tested"
    if p_value is not None:
        quality = "tied" if p_value >= LEVEL else "better" if is_higher else "worse"
    across = unit == "money" and not trained.spent.is_timed_like(prompted.spent)
    return Pair(trained, prompted, unit, even, difference, quality, across)


_DTYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("task", "data", "metric", "role", "method", "backbone", "device", "budget"), "string"),
    "n_train": "Int64",
    "draw": "string",
    **dict.fromkeys(("score", "score_low", "score_high"), "Float64"),
    "higher_is_better": "boolean",
    "n_records": "Int64",
    **dict.fromkeys(("train_seconds", "seconds_per_1000", "train_price", "label_price", "price_per_1000"), "Float64"),
    **dict.fromkeys(("against", "against_backbone", "against_device"), "string"),
    "against_n_train": "Int64",
    **dict.fromkeys(("against_score", "against_seconds_per_1000", "against_price_per_1000"), "Float64"),
    **dict.fromkeys(("difference", "difference_low", "difference_high"), "Float64"),
    **dict.fromkeys(("quality", "unit", "break_even_outcome"), "string"),
    **dict.fromkeys(("break_even", "break_even_low", "break_even_high"), "Float64"),
    **dict.fromkeys(("break_even_has_interval", "is_across_devices"), "boolean"),
    **dict.fromkeys(("n_predictions", "total", "total_prompted"), "Float64"),
}


def prompting_table(
    source: RecordSource, prices: Prices = NO_PRICES, n_predictions: float | None = None
) -> pd.DataFrame:
    """Return one row for each prompted configuration, and for each trained one beside the best prompted one.

    Columns: the configuration (task, data, metric, role, method, backbone, device, budget, n_train, draw); its score
    with interval, and n_records; train_seconds and train_price (encoding, tuning and fitting), label_price,
    seconds_per_1000 and price_per_1000 (of 1,000 predictions), which are geometric means over records; against and
    what follows (the best prompted configuration with no more labels, its score and costs); difference (score less
    that of the latter) with its interval and quality; break_even with its outcome, ends and unit. Total and
    total_prompted, of a number of predictions, are in that unit.
    """
    observations = observe(source)
    found = [_row_of(one) for own in contenders(observations, prices).values() for one in own if one.is_prompted]
    found += [_row_of_pair(pair, n_predictions) for pair in pairs_with_best(observations, prices)]
    return _framed(found)


def pairs_table(source: RecordSource, prices: Prices = NO_PRICES, n_predictions: float | None = None) -> pd.DataFrame:
    """Return one row for each trained configuration and each prompted one with no more labels, on the same task.

    Columns are those of `prompting_table`.
    """
    return _framed([_row_of_pair(pair, n_predictions) for pair in every_pair(source, prices)])


def _framed(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        score = -row["score"] if row["higher_is_better"] else row["score"]
        against = (row.get("against") or "", row.get("against_n_train") or 0)
        return row["task"], row["data"], row["metric"], row["role"] != "prompted", row["n_train"], score, against

    ordered = sorted(rows, key=place)
    columns: dict[str, Any] = {name: [row.get(name) for row in ordered] for name in _DTYPES}
    return pd.DataFrame({name: pd.Series(columns[name], dtype=dtype) for name, dtype in _DTYPES.items()})


def _row_of(one: Contender) -> dict[str, Any]:
    row, seconds, money = one.row, one.spent.seconds, one.spent.money
    shared = ("task", "data", "metric", "backbone", "device", "budget", "n_train", "draw", "score")
    return {
        **{name: getattr(row, name) for name in (*shared, "score_low", "score_high", "higher_is_better")},
        "role": "prompted" if one.is_prompted else "trained",
        "method": row.configuration,
        "n_records": one.spent.n_records,
        "train_seconds": None if seconds is None else seconds.fixed,
        "seconds_per_1000": None if seconds is None else THOUSAND * seconds.per_prediction,
        "train_price": None if money is None else money.fixed - money.labels,
        "label_price": None if money is None else money.labels,
        "price_per_1000": None if money is None else THOUSAND * money.per_prediction,
    }


def _row_of_pair(pair: Pair, n_predictions: float | None) -> dict[str, Any]:
    against, found, difference = pair.prompted, pair.found, pair.difference
    costs = _row_of(against)
    told: dict[str, Any] = {
        "against": against.row.configuration,
        "against_backbone": against.row.backbone,
        "against_device": against.row.device,
        "against_n_train": against.row.n_train,
        **{f"against_{name}": costs[name] for name in ("score", "seconds_per_1000", "price_per_1000")},
        "difference": difference.mean,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "quality": pair.quality,
        "unit": pair.unit,
        "is_across_devices": pair.is_across_devices,
    }
    if found is not None:
        told |= {
            "break_even_outcome": found.outcome,
            "break_even": found.n,
            "break_even_low": found.low,
            "break_even_high": found.high,
            "break_even_has_interval": found.has_interval,
        }
    if n_predictions is not None:
        told["n_predictions"] = n_predictions
        for name, one in (("total", pair.trained), ("total_prompted", against)):
            spent_on = one.spent.money if pair.unit == "money" else one.spent.seconds if pair.unit else None
            told[name] = None if spent_on is None else spent_on.total(n_predictions)
    return {**_row_of(pair.trained), **told}
