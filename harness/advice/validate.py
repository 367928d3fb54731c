"""Validation of the advice: each data set is left out, advised for from the others, and compared with its scores."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from harness.advice.answer import Advice, answer_question
from harness.advice.on_backbones import short_names
from harness.advice.plain_rules import plain_choices
from harness.advice.question import Question
from harness.advice.trials import AdviceValidation, Held, Trial
from harness.forecast import Evidence, Point, gather, task_names, usable
from harness.records import PublishedEncoder, Record
from harness.support import UsageError

_FRACTIONS: Final = (None, 0.5, 0.1)
"""Budgets of seconds, as shares of the slowest method's; None is no budget."""

_LEAST_METHODS: Final = 3
"""Fewest methods that are measured on a task at a size, for a choice among them to mean anything."""

_PART: Final = re.compile(r"[-_](train|validation|valid|dev|test|fine|coarse)$")
"""Ends of names that say which part of a data set, or which of its labels, a task takes."""

_KIND: Final = "classification"
"""Kind of the published probes."""


def validate_advice(
    records: Iterable[Record], kind: str = "classification", encoders: Sequence[PublishedEncoder] = ()
) -> AdviceValidation:
    """Leave out each data set of a kind in turn, and answer for its tasks from the records of the others.

    All backbones count. Each comparison is of one metric: the one that most methods have there. The best measured
    method is chosen on half of the seeds and scored on the other half, and the other way round. So its luck does not
    count against the advice.

    Args:
        records: records, predictions not needed.
        kind: kind of task.
        encoders: encoders with published results; those on the data set that is left out do not count.

    Raises:
        UsageError: fewer than two data sets have a size that at least three methods were measured at.
    """
    kept = [record for record in usable(records) if record.kind == kind and record.facts.measured_by is None]
    names = task_names(kept)
    kept = [record for record in kept if names[record.cell.task, record.cell.data] == record.cell.task]
    clusters = clusters_of(kept)
    sizes = _parameters(kept)
    everything = gather(kept)
    halves = [gather([r for r in kept if r.cell.seed % 2 == parity]) for parity in (0, 1)]
    trials: list[Trial] = []
    declined: Counter[str] = Counter()
    for cluster in sorted(set(clusters.values())):
        others = gather([record for record in kept if clusters[record.cell.task] != cluster])
        if not others.points:
            continue
        published = [_without(encoder, cluster) for encoder in encoders] if kind == _KIND else []
        for task in sorted(name for name, own in clusters.items() if own == cluster):
            asked = sorted({point.n_train for point in everything.points if point.task == task and point.n_train})
            n_before = len(trials)
            for n_train in asked:
                case = _Case(task, cluster, n_train, everything, halves, others, is_first=len(trials) == n_before)
                trials += case.trials(published, sizes, declined)
    if len({trial.cluster for trial in trials}) < 2:
        raise UsageError(
            f"Advice on {kind} tasks cannot be validated: it needs at least two data sets, each with records of "
            f"{_LEAST_METHODS} methods at one size. Run a suite first, or name another store."
        )
    return AdviceValidation(tuple(trials), declined)


def clusters_of(records: Iterable[Record]) -> dict[str, str]:
    """Return the data set of each task.

    Tasks are of one data set if their rows come from the same table, or if their names differ only by a part
    (`sst2-validation`) or by the fineness of labels (`trec_fine`).
    """
    sources: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        name = record.cell.task
        while (shorter := _PART.sub("", name)) != name:
            name = shorter
        sources[record.cell.task].add(name)
        hub = record.provenance.dataset.get("hub")
        if hub is not None:
            config = record.provenance.dataset.get("config")
            sources[record.cell.task].add(f"hub {hub} {config}")
    found: dict[str, str] = {}
    for task in sorted(sources, key=lambda task: (len(task), task)):
        alike = next((other for other in found if sources[other] & sources[task]), None)
        if alike is None:
            found[task] = task
            continue
        found[task] = found[alike]
        for other in [name for name in found if sources[name] & sources[task]]:  # it may join two
            found[other] = found[alike]
    return found


def _without(encoder: PublishedEncoder, cluster: str) -> PublishedEncoder:
    """Return an encoder without its results on a data set, as their names tell: `Banking77Classification`."""
    name = re.sub(r"[^a-z0-9]", "", cluster.lower())
    left = tuple(r for r in encoder.results if name not in re.sub(r"[^a-z0-9]", "", r.task.lower()))
    return replace(encoder, results=left)


def _parameters(records: Iterable[Record]) -> dict[str, float]:
    """Return the parameters of each backbone, as its records say."""
    found: dict[str, float] = {}
    for record in records:
        if record.cell.backbone is not None and record.cost.n_parameters is not None:
            found[record.cell.backbone] = max(found.get(record.cell.backbone, 0.0), record.cost.n_parameters)
    return found


class _Case:
    """A task at a number of labels, and what was measured there and elsewhere.

    Labels of points name the backbone where the other tasks were measured on several, as the answer's do.
    """

    def __init__(
        self,
        task: str,
        cluster: str,
        n_train: int,
        everything: Evidence,
        halves: Sequence[Evidence],
        others: Evidence,
        *,
        is_first: bool,
    ) -> None:
        self._is_first = is_first
        self.task, self.cluster, self.n_train = task, cluster, n_train
        self.others, self.everything = others, everything
        own = [point for point in everything.points if point.task == task and point.n_train in (n_train, 0)]
        counted = Counter(point.metric for point in own)
        self.metric = max(sorted(counted), key=lambda name: counted[name])
        kept = [point for point in others.points if point.metric == self.metric]
        backbones = {point.backbone for point in kept if point.backbone is not None}
        self._short = short_names(backbones) if len(backbones) > 1 else {}
        self.elsewhere = [self._labelled(point) for point in kept]
        known = {(point.method, point.backbone) for point in self.elsewhere}
        self.measured = {
            label: point
            for label, point in self._at(everything).items()
            if point.metric == self.metric and (label, point.backbone) in known
        }
        self._split = [self._at(half) for half in halves]

    def _labelled(self, point: Point) -> Point:
        if point.backbone not in self._short:
            return replace(point, on=point.method)
        return replace(point, method=f"{point.method} on {self._short[point.backbone]}", on=point.method)

    def _at(self, evidence: Evidence) -> dict[str, Point]:
        own = [point for point in evidence.points if point.task == self.task and point.n_train in (self.n_train, 0)]
        return {point.method: point for point in map(self._labelled, own)}

    def trials(
        self, encoders: Sequence[PublishedEncoder], sizes: Mapping[str, float], declined: Counter[str]
    ) -> list[Trial]:
        """Return the answered questions, one for each budget; count why there are none."""
        if len(self.measured) < _LEAST_METHODS:
            declined[f"fewer than {_LEAST_METHODS} methods that other data sets know"] += 1
            return []
        timed = Counter(device for point in self.elsewhere for device in point.seconds)
        device = max(sorted(timed), key=lambda name: timed[name], default="")
        try:
            answer = answer_question(self._question(device), self._of_metric(), encoders=lambda: encoders)
        except UsageError:
            declined["a size more than 100 times beyond those of other data sets"] += 1
            return []
        slowest = max((point.seconds.get(device, 0.0) for point in self.measured.values()), default=0.0)
        held = self._held(answer, device)
        found: list[Trial] = []
        for fraction in _FRACTIONS:
            if fraction is None or slowest:
                limit = math.inf if fraction is None else fraction * slowest
                found += self._trial(answer, device, limit, fraction, sizes, () if found else held)
        return found

    def _of_metric(self) -> Evidence:
        kept = tuple(point for point in self.others.points if point.metric == self.metric)
        return replace(self.others, points=kept)

    def _question(self, device: str) -> Question:
        first = next(point for point in self.measured.values())
        texts = self.everything.texts.of(self.task, self.n_train, first.classes)
        majority = next((point.majority for point in self.measured.values() if point.n_train), None)
        return Question(
            kind=first.kind,
            n_train=self.n_train,
            classes=first.classes if first.classes and first.classes <= self.n_train else None,
            tokens=texts.tokens,
            longest=texts.longest,
            longest_to_predict=texts.longest_read,
            terms=texts.terms,
            device=device or None,
            majority=majority,
        )

    def _trial(
        self,
        answer: Advice,
        device: str,
        limit: float,
        fraction: float | None,
        sizes: Mapping[str, float],
        held: tuple[Held, ...],
    ) -> list[Trial]:
        fitting = {
            m: p for m, p in self.measured.items() if limit == math.inf or p.seconds.get(device, math.inf) <= limit
        }
        if not fitting:
            return []
        sign = 1 if next(iter(fitting.values())).higher_is_better else -1
        allowed = [
            choice
            for choice in answer.choices
            if choice.method in self.measured
            and (limit == math.inf or (choice.train_seconds is not None and choice.train_seconds <= limit))
        ]
        best = max(allowed, key=lambda choice: sign * choice.score, default=None)
        advised = None if best is None else best.method
        chosen = {"advice": advised if advised in fitting else None, **plain_choices(fitting, self.elsewhere, sizes)}
        regret = {rule: None if m is None else _regret(m, fitting, self._split) for rule, m in chosen.items()}
        backbones = sorted({point.backbone for point in self.measured.values() if point.backbone is not None})
        return [
            Trial(
                task=self.task,
                cluster=self.cluster,
                n_train=self.n_train,
                classes=next((point.classes for point in fitting.values()), None),
                fraction=fraction,
                metric=self.metric,
                regret=regret,
                is_over=advised is not None and advised not in fitting,
                held=held,
                n_methods=len(self.measured),
                backbones=tuple(backbones),
            )
        ]

    def _held(self, answer: Advice, device: str) -> tuple[Held, ...]:
        found = []
        for choice in answer.choices:
            point = self.measured.get(choice.method)
            if point is None or not (point.n_train or self._is_first):  # what uses no labels was measured once
                continue
            found.append(
                Held(
                    choice.method,
                    point.backbone,
                    choice.score,
                    choice.low,
                    choice.high,
                    point.score,
                    _error(choice.train_seconds, point.seconds.get(device)),
                    _error(choice.peak_memory_bytes, point.memory.get(device)),
                )
            )
        return tuple(found)


def _error(expected: float | None, measured: float | None) -> float | None:
    return None if expected is None or not measured else abs(expected / measured - 1)


def _regret(method: str, fitting: Mapping[str, Point], split: Sequence[Mapping[str, Point]]) -> float:
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
