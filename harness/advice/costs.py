"""Expected seconds and bytes: what was measured, carried over by the work that a method does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np

from harness.advice.evidence import Evidence, Point
from harness.advice.pooled import Pooled, Spreads, Where
from harness.advice.question import Question
from harness.advice.scores import x_of
from harness.advice.work import log_work
from harness.cost.calibration import Probed

SECONDS: Final = Spreads(
    level=0.14, slope=0.11, covariate=0.18, task=0.045, task_slope=0.095, family=0.54, family_slope=0.025,
    family_covariate=0.065, family_task=0.075, method=0.28, method_slope=0.13, both=0.01, both_slope=0.055, noise=0.13,
)  # fmt: skip
MEMORY: Final = Spreads(
    level=0.12, slope=0.39, covariate=0.43, task=0.22, task_slope=0.085, family=0.68, family_slope=0.18,
    family_covariate=0.18, family_task=0.07, method=0.035, method_slope=0.01, both=0.005, both_slope=0.02, noise=0.12,
)  # fmt: skip
"""Logarithms of seconds of a unit of work, and of bytes; z is the doublings of tokens a text above 32, and for bytes of
tokens of the longest text above 64.

The most likely ones of the reference results (docs/advice.md), rounded.
"""

WITHOUT_BACKBONE: Final = Spreads(
    level=0.5, slope=0.6, covariate=0.1, task=0.1, task_slope=0.35, family=0.5, family_task=1.0, method=0.5,
    method_slope=0.1, both=0.05, both_slope=0.6, noise=0.2,
)  # fmt: skip
"""Of methods that read no transformer: what they take goes by words and classes, and differs more between tasks."""

_USUAL: Final = 2.5
"""How many times as long as the mean the longest text is, where nothing tells."""

SPREADS: Final = {"seconds": SECONDS, "memory": MEMORY, "predict": MEMORY}


@dataclass(frozen=True)
class Costs:
    """Expected costs of methods on one device.

    Attributes:
        seconds, memory, predict: of training, peak bytes, and seconds a text, by method, where they are known.
        notes: how they were carried over from another device, in words.
    """

    seconds: dict[str, float]
    memory: dict[str, float]
    predict: dict[str, float]
    notes: tuple[str, ...] = ()


def costs_on(
    question: Question,
    by_method: dict[str, list[Point]],
    evidence: Evidence,
    device: str | None,
    timed: Sequence[str],
    probes: Sequence[Probed],
) -> Costs:
    """What is expected on a device; what was not measured there is carried over from where it was.

    Args:
        question: what is asked.
        by_method: the points of each method.
        evidence: what is known of tasks.
        device: whose costs; None where nothing was timed.
        timed: devices, those with the most timed points first: the first that a method was timed on is asked.
        probes: of devices, for those that nothing was measured on.
    """
    names = ("seconds", "memory", "predict")
    found = {name: expected_costs(question, by_method, evidence, device, name) for name in names}
    own, notes, unknown = dict(found["seconds"]), [], False
    for other in timed:
        if device is None or other == device:
            continue
        there = {name: expected_costs(question, by_method, evidence, other, name) for name in names}
        missing = there["seconds"].keys() - found["seconds"].keys()
        found["memory"] = {**there["memory"], **found["memory"]}
        if not missing:
            continue
        shared = [own[method] / there["seconds"][method] for method in own.keys() & there["seconds"].keys()]
        ratio = median(shared) if shared else scale_of(device, other, by_method, evidence, probes)
        if ratio is None:
            unknown = True
            continue
        by = "what both measured" if shared else f"a probe of {device}"
        which = ", ".join(sorted(missing)) if len(missing) <= 3 else f"{len(missing)} methods"
        whose = f"Seconds of {which}" if own else "Seconds"
        notes.append(f"{whose} are those of {other} times {ratio:.2f}, by {by}.")
        for name in ("seconds", "predict"):
            found[name] = {**{method: ratio * value for method, value in there[name].items()}, **found[name]}
    if unknown and not notes:
        notes.append(f"Nothing that was measured or probed on {device} says how fast it is.")
    return Costs(found["seconds"], found["memory"], found["predict"], tuple(notes))


def scale_of(
    device: str, base: str, by_method: dict[str, list[Point]], evidence: Evidence, probes: Sequence[Probed]
) -> float | None:
    """How many times as long a step takes on a device that was probed as on one that was measured.

    The median over methods that both are known of, of seconds of a unit of work; None where there is no such method.
    """
    ratios = []
    expected: dict[int, dict[str, float]] = {}
    for probed in probes:
        points = by_method.get(probed.method, [])  # the label of a method with its default settings is its name
        if probed.device != device or not points or probed.backbone is None or probed.seconds <= 0:
            continue
        if probed.seq_len not in expected:
            asked = Question(kind=points[0].kind, n_train=256, tokens=float(probed.seq_len))
            expected[probed.seq_len] = expected_costs(asked, by_method, evidence, base, "seconds")
        there = expected[probed.seq_len].get(probed.method)
        if there is None:
            continue
        of_probe = math.log(probed.seconds) - math.log((probed.batch_size or 1) * probed.seq_len / 32)
        ratios.append(math.exp(of_probe - math.log(there) + log_work(points[0], 256, float(probed.seq_len))))
    return median(ratios) if ratios else None


def expected_costs(
    question: Question, by_method: dict[str, list[Point]], evidence: Evidence, device: str | None, name: str
) -> dict[str, float]:
    """Of each method that was measured on the device; what was measured of this very task and size as it is.

    Methods that read no transformer are told apart from those that do: what one kind takes says nothing of the other.

    Args:
        question: what is asked.
        by_method: the points of each method.
        evidence: what is known of tasks.
        device: whose costs.
        name: `seconds` (of training), `memory` (bytes) or `predict` (seconds a text).
    """
    found: dict[str, float] = {}
    if device is None:
        return found
    for reads in (True, False):
        own = {
            method: [
                p for p in points if (p.backbone is not None) == reads and (getattr(p, name).get(device) or 0.0) > 0
            ]
            for method, points in by_method.items()
        }
        known = {method: points for method, points in own.items() if points}
        if known:
            found |= _expected(question, known, evidence, device, name, SPREADS[name] if reads else WITHOUT_BACKBONE)
    return found


def _expected(
    question: Question, known: dict[str, list[Point]], evidence: Evidence, device: str, name: str, spreads: Spreads
) -> dict[str, float]:
    where, values = [], []
    exact: dict[str, float] = {}
    for method, points in known.items():
        for point in points:
            value = getattr(point, name)[device]
            tokens = evidence.tokens.get(point.task)
            longest = _longest(evidence, point.task, tokens)
            where.append(_where(point, point.task, point.n_train, tokens, name, longest))
            values.append(math.log(value) - _log_work(point, point.n_train, tokens, name))
            if point.task == question.task and point.n_train == question.n_train:
                exact[method] = value
    model = Pooled(where, np.array(values), np.zeros(len(values)), spreads)
    tokens = question.tokens or evidence.tokens.get(question.task or "")
    if tokens is None and evidence.tokens:
        tokens = float(np.median(list(evidence.tokens.values())))
    longest = question.longest or _longest(evidence, question.task, tokens)
    last = {method: points[-1] for method, points in known.items()}
    asked = [_where(point, question.task, question.n_train, tokens, name, longest) for point in last.values()]
    mean, _ = model.predict(asked)
    found = {
        method: math.exp(float(m) + _log_work(point, question.n_train, tokens, name))
        for (method, point), m in zip(last.items(), mean, strict=True)
    }
    return {**found, **exact}


def _longest(evidence: Evidence, task: str | None, tokens: float | None) -> float | None:
    """Of a task that was measured; else as many times the mean as is usual."""
    known = evidence.longest.get(task or "")
    if known is not None or tokens is None:
        return known
    ratios = [longest / evidence.tokens[name] for name, longest in evidence.longest.items() if name in evidence.tokens]
    return tokens * (median(ratios) if ratios else _USUAL)


def _where(
    point: Point, task: str | None, n_train: int, tokens: float | None, name: str, longest: float | None
) -> Where:
    x = x_of(n_train) if name != "predict" else 0.0
    z = math.log2(tokens / 32) if tokens else 0.0
    if name == "memory":
        z = math.log2(longest / 64) if longest else 0.0
    return Where(x, z, task, point.method, point.family)


def _log_work(point: Point, n_train: int, tokens: float | None, name: str) -> float:
    """What values are carried over by: seconds by work, those of predicting by tokens, bytes by nothing."""
    if name == "seconds":
        return log_work(point, n_train, tokens)
    return math.log((tokens or 32.0) / 32) if name == "predict" and point.backbone is not None else 0.0
