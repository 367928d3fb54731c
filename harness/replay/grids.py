"""Recorded grids: all configurations that one machine fitted to one task at one size, with their predictions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.methods import Method, methods
from harness.metrics import metrics
from harness.planning import label_of
from harness.records import Budget, Cell, Record, Role, canonical_of, encode
from harness.support import UsageError, text

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LEAST_CONFIGURATIONS: Final = 5
"""Fewest configurations of a grid: a choice among fewer tells little about a search."""

LEAST_ROWS: Final = 200
"""Fewest recorded test rows of a grid: half of them validate and half of them test."""

_ROLES: Final[frozenset[Role]] = frozenset({"baseline", "frozen features", "fine-tuning"})
"""Roles of the methods whose models somebody may want to keep, as `harness choose` takes them."""

_FOLDS_OF_BEST: Final = 10

_TWINS: Final = (
    frozenset({"sst2", "rotten_tomatoes"}),
    frozenset({"trec", "trec_fine"}),
)
"""Tasks that share texts with each other."""

_PARTS: Final = ("-validation", "-train")
"""Endings of the names of tasks made of another split of the same data."""


def twin(task: str) -> str:
    """Return the name that stands for all tasks that share texts with a task, itself included."""
    base = task
    for ending in _PARTS:
        base = base.removesuffix(ending)
    return next((min(group) for group in _TWINS if base in group), base)


@dataclass(frozen=True, eq=False)
class Fit:
    """One recorded fit.

    Attributes:
        record: its record.
        predicted: predicted class of each recorded test row, shape (n_rows,).
    """

    record: Record
    predicted: Ints

    @property
    def share(self) -> float:
        """Share of its steps that a budget left it; 1 without a budget."""
        epochs = self.record.cell.budget.epochs
        whole = float(self.record.cell.config.get("epochs", 1.0))
        return 1.0 if epochs is None else min(1.0, epochs / whole)


@dataclass(frozen=True)
class Seconds:
    """Seconds of a whole fit at the recorded size, less what disturbed the machine.

    Attributes:
        encode: encoding the training rows.
        fit: tuning and fitting.
        predict: predicting one row.
    """

    encode: float
    fit: float
    predict: float


@dataclass(frozen=True, eq=False)
class Configuration:
    """A method with its settings on a backbone, and its recorded fits in one grid.

    Attributes:
        method: the configured method.
        label: its name with the settings that are not defaults, and the backbone where the grid has several.
        fits: whole fits, one for each recorded seed.
        cut: fits that a budget of epochs cut short.
        smaller: whole fits to fewer labels of the same task on the same machine, by the number of labels.
        seconds: seconds of a whole fit.
    """

    method: Method
    label: str
    fits: tuple[Fit, ...]
    cut: tuple[Fit, ...] = ()
    smaller: dict[int, tuple[Fit, ...]] = field(default_factory=dict)
    seconds: Seconds = field(default_factory=lambda: Seconds(0.0, 0.0, 0.0))

    @property
    def cell(self) -> Cell:
        """The cell of the first fit."""
        return self.fits[0].record.cell

    @cached_property
    def config(self) -> dict[str, Any]:
        """The method's configuration."""
        return self.method.config()

    @cached_property
    def steps(self) -> int:
        """Number of steps of a whole fit; 0 where it takes none."""
        return self.method.workload(self.cell.n_train, Budget(), _BLOCKS).steps

    @cached_property
    def flops_per_text(self) -> float:
        """Operations of reading one text with the transformer, from those of training."""
        work = self.method.workload(self.cell.n_train, Budget(), _BLOCKS)
        texts = work.encoded + work.steps * work.texts_per_step * work.passes_per_text
        return (self.fits[0].record.cost.train_flops or 0.0) / texts if texts else 0.0

    @cached_property
    def trains_inside(self) -> bool:
        """Whether a fit takes steps inside the transformer."""
        return self.method.workload(100, Budget(), _BLOCKS).texts_per_step > 0

    @cached_property
    def features(self) -> tuple[object, ...] | None:
        """Identity of the frozen features that it reads; None where it reads none."""
        if self.fits[0].record.facts.role != "frozen features":
            return None
        cell = self.cell
        return cell.weights, *(str(cell.config.get(name)) for name in ("layer", "pooling", "precision"))


_BLOCKS: Final = 12
"""Assumed number of blocks, for workloads; steps do not depend on it."""


@dataclass(frozen=True, eq=False)
class Grid:
    """All configurations that one machine fitted to one task at one size.

    Attributes:
        task: name of the task.
        n_train: number of labels of each fit.
        device: the machine.
        configurations: the configurations, by label.
        target: right class of each recorded test row, shape (n_rows,).
        n_classes: number of classes.
        metric: the task's main metric.
        flops_per_second: speed of reading the texts on the machine: see `_reading_speed`.
    """

    task: str
    n_train: int
    device: str
    configurations: tuple[Configuration, ...]
    target: Ints
    n_classes: int
    metric: str
    flops_per_second: float | None = None

    @property
    def name(self) -> str:
        """Task and size: `sst2 x 256`."""
        return f"{self.task} x {self.n_train}"

    @property
    def key(self) -> str:
        """The name for `--grids`: `sst2:256`."""
        return f"{self.task}:{self.n_train}"

    @property
    def n_rows(self) -> int:
        """Number of recorded test rows."""
        return len(self.target)

    def score(self, predicted: Ints, rows: Ints) -> float:
        """Return the main metric of predictions, shape (n_rows,), on some of the rows."""
        if self.metric == "accuracy":
            return float(np.mean(predicted[rows] == self.target[rows]))
        return metrics.get(self.metric).without_classes().compute(predicted[rows], self.target[rows])

    @cached_property
    def by_key(self) -> dict[str, Configuration]:
        """The configurations by `key_of` their method, settings and backbone."""
        return {key_of(one.cell.method, one.config, one.cell.weights): one for one in self.configurations}

    @cached_property
    def by_identity(self) -> dict[int, list[Configuration]]:
        """The configurations by the identity of their method's object, which is quicker to look up."""
        found: dict[int, list[Configuration]] = {}
        for one in self.configurations:
            found.setdefault(id(one.method), []).append(one)
        return found

    @cached_property
    def majority(self) -> int:
        """The most frequent class."""
        return int(np.bincount(self.target, minlength=self.n_classes).argmax())

    @cached_property
    def best_predictions(self) -> list[Ints]:
        """Predictions of the best configuration, one array of shape (n_rows,) for each of its draws of seeds.

        The rows are dealt into ten parts. The rows of a part are predicted by the configuration with the best mean
        score over seeds on the other parts, so that the luck of the best on its own rows does not count against a
        search.
        """
        part = np.arange(self.n_rows) % _FOLDS_OF_BEST
        most = max(len(one.fits) for one in self.configurations)
        found = [np.zeros(self.n_rows, dtype=np.int64) for _ in range(most)]
        for k in range(_FOLDS_OF_BEST):
            own, others = np.flatnonzero(part == k), np.flatnonzero(part != k)
            best = max(self.configurations, key=lambda one: self.mean_score(one, others))
            for draw, predicted in enumerate(found):
                predicted[own] = best.fits[draw % len(best.fits)].predicted[own]
        return found

    def best_score(self, rows: Ints) -> float:
        """Return the score of the best configuration on some of the rows (`best_predictions`)."""
        return float(np.mean([self.score(predicted, rows) for predicted in self.best_predictions]))

    def luckiest_score(self, rows: Ints) -> float:
        """Return the score on some rows of the configuration with the best mean over seeds on all rows, these too."""
        everything = np.arange(self.n_rows)
        best = max(self.configurations, key=lambda one: self.mean_score(one, everything))
        return self.mean_score(best, rows)

    def mean_score(self, configuration: Configuration, rows: Ints) -> float:
        """Return a configuration's mean score over its seeds on some of the rows."""
        return float(np.mean([self.score(fit.predicted, rows) for fit in configuration.fits]))


def find_grids(
    records: Iterable[Record], least_configurations: int = LEAST_CONFIGURATIONS
) -> tuple[list[Grid], dict[str, str]]:
    """Return the grids of classification tasks among records, and for each of the others why it was left out.

    Args:
        records: records with predictions.
        least_configurations: fewest configurations of a grid.
    """
    groups: defaultdict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.kind == "classification" and record.status == "ok" and record.facts.role in _ROLES:
            groups[record.device, record.cell.task, record.cell.data].append(record)
    grids: list[Grid] = []
    refused: dict[str, str] = {}
    for (device, task, _), members in sorted(groups.items()):
        for n_train in sorted({record.cell.n_train for record in members if record.cell.n_train}):
            try:
                grid = make_grid(members, n_train, least_configurations)
                grids.append(replace(grid, flops_per_second=_reading_speed(members)))
            except UsageError as error:
                refused[f"{task} x {n_train} on {device}"] = str(error)
    return grids, refused


def _reading_speed(records: Sequence[Record]) -> float | None:
    """Return the operations per second of reading the texts of a task on a machine; None where it is not known.

    It is the median over fits on frozen features. Where there are none, it is somewhat more than that over other fits,
    which train at 0.5 to 1.0 of the speed of reading.
    """
    frozen, others = [], []
    for record in records:
        cost = record.cost
        if cost.train_flops and record.facts.role == "frozen features" and cost.encode_seconds:
            frozen.append(cost.train_flops / cost.encode_seconds)
        elif cost.train_flops and record.facts.role == "fine-tuning" and cost.train_seconds:
            others.append(_READING_TO_TRAINING * cost.train_flops / cost.train_seconds)
    return median(frozen or others) if frozen or others else None


_READING_TO_TRAINING: Final = 1.3
"""Speed of reading texts, as a multiple of the speed of training, where no fit on frozen features was recorded."""


def make_grid(members: Sequence[Record], n_train: int, least_configurations: int = LEAST_CONFIGURATIONS) -> Grid:
    """Return the grid of one size from the records of one task on one machine.

    Raises:
        UsageError: too few configurations, rows or predictions; the message says which.
    """
    known = [record for record in members if _is_known(record)]
    scored = [r for r in known if r.predictions is not None and r.predictions.predicted is not None]
    here = [r for r in scored if r.cell.n_train == n_train]
    name = f"{members[0].cell.task} at {n_train} labels"
    if not here:
        raise UsageError(f"The records of {name} hold no predicted classes, which a replay needs for each test row.")
    rows = max(
        {r.predictions.rows for r in here if r.predictions},
        key=[r.predictions.rows for r in here if r.predictions].count,
    )
    same = [r for r in scored if r.predictions is not None and r.predictions.rows == rows]
    by_configuration: defaultdict[str, list[Record]] = defaultdict(list)
    for record in same:
        by_configuration[_key(record)].append(record)
    several = len({r.cell.weights for r in same if r.cell.weights}) > 1
    found = []
    for own in by_configuration.values():
        whole = _fits(r for r in own if r.cell.n_train == n_train and r.cell.budget == _whole(r))
        if not whole:
            continue
        sizes = sorted({r.cell.n_train for r in own if r.cell.n_train < n_train})
        cell = whole[0].record.cell
        method = methods.get(cell.method)(**cell.config)
        label = label_of(type(method), method.config())
        if several and cell.backbone is not None:
            label = f"{label} on {cell.backbone.rpartition('/')[2]}"
        own_method = [r for r in scored if r.cell.method == cell.method and r.cell.weights == cell.weights]
        found.append(
            Configuration(
                method,
                label,
                whole,
                _fits(r for r in own if r.cell.n_train == n_train and r.cell.budget.epochs is not None),
                {n: _fits(r for r in own if r.cell.n_train == n and r.cell.budget == _whole(r)) for n in sizes},
                _seconds(whole, own_method),
            )
        )
    if len(found) < least_configurations:
        raise UsageError(
            f"{text.counted(len(found), 'configuration')} of {name} was recorded whole; a replay needs at least "
            f"{least_configurations}, of methods whose models somebody may keep."
        )
    first = next(r for r in same if r.cell.n_train == n_train)
    assert first.predictions is not None
    assert first.predictions.target is not None
    assert first.score is not None
    target = first.predictions.target
    if len(target) < LEAST_ROWS:
        raise UsageError(f"{len(target)} test rows of {name} were recorded; a replay needs at least {LEAST_ROWS}.")
    classes = int(first.provenance.dataset.get("n_classes") or 0) or int(target.max()) + 1
    return Grid(
        first.cell.task,
        n_train,
        first.device,
        tuple(sorted(found, key=lambda one: one.label)),
        target,
        classes,
        first.score.metric,
    )


def _is_known(record: Record) -> bool:
    """Return whether this version has the method, and reads its settings."""
    if record.cell.method not in methods.names() or record.cost.train_seconds is None:
        return False
    try:
        methods.get(record.cell.method)(**record.cell.config)
    except ValueError:
        return False
    return True


def _seconds(fits: Sequence[Fit], like: Sequence[Record]) -> Seconds:
    """Return the seconds of a configuration's whole fit.

    Some recorded fits were disturbed by other work and took many times as long. So an operation takes the median over
    all fits of the method to the task on the machine, at any size and setting. Where operations were not counted, the
    median over the configuration's own seeds counts.

    Args:
        fits: the configuration's fits.
        like: records of its method.
    """
    costs = [fit.record.cost for fit in fits]
    fit = median((cost.tune_seconds or 0.0) + (cost.fit_seconds or 0.0) for cost in costs)
    encode = median(cost.encode_seconds or 0.0 for cost in costs)
    predict = median((r.cost.predict_seconds or 0.0) / max(1, r.score.n_test) for r in like if r.score is not None)
    flops = costs[0].train_flops or 0.0
    rates = [
        (r.cost.train_seconds or 0.0) / r.cost.train_flops for r in like if r.cost.train_flops and _steps_inside(r)
    ]
    if flops and rates:
        total = flops * median(rates)
        share = total / max(1e-9, fit + encode)
        fit, encode = fit * share, encode * share
    elif encode and flops:
        encode = flops * median((r.cost.encode_seconds or 0.0) / r.cost.train_flops for r in like if r.cost.train_flops)
    return Seconds(encode, fit, predict)


def _steps_inside(record: Record) -> bool:
    return record.facts.role == "fine-tuning"


def _key(record: Record) -> str:
    cell = record.cell
    return key_of(cell.method, methods.get(cell.method)(**cell.config).config(), cell.weights)


def key_of(name: str, config: Mapping[str, Any], weights: str | None) -> str:
    """Return a text that is the same for the same method, settings and backbone."""
    return f"{name} {canonical_of(config, dict)} {weights}"


def _whole(record: Record) -> Budget:
    """Return the budget of a whole fit, which has no limit but perhaps one on memory."""
    return Budget(peak_memory_bytes=record.cell.budget.peak_memory_bytes)


def _fits(records: Iterable[Record]) -> tuple[Fit, ...]:
    """Return the fits, the latest version of each seed, by seed."""
    latest: dict[tuple[int, str], Record] = {}
    for record in records:
        key = record.cell.seed, encode({"epochs": record.cell.budget.epochs})
        if key not in latest or (latest[key].cell.version, latest[key].attempt) < (record.cell.version, record.attempt):
            latest[key] = record
    return tuple(
        Fit(record, record.predictions.predicted)
        for _, record in sorted(latest.items())
        if record.predictions is not None and record.predictions.predicted is not None
    )


def steps_share(configuration: Configuration, n_train: float) -> float:
    """Return the steps of a fit to `n_train` labels, as a share of those of the recorded size."""
    recorded = configuration.cell.n_train
    if not configuration.steps:
        return n_train / max(1, recorded)
    return configuration.method.workload(max(1, math.ceil(n_train)), Budget(), _BLOCKS).steps / configuration.steps
