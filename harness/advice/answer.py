"""The answer: methods ranked by expected score, with their costs, and what more time or labels would buy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.advice.on_backbones import Basis, OnBackbones, spread_over_backbones
from harness.advice.question import Question
from harness.advice.relevant import MOST_BEYOND, device_of, relevant
from harness.advice.spending import AdvisedSpending, AskedSpending, with_spending
from harness.cost import Probed
from harness.forecast import CostModel, Curves, Doubles, Evidence, Point, Scale, gather, measured_of
from harness.records import EncoderFacts, PublishedEncoder, Record, flagged_default
from harness.support import text

if TYPE_CHECKING:
    import pandas as pd

_LEVEL_95: Final = 1.959964

_MORE_LABELS: Final = 4
"""Factor by which the number of labels grows in the sentence on more labels."""

_SHOWN: Final[dict[str, Callable[[float], str]]] = {
    "train_seconds": text.seconds,
    "peak_memory_bytes": text.memory,
    "predict_milliseconds": lambda value: f"{value:.3g} ms a text",
    "trainable_parameters": lambda value: f"{text.number(value)} trainable parameters",
}
"""Costs that may be limited, and their form in messages."""


@dataclass(frozen=True)
class AdvisedMethod:
    """One method in an answer: its expected score and costs.

    Attributes:
        method: label of the configuration; with "cut at" a budget that ended its fits.
        score, low, high: expected score and its 80 % interval.
        train_seconds, peak_memory_bytes, predict_milliseconds: expected on the device; None where nothing was measured.
        trainable_parameters, stored_bytes: as measured.
        fits: whether it is within all limits.
        why_not: reasons why it does not fit.
        is_tied: whether it cannot be told from the best that fits (at 95 %).
        basis: `measured` (this task and size), `interpolated`, `extrapolated`, `seen at one size`, or `carried over`
            from the backbone with the most measurements.
        n_records, n_tasks: number of records of the method, and of tasks of this kind with them; of a method that is
            carried to another backbone, those on the backbone that it is carried from.
        backbone: the backbone, where the answer is about several.
        default_points_behind: points by which other settings beat these defaults in an audit; None where none flags
            them.
        default_better: those settings; None where none flags the defaults.
    """

    method: str
    family: str
    score: float
    low: float
    high: float
    train_seconds: float | None
    peak_memory_bytes: float | None
    predict_milliseconds: float | None
    trainable_parameters: float | None
    stored_bytes: float | None
    fits: bool
    why_not: tuple[str, ...]
    is_tied: bool
    basis: str
    n_records: int
    n_tasks: int
    backbone: str | None = None
    default_points_behind: float | None = None
    default_better: str | None = None


@dataclass(frozen=True)
class Advice:
    """The answer to a question.

    Attributes:
        choices: methods that fit, best first (cheapest first, where a score was asked for); then those that do not.
        metric: metric of the scores.
        device: device of the seconds and memory; None where nothing was timed.
        more: sentences on what a higher limit, or more labels, would buy.
        notes: sentences on what the answer rests on.
        bases: what the answer for each backbone rests on, where it is about several.
        spending: what each choice costs in use, in the order of `choices`, where predictions or prices were given.
    """

    question: Question
    choices: tuple[AdvisedMethod, ...]
    metric: str
    device: str | None
    more: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    bases: tuple[Basis, ...] = ()
    spending: tuple[AdvisedSpending, ...] = ()

    @property
    def best(self) -> AdvisedMethod | None:
        """First choice that fits; None where nothing does."""
        return next((choice for choice in self.choices if choice.fits), None)

    @property
    def tied(self) -> list[AdvisedMethod]:
        """Choices that fit and cannot be told from the best."""
        return [choice for choice in self.choices if choice.fits and choice.is_tied and choice is not self.best]

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each choice."""
        import pandas as pd

        found = pd.DataFrame([asdict(choice) for choice in self.choices])
        if not self.spending:
            return found
        further = pd.DataFrame([asdict(one) for one in self.spending]).drop(columns=["method", "backbone"])
        return found.join(further)

    def to_json(self) -> str:
        """Return the whole answer as JSON."""
        return json.dumps(asdict(self), indent=1)


def answer_question(
    question: Question,
    records: Iterable[Record] | Evidence,
    probes: Sequence[Probed] = (),
    own_devices: Sequence[str] = (),
    encoders: Callable[[], Sequence[PublishedEncoder]] = tuple,
    facts: Mapping[str, EncoderFacts] = MappingProxyType({}),
    spending: AskedSpending | None = None,
) -> Advice:
    """Answer from records; nothing is run, and nothing is invented.

    Args:
        question: the question.
        records: records, predictions not needed; or the evidence that `gather` made of them.
        probes: probes of devices on which nothing, or little, was measured.
        own_devices: devices of the user's own records. Costs are those of the first with timings, where no device is
            asked for or probed.
        encoders: returns encoders with published results, which speak for backbones without records.
        facts: facts about backbones by name, such as their configurations state them.
        spending: question about costs in use; None asks nothing of them.

    Raises:
        UsageError: nothing was measured that the answer could rest on: of this kind, on this backbone, near this size.
    """
    evidence = records if isinstance(records, Evidence) else gather(records)
    points, notes = relevant(question, evidence)
    several = spread_over_backbones(points, question.backbones, question.kind, encoders, facts)
    if several is not None:
        points = several.points
        if any(label in several.wanted for label in several.carried):
            notes.append(_CARRIED)
    device, timed = device_of(question, evidence, points, probes, own_devices)
    answering = _Answering(points, CostModel(points, evidence, device, timed, probes), several)
    ranked, of_costs = answering.choices(question)
    more = _more(question, ranked, answering, max(point.n_train for point in points))
    bases = () if several is None else several.bases
    answer = Advice(question, ranked, points[0].metric, device, more, (*notes, *of_costs), bases)
    return answer if spending is None else with_spending(answer, answering.points, spending)


_CARRIED: Final = (
    "Scores of methods on backbones without records are carried over from the backbone with the most, by published "
    "probes and by size; their seconds and memory are not known (`harness plan --backbones` predicts them)."
)


class _Answering:
    """Answers questions of different sizes and limits from the same points."""

    def __init__(self, points: list[Point], costs: CostModel, several: OnBackbones | None = None) -> None:
        self._curves = Curves(points) if several is None else Curves(points, several.carried)
        self._several = several
        self._costs = costs
        self.scale = self._curves.scale
        self.points: Mapping[str, Sequence[Point]] = self._curves.by_method

    def choices(self, question: Question) -> tuple[tuple[AdvisedMethod, ...], tuple[str, ...]]:
        """Return the choices, ranked, and sentences on their costs."""
        mean, covariance = self._curves.expected(question.texts)
        expected = self._costs.expected(question.texts)
        found = []
        kept = [
            i
            for i, method in enumerate(self._curves.by_method)
            if self._several is None or method in self._several.wanted
        ]
        methods = list(self._curves.by_method.items())
        mean, covariance = mean[kept], covariance[np.ix_(kept, kept)]
        ranges = self._curves.ranges(question.texts, mean, covariance)
        for i, (method, own) in enumerate(methods[k] for k in kept):
            backbone = None if self._several is None else self._several.backbones[method]
            flag = flagged_default(own[0].name, own[0].config, backbone or own[0].backbone)
            score, low, high = ranges[i]
            costs = {
                "train_seconds": expected.seconds.get(method),
                "peak_memory_bytes": expected.memory.get(method),
                "predict_milliseconds": _milliseconds(expected.predict.get(method)),
                "trainable_parameters": expected.trainable.get(method),
            }
            why_not = _why_not(question, costs, score, self.scale)
            found.append(
                AdvisedMethod(
                    method=method,
                    family=own[0].family,
                    score=score,
                    low=low,
                    high=high,
                    **costs,
                    stored_bytes=expected.stored.get(method),
                    fits=not why_not,
                    why_not=why_not,
                    is_tied=False,
                    basis="carried over" if method in self._curves.carried else _basis(question, own),
                    n_records=sum(point.n_records for point in own),
                    n_tasks=len({point.task for point in own}),
                    backbone=backbone,
                    default_points_behind=None if flag is None else flag.points,
                    default_better=None if flag is None else flag.does_better,
                )
            )
        return _ranked(question, found, mean, covariance), expected.notes


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _basis(question: Question, own: list[Point]) -> str:
    if measured_of(question.texts, own) is not None:
        return "measured"
    sizes = [point.n_train for point in own]
    if set(sizes) == {0} or min(sizes) <= question.n_train <= max(sizes):
        return "interpolated"
    return "seen at one size" if len(set(sizes)) == 1 else "extrapolated"


def _ranked(
    question: Question, choices: list[AdvisedMethod], mean: Doubles, covariance: Doubles
) -> tuple[AdvisedMethod, ...]:
    position = {choice.method: i for i, choice in enumerate(choices)}

    def by_score(choice: AdvisedMethod) -> tuple[float, str]:
        return (-float(mean[position[choice.method]]), choice.method)

    def by_cost(choice: AdvisedMethod) -> tuple[float, str]:
        return (math.inf if choice.train_seconds is None else choice.train_seconds, choice.method)

    order = by_score if question.min_score is None else by_cost
    fitting = sorted((choice for choice in choices if choice.fits), key=order)
    others = sorted((choice for choice in choices if not choice.fits), key=by_score)
    if not fitting:
        return tuple(others)
    top = position[min(fitting, key=by_score).method]
    found = []
    for choice in fitting:
        i = position[choice.method]
        spread = math.sqrt(max(float(covariance[i, i] + covariance[top, top] - 2 * covariance[i, top]), 0.0))
        is_tied = i == top or float(mean[top] - mean[i]) <= _LEVEL_95 * spread
        found.append(replace(choice, is_tied=is_tied))
    return (*found, *others)


def _why_not(question: Question, costs: dict[str, float | None], score: float, scale: Scale) -> tuple[str, ...]:
    found = []
    for name, value in costs.items():
        limit = getattr(question, name)
        if limit is None:
            continue
        if value is None:
            found.append(f"its {name} is not known")
        elif value > limit:
            found.append(f"needs {_SHOWN[name](value)}")
    if question.min_score is not None and (score < question.min_score) == scale.higher_is_better:
        found.append(f"is expected to reach {score:.3f}")
    return tuple(found)


def _more(
    question: Question, ranked: tuple[AdvisedMethod, ...], answering: _Answering, largest: int
) -> tuple[str, ...]:
    """Return sentences on the best that only one limit keeps out, and on the best with four times the labels.

    Args:
        question: the question.
        ranked: its answer.
        answering: answers questions of other sizes.
        largest: largest measured number of labels.
    """
    best = next((choice for choice in ranked if choice.fits), None)
    there = answering.scale.there
    found = []
    for name, shown in _SHOWN.items():
        if getattr(question, name) is None:
            continue
        outside = [
            choice
            for choice in ranked
            if not choice.fits and len(choice.why_not) == 1 and getattr(choice, name) is not None
            and getattr(choice, name) > getattr(question, name)
        ]  # fmt: skip
        if not outside:
            continue
        top = max(outside, key=lambda choice: there(choice.score))
        if best is None or there(top.score) > there(best.score):
            gain = "" if best is None else f", {abs(top.score - best.score):.3f} better than {best.method}"
            found.append(f"With {shown(getattr(top, name))}, {top.method} would fit: {top.score:.3f}{gain}.")
    n_more = _MORE_LABELS * question.n_train
    if best is not None and n_more <= largest * MOST_BEYOND:
        later, _ = answering.choices(replace(question, n_train=n_more))
        found.append(_with_more_labels(n_more, best, later, by_cost=question.min_score is not None))
    return tuple(found)


def _with_more_labels(n_more: int, best: AdvisedMethod, later: tuple[AdvisedMethod, ...], *, by_cost: bool) -> str:
    own = next(choice for choice in later if choice.method == best.method)
    first = next((choice for choice in later if choice.fits), None)
    if own.fits and (own is first or own.is_tied or by_cost or first is None):
        return f"With {n_more:,} labels {own.method} is expected to reach {own.score:.3f}."
    then = "nothing fits" if first is None else f"{first.method} ({first.score:.3f}) is the best that fits"
    if not own.fits:
        return f"With {n_more:,} labels {then}: {own.method} {', '.join(own.why_not)}."
    assert first is not None
    return f"With {n_more:,} labels {first.method} ({first.score:.3f}) overtakes {own.method}."
