"""One question of a validation, what was answered and measured, and the summaries over data sets."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, Literal

import numpy as np

from harness.advice.plain_rules import PLAIN_RULES

RULES: Final = ("advice", *PLAIN_RULES)
"""The advice, and the plain rules that it is compared with."""

_N_RESAMPLED: Final = 2000
_SIZES: Final = ((2.0, "1"), (8.0, "2 to 7"), (32.0, "8 to 31"), (128.0, "32 to 127"), (math.inf, "128 and more"))
"""Upper ends of groups of labels a class, and their names."""


@dataclass(frozen=True)
class Held:
    """One method whose score and costs were expected and measured.

    Attributes:
        method, backbone: label and backbone.
        score, low, high: expected score and its 80 % interval.
        measured: measured score, the mean over its seeds.
        seconds_error, memory_error: relative error of the cost; None where it was not measured or not expected.
    """

    method: str
    backbone: str | None
    score: float
    low: float
    high: float
    measured: float
    seconds_error: float | None = None
    memory_error: float | None = None

    @property
    def is_inside(self) -> bool:
        """Whether the interval holds the measured score."""
        return self.low <= self.measured <= self.high


@dataclass(frozen=True)
class Trial:
    """One question that was answered from the records of other data sets.

    Attributes:
        task: name of the task.
        cluster: name of its data set: tasks with the same rows are left out together.
        n_train, classes: number of labels and of classes.
        fraction: limit of the seconds, as a share of the slowest method's; None is no limit.
        metric: the one metric that is compared.
        regret: points of score (0 to 100) behind the best measured method that fits, by rule; None where a rule's
            method was not measured or does not fit, or advice names none that does.
        is_over: whether the advised method took longer than the limit.
        held: the methods that were measured and expected. Budgets of one size share them: only the first states them.
        n_methods: number of measured methods.
        backbones: names of their backbones.
    """

    task: str
    cluster: str
    n_train: int
    classes: int | None
    fraction: float | None
    metric: str
    regret: dict[str, float | None]
    is_over: bool
    held: tuple[Held, ...]
    n_methods: int
    backbones: tuple[str, ...]

    @property
    def size(self) -> str:
        """Group of its number of labels a class."""
        each = self.n_train / (self.classes or 1)
        return next(name for end, name in _SIZES if each < end)


@dataclass(frozen=True)
class AdviceValidation:
    """All trials and their summaries. Means are over data sets, so that one with many sizes does not count more.

    Attributes:
        trials: one for each task, size and budget that could be asked.
        declined: reasons for which other tasks and sizes could not be asked, with their numbers.
    """

    trials: tuple[Trial, ...]
    declined: Counter[str]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that were left out in turn."""
        return sorted({trial.task for trial in self.trials})

    @property
    def clusters(self) -> list[str]:
        """Names of their data sets."""
        return sorted({trial.cluster for trial in self.trials})

    def regret(self, rule: str) -> tuple[float, float, float]:
        """Return the mean regret in points and its 95 % interval over data sets (Student's; NaN ends for one)."""
        return _over_clusters([(t.cluster, found) for t in self.trials if (found := t.regret[rule]) is not None])

    def ahead(self, rule: str) -> tuple[float, float, float]:
        """Return the mean points by which advice is ahead of a rule where both answered, and its 95 % interval."""
        return _over_clusters([(cluster, b - a) for cluster, a, b in self._both(rule)])

    def share(self, rule: str) -> tuple[float, float, float]:
        """Return the regret of advice over a rule's where both answered, and its 95 % interval over data sets.

        The interval is that of the bootstrap over data sets, with a fixed seed.
        """
        means = _by_cluster(self._both(rule))
        if not len(means) or means[:, 1].mean() <= 0:
            return math.nan, math.nan, math.nan
        draws = np.random.default_rng(0).integers(0, len(means), (_N_RESAMPLED, len(means)))
        drawn = means[draws].mean(1)
        drawn = drawn[(drawn != 0).any(axis=1)]
        with np.errstate(divide="ignore"):
            ratios = np.where(drawn[:, 1] > 0, drawn[:, 0] / drawn[:, 1], math.inf)
        low, high = np.quantile(ratios, [0.025, 0.975], method="nearest").tolist()
        return float(means[:, 0].mean() / means[:, 1].mean()), low, high

    def _both(self, rule: str) -> list[tuple[str, float, float]]:
        pairs = [(t.cluster, t.regret["advice"], t.regret[rule]) for t in self.trials]
        return [(cluster, a, b) for cluster, a, b in pairs if a is not None and b is not None]

    @property
    def best_plain_rule(self) -> str | None:
        """Plain rule with the least mean regret among those that answered at least half as often as the advice."""
        answered = Counter(rule for t in self.trials for rule in RULES if t.regret[rule] is not None)
        usual = [rule for rule in PLAIN_RULES if answered[rule] and 2 * answered[rule] >= answered["advice"]]
        return min(usual, key=lambda rule: self.regret(rule)[0], default=None)

    @property
    def n_over(self) -> int:
        """Number of questions whose advised method took longer than the limit."""
        return sum(trial.is_over for trial in self.trials)

    def coverage(self) -> tuple[float, float, float]:
        """Return the share of 80 % intervals that held the measured score, and its 95 % interval over data sets."""
        return _over_clusters([(t.cluster, float(one.is_inside)) for t in self.trials for one in t.held])

    def coverage_by(self, name: Literal["task", "size", "backbone"]) -> dict[str, tuple[float, int]]:
        """Return the share of intervals that held and their number, by task, labels a class or backbone."""
        found: defaultdict[str, list[bool]] = defaultdict(list)
        for trial in self.trials:
            for one in trial.held:
                key = (one.backbone or "none") if name == "backbone" else str(getattr(trial, name))
                found[key].append(one.is_inside)
        return {key: (sum(of) / len(of), len(of)) for key, of in sorted(found.items())}

    def error(self, name: Literal["seconds", "memory"]) -> float | None:
        """Return the median absolute relative error of `seconds` or `memory`; None where nothing was timed."""
        found = [getattr(one, f"{name}_error") for trial in self.trials for one in trial.held]
        known = [error for error in found if error is not None]
        return median(known) if known else None

    def questions_by(self, name: Literal["task", "size", "backbone", "limit"]) -> dict[str, int]:
        """Return the number of questions by task, labels a class, measured backbone or limit of the seconds."""
        keys: dict[str, Callable[[Trial], Iterable[str]]] = {
            "task": lambda t: (t.task,),
            "size": lambda t: (t.size,),
            "backbone": lambda t: t.backbones,
            "limit": lambda t: ("none" if t.fraction is None else f"{t.fraction:g} of the slowest",),
        }
        return dict(sorted(Counter(key for trial in self.trials for key in keys[name](trial)).items()))

    def to_dict(self) -> dict[str, Any]:
        """Return the summaries as plain values; ends of intervals are NaN for a single data set."""
        best = self.best_plain_rule
        return {
            "tasks": self.tasks,
            "data_sets": self.clusters,
            "metrics": sorted({trial.metric for trial in self.trials}),
            "n_questions": len(self.trials),
            "questions": {by: self.questions_by(by) for by in ("task", "backbone", "size", "limit")},
            "not_asked": dict(self.declined),
            "n_over_limit": self.n_over,
            "rules": [self._rule(rule) for rule in RULES],
            "best_plain_rule": best,
            "regret_over_best_plain_rule": None if best is None else _named(self.share(best)),
            "coverage_of_80_percent": _named(self.coverage()),
            "coverage_by": {
                by: {key: {"share": share, "n": n} for key, (share, n) in self.coverage_by(by).items()}
                for by in ("task", "size", "backbone")
            },
            "median_relative_error": {name: self.error(name) for name in ("seconds", "memory")},
        }

    def _rule(self, rule: str) -> dict[str, Any]:
        return {
            "rule": rule,
            "n_answered": sum(trial.regret[rule] is not None for trial in self.trials),
            "regret_points": _named(self.regret(rule)),
            "advice_ahead_points": None if rule == RULES[0] else _named(self.ahead(rule)),
        }


def _named(found: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), found, strict=True))


def _by_cluster(values: Sequence[tuple[str, *tuple[float, ...]]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the means of each cluster's values, shape (clusters, values)."""
    found: defaultdict[str, list[tuple[float, ...]]] = defaultdict(list)
    for cluster, *rest in values:
        found[cluster].append(tuple(rest))
    return np.array([np.mean(of, axis=0) for of in found.values()])


def _over_clusters(values: Sequence[tuple[str, float]]) -> tuple[float, float, float]:
    from scipy.special import stdtrit

    means = _by_cluster(values)
    if not means.size:
        return math.nan, math.nan, math.nan
    mean = float(means.mean())
    if means.size == 1:
        return mean, math.nan, math.nan
    half = float(stdtrit(means.size - 1, 0.975) * means.std(ddof=1) / math.sqrt(means.size))
    return mean, mean - half, mean + half
