"""The answer: methods ranked by what they are expected to reach, with what each takes and what that rests on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Final

from harness.advice.choice import SHOWN, AdvisedMethod
from harness.advice.costs import CostModel
from harness.advice.evidence import Evidence, Point, gather, median_of
from harness.advice.more import what_more_would_buy
from harness.advice.pooled import Floats
from harness.advice.question import Question
from harness.advice.relevant import device_of, relevant
from harness.advice.scores import Curves, Scale, by_method, measured_of
from harness.cost import Probed
from harness.records import Record

if TYPE_CHECKING:
    import pandas as pd

LEVEL_80: Final = 1.281552
LEVEL_95: Final = 1.959964


@dataclass(frozen=True)
class Advice:
    """The answer to a question.

    Attributes:
        choices: those that fit, best first (cheapest first, where a score was asked for); then those that do not.
        metric: what scores are.
        device: whose seconds and memory are given; None where nothing was timed.
        more: what more of one thing would buy, in words.
        notes: what the answer rests on, in words.
    """

    question: Question
    choices: tuple[AdvisedMethod, ...]
    metric: str
    device: str | None
    more: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def best(self) -> AdvisedMethod | None:
        """The first that fits; None where nothing does."""
        return next((choice for choice in self.choices if choice.fits), None)

    @property
    def tied(self) -> list[AdvisedMethod]:
        """Choices that fit and cannot be told from the best."""
        return [choice for choice in self.choices if choice.fits and choice.is_tied and choice is not self.best]

    def to_frame(self) -> pd.DataFrame:
        """One row a choice."""
        import pandas as pd

        return pd.DataFrame([asdict(choice) for choice in self.choices])

    def to_json(self) -> str:
        """All of it, as JSON."""
        return json.dumps(asdict(self), indent=1)


def answer_question(
    question: Question,
    records: Iterable[Record] | Evidence,
    probes: Sequence[Probed] = (),
    own_devices: Sequence[str] = (),
) -> Advice:
    """Answer from records; nothing is run, and nothing is invented.

    Args:
        question: what is asked.
        records: what was measured, predictions not needed; or what `gather` made of it.
        probes: of devices that nothing, or little, was measured on.
        own_devices: that the user's own records are of: costs are those of the first that anything was timed on,
            where none is asked for or probed.

    Raises:
        UsageError: nothing was measured that the answer could rest on: of this kind, on this backbone, near this size.
    """
    evidence = records if isinstance(records, Evidence) else gather(records)
    points, notes = relevant(question, evidence)
    device, timed = device_of(question, evidence, points, probes, own_devices)
    answering = _Answering(points, CostModel(by_method(points), evidence, device, timed, probes))
    ranked, of_costs = answering.choices(question)
    more = what_more_would_buy(question, ranked, answering, max(point.n_train for point in points))
    return Advice(question, ranked, points[0].metric, device, more, (*notes, *of_costs))


class _Answering:
    """Answers questions of different sizes and limits from the same points."""

    def __init__(self, points: list[Point], costs: CostModel) -> None:
        self._by_method = by_method(points)
        self._curves = Curves(points)
        self._costs = costs
        self.scale = self._curves.scale

    def choices(self, question: Question) -> tuple[tuple[AdvisedMethod, ...], tuple[str, ...]]:
        """Ranked, and what is to be said of their costs."""
        mean, covariance = self._curves.expected(question)
        expected = self._costs.expected(question)
        found = []
        for i, (method, own) in enumerate(self._by_method.items()):
            spread = math.sqrt(max(float(covariance[i, i]), 0.0))
            ends = sorted(self.scale.back(float(mean[i]) + sign * LEVEL_80 * spread) for sign in (-1, 1))
            costs = {
                "train_seconds": expected.seconds.get(method),
                "peak_memory_bytes": expected.memory.get(method),
                "predict_milliseconds": _milliseconds(expected.predict.get(method)),
                "trainable_parameters": median_of([point.trainable for point in own]),
            }
            score = self.scale.back(float(mean[i]))
            why_not = _why_not(question, costs, score, self.scale)
            found.append(
                AdvisedMethod(
                    method=method,
                    family=own[0].family,
                    score=score,
                    low=ends[0],
                    high=ends[1],
                    **costs,
                    stored_bytes=median_of([point.stored for point in own]),
                    fits=not why_not,
                    why_not=why_not,
                    is_tied=False,
                    basis=_basis(question, own),
                    n_records=sum(point.n_records for point in own),
                    n_tasks=len({point.task for point in own}),
                )
            )
        return _ranked(question, found, mean, covariance), expected.notes


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _basis(question: Question, own: list[Point]) -> str:
    if measured_of(question, own) is not None:
        return "measured"
    sizes = [point.n_train for point in own]
    if set(sizes) == {0} or min(sizes) <= question.n_train <= max(sizes):
        return "interpolated"
    return "seen at one size" if len(set(sizes)) == 1 else "extrapolated"


def _ranked(
    question: Question, choices: list[AdvisedMethod], mean: Floats, covariance: Floats
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
        is_tied = i == top or float(mean[top] - mean[i]) <= LEVEL_95 * spread
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
            found.append(f"needs {SHOWN[name](value)}")
    if question.min_score is not None and (score < question.min_score) == scale.higher_is_better:
        found.append(f"is expected to reach {score:.3f}")
    return tuple(found)
