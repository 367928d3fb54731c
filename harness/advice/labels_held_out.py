"""Validation of learning curves: larger sizes of recorded tasks are forecast from smaller ones, and compared."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.optimize import least_squares

from harness.forecast import Doubles, KnownCurve, Scores, Slopes, fit_curve, gather, known_curves, task_names, usable
from harness.records import Record
from harness.support import UsageError

LABEL_RULES: Final = ("learning curve", "no change", "line through the last two", "power law without prior")

_LEAST_SIZES: Final = 3
_MOST_SIZES: Final = 4
_TIMES: Final = (2.8, 6.5)
"""Least and most ratio of the size that is forecast to the largest one that the forecast sees."""


@dataclass(frozen=True)
class LabelsTrial:
    """One size of one method on one task that was forecast from smaller ones.

    Attributes:
        n_seen: most labels that the forecast saw.
        n_train: number of labels of the forecast.
        measured: mean score over seeds at this number, as a share of the best.
        forecasts: forecast of each rule of `LABEL_RULES`.
        low, high: 80 % interval of the learning curve.
    """

    task: str
    method: str
    n_seen: int
    n_train: int
    measured: float
    forecasts: dict[str, float]
    low: float
    high: float

    @property
    def is_held(self) -> bool:
        """Whether the interval holds the measured score."""
        return self.low <= self.measured <= self.high

    def error(self, rule: str) -> float:
        """Return the absolute error of a rule in points."""
        return 100 * abs(self.forecasts[rule] - self.measured)


@dataclass(frozen=True)
class LabelsValidation:
    """All trials, and their summaries; means are over tasks, so that one with many methods does not count more.

    Attributes:
        trials: the trials.
    """

    trials: tuple[LabelsTrial, ...]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return sorted({trial.task for trial in self.trials})

    def error(self, rule: str, task: str | None = None) -> float:
        """Return the mean absolute error of a rule in points, over tasks, or on one task."""
        return _over_tasks([(t.task, t.error(rule)) for t in self.trials if task in (None, t.task)])

    def coverage(self, task: str | None = None) -> float:
        """Return the share of 80 % intervals that hold the measured score, over tasks, or on one task."""
        return _over_tasks([(t.task, float(t.is_held)) for t in self.trials if task in (None, t.task)])

    def to_dict(self) -> dict[str, Any]:
        """Return the summaries as plain values."""
        return {
            "n_forecasts": len(self.trials),
            "mean_absolute_error_points": {rule: self.error(rule) for rule in LABEL_RULES},
            "coverage_of_80_percent": self.coverage(),
            "tasks": [
                {
                    "task": task,
                    "n_forecasts": sum(t.task == task for t in self.trials),
                    "mean_absolute_error_points": {rule: self.error(rule, task) for rule in LABEL_RULES},
                    "coverage_of_80_percent": self.coverage(task),
                }
                for task in self.tasks
            ],
        }


def validate_labels(records: Iterable[Record], kind: str = "classification") -> LabelsValidation:
    """Forecast each recorded score from three smaller sizes or more, with the curves of other tasks as prior.

    The largest size that a forecast sees has a third to a sixth of the labels. Tasks on rows of one data set leave
    together.

    Raises:
        UsageError: fewer than two tasks have such curves.
    """
    kept = [record for record in usable(records) if record.kind == kind]
    names = task_names(kept)
    source = {names[record.cell.task, record.cell.data]: _source(record) for record in kept}
    curves = known_curves(gather(kept).points)
    trials = []
    for task in sorted({curve.task for curve in curves}):
        slopes = Slopes(curve for curve in curves if source[curve.task] != source[task])
        for curve in curves:
            if curve.task == task:
                trials += _trials(curve, slopes)
    if len({trial.task for trial in trials}) < 2:
        raise UsageError(
            f"Learning curves of {kind} tasks cannot be validated: it needs at least two tasks, each with a method at "
            "four sizes or more, such as 64, 128, 256 and 1024. Run such a grid first, or name another store."
        )
    return LabelsValidation(tuple(trials))


def _source(record: Record) -> tuple[str, ...]:
    dataset = record.provenance.dataset
    hub = dataset.get("hub")
    return ("task", record.cell.task) if hub is None else ("hub", str(hub), str(dataset.get("config")))


def _trials(curve: KnownCurve, slopes: Slopes) -> list[LabelsTrial]:
    found = []
    for at, target in enumerate(curve.scores):
        seen = [one for one in curve.scores[:at] if one.n_train * _TIMES[0] <= target.n_train][-_MOST_SIZES:]
        if len(seen) < _LEAST_SIZES or seen[-1].n_train * _TIMES[1] < target.n_train:
            continue
        last, before = seen[-1], seen[-2]
        fitted = fit_curve(seen, slopes.expect(last.n_train, curve.classes, curve.method))
        low, high = np.quantile(fitted.of_measurement(target.n_train, round(target.n_apart)), (0.1, 0.9))
        rise = (last.mean - before.mean) / math.log(last.n_train / before.n_train)
        line = last.mean + rise * math.log(target.n_train / last.n_train)
        expected = (
            float(np.median(fitted.at(target.n_train))),
            last.mean,
            min(1.0, max(0.0, line)),
            _power_law(seen, target.n_train),
        )
        found.append(
            LabelsTrial(
                curve.task,
                curve.method,
                round(last.n_train),
                round(target.n_train),
                target.mean,
                dict(zip(LABEL_RULES, expected, strict=True)),
                float(low),
                float(high),
            )
        )
    return found


def _power_law(seen: Sequence[Scores], n_train: float) -> float:
    """Return the score at so many labels by least squares of error = a · n^-b + c, without a prior."""
    n = np.array([one.n_train for one in seen]) / seen[-1].n_train
    errors = np.array([1 - one.mean for one in seen])

    def off(p: Doubles) -> Doubles:
        return np.asarray(p[0] * n ** -p[1] + p[2] - errors, dtype=np.float64)

    starts = ((0.7 * errors[-1], b, 0.3 * errors[-1]) for b in (0.2, 0.5, 1.0))
    fits = [least_squares(off, start, bounds=([0, 0.01, 0], [2, 3, 1])) for start in starts]
    a, b, c = min(fits, key=lambda fit: float(fit.cost)).x
    return 1 - float(np.clip(a * (n_train / seen[-1].n_train) ** -b + c, 0, 1))


def _over_tasks(values: Sequence[tuple[str, float]]) -> float:
    by_task: defaultdict[str, list[float]] = defaultdict(list)
    for task, value in values:
        by_task[task].append(value)
    return float(np.mean([np.mean(found) for found in by_task.values()]))
