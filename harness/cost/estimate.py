"""Estimate the cost of cells before they run: from records of the same device, from probes, or in closed form."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from harness.cost.closed_form import Amount, amount
from harness.cost.launches import LAUNCH_SECONDS
from harness.cost.requests import Requests, requests_of
from harness.cost.shape import read_shape
from harness.measure import Device
from harness.planning import PlannedCell
from harness.records import Record, Workload, canonical_of
from harness.tasks import Task

EstimateBasis = Literal["records", "probe", "formula"]
BASES: tuple[EstimateBasis, ...] = ("records", "probe", "formula")
"""Bases of an estimate, the best first."""

_ASSUMED_FLOPS_PER_SECOND = {"cpu": 3e10, "cuda": 1.5e13}
"""Typical speed on small models of one CPU thread, or of a GPU; used if nothing was measured."""

_ASSUMED_ROWS_PER_SECOND = 2000.0
"""Assumed speed of methods without a transformer."""

_SLOW = 0.5
"""Share of the best measured speed below which a GPU is taken to wait for the host."""

LIGHT_STEP_SECONDS = 1.5e-3
"""Seconds of a step of a small network on frozen features, on one core of a server (measured: 1.1 to 1.7 ms)."""

_KEPT = 32
"""Maximum number of figures to keep per method, task and size, which bounds the memory of a long run."""

FIXED_SECONDS = 1.0
"""Fixed cost of a cell: building a model, drawing rows, scoring, storing."""


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a cell.

    Attributes:
        seconds: time from the cell's start to its record, with caches as warm as when it was measured.
        train_seconds: training time: encoding training rows, tuning and fitting.
        peak_bytes: memory that the cell needs (`Record.memory_bytes`), on the accelerator if there is one.
        basis: source of the estimate.
        least_bytes: memory without which it fails: batches of encoding and predicting are halved until they fit.
    """

    seconds: float
    train_seconds: float
    peak_bytes: float
    basis: EstimateBasis
    least_bytes: float = 0.0


@dataclass(frozen=True)
class Figure:
    """Measured cost of one cell, with its amount by the closed form.

    Attributes:
        seconds: time from the cell's start to its record.
        load_seconds, train_seconds, predict_seconds: seconds by phase, as its record charges them.
        peak_bytes: memory that the cell needs (`Record.memory_bytes`); None if it was not measured.
        amount: work and memory by the closed form.
        n_train: number of labels.
        basis: `records` or `probe`.
        utilisation: share of the device's measured matrix rate; None if unknown.
        reading_seconds: the part of `train_seconds` spent in the transformer; None is all of it.
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
    """A configured method on a backbone; its figures predict the cost of its other cells."""

    method: str
    version: int
    config: str
    weights: str | None


class Estimator:
    """Estimates of cells on one device, updated with each new record.

    Args:
        tasks: the tasks by name; records of other tasks are ignored.
        device: device that cells run on.
    """

    def __init__(self, tasks: Mapping[str, Task], device: Device) -> None:
        self._tasks = tasks
        self.device = device
        self._figures: defaultdict[_Configured, dict[str, dict[tuple[int, str], deque[Figure]]]] = defaultdict(dict)
        self._rates: deque[tuple[float, float]] = deque(maxlen=_KEPT)  # operations a second, and seconds a kernel
        self._made: defaultdict[_Configured, dict[tuple[object, ...], Estimate]] = defaultdict(dict)
        self._unmeasurable: set[_Configured] = set()

    def add_records(self, records: Iterable[Record], planned: Mapping[str, PlannedCell]) -> None:
        """Add the records of planned cells, which are given by id."""
        for record in records:
            if record.id in planned:
                self.add(record, planned[record.id])

    def add(self, record: Record, planned: PlannedCell) -> None:
        """Add the record of a planned cell; a record without a score is ignored."""
        cost = record.cost
        if record.status != "ok" or record.device != self.device.name or cost.total_seconds is None:
            return
        wall = record.provenance.wall_seconds
        if record.facts.run_as:  # its seconds and memory are those of another form of the same steps
            planned = dataclasses.replace(planned, method=planned.method.model_copy(update=record.facts.run_as))
        work = self.amount(planned)
        if cost.stopped_by in ("train_seconds", "train_flops") and record.curve:  # it did less than it was to do
            steps = self._workload(planned).steps
            done = min(1.0, record.curve[-1].step / steps) if steps else 1.0
            work = dataclasses.replace(
                work, train_flops=done * work.train_flops, train_launches=done * work.train_launches
            )
        self.add_figure(
            planned,
            Figure(
                seconds=cost.total_seconds if wall is None else wall,
                load_seconds=cost.load_seconds or 0.0,
                train_seconds=cost.train_seconds or 0.0,
                predict_seconds=cost.predict_seconds or 0.0,
                peak_bytes=record.memory_bytes,
                amount=work,
                n_train=planned.cell.n_train,
                basis="records",
                # Fitting on frozen features does not measure the transformer's speed.
                reading_seconds=cost.encode_seconds if self._workload(planned).reads_features else None,
            ),
        )

    def add_figure(self, planned: PlannedCell, figure: Figure) -> None:
        """Add the measured cost of a cell, or of its probe."""
        cell = planned.cell
        configured = self._configured(planned)
        by_size = self._figures[configured].setdefault(cell.task, {})
        by_size.setdefault((figure.n_train, cell.budget.label()), deque(maxlen=_KEPT)).append(figure)
        seconds = figure.train_seconds if figure.reading_seconds is None else figure.reading_seconds
        if figure.amount.train_flops > 0 and seconds > 0:
            launch = seconds / figure.amount.train_launches if figure.amount.train_launches else math.inf
            self._rates.append((figure.amount.train_flops / seconds, launch))
        self._made.pop(configured, None)

    def measured(self, planned: PlannedCell) -> bool:
        """Return whether a cell's configured method was measured on its backbone, or cannot be."""
        configured = self._configured(planned)
        return configured in self._unmeasurable or bool(self._figures.get(configured))

    def figures(self, planned: PlannedCell) -> list[Figure]:
        """Return the figures of a cell's configured method on its backbone and task, at any size."""
        by_size = self._figures.get(self._configured(planned), {}).get(planned.cell.task, {})
        return [figure for figures in by_size.values() for figure in figures]

    def give_up(self, planned: PlannedCell) -> None:
        """Mark a cell's configured method as not measurable; its estimates then use the formula."""
        self._unmeasurable.add(self._configured(planned))

    def estimate(self, planned: PlannedCell) -> Estimate:
        """Return the expected cost of a cell. Cells that differ only in their seeds share one estimate."""
        if planned.unsupported is not None:  # recorded, and not run
            return Estimate(0.0, 0.0, 0.0, "formula")
        made, cell = self._made[self._configured(planned)], planned.cell
        key = (cell.task, cell.n_train, cell.budget)
        if key not in made:
            made[key] = self._make(planned)
        return made[key]

    def group(self, planned: PlannedCell) -> tuple[object, ...]:
        """Return the key of a cell's estimate: everything but the seed."""
        cell = planned.cell
        return self._configured(planned), cell.task, cell.n_train, cell.budget, planned.unsupported

    def _make(self, planned: PlannedCell) -> Estimate:
        requests = None if self.measured(planned) else requests_of(planned, self._tasks[planned.cell.task])
        if requests is not None:
            peak_bytes = self.amount(planned).peak_bytes
            return Estimate(FIXED_SECONDS + requests.seconds, requests.fit_seconds, peak_bytes, "formula", peak_bytes)
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
        return dataclasses.replace(found, least_bytes=found.peak_bytes * wanted.least_bytes / wanted.peak_bytes)

    def requests(self, planned: PlannedCell) -> Requests | None:
        """Return the expected requests of a cell to a served model; None where it asks none."""
        return requests_of(planned, self._tasks[planned.cell.task])

    def _from_same_task(self, wanted: Amount, near: list[Figure]) -> Estimate:
        one = near[0].amount
        charged = statistics.fmean(
            figure.load_seconds + figure.train_seconds + figure.predict_seconds for figure in near
        )
        ratio = self._train_work(wanted) / max(1e-12, self._train_work(one))
        train = ratio * statistics.fmean(figure.train_seconds for figure in near)
        rest = statistics.fmean(figure.load_seconds + figure.predict_seconds for figure in near)
        seconds = statistics.fmean(figure.seconds for figure in near)
        if charged > 0:  # with warm caches a cell takes less than it is charged for
            seconds *= (train + rest) / charged
        return Estimate(max(0.0, seconds), train, _peak(wanted, near), _basis(near))

    def _from_elsewhere(self, wanted: Amount, pooled: list[Figure]) -> Estimate:
        train = statistics.median(
            figure.train_seconds * self._train_work(wanted) / max(1e-12, self._train_work(figure.amount))
            for figure in pooled
        )
        predict = statistics.median(
            figure.predict_seconds * self._predict_work(wanted) / max(1e-12, self._predict_work(figure.amount))
            for figure in pooled
        )
        load = statistics.median(figure.load_seconds for figure in pooled)
        return Estimate(load + train + predict + FIXED_SECONDS, train, _peak(wanted, pooled), _basis(pooled))

    def _by_formula(self, wanted: Amount) -> Estimate:
        if wanted.train_flops == wanted.predict_flops == 0:
            train = wanted.train_rows / _ASSUMED_ROWS_PER_SECOND
            return Estimate(FIXED_SECONDS + train, train, wanted.peak_bytes, "formula")
        train = self._seconds(wanted.train_flops, wanted.train_launches) + wanted.light_steps * LIGHT_STEP_SECONDS
        predict = self._seconds(wanted.predict_flops, wanted.predict_launches)
        return Estimate(FIXED_SECONDS + train + predict, train, wanted.peak_bytes, "formula")

    def _train_work(self, of: Amount) -> float:
        """Return a number that training seconds are proportional to."""
        return self._seconds(of.train_flops, of.train_launches) or of.train_rows

    def _predict_work(self, of: Amount) -> float:
        return self._seconds(of.predict_flops, of.predict_launches) or of.test_rows

    def _seconds(self, flops: float, launches: float) -> float:
        """Return the seconds of operations. A GPU takes at least the time in which the host launches its kernels."""
        computed = flops / self.flops_per_second()
        return max(computed, launches * self.launch_seconds()) if self.device.kind == "cuda" else computed

    def launch_seconds(self) -> float:
        """Return the host's seconds for one kernel.

        It is that of measured cells far below the device's best speed, which the host holds up. Without any it is a
        typical value (an assumption), or less if a measured cell took less.
        """
        best = max((rate for rate, _ in self._rates), default=0.0)
        held_up = [launch for rate, launch in self._rates if rate < _SLOW * best and math.isfinite(launch)]
        if held_up:
            return statistics.median(held_up)
        return min([LAUNCH_SECONDS, *(launch for _, launch in self._rates)])

    def flops_per_second(self) -> float:
        """Return the speed of other methods on this device; if unknown, the typical speed of such devices.

        On a GPU, cells that wait for the host do not show its speed.
        """
        if self._rates:
            best = max(rate for rate, _ in self._rates)
            is_gpu = self.device.kind == "cuda"
            return statistics.median(rate for rate, _ in self._rates if not is_gpu or rate >= _SLOW * best)
        return _ASSUMED_FLOPS_PER_SECOND[self.device.kind] * (self.device.threads if self.device.kind == "cpu" else 1)

    @staticmethod
    def _workload(planned: PlannedCell) -> Workload:
        return planned.method.workload(planned.cell.n_train, planned.cell.budget, 1)

    def amount(self, planned: PlannedCell) -> Amount:
        """Return the work and memory of a cell by arithmetic."""
        return amount(planned, self._tasks[planned.cell.task], planned.files, self.device)

    def _configured(self, planned: PlannedCell) -> _Configured:
        cell = planned.cell
        return _Configured(cell.method, cell.version, canonical_of(cell.config, dict), cell.weights)


def _nearest(by_size: Mapping[tuple[int, str], deque[Figure]], n_train: int, budget: str) -> list[Figure]:
    """Return the figures at the nearest size, of the same budget if there are any; records before probes."""
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
    """Return the figures of the best available basis."""
    found = {figure.basis for figure in figures}
    return [figure for figure in figures if figure.basis == next(name for name in BASES if name in found)]


def _basis(figures: list[Figure]) -> EstimateBasis:
    return figures[0].basis


def total_seconds(cells: Iterable[PlannedCell], estimator: Estimator) -> float:
    """Return the expected seconds of the cells, run one after another.

    Cells on frozen features of one task and backbone share the features. If estimates assume a cold cache, the most
    expensive cell stands for the encoding of all. Estimates from records already include the effect of the cache.
    """
    total = 0.0
    shared: defaultdict[tuple[str, str | None], list[float]] = defaultdict(list)
    for planned in cells:
        cell = planned.cell
        found = estimator.estimate(planned)
        shape = None if planned.files is None else read_shape(planned.files.folder)
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
