"""Records as evidence: means over seeds of full runs, one point a task, configuration and size."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from harness.canonical import encode
from harness.records import Record
from harness.variants import variants

CHANCE = frozenset({"majority"})
"""Methods that nobody would choose: what they reach says something of a task, and nothing of methods."""

NO_EVIDENCE = frozenset({"defaults", "choose"})
"""Suites whose records chose something, on validation rows: default settings, or a method for a user's own data."""


@dataclass(frozen=True)
class Point:
    """What was measured of one configuration on one task at one size, seeds and devices together where they may be.

    Attributes:
        method: label of the configuration, by which points are compared.
        name, config: of the method, as its cells carry them.
        score: mean over seeds of `metric`.
        seed_variance: of that mean, over seeds; 0 for one seed.
        n_seeds: that it is the mean of, at least.
        n_test: test rows.
        seconds, memory, predict: medians by device: seconds of training, peak bytes, seconds a text.
        trainable, stored: medians.
        classes: of the task, where it has any.
        n_records: it rests on.
    """

    task: str
    kind: str
    backbone: str | None
    method: str
    name: str
    config: dict[str, Any]
    family: str
    n_train: int
    metric: str
    higher_is_better: bool
    score: float
    seed_variance: float
    n_seeds: int
    n_test: int
    seconds: dict[str, float]
    memory: dict[str, float]
    predict: dict[str, float]
    trainable: float | None
    stored: float | None
    classes: int | None
    n_records: int


@dataclass(frozen=True)
class Evidence:
    """All points, and what is known of tasks.

    Attributes:
        tokens: of a training text by task, where a frozen backbone has counted them.
        longest: tokens of the longest text of each task that was trained on or predicted, where records say so.
        n_records: scored records that the points rest on.
        devices: scored records by device.
    """

    points: tuple[Point, ...]
    tokens: dict[str, float]
    longest: dict[str, float]
    n_records: int
    devices: Counter[str]

    @property
    def kinds(self) -> list[str]:
        """Kinds of tasks that anything is known of."""
        return sorted({point.kind for point in self.points})


def gather(records: Iterable[Record]) -> Evidence:
    """Points of scored records: the latest version of each method, default sweeps left out.

    A configuration that lacks settings which a later one has is the same configuration, before those settings existed.
    """
    kept = [r for r in records if r.status == "ok" and r.score is not None and r.suite not in NO_EVIDENCE]
    latest: dict[str, int] = {}
    for record in kept:
        latest[record.cell.method] = max(latest.get(record.cell.method, 0), record.cell.version)
    kept = [r for r in kept if r.cell.version == latest[r.cell.method] and r.cell.method not in CHANCE]
    cells = [dataclasses.replace(r.cell, config=config) for r, config in zip(kept, _merged(kept), strict=True)]
    groups: defaultdict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record, cell, label in zip(kept, cells, variants(cells), strict=True):
        budget = cell.budget
        is_cut = budget.train_seconds is not None or budget.train_flops is not None
        name = f"{label}, cut at {budget.label()}" if is_cut else label
        groups[cell.task, cell.backbone, name, cell.n_train].append(record)
    tokens: defaultdict[str, list[float]] = defaultdict(list)
    for record in kept:
        if record.family == "frozen features" and record.cost.train_tokens and record.cell.n_train:
            tokens[record.cell.task].append(record.cost.train_tokens / record.cell.n_train)
    points = [_point(name, members) for (_, _, name, _), members in groups.items()]
    return Evidence(
        tuple(points),
        {task: median(values) for task, values in tokens.items()},
        _longest(kept),
        len(kept),
        Counter(record.device for record in kept),
    )


def _longest(records: Iterable[Record]) -> dict[str, float]:
    found: dict[str, float] = {}
    for record in records:
        for part in ("train", "test"):
            length = float(record.provenance.measured.get(f"longest_{part}_tokens", 0.0))
            if length:
                found[record.cell.task] = max(length, found.get(record.cell.task, 0.0))
    return found


def _merged(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The configuration of each record, or the fullest one of its method that says nothing else."""
    by_method: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for record in records:
        config = record.cell.config
        by_method[record.cell.method].setdefault(encode(config), config)
    fullest: dict[tuple[str, str], dict[str, Any]] = {}
    for method, configs in by_method.items():
        ordered = sorted(configs.items(), key=lambda item: (-len(item[1]), item[0]))
        for text, config in ordered:
            fuller = (other for _, other in ordered if _says(other, config))
            fullest[method, text] = next(fuller, config)
    return [fullest[record.cell.method, encode(record.cell.config)] for record in records]


def _says(fuller: dict[str, Any], config: dict[str, Any]) -> bool:
    return all(name in fuller and fuller[name] == value for name, value in config.items())


def _point(name: str, records: list[Record]) -> Point:
    first = records[0]
    metric, values = _scores(records)
    mean = sum(values) / len(values)
    by_device: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.provenance.cells_at_a_time == 1:
            by_device[record.device].append(record)
    for device, found in by_device.items():  # those that nothing disturbed, where there are any
        by_device[device] = [record for record in found if record.unsteady is None] or found
    assert first.score is not None
    over_seeds = 0.0
    if len(values) > 1:
        over_seeds = sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)
    classes = first.provenance.dataset.get("n_classes")
    return Point(
        task=first.cell.task,
        kind=first.kind,
        backbone=first.cell.backbone,
        method=name,
        name=first.cell.method,
        config=first.cell.config,
        family=first.family,
        n_train=first.cell.n_train,
        metric=metric,
        higher_is_better=first.score.higher_is_better or metric == "accuracy",
        score=mean,
        seed_variance=over_seeds,
        n_seeds=len(values),
        n_test=max(first.score.n_test, 1),
        seconds=_medians(by_device, lambda record: record.cost.train_seconds),
        memory=_medians(by_device, lambda record: record.cost.peak_bytes),
        predict=_medians(by_device, _predict_seconds),
        trainable=median_of(record.cost.n_trainable for record in records),
        stored=median_of(record.cost.artifact_bytes for record in records),
        classes=classes if isinstance(classes, int) else None,
        n_records=len(records),
    )


def _scores(records: list[Record]) -> tuple[str, list[float]]:
    """Accuracy where all have it, so that tasks of one kind share a metric; else the main metric."""
    scores = [record.score for record in records if record.score is not None]
    accuracies = [s.value if s.metric == "accuracy" else s.others.get("accuracy") for s in scores]
    known = [value for value in accuracies if value is not None]
    if len(known) == len(scores):
        return "accuracy", known
    return scores[0].metric, [score.value for score in scores]


def _predict_seconds(record: Record) -> float | None:
    if record.cost.predict_seconds is None or record.score is None or not record.score.n_test:
        return None
    return record.cost.predict_seconds / record.score.n_test


def _medians(by_device: dict[str, list[Record]], get: Any) -> dict[str, float]:
    found = {device: median_of(get(record) for record in records) for device, records in by_device.items()}
    return {device: value for device, value in found.items() if value is not None}


def median_of(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    return median(known) if known else None
