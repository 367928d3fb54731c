"""Validation of the advice: each task is left out, advised for from the others, and compared with its scores."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import numpy as np

from harness.advice.answer import Advice, answer_question
from harness.advice.question import Question
from harness.forecast import Evidence, Point, gather, task_names, usable
from harness.records import Record
from harness.support import UsageError

RULES: Final = ("advice", "always full", "always lora", "best on average")
_FRACTIONS: Final = (None, 0.5, 0.1)
"""Budgets of seconds, as shares of the slowest method's; None is no budget."""

_LEAST_METHODS: Final = 3
"""Fewest methods that are measured on a task at a size, for a choice among them to mean anything."""


@dataclass(frozen=True)
class Trial:
    """One question that was answered from the other tasks' records.

    Attributes:
        regret: points of score (0 to 100) behind the best measured method that fits, by rule; None where a rule's
            method was not measured or does not fit, or advice names none that does.
        is_over: whether the advised method took longer than the limit.
        n_methods: number of measured methods.
        n_covered, n_intervals: number of 80 % intervals that held the measured score, and of all intervals.
        seconds_errors, memory_errors: relative error for each method.
    """

    task: str
    n_train: int
    fraction: float | None
    regret: dict[str, float | None]
    is_over: bool
    n_methods: int
    n_covered: int
    n_intervals: int
    seconds_errors: tuple[float, ...]
    memory_errors: tuple[float, ...]


@dataclass(frozen=True)
class AdviceValidation:
    """All trials and their summaries; means are over tasks, so that a task with many sizes does not count more.

    Attributes:
        trials: one for each task, size and budget.
    """

    trials: tuple[Trial, ...]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that were left out in turn."""
        return sorted({trial.task for trial in self.trials})

    def regret(self, rule: str) -> tuple[float, float, float]:
        """Return the mean regret in points and its 95 % interval over tasks (Student's; NaN ends for one task)."""
        return _over_tasks([(t.task, found) for t in self.trials if (found := t.regret[rule]) is not None])

    def ahead(self, rule: str) -> tuple[float, float, float]:
        """Return the mean points by which advice is ahead of a rule where both answered, and its 95 % interval."""
        both = [(t.task, t.regret[rule], t.regret["advice"]) for t in self.trials]
        return _over_tasks([(task, a - b) for task, a, b in both if a is not None and b is not None])

    @property
    def n_over(self) -> int:
        """Number of questions whose advised method took longer than the limit."""
        return sum(trial.is_over for trial in self.trials)

    def coverage(self) -> tuple[float, float, float]:
        """Return the share of 80 % intervals that held the measured score, and its 95 % interval over tasks."""
        return _over_tasks([(t.task, t.n_covered / t.n_intervals) for t in self.trials if t.n_intervals])

    def error(self, name: str) -> float | None:
        """Return the median absolute relative error of `seconds` or `memory`; None where nothing was timed."""
        found = [error for trial in self.trials for error in getattr(trial, f"{name}_errors")]
        return median(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        """Return the summaries as plain values; ends of intervals are NaN for a single task."""
        return {
            "tasks": self.tasks,
            "n_questions": len(self.trials),
            "n_over_limit": self.n_over,
            "rules": [self._rule(rule) for rule in RULES],
            "coverage_of_80_percent": dict(zip(_WITH_ENDS, self.coverage(), strict=True)),
            "median_relative_error": {name: self.error(name) for name in ("seconds", "memory")},
        }

    def _rule(self, rule: str) -> dict[str, Any]:
        return {
            "rule": rule,
            "n_answered": sum(trial.regret[rule] is not None for trial in self.trials),
            "regret_points": dict(zip(_WITH_ENDS, self.regret(rule), strict=True)),
            "advice_ahead_points": None if rule == RULES[0] else dict(zip(_WITH_ENDS, self.ahead(rule), strict=True)),
        }


_WITH_ENDS: Final = ("mean", "low", "high")


def validate_advice(records: Iterable[Record], kind: str = "classification") -> AdviceValidation:
    """Leave out each task of a kind in turn, and with it the tasks with the same rows under other labels.

    The best measured method is chosen on half of the seeds and scored on the other half, and the other way round. So
    its luck does not count against the advice.

    Raises:
        UsageError: fewer than two tasks have a size that at least three methods were measured at.
    """
    kept = [record for record in usable(records) if record.kind == kind]
    bases = Counter(record.cell.backbone for record in kept if record.cell.backbone is not None)
    most = max(sorted(bases), key=lambda name: bases[name], default=None)
    names = task_names(kept)
    kept = [r for r in kept if r.cell.backbone in (None, most) and names[r.cell.task, r.cell.data] == r.cell.task]
    everything = gather(kept)
    halves = [gather([r for r in kept if r.cell.seed % 2 == parity]) for parity in (0, 1)]
    source = {record.cell.task: _source(record) for record in kept}
    trials = []
    for task in sorted({point.task for point in everything.points}):
        others = gather([record for record in kept if source[record.cell.task] != source[task]])
        if not others.points:
            continue
        sizes = sorted({point.n_train for point in everything.points if point.task == task and point.n_train})
        for n_train in sizes:
            trials += _trials(task, n_train, everything, halves, others)
    if len({trial.task for trial in trials}) < 2:
        raise UsageError(
            f"Advice on {kind} tasks cannot be validated: it needs at least two tasks, each with records of "
            f"{_LEAST_METHODS} methods at one size. Run a suite first, or name another store."
        )
    return AdviceValidation(tuple(trials))


def _source(record: Record) -> tuple[str, ...]:
    """Return the data set that a task's rows come from; the task itself where they come from files."""
    dataset = record.provenance.dataset
    hub = dataset.get("hub")
    return ("task", record.cell.task) if hub is None else ("hub", str(hub), str(dataset.get("config")))


def _trials(task: str, n_train: int, everything: Evidence, halves: Sequence[Evidence], others: Evidence) -> list[Trial]:
    measured = {p.method: p for p in everything.points if p.task == task and p.n_train in (n_train, 0)}
    first = next(iter(measured.values()))
    known = {point.method for point in others.points}
    measured = {method: point for method, point in measured.items() if method in known}
    if len(measured) < _LEAST_METHODS:
        return []
    split = [{p.method: p for p in half.points if p.task == task and p.n_train in (n_train, 0)} for half in halves]
    found = []
    timed = [name for point in others.points for name in point.seconds]
    device = max(sorted(set(timed)), key=timed.count) if timed else ""
    slowest = max((point.seconds.get(device, 0.0) for point in measured.values()), default=0.0)
    for fraction in _FRACTIONS:
        if fraction is not None and not slowest:
            continue
        limit = None if fraction is None else fraction * slowest
        texts = everything.texts.of(task, n_train, first.classes)
        question = Question(
            kind=first.kind,
            n_train=n_train,
            classes=first.classes if first.classes and first.classes <= n_train else None,
            tokens=texts.tokens,
            longest=texts.longest,
            longest_to_predict=texts.longest_read,
            terms=texts.terms,
            train_seconds=limit,
            device=device or None,
        )
        answer = answer_question(question, others)
        fitting = {m: p for m, p in measured.items() if limit is None or p.seconds.get(device, math.inf) <= limit}
        if not fitting:
            continue
        advised = next((c.method for c in answer.choices if c.fits and c.method in measured), None)
        chosen = {
            "advice": advised if advised in fitting else None,
            "always full": "full" if "full" in fitting else None,
            "always lora": "lora" if "lora" in fitting else None,
            "best on average": _best_on_average(others, fitting),
        }
        regret = {rule: None if method is None else _regret(method, fitting, split) for rule, method in chosen.items()}
        is_over = advised is not None and advised not in fitting
        found.append(_trial(task, n_train, fraction, regret, measured, answer, device, is_over=is_over))
    return found


def _trial(
    task: str,
    n_train: int,
    fraction: float | None,
    regret: dict[str, float | None],
    measured: dict[str, Point],
    answer: Advice,
    device: str,
    *,
    is_over: bool,
) -> Trial:
    choices = {choice.method: choice for choice in answer.choices if choice.method in measured}
    covered = [choice.low <= measured[method].score <= choice.high for method, choice in choices.items()]
    seconds = [
        abs(choice.train_seconds / measured[method].seconds[device] - 1)
        for method, choice in choices.items()
        if choice.train_seconds is not None and device in measured[method].seconds
    ]
    memory = [
        abs(choice.peak_memory_bytes / measured[method].memory[device] - 1)
        for method, choice in choices.items()
        if choice.peak_memory_bytes is not None and device in measured[method].memory
    ]
    # Each of a size's budgets asks for the same intervals and costs: they are counted once.
    once = fraction is None
    return Trial(
        task,
        n_train,
        fraction,
        regret,
        is_over,
        len(measured),
        sum(covered) if once else 0,
        len(covered) if once else 0,
        tuple(seconds) if once else (),
        tuple(memory) if once else (),
    )


def _regret(method: str, fitting: dict[str, Point], split: Sequence[dict[str, Point]]) -> float:
    """Return the points behind the best, which is chosen on one half of the seeds and scored on the other."""
    sign = 1 if fitting[method].higher_is_better else -1
    found = []
    for choosing, scoring in (split, split[::-1]):
        both = [name for name in fitting if name in choosing and name in scoring]
        if method not in both:
            continue
        best = max(both, key=lambda name: sign * choosing[name].score)
        found.append(100 * sign * (scoring[best].score - scoring[method].score))
    if not found:  # one seed: the same for both
        best = max(fitting, key=lambda name: sign * fitting[name].score)
        return 100 * sign * (fitting[best].score - fitting[method].score)
    return sum(found) / len(found)


def _best_on_average(others: Evidence, fitting: dict[str, Point]) -> str | None:
    """Return the method with the highest mean over the other tasks of its distance to each task's and size's mean."""
    by_cell: defaultdict[tuple[str, int], list[Point]] = defaultdict(list)
    for point in others.points:
        by_cell[point.task, point.n_train].append(point)
    gains: defaultdict[str, list[float]] = defaultdict(list)
    for points in by_cell.values():
        mean = sum(point.score for point in points) / len(points)
        for point in points:
            gains[point.method].append((point.score - mean) * (1 if point.higher_is_better else -1))
    known = [method for method in fitting if gains[method]]
    return max(known, key=lambda method: sum(gains[method]) / len(gains[method])) if known else None


def _over_tasks(values: Sequence[tuple[str, float]]) -> tuple[float, float, float]:
    import scipy.stats

    by_task: defaultdict[str, list[float]] = defaultdict(list)
    for task, value in values:
        by_task[task].append(value)
    means = np.array([sum(found) / len(found) for found in by_task.values()])
    if not means.size:
        return math.nan, math.nan, math.nan
    mean = float(means.mean())
    if means.size == 1:
        return mean, math.nan, math.nan
    half = float(scipy.stats.t.ppf(0.975, means.size - 1) * means.std(ddof=1) / math.sqrt(means.size))
    return mean, mean - half, mean + half
