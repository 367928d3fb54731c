"""Gains of a higher limit, where one alone keeps a method out, and of more labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from harness.advice.choice import SHOWN, AdvisedMethod
from harness.advice.question import Question
from harness.advice.relevant import MOST_BEYOND
from harness.advice.scores import Scale

MORE_LABELS = 4
"""Times as many labels."""


class Answering(Protocol):
    """An answerer of questions of another size."""

    scale: Scale

    def choices(self, question: Question) -> tuple[tuple[AdvisedMethod, ...], tuple[str, ...]]:
        """Ranked choices, and notes."""


def what_more_would_buy(
    question: Question, ranked: tuple[AdvisedMethod, ...], answering: Answering, largest: int
) -> tuple[str, ...]:
    """Return in words the best that only one limit keeps out, and the best with four times the labels.

    Args:
        question: that was answered.
        ranked: the answer.
        answering: what gave it.
        largest: labels that anything was measured with.
    """
    best = next((choice for choice in ranked if choice.fits), None)
    there = answering.scale.there
    found = []
    for name, shown in SHOWN.items():
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
    n_more = MORE_LABELS * question.n_train
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
