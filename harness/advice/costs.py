"""Expected seconds and bytes: what was measured, carried over by the work that a method does."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from harness.advice.evidence import Evidence, Point
from harness.advice.pooled import Pooled, Spreads, Where
from harness.advice.question import Question
from harness.advice.scores import x_of
from harness.records import Budget

SECONDS: Final = Spreads(
    level=5.0, slope=1.4, covariate=0.7, task=1.2, task_slope=0.7, family=2.9, method=0.85, method_slope=0.5, both=0.28,
    both_slope=0.14, noise=0.1,
)  # fmt: skip
MEMORY: Final = Spreads(
    level=5.0, slope=0.6, covariate=0.5, task=0.9, task_slope=0.6, family=1.0, method=0.75, method_slope=0.4, both=0.17,
    both_slope=0.06, noise=0.08,
)  # fmt: skip
"""Logarithms of seconds of a unit of work, and of bytes; z is the doublings of tokens a text above 32.

The most likely ones of the reference results (docs/advice.md), rounded.
"""

SPREADS: Final = {"seconds": SECONDS, "memory": MEMORY, "predict": MEMORY}

_BLOCKS = 6
"""Of a transformer, where it is asked how deep methods go: its depth is the same for all that is compared."""


def expected_costs(
    question: Question, by_method: dict[str, list[Point]], evidence: Evidence, device: str | None, name: str
) -> dict[str, float]:
    """Of each method that was measured on the device; what was measured of this very task and size as it is.

    Args:
        question: what is asked.
        by_method: the points of each method.
        evidence: what is known of tasks.
        device: whose costs.
        name: `seconds` (of training), `memory` (bytes) or `predict` (seconds a text).
    """
    if device is None:
        return {}
    where, values, measured = [], [], {}
    exact: dict[str, float] = {}
    for method, own in by_method.items():
        for point in own:
            value = getattr(point, name).get(device)
            if value is None or value <= 0:
                continue
            measured[method] = point
            tokens = evidence.tokens.get(point.task)
            where.append(_where(point, point.task, point.n_train, tokens, name))
            values.append(math.log(value) - _log_work(point, point.n_train, tokens, name))
            if point.task == question.task and point.n_train == question.n_train:
                exact[method] = value
    if not where:
        return {}
    model = Pooled(where, np.array(values), np.zeros(len(values)), SPREADS[name])
    tokens = question.tokens or evidence.tokens.get(question.task or "")
    if tokens is None and evidence.tokens:
        tokens = float(np.median(list(evidence.tokens.values())))
    asked = [_where(point, question.task, question.n_train, tokens, name) for point in measured.values()]
    mean, _ = model.predict(asked)
    found = {
        method: math.exp(float(m) + _log_work(point, question.n_train, tokens, name))
        for (method, point), m in zip(measured.items(), mean, strict=True)
    }
    return {**found, **exact}


def _where(point: Point, task: str | None, n_train: int, tokens: float | None, name: str) -> Where:
    x = x_of(n_train) if name != "predict" else 0.0
    return Where(x, math.log2(tokens / 32) if tokens else 0.0, task, point.method, point.family)


def _log_work(point: Point, n_train: int, tokens: float | None, name: str) -> float:
    """Logarithm of the texts that a fit puts through a transformer, in forward passes, times their tokens.

    A small fit has as many steps as a somewhat larger one, and a large one as many as its rows: work knows, where a
    straight line in the number of labels does not.
    """
    if name == "predict":
        return math.log((tokens or 32.0) / 32) if point.backbone is not None else 0.0
    if name != "seconds":
        return 0.0
    passes = _passes(point.name, point.config, n_train) if point.backbone is not None else 0.0
    return math.log(max(n_train, 1)) if passes <= 0 else math.log(passes * (tokens or 32.0) / 32)


def _passes(name: str, config: dict[str, Any], n_train: int) -> float:
    from harness.errors import HarnessError
    from harness.methods.base import methods

    try:
        method = methods.get(name)(**config)
    except (HarnessError, ValueError):  # measured elsewhere, or by another version of it
        return 0.0
    work = method.workload(n_train, Budget(), _BLOCKS)
    return work.encoded + work.steps * work.texts_per_step * work.passes_per_text
