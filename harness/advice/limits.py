"""Limits of a question: which methods they keep out, and what giving way in one of them would buy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.advice.choices import AdvisedMethod, Beliefs
from harness.advice.question import LIMITS, Question
from harness.advice.tiers import BEYOND_CHANCE, find_best
from harness.support import text

SHOWN: Final[dict[str, Callable[[float], str]]] = {
    "train_seconds": lambda value: f"{text.seconds(value)} of training",
    "peak_memory_bytes": lambda value: f"{text.memory(value)} of memory",
    "predict_milliseconds": lambda value: f"{text.milliseconds(value / 1000)} a text",
    "trainable_parameters": lambda value: f"{text.number(value)} trainable parameters",
    "min_score": lambda value: f"a score of {text.score(value)}",
}
"""Limits, and their form in messages."""

CALLED: Final = {
    "train_seconds": "training time",
    "peak_memory_bytes": "memory",
    "predict_milliseconds": "time to predict",
    "trainable_parameters": "trainable parameters",
}
"""Names of costs in messages."""


@dataclass(frozen=True)
class Relaxation:
    """A change of one limit or several, and what it would buy.

    Attributes:
        limits: limits to change and their new values, by the fields of `Question`.
        method, score: the method that would fit then, and its expected score.
        gain: expected gain over the best that fits now, in the metric's own numbers; None where nothing fits.
    """

    limits: Mapping[str, float]
    method: str
    score: float
    gain: float | None = None

    @property
    def sentence(self) -> str:
        """The change in words."""
        needed = [shown(self.limits[name]) for name, shown in SHOWN.items() if name in self.limits]
        gain = "" if self.gain is None else f", {text.score(self.gain)} better"
        return f"With {' and '.join(needed)}, {self.method} would fit: {text.score(self.score)}{gain}."


def violated(
    question: Question, costs: Mapping[str, float | None], score: float, *, higher_is_better: bool
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return what a method needs of each limit that it exceeds, and the limited costs that are not known."""
    over, unknown = {}, []
    for name in LIMITS:
        limit, value = getattr(question, name), costs[name]
        if limit is not None and value is None:
            unknown.append(name)
        elif limit is not None and value is not None and value > limit:
            over[name] = value
    wanted = question.min_score
    if wanted is not None and (score < wanted if higher_is_better else score > wanted):
        over["min_score"] = score
    return over, tuple(unknown)


def reasons(over: Mapping[str, float], unknown: Sequence[str]) -> tuple[str, ...]:
    """Return why a method does not fit, one text a limit."""
    said = [
        f"is expected to reach {text.score(value)}" if name == "min_score" else f"needs {SHOWN[name](value)}"
        for name, value in over.items()
    ]
    return (*said, *(f"its {CALLED[name]} is not known" for name in unknown))


def all_limits(question: Question) -> dict[str, float]:
    """Return the limits that were given."""
    return {name: getattr(question, name) for name in SHOWN if getattr(question, name) is not None}


def count_excluded(
    question: Question, choices: Sequence[AdvisedMethod], over: Mapping[str, Mapping[str, float]]
) -> str:
    """Return a sentence that names each limit, and how many methods it keeps out."""
    parts = []
    for name, limit in all_limits(question).items():
        n_over = sum(name in over[choice.method] for choice in choices)
        n_unknown = sum(name in choice.unknown for choice in choices)
        need = f"{n_over} {'needs' if n_over == 1 else 'need'} more than {SHOWN[name](limit)}"
        if name == "min_score":
            need = f"{n_over} {'is' if n_over == 1 else 'are'} expected below {text.score(limit)}"
        unknown = f" (unknown for {n_unknown})" if n_unknown else ""
        parts.append(need + unknown)
    return f"Of {text.counted(len(choices), 'measured method')}, {', '.join(parts)}."


def useless_alone(question: Question, relaxations: Sequence[Relaxation]) -> list[str]:
    """Return a sentence on the limits of which more alone makes nothing fit, where others do."""
    alone = {name for one in relaxations if len(one.limits) == 1 for name in one.limits}
    others = [CALLED[name] for name in all_limits(question) if name not in alone and name in CALLED]
    return [f"More {' or '.join(others)} alone would not help."] if others and len(all_limits(question)) > 1 else []


def find_relaxations(
    question: Question,
    choices: Sequence[AdvisedMethod],
    over: Mapping[str, Mapping[str, float]],
    beliefs: Beliefs,
    best: str | None,
) -> tuple[Relaxation, ...]:
    """Return changes of limits that would buy something beyond chance, the most helpful first.

    Each change is of one limit. Where no single change makes anything fit, it is the one of fewest limits, and of these
    the smallest.

    Args:
        question: the question.
        choices: all methods of the answer.
        over: what each method needs of the limits that it exceeds.
        beliefs: expected scores.
        best: label of the best that fits; None where nothing does.
    """
    outside = [choice for choice in choices if over[choice.method] and not choice.unknown]
    found = []
    for name in all_limits(question):
        alone = [choice for choice in outside if set(over[choice.method]) == {name}]
        if not alone:
            continue
        top = find_best(alone, {one.method: one.train_seconds for one in alone}, beliefs) or alone[0].method
        is_better = best is None or beliefs.is_better(top, best) >= BEYOND_CHANCE
        if best is None if name == "min_score" else is_better:
            found.append(_relaxed(top, over, beliefs, best))
    if not found and best is None and outside:
        fewest = min(len(over[choice.method]) for choice in outside)
        near = [choice for choice in outside if len(over[choice.method]) == fewest]
        nearest = min(near, key=lambda one: _distance(question, over[one.method]))
        found.append(_relaxed(nearest.method, over, beliefs, None))
    return tuple(sorted(found, key=lambda one: -beliefs.worth(one.method)))


def _relaxed(method: str, over: Mapping[str, Mapping[str, float]], beliefs: Beliefs, best: str | None) -> Relaxation:
    score = beliefs.score(method)
    gain = None if best is None else abs(score - beliefs.score(best))
    return Relaxation(dict(over[method]), method, score, gain)


def _distance(question: Question, over: Mapping[str, float]) -> float:
    """Return the largest factor by which a limit is exceeded, as a logarithm."""
    return max(abs(math.log(value / getattr(question, name))) for name, value in over.items())
