"""Compute the comparison: one row per configuration and size, with its seeds summarised."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from harness.analysis import Dtype, summarise_scores
from harness.metrics import metrics
from harness.report.auditing import behind_by_records, default_key
from harness.report.observations import Observations, RecordSource, matrix, observe
from harness.support import UsageError, text

_GROUP = ("task", "data", "backbone", "weights", "device", "budget", "method", "family", "variant", "n_train", "draw")
PANEL = ("task", "data", "device", "budget", "backbone", "weights")
_NOT_OK = {
    "failed": "failed",
    "out_of_memory": "out of memory",
    "out_of_time": "out of time",
    "unsupported": "unsupported",
}

_DTYPES: dict[str, Dtype] = {
    **dict.fromkeys(_GROUP, "string"),
    "n_train": "Int64",
    "n_per_class": "Int64",
    "metric": "string",
    "higher_is_better": "boolean",
    **dict.fromkeys(("score", "score_low", "score_high"), "Float64"),
    "basis": "string",
    **dict.fromkeys(("n_seeds", "n_test", "n_test_available"), "Int64"),
    "train_score": "Float64",
    **dict.fromkeys(("load_seconds", "encode_seconds", "tune_seconds"), "Float64"),
    **dict.fromkeys(("fit_seconds", "train_seconds", "predict_seconds"), "Float64"),
    "memory_bytes": "Int64",
    "peak_bytes": "Int64",
    "memory": "string",
    **dict.fromkeys(("n_trainable", "n_parameters", "artifact_bytes"), "Int64"),
    **dict.fromkeys(("train_tokens_per_second", "utilisation", "energy_joules", "price"), "Float64"),
    "forgetting": "Float64",
    "forgetting_unit": "string",
    "defaults_chosen_here": "boolean",
    "backbone_has_seen": "boolean",
    "overlaps": "string",
    **dict.fromkeys(("train_rows_cut", "test_rows_cut"), "Float64"),
    "cut_at_tokens": "Int64",
    "cut_side": "string",
    **dict.fromkeys(("n_ok", "n_failed", "n_out_of_memory", "n_out_of_time", "n_unsupported", "n_missing"), "Int64"),
    "n_unsteady": "Int64",
    "n_learned_nothing": "Int64",
    "imported": "boolean",
    "note": "string",
    "settings": "string",
    **dict.fromkeys(("configuration", "backbone_label"), "string"),
    "default_points_behind": "Float64",
    "default_better": "string",
}

_SECONDS = ("load_seconds", "encode_seconds", "tune_seconds", "fit_seconds", "train_seconds", "predict_seconds")

_OF_CONFIGURATION = (
    "overlaps",
    "settings",
    "configuration",
    "backbone_label",
    "default_points_behind",
    "default_better",
)
"""Columns that all cells of a row share."""

_RATES = ("train_tokens_per_second", "utilisation", "energy_joules", "price")

_READ = (
    *_GROUP,
    *("settings", "configuration", "backbone_label", "default_points_behind", "default_better"),
    *("id", "seed", "status", "metric", "score", "score_low", "score_high", "train_score", "higher_is_better"),
    *("n_test", "n_test_available", "n_per_class", *_SECONDS, *_RATES),
    *(
        "memory_bytes",
        "peak_device_bytes",
        "peak_rss_above_baseline_bytes",
        "n_trainable",
        "n_parameters",
        "artifact_bytes",
    ),
    *("defaults_chosen_here", "backbone_has_seen", "overlaps", "unsteady", "learned_nothing", "imported"),
    *("train_rows_cut", "test_rows_cut", "cut_at_tokens", "cut_side"),
    *("forgetting", "forgetting_unit"),
)
"""Columns of records that a comparison reads."""


def comparison(source: RecordSource) -> pd.DataFrame:
    """Return one row per task, backbone, device, budget, configuration of a method, training size, draw and metric.

    Scores are means over seeds (`n_seeds` of them) with 95 % intervals and their `basis`. Seconds and `peak_bytes` are
    medians over the same seeds; seconds of seeds that the machine disturbed (`n_unsteady`) count only where all were
    disturbed. `peak_bytes` is the accelerator's where there is one (`memory` is "device"), else that of the process
    above its baseline ("host"). `memory_bytes` adds the weights that cells share: what the method needs. `train_score`
    and `forgetting` are means, null unless every scored seed has one. `n_missing` counts the seeds that some other
    method in the same tables has at that size. `train_rows_cut` and `test_rows_cut` are shares of the texts that were
    cut (`cut_at_tokens`, `cut_side`); null where no record says so. `variant` is the short name of the configuration;
    `settings` has the settings that distinguish it in full, and is empty where there are none. Where a table holds
    several backbones, `variant` joins `configuration`, the name without the backbone, and `backbone_label`; else the
    label is null.
    `n_learned_nothing` counts the seeds that predict one class, at the training loss of guessing.
    `default_points_behind` is null unless these default settings are behind other ones, by an audit of these records
    or by one that comes with the package. `default_better` names the settings that do better.

    Raises:
        UsageError: there is no record, or scores of one table are on two scales.
    """
    observations = observe(source)
    known = _MADE.get(observations)
    if known is None:
        known = _MADE[observations] = _compare(observations)
    return known.copy()


_MADE: WeakKeyDictionary[Observations, pd.DataFrame] = WeakKeyDictionary()
"""Comparisons already computed, since a report needs the same one many times."""


def _compare(observations: Observations) -> pd.DataFrame:
    groups: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    columns = observations.columns(_READ)
    behind = behind_by_records(observations)
    for record, *values in zip(observations.records, *columns.values(), strict=True):
        row: dict[str, Any] = dict(zip(_READ, values, strict=True))
        if behind and (flag := behind.get(default_key(record.cell))) is not None:
            row.update(default_points_behind=flag.points, default_better=flag.does_better)
        groups[tuple(row[name] for name in _GROUP)].append(row)
    by_metric = [rows for found in groups.values() for rows in _by_metric(found)]
    _check_scales(by_metric)
    expected = _expected_seeds(by_metric)
    summarised = [_summarise(observations, rows, expected(rows[0])) for rows in by_metric]
    order = (*PANEL, "variant", *_SIZE, "metric")
    summarised.sort(key=lambda row: tuple((row[name] is not None, row[name]) for name in order))
    return pd.DataFrame(
        {name: pd.array([row[name] for row in summarised], dtype=dtype) for name, dtype in _DTYPES.items()}
    )


_SIZE = ("n_train", "draw")

_SHARED = ("task", "data", "device", "budget", *_SIZE)
"""Columns that rows of one table share at one size."""


def _by_metric(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Split the cells of one configuration by metric; cells without a score join the most frequent one."""
    found: defaultdict[tuple[str, bool], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["metric"] is not None:
            found[row["metric"], row["higher_is_better"]].append(row)
    if len(found) < 2:
        return [rows]
    most = max(sorted(found), key=lambda metric: len(found[metric]))
    found[most] += [row for row in rows if row["metric"] is None]
    return [found[metric] for metric in sorted(found)]


def _check_scales(groups: list[list[dict[str, Any]]]) -> None:
    """Refuse fractions and percents of one metric in one table: a mean over both is no score.

    Raises:
        UsageError: a metric between 0 and 1 has scores above 1 beside others that are fractions.
    """
    found: dict[tuple[Any, ...], tuple[dict[str, Any], dict[str, Any]]] = {}
    for row in (row for rows in groups for row in rows if row["score"] is not None):
        if row["score"] <= 0:  # 0 is 0 on both
            continue
        key = (*(row[name] for name in ("task", "data", "device", "budget")), row["metric"])
        low, high = found.get(key, (row, row))
        found[key] = (min(low, row, key=_value), max(high, row, key=_value))
    for low, high in found.values():
        if low["score"] <= 1 < high["score"] - _ROUNDING and _is_fraction(low["metric"]):
            told = [f"{_value(row):.6g} ({row['variant']}, seed {row['seed']})" for row in (low, high)]
            raise UsageError(
                f"Scores of {low['metric']} on task {text.plain(low['task'])} are on two scales: {text.plain(told[0])} "
                f"and {text.plain(told[1])}. Expected all of them to be at most 1. Import those results again, as "
                "fractions."
            )


_ROUNDING = 1e-6


def _is_fraction(metric: str) -> bool:
    return bounds_of(metric)[1] == 1.0


def bounds_of(metric: str) -> tuple[float, float]:
    """Return the range of a metric; infinite where it has no end, or is not registered here."""
    if metric not in metrics:
        return -math.inf, math.inf
    spec = metrics.get(metric)
    return spec.low, math.inf if spec.high is None else spec.high


def _value(row: dict[str, Any]) -> float:
    return float(row["score"])


def _expected_seeds(groups: list[list[dict[str, Any]]]) -> Callable[[dict[str, Any]], set[int]]:
    """Return a function from a row to the seeds that others of its table have at its size.

    Cells without a score have no metric.
    """
    seeds: defaultdict[tuple[Any, ...], defaultdict[str | None, set[int]]]
    seeds = defaultdict(lambda: defaultdict(set))
    for row in (row for rows in groups for row in rows):
        seeds[tuple(row[name] for name in _SHARED)][row["metric"]].add(row["seed"])

    def expected(row: dict[str, Any]) -> set[int]:
        metric = row["metric"]
        return {
            seed
            for measured, own in seeds[tuple(row[name] for name in _SHARED)].items()
            if metric is None or measured in (None, metric)
            for seed in own
        }

    return expected


def _summarise(observations: Observations, rows: list[dict[str, Any]], expected: set[int]) -> dict[str, Any]:
    rows = sorted(rows, key=lambda row: row["seed"])
    ok = [row for row in rows if row["status"] == "ok" and row["score"] is not None]
    counts = Counter(row["status"] for row in rows)
    first = ok[0] if ok else rows[0]
    summary: dict[str, Any] = dict.fromkeys(_DTYPES)
    summary.update({name: first[name] for name in (*_GROUP, "n_per_class", "metric", "higher_is_better")})
    summary["defaults_chosen_here"] = _any(row["defaults_chosen_here"] for row in rows)
    summary["backbone_has_seen"] = _any(row["backbone_has_seen"] for row in rows)
    summary.update({name: first[name] for name in _OF_CONFIGURATION})
    summary["imported"] = any(row["imported"] for row in rows)
    for name in ("train_rows_cut", "test_rows_cut"):
        summary[name] = _over(max, ok, name)
    limits = {(row["cut_at_tokens"], row["cut_side"]) for row in ok if row["cut_side"] is not None}
    if len(limits) == 1:
        ((summary["cut_at_tokens"], summary["cut_side"]),) = limits
    summary.update({f"n_{status}": counts[status] for status in ("ok", *_NOT_OK)})
    summary["n_missing"] = len(expected - {row["seed"] for row in rows})
    summary["n_seeds"] = len(ok)
    summary["note"] = _note(summary)
    if not ok:
        return summary
    scores = [row["score"] for row in ok]
    rows_of = matrix(observations, [(row["id"], row["device"]) for row in ok], scores)
    bounds = bounds_of(first["metric"])
    if min(scores) < bounds[0] or max(scores) > bounds[1]:  # imported percents
        bounds = (-math.inf, math.inf)
    if rows_of is None:
        found = summarise_scores(scores, bounds=bounds)
    else:
        found = summarise_scores(scores, rows_of.values, bounds=bounds, is_mean=rows_of.is_mean)
    low, high, basis = found.low, found.high, found.basis
    own = (first["score_low"], first["score_high"])
    if (
        basis == "none" and None not in own and own[0] < own[1]
    ):  # the record's own, where rows tell nothing of the metric
        low, high, basis = *own, "test rows only"
    summary.update(score=found.mean, score_low=low, score_high=high, basis=basis)
    steady = [row for row in ok if row["unsteady"] is None]
    summary["n_unsteady"] = len(ok) - len(steady)
    summary["n_learned_nothing"] = sum(bool(row["learned_nothing"]) for row in ok)
    for name in (*_SECONDS, *_RATES):
        found_steady = _over(np.median, steady, name)
        summary[name] = _over(np.median, ok, name) if found_steady is None else found_steady
    if all(row["train_score"] is not None for row in ok):  # over other seeds it would not be comparable with the score
        summary["train_score"] = _over(np.mean, ok, "train_score")
    if len({row["forgetting_unit"] for row in ok}) == 1:
        summary["forgetting"] = _over(np.mean, ok, "forgetting")
        summary["forgetting_unit"] = first["forgetting_unit"]
    for name in ("n_trainable", "n_parameters", "artifact_bytes", "n_test", "n_test_available"):
        summary[name] = _whole(_over(np.median, ok, name))
    on_device = any(row["peak_device_bytes"] is not None for row in ok)
    peak = "peak_device_bytes" if on_device else "peak_rss_above_baseline_bytes"
    summary["peak_bytes"] = _whole(_over(np.median, ok, peak))
    summary["memory_bytes"] = _whole(_over(np.median, ok, "memory_bytes"))
    summary["memory"] = None if summary["peak_bytes"] is None else "device" if on_device else "host"
    return summary


def _note(summary: dict[str, Any]) -> str | None:
    parts = [f"{summary[f'n_{status}']} {label}" for status, label in _NOT_OK.items() if summary[f"n_{status}"]]
    if summary["n_missing"]:
        parts.append(f"{summary['n_missing']} missing")
    return ", ".join(parts) or None


def _over(reduce: Callable[[Any], Any], rows: list[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return float(reduce(values)) if values else None


def _any(values: Iterable[bool | None]) -> bool | None:
    known = [value for value in values if value is not None]
    return any(known) if known else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def each(frame: pd.DataFrame) -> Iterator[Any]:
    """Return the rows of a frame as named tuples."""
    return iter(frame.itertuples(index=False))
