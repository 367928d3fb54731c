"""Simulated runs of a search: recorded fits on the folds of a split, on a clock of their recorded seconds."""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from harness.backbones import BackboneFiles
from harness.choose import n_folds
from harness.cost import LIGHT_STEP_SECONDS, Estimate
from harness.data import DataSource, TaskSpec
from harness.methods import Method, Rung
from harness.metrics import metrics
from harness.planning import PlannedCell
from harness.records import Budget, Cell, Cost, CurvePoint, Predictions, Record, Score
from harness.replay.grids import Configuration, Fit, Grid, Ints, key_of, steps_share
from harness.tasks import Source, Task, kinds

_VALIDATION_SHARE: Final = 0.2
"""Validation rows of a fold, as a share of the labels: every fold of `harness choose` leaves out a fifth."""

_MOST_VALIDATION: Final = 0.5
"""Largest share of the recorded rows that all folds together validate on; the others test."""

_MOST_ROWS: Final = 1000
"""Maximum number of validation rows of a fold, as in `harness choose`."""

_ASSUMED_FLOPS_PER_SECOND: Final = 3e10
"""Operations per second and thread that are expected of a machine without fits on frozen features."""

_ASSUMED_ROWS_PER_SECOND: Final = 2000.0
"""Rows per second of a method without a transformer, until it has run."""


@dataclass(frozen=True, eq=False)
class Split:
    """A grid's recorded rows, split by a seed: folds to validate on, and rows to test the final model on.

    Attributes:
        grid: the grid.
        seed: decides the split and the drawn fits.
        folds: positions of the validation rows of each fold.
        test: positions of the rows that no search sees.
    """

    grid: Grid
    seed: int
    folds: tuple[Ints, ...]
    test: Ints

    @classmethod
    def of(cls, grid: Grid, seed: int) -> Split:
        """Return the split of a seed: by a hash of the seed and each row's position."""
        hashed = [hashlib.blake2b(f"{seed} {row}".encode(), digest_size=8).digest() for row in range(grid.n_rows)]
        order = np.array(sorted(range(grid.n_rows), key=hashed.__getitem__), dtype=np.int64)
        n = n_folds(grid.n_train)
        each = min(_MOST_ROWS, round(_VALIDATION_SHARE * grid.n_train), int(_MOST_VALIDATION * grid.n_rows) // n)
        each = max(1, each)
        folds = tuple(np.sort(order[k * each : (k + 1) * each]) for k in range(n))
        return cls(grid, seed, folds, np.sort(order[n * each :]))

    def draw(self, configuration: Configuration, fits: tuple[Fit, ...], k: int) -> Fit:
        """Return the fit whose seed is drawn for fold `k`; the fit after all folds is that of the whole task."""
        first = zlib.crc32(f"{self.seed} {configuration.label}".encode())
        return fits[(first + k) % len(fits)]


class RecordedRuns:
    """Runs of a search from a grid's recorded fits: the protocol `harness.choose.Runs`.

    A fit to a fold and a fit to all rows both have the predictions of the recorded size. Its seconds are the recorded
    ones, scaled by steps (by rows where it takes none). Frozen features are paid once. A fit that a budget cuts short
    has the predictions of the longest recorded fit that was cut at least as much. Without one, the most frequent class
    takes the place of as large a share of predictions as of the steps. A fit to fewer labels lies between the recorded
    sizes.

    Args:
        split: the rows to validate on and to test on, and the drawn seeds.

    Attributes:
        clock: seconds since the search began.
        task: stand-in for the task: its name, kind, classes and number of labels; it has no texts and no test rows.
        folds: stand-ins whose test rows are validation rows.
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        self.grid = split.grid
        self.clock = 0.0
        none = self.grid.target[:0]
        self.task = _task(self.grid, self.grid.task, self.grid.n_train, none)
        n_fold = max(1, self.grid.n_train - round(_VALIDATION_SHARE * self.grid.n_train))
        self.folds = [
            _task(self.grid, f"{self.grid.task}-validation-{k}", n_fold, self.grid.target[rows])
            for k, rows in enumerate(split.folds)
        ]
        self._encoded: dict[tuple[object, ...], int] = {}
        self._rates: list[float] = []
        self._measured: dict[str, tuple[int, float, float]] = {}
        self._models: list[Ints] = []

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """The configurations of the grid."""
        return self.grid.configurations

    def now(self) -> float:
        """Return the seconds since the search began."""
        return self.clock

    def plan(
        self,
        task: Task,
        method: Method,
        n_train: int | None = None,
        budget: Budget | None = None,
        *,
        files: BackboneFiles | None = None,
    ) -> PlannedCell:
        """Return a cell on `n_train` rows of a task (None is all) with seed 0."""
        found = self._find(method, files)
        everything = len(task.train_labels)
        cell = Cell(
            task=task.name,
            data=task.data,
            backbone=None if found is None else found.cell.backbone,
            weights=None if found is None else found.cell.weights,
            method=method.name,
            version=method.version,
            config=method.config() if found is None else found.config,
            n_train=everything if n_train is None else min(n_train, everything),
            budget=budget or Budget(),
            seed=0,
        )
        missing = f"{method.name} was not recorded with these settings on {self.grid.name}."
        return PlannedCell(cell, method, missing if found is None else None)

    def _find(self, method: Method, files: BackboneFiles | None) -> Configuration | None:
        weights = files.fingerprint if files is not None and method.serves else None
        for one in self.grid.by_identity.get(id(method), ()):
            if one.cell.weights == weights:
                return one
        return self.grid.by_key.get(key_of(method.name, method.config(), weights))

    def configuration(self, planned: PlannedCell) -> Configuration | None:
        """Return the recorded configuration of a cell; None where it was not recorded."""
        weights = planned.cell.weights
        own = (one for one in self.grid.by_identity.get(id(planned.method), ()) if one.cell.weights == weights)
        return next(own, None) or self._of_cell(planned.cell)

    def _of_cell(self, cell: Cell) -> Configuration | None:
        return self.grid.by_key.get(key_of(cell.method, cell.config, cell.weights))

    def estimate(self, planned: PlannedCell) -> Estimate:
        """Return the expected cost of a cell: that of its fits so far, else from its operations.

        The operations are the recorded ones, which the real search computes before it runs anything. Their speed is
        that of the fits so far. Before the first it is that of reading texts on the machine, which a real search
        learns from its first seconds.
        """
        found = self.configuration(planned)
        if found is None:
            return Estimate(0.0, 0.0, 0.0, "formula")
        n, record = planned.cell.n_train, found.fits[0].record
        peak = float(record.memory_bytes or 0)
        if found.label in self._measured:
            known, train, rest = self._measured[found.label]
            train *= steps_share(found, n) / max(1e-9, steps_share(found, known))
        elif found.cell.backbone is None:
            train, rest = found.method.fits_per_cell * n / _ASSUMED_ROWS_PER_SECOND, 0.0
        else:
            rate = self._flops_per_second(record)
            share = steps_share(found, n) if found.trains_inside else n / max(1, found.cell.n_train)
            train = share * (record.cost.train_flops or 0.0) / rate + self.light_seconds(planned)
            rest = found.flops_per_text * len(self.split.folds[0]) / rate
        limit = planned.cell.budget.train_seconds
        if limit is not None:
            train = min(train, limit)
        return Estimate(train + rest, train, peak, "records" if found.label in self._measured else "formula")

    def _flops_per_second(self, record: Record) -> float:
        if self._rates:
            return statistics.median(self._rates)
        return self.grid.flops_per_second or _ASSUMED_FLOPS_PER_SECOND * max(1, record.provenance.threads)

    def light_seconds(self, planned: PlannedCell) -> float:
        """Return the expected seconds of the steps of a small network on frozen features; 0 where there are none."""
        found = self.configuration(planned)
        if found is None or found.features is None:
            return 0.0
        return found.method.workload(planned.cell.n_train, Budget(), 12).steps * LIGHT_STEP_SECONDS

    def run(
        self,
        planned: PlannedCell,
        task: Task,
        until: float,
        save_to: Path | None = None,
        *,
        must_save: bool = True,
        is_kept: bool = True,
        at_rung: Callable[[Rung], bool] | None = None,
    ) -> Record | None:
        """Return the record of a fit with its score on validation rows, and move the clock on by its seconds.

        A fit to all rows has no score: it would need test rows. None is a fit that had not ended by `until`.
        """
        found = self.configuration(planned)
        k = next((k for k, fold in enumerate(self.folds) if fold is task), None)
        if found is None:
            return self._unrecorded(planned)
        task_rows = len(task.train_labels)
        rows = np.zeros(0, dtype=np.int64) if k is None else self.split.folds[k]
        cost, spent, share = self._cost(found, planned, len(rows))
        if self.clock + spent > until:
            self.clock = max(self.clock, until)
            return None
        self.clock += spent
        if found.features is not None:
            self._encoded[found.features] = max(self._encoded.get(found.features, 0), planned.cell.n_train + len(rows))
        self._note(found, planned, cost, spent, share)
        predicted = self._predicted(found, len(self.folds) if k is None else k, planned.cell.n_train / task_rows, share)
        self._models.append(predicted)
        if save_to is not None:
            save_to.mkdir(parents=True, exist_ok=True)
        return self._record(found, planned, cost, share, rows)

    def tested(self, record: Record) -> float:
        """Return the score of the model of a record of `run` on the test rows; for the judge, not for a search."""
        return self.grid.score(self._models[record.attempt - 1], self.split.test)

    def label_of(self, record: Record) -> str:
        """Return the label of the configuration of a record of `run`."""
        found = self._of_cell(record.cell)
        assert found is not None  # the record is one of this replay
        return found.label

    def files_of(self, configuration: Configuration) -> BackboneFiles | None:
        """Return a stand-in for the files of a configuration's backbone: its name and fingerprint, and no folder."""
        cell = configuration.cell
        if cell.backbone is None or cell.weights is None:
            return None
        return BackboneFiles(
            name=cell.backbone,
            folder=Path("recorded"),
            fingerprint=cell.weights,
            architecture="encoder",
            pooling="mean",
            revision=None,
            origin="local folder",
        )

    def _cost(self, found: Configuration, planned: PlannedCell, n_read: int) -> tuple[Cost, float, float]:
        """Return the cost of a fit, the seconds that it takes now, and the share of its steps that a budget allows."""
        cost, n, recorded = found.fits[0].record.cost, planned.cell.n_train, max(1, found.cell.n_train)
        mean = found.seconds
        encode = mean.encode * n / recorded
        fit = mean.fit * steps_share(found, n)
        share, budget = 1.0, planned.cell.budget
        if budget.train_seconds is not None and found.trains_inside and encode + fit > budget.train_seconds:
            share = max(0.0, budget.train_seconds - encode) / max(fit, 1e-9)
        if budget.epochs is not None and found.trains_inside:
            share = min(share, budget.epochs / float(found.cell.config.get("epochs", budget.epochs)))
        share = min(1.0, share)
        fit *= share
        predict = mean.predict * n_read
        spent = encode + fit + predict
        if found.features is not None:
            unread = max(0, n + n_read - self._encoded.get(found.features, 0))
            reading = min(one.seconds.predict for one in self.configurations if one.features == found.features)
            spent = unread * mean.encode / recorded + fit + (mean.predict - reading) * n_read
        found_cost = dataclasses.replace(
            cost,
            load_seconds=0.0,
            encode_seconds=encode,
            tune_seconds=0.0,
            fit_seconds=fit,
            predict_seconds=predict,
            train_flops=None if cost.train_flops is None else cost.train_flops * share * n / recorded,
            stopped_by="train_seconds" if share < 1 else cost.stopped_by,
        )
        return found_cost, spent, share

    def _note(self, found: Configuration, planned: PlannedCell, cost: Cost, spent: float, share: float) -> None:
        """Keep what a fit cost, for the estimates of later ones."""
        train = cost.train_seconds or 0.0
        if share >= 1:
            reading = found.features is not None
            train = (cost.fit_seconds or 0.0) if reading else train
            self._measured[found.label] = (planned.cell.n_train, train, max(0.0, spent - train) if not reading else 0.0)
        flops = found.fits[0].record.cost.train_flops or 0.0
        encode = cost.encode_seconds or 0.0
        if found.features is not None and encode > 0:  # the speed of reading
            self._rates.append(flops * planned.cell.n_train / max(1, found.cell.n_train) / encode)
        elif found.trains_inside and flops and train > 0:
            self._rates.append(flops * steps_share(found, planned.cell.n_train) * share / train)

    def _predicted(self, found: Configuration, k: int, rows_share: float, steps: float) -> Ints:
        """Return the predictions of a fit for every recorded row."""
        if rows_share < _NEARLY_ALL:
            predicted = self._of_fewer_rows(found, k, rows_share * self.grid.n_train)
            return self._worsened(predicted, steps, found) if steps < _NEARLY_ALL else predicted
        if steps < _NEARLY_ALL:
            known = sorted({fit.share for fit in found.cut if fit.share <= steps + 1e-9})
            if known:
                cut = tuple(fit for fit in found.cut if fit.share == known[-1])
                return self.split.draw(found, cut, k).predicted
            return self._worsened(self.split.draw(found, found.fits, k).predicted, steps, found)
        return self.split.draw(found, found.fits, k).predicted

    def _of_fewer_rows(self, found: Configuration, k: int, n: float) -> Ints:
        """Return the predictions of a fit to fewer labels than were recorded.

        Each row has the prediction of the recorded size above or of that below, at random, so that the score lies on a
        line over the logarithm of the labels. Below the smallest recorded size, the line ends at the most frequent
        class and one label per class.
        """
        sizes = {size: self.split.draw(found, fits, k).predicted for size, fits in found.smaller.items()}
        sizes[self.grid.n_train] = self.split.draw(found, found.fits, k).predicted
        above = min(size for size in sizes if size >= n - 1e-9)
        below = max((size for size in sizes if size <= n), default=None)
        if above == below:
            return sizes[above]
        worst = np.full(self.grid.n_rows, self.grid.majority)
        start = min(self.grid.n_classes, above - 1) if below is None else below
        share = np.log(max(n, start) / start) / np.log(above / start)
        rng = np.random.default_rng([self.split.seed, zlib.crc32(found.label.encode())])
        return np.where(rng.random(self.grid.n_rows) < share, sizes[above], worst if below is None else sizes[below])

    def _worsened(self, predicted: Ints, share: float, found: Configuration) -> Ints:
        """Return predictions of which one minus `share` are replaced by the most frequent class, drawn at random.

        This is pessimistic: a real fit with half of its steps loses far less than half of what it learned.
        """
        rng = np.random.default_rng([self.split.seed, zlib.crc32(found.label.encode())])
        lost = rng.random(len(predicted)) >= share
        return np.where(lost, self.grid.majority, predicted)

    def _record(self, found: Configuration, planned: PlannedCell, cost: Cost, share: float, rows: Ints) -> Record:
        base, grid, predicted = found.fits[0].record, self.grid, self._models[-1]
        score, predictions = None, None
        if len(rows):
            spec = metrics.get(grid.metric)
            value = grid.score(predicted, rows)
            score = Score(grid.metric, value, None, None, spec.higher_is_better, len(rows), len(rows), {}, spec.high)
            predictions = Predictions(f"{grid.name} {planned.cell.task}", predicted[rows], grid.target[rows])
        steps = round(share * found.steps * steps_share(found, planned.cell.n_train))
        return dataclasses.replace(
            base,
            suite="replay",
            cell=planned.cell,
            status="ok",
            score=score,
            train_score=None,
            cost=cost,
            curve=(CurvePoint(steps, cost.train_seconds or 0.0),) if found.steps else (),
            attempt=len(self._models),
            predictions=predictions,
        )

    def _unrecorded(self, planned: PlannedCell) -> Record:
        base = self.configurations[0].fits[0].record
        self._models.append(np.full(self.grid.n_rows, self.grid.majority))
        return dataclasses.replace(
            base,
            cell=planned.cell,
            status="unsupported",
            score=None,
            train_score=None,
            curve=(),
            error=planned.unsupported,
            predictions=None,
            attempt=len(self._models),
        )


_NEARLY_ALL: Final = 0.97
"""Share of rows or steps from which a fit counts as whole."""


def _task(grid: Grid, name: str, n_train: int, target: Ints) -> Task:
    """Return a stand-in for a task: no texts, but as many labels as the recorded fits had, and its test labels."""
    labels = np.resize(np.arange(grid.n_classes, dtype=np.int64), n_train)
    names = tuple(f"class {i}" for i in range(grid.n_classes))
    return Task(
        spec=TaskSpec(name=name, data=DataSource(embedded="docstrings"), metric=grid.metric, label_names=names),
        kind=kinds.get("classification"),
        data=grid.configurations[0].cell.data,
        label_names=names,
        n_outputs=grid.n_classes,
        train=Source(f"{name}/train", [""] * n_train),
        train_labels=labels,
        train_strata=labels,
        train_digests=[],
        test=Source(f"{name}/test", [""] * len(target)),
        test_labels=target,
        test_rows=name,
        n_test_available=len(target),
    )
