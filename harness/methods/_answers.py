"""Settings and saved values by the form of answers: weights of classes, thresholds of labels, the scale of a number."""

from __future__ import annotations

import math
from typing import Any, Final, Literal

from harness.methods.bench import Bench
from harness.methods.restoring import AGAIN
from harness.support import UsageError
from harness.tasks import kinds

ClassWeights = Literal["none", "balanced"]
"""Weights of classes in a loss: none, or such that each class counts the same."""

WEIGHED_FORMS: Final = frozenset({"classes", "labels", "tags"})
"""The harness's own forms of answers that have classes to weigh (`AnswerForm.weighs_classes`)."""


def why_no_class_weights(class_weights: ClassWeights, kind: str) -> str | None:
    """Return why classes cannot be weighed for a kind of task; None where they can, or are not to be."""
    if class_weights == "none":
        return None
    asked = kinds.get(kind)
    own = asked.answer_form()
    if asked.form in WEIGHED_FORMS if own is None else own.weighs_classes:
        return None
    return f"class_weights={class_weights} was given; a {kind} task has no classes to weigh. Leave it out."


def why_no_threshold(threshold: float | None, kind: str) -> str | None:
    """Return why a threshold cannot be given for a kind of task; None where it can, or where none is given."""
    if threshold is None or kinds.get(kind).form == "labels":
        return None
    return f"threshold={threshold:g} was given; it decides which labels are given, and a {kind} task has no label sets."


def read_state(state: Any, bench: Bench) -> dict[str, float]:
    """Return the saved state of the form of answers (`AnswerForm.state`).

    Raises:
        UsageError: a number is missing or not finite, or there is another one.
    """
    found = state if isinstance(state, dict) else {}
    expected = bench.form.state_names
    wrong = [name for name in expected if not isinstance(found.get(name), float) or not math.isfinite(found[name])]
    wrong += [name for name in found if name not in expected]
    if wrong:
        raise UsageError(f"The saved model has no valid number '{wrong[0]}' for its answers. {AGAIN}")
    return found
