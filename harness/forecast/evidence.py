"""Records as evidence: means over seeds of full runs, one point a task, configuration and size."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, TypeVar

from harness.forecast.pooled import Lift
from harness.forecast.texts import KnownTexts, TaskTexts
from harness.metrics import IN_UNITS
from harness.records import Facts, PublishedEncoder, PublishedResult, Record, Score, encode, variants

_Member = TypeVar("_Member")


@dataclass(frozen=True)
class Point:
    """Measurements of one configuration on one task at one size, seeds and devices together where they may be.

    Attributes:
        task: name of the task, with the data's fingerprint where other data have the same name.
        method: label of the configuration, by which points are compared.
        name, config: method and settings, as in its cells.
        facts: facts of the first record.
        highest: upper end of the metric's range; None where there is none.
        score: mean of `metric` over seeds.
        seed_variance: variance of that mean over seeds; 0 for one seed.
        n_seeds: number of seeds.
        n_test: number of test rows.
        seconds, memory, predict: medians by device: seconds of training, peak bytes, seconds a text.
        trainable, stored: medians: trainable parameters, stored bytes.
        classes: number of classes; None where the task has none.
        n_records: number of records.
        is_cut: whether a budget set the length of the fits.
        most_seconds: limit of the fits' seconds; None where there was none.
        on: label of the configuration without its backbone, where `method` names the backbone too.
        lift: change by the backbone; None for the one with the most measurements.
        majority: share of the task's test rows in the most frequent class; None where it is not known, and for training
            rows that were drawn with the same number of each class.
    """

    task: str
    kind: str
    backbone: str | None
    method: str
    name: str
    config: dict[str, Any]
    facts: Facts
    family: str
    n_train: int
    metric: str
    higher_is_better: bool
    highest: float | None
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
    is_cut: bool = False
    most_seconds: float | None = None
    on: str | None = None
    lift: Lift | None = None
    majority: float | None = None

    @property
    def group(self) -> str:
        """Group of methods whose scores differ alike: those of its role; fits cut short are a group of their own."""
        role = self.facts.role or self.family
        return f"{role}, cut" if self.is_cut else role

    @property
    def like(self) -> str:
        """Group of methods whose costs resemble its own: its family; fits cut short are a group of their own."""
        return f"{self.family}, cut" if self.is_cut else self.family


@dataclass(frozen=True)
class Evidence:
    """All points, and the lengths of the tasks' texts.

    Attributes:
        texts: lengths of the tasks' texts.
        n_records: number of scored records behind the points.
        devices: number of scored records by device.
        accelerators: devices whose memory is an accelerator's own, not the process's.
        n_left_out: number of scored records that are no evidence of methods, such as those that other tools measured.
    """

    points: tuple[Point, ...]
    texts: KnownTexts
    n_records: int
    devices: Counter[str]
    accelerators: frozenset[str] = frozenset()
    n_left_out: int = 0

    @property
    def kinds(self) -> list[str]:
        """Kinds of the tasks with points."""
        return sorted({point.kind for point in self.points})


def gather(records: Iterable[Record]) -> Evidence:
    """Return points of scored records: the latest version of each method on each backbone, floors left out.

    A configuration that lacks settings which a later one has is the same one, from before those settings existed.
    A record that comes twice (a store that has imported the reference results) counts once.
    """
    scored = [record for record in records if record.status == "ok" and record.score is not None]
    kept = usable(scored)
    kept = [record for record in kept if record.facts.measured_by is None]  # probes of other encoders: `published_in`
    kept = list({(r.id, r.device, r.attempt): r for r in kept}.values())
    n_left_out = len({(r.id, r.device, r.attempt) for r in scored}) - len(kept)
    latest: dict[tuple[Any, ...], int] = {}
    for record in kept:
        latest[_mended(record)] = max(latest.get(_mended(record), 0), record.cell.version)
    majorities = _majorities(kept)
    kept = [r for r in kept if r.cell.version == latest[_mended(r)] and r.facts.role != "floor"]
    cells = [
        r.cell if config == r.cell.config else replace(r.cell, config=config)
        for r, config in zip(kept, _merged(kept), strict=True)
    ]
    tasks = task_names(kept)
    groups: defaultdict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record, cell, label in zip(kept, cells, variants(cells, [r.facts.defaults for r in kept]), strict=True):
        name = f"{label}, cut at {cell.budget.label()}" if _is_cut(record) else label
        task = tasks[cell.task, cell.data]
        groups[task, cell.backbone, name, cell.n_train, cell.draw].append(record)
    points = [
        _point(task, name, members, majorities.get((members[0].cell.task, members[0].cell.data)))
        for (task, _, name, _, _), group in groups.items()
        for members in _of_one_metric(group)
    ]
    return Evidence(
        _told_apart(points),
        KnownTexts.of_records(kept, tasks),
        len(kept),
        Counter(record.device for record in kept),
        frozenset(record.device for record in kept if record.cost.peak_device_bytes),
        n_left_out,
    )


def _majorities(records: Iterable[Record]) -> dict[tuple[str, str], float]:
    """Return the share of the most frequent class by task and data, as records of floors tell it.

    Floors learn the most frequent class from rows in the pool's proportions; from few rows they may take another one.
    """
    found: dict[tuple[str, str], float] = {}
    for record in records:
        if record.facts.role == "floor" and record.score is not None and record.cell.draw == "stratified":
            value = record.score.value if record.score.metric == "accuracy" else record.score.others.get("accuracy")
            if value is not None:
                key = record.cell.task, record.cell.data
                found[key] = max(value, found.get(key, 0.0))
    return found


def _mended(record: Record) -> tuple[Any, ...]:
    """Return the key within which versions are compared: a method on a backbone, a kind of task and some settings.

    A method may have another version where it writes text than where it names classes.
    """
    cell = record.cell
    settings = (cell.config.get("validation_fraction"), cell.config.get("transformer_dropout"))
    return cell.method, cell.backbone, record.kind, *settings


def usable(records: Iterable[Record]) -> list[Record]:
    """Return the records that are evidence: with a score, on a known number of test rows."""
    return [r for r in records if r.status == "ok" and r.score and r.score.n_test and r.facts.is_evidence]


def published_in(records: Iterable[Record]) -> tuple[PublishedEncoder, ...]:
    """Return the encoders whose published results were imported as records, each with its results."""
    found: dict[str, PublishedEncoder] = {}
    for record in records:
        facts, name = record.facts, record.cell.backbone
        if facts.measured_by is None or facts.encoder is None or record.score is None or name is None:
            continue  # results of other tools than MTEB are no probes of encoders
        result = PublishedResult(
            record.cell.task,
            record.score.value,
            record.score.others.get("sd_over_draws"),
            facts.n_draws,
            facts.has_seen_task,
        )
        known = found.setdefault(name, PublishedEncoder(name, facts.encoder))
        found[name] = replace(known, results=(*known.results, result))
    return tuple(found.values())


def merged_encoders(*sources: Iterable[PublishedEncoder]) -> tuple[PublishedEncoder, ...]:
    """Return the encoders of several sources; a later source's result on a task takes the place of an earlier one's."""
    found: dict[str, PublishedEncoder] = {}
    for encoder in (encoder for source in sources for encoder in source):
        known = found.get(encoder.name, encoder)
        results = {result.task: result for result in (*known.results, *encoder.results)}
        found[encoder.name] = replace(encoder, results=tuple(results.values()))
    return tuple(found.values())


def task_names(records: Iterable[Record]) -> dict[tuple[str, str], str]:
    """Return the name of each task; where several data sets share one (an edited table), the last keeps it."""
    last: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        of_task, data = last[record.cell.task], record.cell.data
        of_task[data] = max(of_task.get(data, ""), record.provenance.started_at)
    found = {}
    for task, started in last.items():
        newest = max(started, key=lambda data: (started[data], data))
        for data in started:
            found[task, data] = task if data == newest else f"{task} ({data[:8]})"
    return found


def _is_cut(record: Record) -> bool:
    """Return whether a budget ended the fit early, or set its length."""
    budget = record.cell.budget
    if budget.epochs is not None or budget.steps is not None:
        return True
    return record.cost.stopped_by in ("train_seconds", "train_flops")


def _merged(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the configuration of each record, or the fullest of its method that does not contradict it."""
    by_method: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    unstated: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    written = [encode(record.cell.config) for record in records]
    for record, form in zip(records, written, strict=True):
        by_method[record.cell.method].setdefault(form, record.cell.config)
        unstated[record.cell.method].update(record.facts.defaults)
    fullest: dict[tuple[str, str], dict[str, Any]] = {}
    for method, configs in by_method.items():
        ordered = sorted(configs.items(), key=lambda item: (-len(item[1]), item[0]))
        for text, config in ordered:
            fuller = (other for _, other in ordered if _says(other, config, unstated[method]))
            fullest[method, text] = next(fuller, config)
    return [fullest[record.cell.method, form] for record, form in zip(records, written, strict=True)]


_NOTHING = object()


def _says(fuller: dict[str, Any], config: dict[str, Any], unstated: dict[str, Any]) -> bool:
    more = fuller.keys() - config.keys()
    at_defaults = all(fuller[name] == unstated[name] for name in more & unstated.keys())
    return at_defaults and all(fuller.get(name, _NOTHING) == v for name, v in config.items())


def _point(task: str, name: str, records: list[Record], majority: float | None) -> Point:
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
        task=task,
        kind=first.kind,
        backbone=first.cell.backbone,
        method=name,
        name=first.cell.method,
        config=first.cell.config,
        facts=first.facts,
        family=first.family,
        n_train=first.cell.n_train,
        metric=metric,
        higher_is_better=first.score.higher_is_better or metric in ("accuracy", "pearson"),
        highest=1.0 if metric in ("accuracy", "pearson") else first.score.highest,
        score=mean,
        seed_variance=over_seeds,
        n_seeds=len(values),
        n_test=max(first.score.n_test, 1),
        seconds=medians(by_device, lambda record: record.cost.train_seconds),
        memory=medians(by_device, lambda record: record.memory_bytes),
        predict=medians(by_device, _predict_seconds),
        trainable=_median_of(record.cost.n_trainable for record in records),
        stored=_median_of(record.cost.artifact_bytes for record in records),
        classes=classes if isinstance(classes, int) else None,
        n_records=len(records),
        is_cut=_is_cut(first),
        most_seconds=first.cell.budget.train_seconds if _is_cut(first) else None,
        majority=majority if first.cell.draw == "stratified" else None,
    )


def _of_one_metric(records: list[Record]) -> list[list[Record]]:
    """Return the records of a cell's seeds, apart where they share no metric: scores of two metrics have no mean."""
    found: defaultdict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record.score is not None:
            found[_range_of(record.score)].append(record)
    if len(found) == 1 or all(_value_of(record, "accuracy") is not None for record in records):
        return [records]
    return list(found.values())


def _range_of(score: Score | Point) -> tuple[str, bool, float | None]:
    """Return the metric, its direction and the upper end of its range."""
    return score.metric, score.higher_is_better, score.highest


def _value_of(record: Record, metric: str) -> float | None:
    score = record.score
    return None if score is None else score.value if score.metric == metric else score.others.get(metric)


def _told_apart(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the points with one metric for each name: the range with most records keeps it, others are named by it.

    Tools write metrics of the same name as fractions or percentages, or as errors.
    """
    ranges: defaultdict[str, Counter[tuple[str, bool, float | None]]] = defaultdict(Counter)
    for point in points:
        ranges[point.metric][_range_of(point)] += point.n_records
    usual = {metric: found.most_common(1)[0][0] for metric, found in ranges.items()}

    def named(point: Point) -> Point:
        if _range_of(point) == usual[point.metric]:
            return point
        up_to = "no upper end" if point.highest is None else f"up to {point.highest:g}"
        better = "higher" if point.higher_is_better else "lower"
        return replace(point, metric=f"{point.metric} ({up_to}, {better} is better)")

    return tuple(map(named, points))


def _scores(records: list[Record]) -> tuple[str, list[float]]:
    """Return a metric and the score of each seed.

    It is accuracy where all have it, so that tasks share a metric. Errors in the units of a target do not compare
    across tasks: Pearson's correlation stands for them. Else it is the main metric.
    """
    scores = [(record.cell.seed, record.score) for record in records if record.score is not None]
    metric, known = scores[0][1].metric, [score.value for _, score in scores]
    for shared in ("accuracy", *(("pearson",) if metric in IN_UNITS else ())):
        found = [_value_of(record, shared) for record in records]
        if all(value is not None for value in found):
            metric, known = shared, [value for value in found if value is not None]
            break
    by_seed: defaultdict[int, list[float]] = defaultdict(list)  # on several devices, or measured again
    for (seed, _), value in zip(scores, known, strict=True):
        by_seed[seed].append(value)
    return metric, [sum(values) / len(values) for values in by_seed.values()]


def _predict_seconds(record: Record) -> float | None:
    if record.cost.predict_seconds is None or record.score is None or not record.score.n_test:
        return None
    return record.cost.predict_seconds / record.score.n_test


def medians(groups: Mapping[str, Sequence[_Member]], get: Callable[[_Member], float | None]) -> dict[str, float]:
    """Return the median of each group's known values; groups without any are left out."""
    found = {name: _median_of(get(one) for one in members) for name, members in groups.items()}
    return {name: value for name, value in found.items() if value is not None}


def by_method(points: Iterable[Point]) -> dict[str, list[Point]]:
    """Return the points of each label, in the order in which they first come."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.method, []).append(point)
    return found


def measured_of(asked: TaskTexts, own: Iterable[Point]) -> Point | None:
    """Return the point with the most records at this very task and size; None where there is none."""
    found = [point for point in own if (point.task, point.n_train) == (asked.task, asked.n_train)]
    return max(found, key=lambda point: point.n_records, default=None)


def _median_of(values: Iterable[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    return median(known) if known else None
