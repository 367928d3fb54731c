"""Seconds and bytes of cells that have not run: from records of the same device, from probes, or from a closed form."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from harness.backbones import BackboneFiles
from harness.cost.closed_form import Amount, amount
from harness.cost.shape import read_shape
from harness.measure import Device
from harness.planning import PlannedCell
from harness.records import Record, Workload, canonical_of
from harness.tasks import Task

EstimateBasis = Literal["records", "probe", "formula"]
BASES: tuple[EstimateBasis, ...] = ("records", "probe", "formula")
"""Bases that an estimate may rest on, the best first."""

_ASSUMED_FLOPS_PER_SECOND = {"cpu": 3e10, "cuda": 1.5e13}
"""A thread of a processor, or a GPU, on small models in practice: where nothing at all has been measured."""

_ASSUMED_ROWS_PER_SECOND = 2000.0
"""Speed of methods without a transformer."""

LIGHT_STEP_SECONDS = 1.5e-3
"""Seconds of a step of a small network on frozen features, on a core of a server (1.1 to 1.7 ms were seen)."""

_KEPT = 32
"""Figures of one method, task and size that are kept: a run of any length takes the same memory."""

FIXED_SECONDS = 1.0
"""A cell's own: building a model, drawing rows, scoring, storing."""


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a cell.

    Attributes:
        seconds: from its beginning to its record, with caches as they were where that was measured.
        train_seconds: that count as training: encoding training rows, tuning, fitting.
        peak_bytes: of memory above the baseline, of the accelerator where there is one.
        basis: what it rests on.
    """

    seconds: float
    train_seconds: float
    peak_bytes: float
    basis: EstimateBasis


@dataclass(frozen=True)
class Figure:
    """Measured cost of one cell, beside its amount by the closed form.

    Attributes:
        seconds: from its beginning to its record.
        load_seconds, train_seconds, predict_seconds: as its record charges them.
        peak_bytes: of memory; None where it was not measured.
        amount: by the closed form.
        n_train: labels.
        basis: `records` or `probe`.
        utilisation: share of the device's measured matrix rate; None where it is not known.
        reading_seconds: of `train_seconds`, that went through the transformer; None is all of them.
    """

    seconds: float
    load_seconds: float
    train_seconds: float
    predict_seconds: float
    peak_bytes: float | None
    amount: Amount
    n_train: int
    basis: EstimateBasis
    utilisation: float | None = None
    reading_seconds: float | None = None


@dataclass(frozen=True)
class _Configured:
    """A method as configured, on a backbone: figures of one such say what its other cells take."""

    method: str
    version: int
    config: str
    weights: str | None


class Estimator:
    """Estimates of cells on one device; it learns from records as they come.

    Args:
        tasks: by name; records of others are not used.
        backbones: of each task by its name.
        device: where cells run.
    """

    def __init__(self, tasks: Mapping[str, Task], backbones: Mapping[str, BackboneFiles], device: Device) -> None:
        self._tasks = tasks
        self._backbones = backbones
        self.device = device
        self._figures: defaultdict[_Configured, dict[str, dict[tuple[int, str], deque[Figure]]]] = defaultdict(dict)
        self._rates: deque[float] = deque(maxlen=_KEPT)
        self._made: defaultdict[_Configured, dict[tuple[object, ...], Estimate]] = defaultdict(dict)
        self._unmeasurable: set[_Configured] = set()

    def add_records(self, records: Iterable[Record], planned: Mapping[str, PlannedCell]) -> None:
        """Learn from records of cells of the plan, by their ids."""
        for record in records:
            if record.id in planned:
                self.add(record, planned[record.id])

    def add(self, record: Record, planned: PlannedCell) -> None:
        """Learn from the record of a planned cell; one that did not come to a score says nothing."""
        cost = record.cost
        if record.status != "ok" or record.device != self.device.name or cost.total_seconds is None:
            return
        wall = record.provenance.wall_seconds
        work = self.amount(planned)
        if cost.stopped_by in ("train_seconds", "train_flops") and record.curve:  # it did less than it was to do
            steps = self._workload(planned).steps
            done = min(1.0, record.curve[-1].step / steps) if steps else 1.0
            work = dataclasses.replace(work, train_flops=done * work.train_flops)
        self.add_figure(
            planned,
            Figure(
                seconds=cost.total_seconds if wall is None else wall,
                load_seconds=cost.load_seconds or 0.0,
                train_seconds=cost.train_seconds or 0.0,
                predict_seconds=cost.predict_seconds or 0.0,
                peak_bytes=cost.peak_bytes,
                amount=work,
                n_train=planned.cell.n_train,
                basis="records",
                # What a method on frozen features does with them says nothing of the transformer's speed.
                reading_seconds=cost.encode_seconds if self._workload(planned).reads_features else None,
            ),
        )

    def add_figure(self, planned: PlannedCell, figure: Figure) -> None:
        """Learn from what was measured of a cell, or of a probe of one."""
        cell = planned.cell
        configured = self._configured(planned)
        by_size = self._figures[configured].setdefault(cell.task, {})
        by_size.setdefault((figure.n_train, cell.budget.label()), deque(maxlen=_KEPT)).append(figure)
        seconds = figure.train_seconds if figure.reading_seconds is None else figure.reading_seconds
        if figure.amount.train_flops > 0 and seconds > 0:
            self._rates.append(figure.amount.train_flops / seconds)
        self._made.pop(configured, None)

    def measured(self, planned: PlannedCell) -> bool:
        """Whether anything has been measured of a cell's method as configured, on its backbone, or never can be."""
        configured = self._configured(planned)
        return configured in self._unmeasurable or bool(self._figures.get(configured))

    def figures(self, planned: PlannedCell) -> list[Figure]:
        """Return what was measured of a cell's method as configured, on its backbone and task, at any size."""
        by_size = self._figures.get(self._configured(planned), {}).get(planned.cell.task, {})
        return [figure for figures in by_size.values() for figure in figures]

    def give_up(self, planned: PlannedCell) -> None:
        """Nothing can be measured of a cell's method as configured: `measured` says so, and estimates go by formula."""
        self._unmeasurable.add(self._configured(planned))

    def estimate(self, planned: PlannedCell) -> Estimate:
        """Return what a cell is expected to take. Cells that differ in their seeds alone share one estimate."""
        if planned.unsupported is not None:  # recorded, and not run
            return Estimate(0.0, 0.0, 0.0, "formula")
        made, cell = self._made[self._configured(planned)], planned.cell
        key = (cell.task, cell.n_train, cell.budget)
        if key not in made:
            made[key] = self._make(planned)
        return made[key]

    def group(self, planned: PlannedCell) -> tuple[object, ...]:
        """Return what cells of one estimate have in common: everything but the seed."""
        cell = planned.cell
        return self._configured(planned), cell.task, cell.n_train, cell.budget, planned.unsupported

    def _make(self, planned: PlannedCell) -> Estimate:
        wanted = self.amount(planned)
        by_task = self._figures.get(self._configured(planned), {})
        cell = planned.cell
        near = _nearest(by_task.get(cell.task, {}), cell.n_train, cell.budget.label())
        if near and near[0].basis == "records":
            found = self._from_same_task(wanted, near)
        else:
            others = [_nearest(sizes, cell.n_train, cell.budget.label()) for sizes in by_task.values()]
            pooled = _best([figure for figures in others for figure in figures])
            found = self._from_elsewhere(wanted, pooled) if pooled else self._by_formula(wanted)
        limit = cell.budget.train_seconds
        if limit is not None and found.train_seconds > limit:
            saved = found.train_seconds - limit
            found = dataclasses.replace(found, train_seconds=limit, seconds=max(limit, found.seconds - saved))
        return found

    def _from_same_task(self, wanted: Amount, near: list[Figure]) -> Estimate:
        one = near[0].amount
        charged = statistics.fmean(
            figure.load_seconds + figure.train_seconds + figure.predict_seconds for figure in near
        )
        ratio = (wanted.train_flops or wanted.train_rows) / max(1e-9, one.train_flops or one.train_rows)
        train = ratio * statistics.fmean(figure.train_seconds for figure in near)
        rest = statistics.fmean(figure.load_seconds + figure.predict_seconds for figure in near)
        seconds = statistics.fmean(figure.seconds for figure in near)
        if charged > 0:  # where caches were warm a cell took less than it is charged for; its like will too
            seconds *= (train + rest) / charged
        return Estimate(max(0.0, seconds), train, _peak(wanted, near), _basis(near))

    def _from_elsewhere(self, wanted: Amount, pooled: list[Figure]) -> Estimate:
        train = statistics.median(
            figure.train_seconds
            * (wanted.train_flops or wanted.train_rows)
            / max(1e-9, figure.amount.train_flops or figure.amount.train_rows)
            for figure in pooled
        )
        predict = statistics.median(
            figure.predict_seconds
            * (wanted.predict_flops or wanted.test_rows)
            / max(1e-9, figure.amount.predict_flops or figure.amount.test_rows)
            for figure in pooled
        )
        load = statistics.median(figure.load_seconds for figure in pooled)
        return Estimate(load + train + predict + FIXED_SECONDS, train, _peak(wanted, pooled), _basis(pooled))

    def _by_formula(self, wanted: Amount) -> Estimate:
        if wanted.train_flops == wanted.predict_flops == 0:
            train = wanted.train_rows / _ASSUMED_ROWS_PER_SECOND
            return Estimate(FIXED_SECONDS + train, train, wanted.peak_bytes, "formula")
        speed = self.flops_per_second()
        train = wanted.train_flops / speed + wanted.light_steps * LIGHT_STEP_SECONDS
        return Estimate(FIXED_SECONDS + train + wanted.predict_flops / speed, train, wanted.peak_bytes, "formula")

    def flops_per_second(self) -> float:
        """Return the speed of other methods on this device; where that is not known, of devices like it."""
        if self._rates:
            return statistics.median(self._rates)
        return _ASSUMED_FLOPS_PER_SECOND[self.device.kind] * (self.device.threads if self.device.kind == "cpu" else 1)

    @staticmethod
    def _workload(planned: PlannedCell) -> Workload:
        return planned.method.workload(planned.cell.n_train, planned.cell.budget, 1)

    def amount(self, planned: PlannedCell) -> Amount:
        """Return what a cell comes to by arithmetic."""
        name = planned.cell.task
        return amount(planned, self._tasks[name], self._backbones.get(name), self.device)

    def _configured(self, planned: PlannedCell) -> _Configured:
        cell = planned.cell
        return _Configured(cell.method, cell.version, canonical_of(cell.config, dict), cell.weights)


def _nearest(by_size: Mapping[tuple[int, str], deque[Figure]], n_train: int, budget: str) -> list[Figure]:
    """Figures of the same budget where there are some, at the nearest size; records before probes."""
    if not by_size:
        return []
    kept = {key: _best(list(figures)) for key, figures in by_size.items()}
    basis = _basis(_best([figure for figures in kept.values() for figure in figures]))
    sizes = [key for key in kept if _basis(kept[key]) == basis]
    same = [key for key in sizes if key[1] == budget] or sizes
    return kept[min(same, key=lambda key: abs(math.log((key[0] + 1) / (n_train + 1))))]


def _peak(wanted: Amount, figures: list[Figure]) -> float:
    known = [
        figure.peak_bytes * max(0.2, min(5.0, wanted.peak_bytes / figure.amount.peak_bytes))
        for figure in figures
        if figure.peak_bytes is not None
    ]
    return max(known) if known else wanted.peak_bytes


def _best(figures: list[Figure]) -> list[Figure]:
    """Those of the best basis that there is."""
    found = {figure.basis for figure in figures}
    return [figure for figure in figures if figure.basis == next(name for name in BASES if name in found)]


def _basis(figures: list[Figure]) -> EstimateBasis:
    return figures[0].basis


def total_seconds(cells: Iterable[PlannedCell], estimator: Estimator, backbones: Mapping[str, BackboneFiles]) -> float:
    """Seconds that the cells take, run one after another.

    Cells on frozen features of one task share them: where an estimate is of a single cell's, the dearest stands for the
    encoding of all. Records tell what cells took with features as warm as they were, and are taken as they are.
    """
    total = 0.0
    shared: defaultdict[tuple[str, str | None], list[float]] = defaultdict(list)
    for planned in cells:
        cell = planned.cell
        found = estimator.estimate(planned)
        shape = read_shape(backbones[cell.task].folder) if cell.backbone is not None else None
        reads = (
            shape is not None
            and planned.method.workload(max(1, cell.n_train), cell.budget, shape.n_blocks).reads_features
        )
        if reads and found.basis != "records":
            shared[cell.task, cell.weights].append(max(0.0, found.seconds - FIXED_SECONDS))
            total += FIXED_SECONDS
        else:
            total += found.seconds
    return total + sum(max(seconds) for seconds in shared.values())
