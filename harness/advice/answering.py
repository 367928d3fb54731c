"""Answers to questions of different sizes and limits from the same points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

import numpy as np

from harness.advice.choices import LEVEL_95, AdvisedMethod, Beliefs
from harness.advice.limits import reasons, violated
from harness.advice.on_backbones import OnBackbones
from harness.advice.parameters import trained_parameters
from harness.advice.question import Question
from harness.forecast import CostModel, Curves, Doubles, Point, TaskTexts, measured_of
from harness.records import flagged_default, prompts_model

_CERTAIN: Final = 30.0
"""Value on the scale whose score is the best possible one."""


@dataclass(frozen=True)
class Found:
    """Methods and what is believed of them.

    Attributes:
        choices: methods, in no order.
        over: what each needs of the limits that it exceeds, by label.
        beliefs: expected scores.
        notes: sentences on costs.
    """

    choices: tuple[AdvisedMethod, ...]
    over: Mapping[str, Mapping[str, float]]
    beliefs: Beliefs
    notes: tuple[str, ...]


class Answering:
    """Answers questions of different sizes and limits from the same points.

    Args:
        points: points that count.
        costs: their costs.
        device: device of the costs.
        several: methods on each backbone, where there are several.
    """

    def __init__(
        self, points: list[Point], costs: CostModel, device: str | None, several: OnBackbones | None = None
    ) -> None:
        self._device = device
        self._curves = Curves(points) if several is None else Curves(points, several.carried)
        self._several = several
        self._costs = costs
        self._served = {point.backbone for point in points if point.facts.served is not None}
        self.scale = self._curves.scale
        self.points: Mapping[str, Sequence[Point]] = self._curves.by_method

    def beliefs(self, question: Question) -> Beliefs:
        """Return the expected scores of the methods that can be used with so many labels."""
        mean, covariance = self._curves.expected(question.texts)
        names = list(self.points)
        kept = [i for i, name in enumerate(names) if self._is_able(question, name)]
        texts, curves = question.texts, self._curves
        mean, covariance = mean[kept], covariance[np.ix_(kept, kept)]

        return Beliefs(
            methods=tuple(names[i] for i in kept),
            mean=mean,
            covariance=covariance,
            ranges=tuple(curves.ranges(texts, mean, covariance)),
            back=self._back(texts),
            higher_is_better=curves.scale.higher_is_better,
            highest=curves.scale.highest,
            chance=curves.chance(texts) or None,
        )

    def _back(self, texts: TaskTexts) -> Callable[[Doubles], Doubles]:
        """Return the function from values on the scale to scores of the task.

        Scores are a line of those that the scale gives (it follows from two of them), and none is below chance.
        """
        scale, chance = self.scale, self._curves.chance(texts)
        start, slope = 0.0, 1.0
        if scale.highest is not None:
            ends = np.array([0.0, _CERTAIN])
            (middle, *_), (last, *_) = self._curves.ranges(texts, ends, np.zeros((2, 2)))
            from_scale = [max(scale.back(value), chance) for value in ends.tolist()]
            slope = (last - middle) / (from_scale[1] - from_scale[0])
            start = middle - slope * from_scale[0]

        def back(values: Doubles) -> Doubles:
            shares = np.array([max(scale.back(float(value)), chance) for value in values])
            return np.asarray(start + slope * shares)

        return back

    def _is_able(self, question: Question, method: str) -> bool:
        """Return whether a method is asked for, and can learn from so many labels."""
        wanted = self._several is None or method in self._several.wanted
        if self._several is not None and method in self._curves.carried:  # a served model answers prompts alone
            wanted = wanted and self._several.backbones[method] not in self._served
        return wanted and (question.n_train > 0 or not self._labels(question, method, least=1))

    def _labels(self, question: Question, method: str, least: int = 0) -> int:
        needs = any(point.n_train for point in self.points[method])
        return max(int(question.n_train), least) if needs else 0

    def _basis(self, question: Question, method: str) -> str:
        own = self.points[method]
        if method in self._curves.carried:
            return "carried over"
        if measured_of(question.texts, own) is not None:
            return "measured"
        sizes = {point.n_train for point in own}
        if sizes == {0} or min(sizes) <= question.n_train <= max(sizes):
            return "interpolated"
        return "seen at one size" if len(sizes) == 1 else "extrapolated"

    def find(self, question: Question) -> Found:
        """Return all methods that can be used with so many labels, with what they exceed."""
        beliefs = self.beliefs(question)
        expected = self._costs.expected(question.texts)
        found, over, wanted = [], {}, question.min_score
        for method in beliefs.methods:
            own = self.points[method]
            backbone = None if self._several is None else self._several.backbones[method]
            flag = flagged_default(own[0].name, own[0].config, backbone or own[0].backbone)
            score, (low, high) = beliefs.score(method), beliefs.ends(method)
            predict = expected.predict.get(method)
            costs: dict[str, float | None] = {
                "train_seconds": expected.seconds.get(method),
                "peak_memory_bytes": expected.memory.get(method),
                "predict_milliseconds": None if predict is None else 1000 * predict,
                "trainable_parameters": trained_parameters(own, question.n_train, question.classes),
            }
            over[method], unknown = violated(question, costs, score, higher_is_better=self.scale.higher_is_better)
            why_not = reasons(over[method], unknown)
            if costs["train_seconds"] is None and "train_seconds" not in unknown:
                unknown = ("train_seconds", *unknown)
            found.append(
                AdvisedMethod(
                    method=method,
                    family=own[0].family,
                    score=score,
                    low=low,
                    high=high,
                    train_seconds=costs["train_seconds"],
                    peak_memory_bytes=costs["peak_memory_bytes"],
                    predict_milliseconds=costs["predict_milliseconds"],
                    trainable_parameters=costs["trainable_parameters"],
                    stored_bytes=_typical(point.stored for point in own),
                    fits=not why_not,
                    why_not=why_not,
                    is_tied=False,
                    basis=self._basis(question, method),
                    n_records=sum(point.n_records for point in own),
                    n_tasks=len({point.task for point in own}),
                    backbone=backbone,
                    default_points_behind=None if flag is None else flag.points,
                    default_better=None if flag is None else flag.does_better,
                    unknown=unknown,
                    labels=self._labels(question, method),
                    role=own[0].facts.role,
                    is_prompted=prompts_model(own[0].facts.role, own[0].name),
                    chance_to_reach=None if wanted is None else beliefs.reaches(method, wanted),
                    is_timed_elsewhere=not any(self._device in point.seconds for point in own),
                )
            )
        return Found(_with_ties(found, beliefs), over, beliefs, expected.notes)


def _typical(values: Iterable[float | None]) -> float | None:
    """Return the median of the known values; None without any."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _with_ties(choices: Sequence[AdvisedMethod], beliefs: Beliefs) -> tuple[AdvisedMethod, ...]:
    """Return the choices, those marked that fit and cannot be told from the best that fits."""
    fitting = [choice for choice in choices if choice.fits]
    if not fitting:
        return tuple(choices)
    top = max(fitting, key=lambda one: beliefs.worth(one.method)).method
    behind = {one.method: beliefs.of(top) - beliefs.of(one.method) for one in choices}
    tied = {method for method, gap in behind.items() if gap <= LEVEL_95 * beliefs.spread(top, method)}
    return tuple(replace(one, is_tied=one.fits and one.method in tied) for one in choices)
