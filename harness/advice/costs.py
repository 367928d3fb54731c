"""Expected seconds and bytes: what was measured, carried over by the work that a method does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np

from harness.advice.evidence import Evidence, Point, nearest
from harness.advice.pooled import Pooled, Spreads, Where
from harness.advice.question import Question
from harness.advice.scores import x_of
from harness.advice.work import log_work, takes_steps
from harness.cost.calibration import Probed

SECONDS: Final = Spreads(
    level=0.77, slope=0.01, covariate=0.01, task=0.08, task_slope=0.24, family=0.89, family_slope=0.02,
    family_covariate=0.16, family_task=0.47, method=0.26, method_slope=0.01, both=0.05, both_slope=0.43, noise=0.19,
)  # fmt: skip
MEMORY: Final = Spreads(
    level=0.31, slope=0.48, covariate=0.38, task=0.09, task_slope=0.14, family=1.7, family_slope=0.03,
    family_covariate=0.04, family_task=0.56, method=0.08, method_slope=0.31, both=0.01, both_slope=0.19, noise=0.18,
)  # fmt: skip
"""Logarithms of seconds of a unit of work, and of bytes; z is the doublings of tokens a text above 32.

The most likely ones of the reference results (docs/advice.md), rounded.
"""

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
    most: str | None,
    probes: Sequence[Probed],
) -> Costs:
    """What is expected on a device; what was not measured there is carried over from the one that most was measured on.

    Args:
        question: what is asked.
        by_method: the points of each method.
        evidence: what is known of tasks.
        device: whose costs; None where nothing was timed.
        most: the device with the most timed points.
        probes: of devices, for those that nothing was measured on.
    """
    names = ("seconds", "memory", "predict")
    own = {name: expected_costs(question, by_method, evidence, device, name) for name in names}
    if device is None or most is None or device == most:
        return Costs(own["seconds"], own["memory"], own["predict"])
    there = {name: expected_costs(question, by_method, evidence, most, name) for name in names}
    both = own["seconds"].keys() & there["seconds"].keys()
    shared = [own["seconds"][method] / there["seconds"][method] for method in both]
    ratio = median(shared) if shared else scale_of(device, most, by_method, evidence, probes)
    if ratio is None:
        said = f"Nothing that was measured or probed on {device} says how fast it is."
        return Costs(own["seconds"], own["memory"], own["predict"], (said,))
    by = "what both measured" if shared else f"a probe of {device}"
    carried = {name: value for name, value in there["seconds"].items() if name not in own["seconds"]}
    notes = (f"Seconds are those of {most} times {ratio:.2f}, by {by}.",) if carried else ()
    return Costs(
        {**{method: ratio * value for method, value in there["seconds"].items()}, **own["seconds"]},
        {**there["memory"], **own["memory"]},
        {**{method: ratio * value for method, value in there["predict"].items()}, **own["predict"]},
        notes,
    )


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

    Args:
        question: what is asked.
        by_method: the points of each method.
        evidence: what is known of tasks.
        device: whose costs.
        name: `seconds` (of training), `memory` (bytes) or `predict` (seconds a text).
    """
    if device is None:
        return {}
    lengths = _Lengths(evidence)
    where, values, measured = [], [], {}
    exact: dict[str, float] = {}
    for method, own in by_method.items():
        for point in own:
            value = getattr(point, name).get(device)
            if value is None or value <= 0:
                continue
            measured[method] = point
            tokens = evidence.tokens.get(point.task)
            where.append(_where(point, point.task, point.n_train, tokens, name, lengths.of_point(point)))
            values.append(math.log(value) - _log_work(point, point.n_train, tokens, name))
            if point.task == question.task and point.n_train == question.n_train:
                exact[method] = value
    if not where:
        return {}
    model = Pooled(where, np.array(values), np.zeros(len(values)), SPREADS[name])
    tokens = question.tokens or evidence.tokens.get(question.task or "")
    if tokens is None and evidence.tokens:
        tokens = float(np.median(list(evidence.tokens.values())))
    asked = [
        _where(point, question.task, question.n_train, tokens, name, lengths.of_question(question, point, tokens))
        for point in measured.values()
    ]
    mean, _ = model.predict(asked)
    found = {
        method: math.exp(float(m) + _log_work(point, question.n_train, tokens, name))
        for (method, point), m in zip(measured.items(), mean, strict=True)
    }
    return {**found, **exact}


class _Lengths:
    """The longest texts that methods hold at a time: of those that are trained on, or of all that are read.

    A step through the transformer and back takes more than predicting ever does; frozen features are encoded alike.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        ratios = [
            (trained / evidence.tokens[task], max(trained, predicted) / evidence.tokens[task])
            for task, by_size in evidence.longest.items()
            if task in evidence.tokens
            for trained, predicted in by_size.values()
        ]
        self._usual = [median(found) for found in zip(*ratios, strict=True)] if ratios else [_USUAL, _USUAL]

    def of_point(self, point: Point) -> float | None:
        """Of what was measured."""
        return self._of_task(point.task, point, point.n_train, self._evidence.tokens.get(point.task))

    def of_question(self, question: Question, point: Point, tokens: float | None) -> float | None:
        """Of what is asked, for a method; its texts' mean length tells where nothing else does."""
        if question.longest is None:
            return self._of_task(question.task, point, question.n_train, tokens)
        if takes_steps(point.config):
            return question.longest
        return max(question.longest, question.longest_predicted or 0.0)

    def _of_task(self, task: str | None, point: Point, n_train: int, tokens: float | None) -> float | None:
        known = self._evidence.longest.get(task or "")
        if known:
            pair = nearest(known, n_train)
            return pair[0] if takes_steps(point.config) else max(pair)
        return None if tokens is None else tokens * self._usual[0 if takes_steps(point.config) else 1]


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
