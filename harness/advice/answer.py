"""The answer: methods ranked by what they are expected to reach, with what each takes and what that rests on."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Final

from harness.advice.costs import costs_on
from harness.advice.evidence import Evidence, Point, gather, median_of
from harness.advice.pooled import Floats
from harness.advice.question import Question
from harness.advice.scores import Scale, expected_scores
from harness.cost.calibration import Probed
from harness.errors import UsageError, unknown_name
from harness.records import Record
from harness.report import text

if TYPE_CHECKING:
    import pandas as pd

LEVEL_80: Final = 1.281552
LEVEL_95: Final = 1.959964
MOST_BEYOND: Final = 100
"""How many times the largest measured size, or fraction of the smallest, an answer may be asked for."""

MOST_POINTS: Final = 1500
"""Points that are used: the nearest in size, where there are more."""


@dataclass(frozen=True)
class Choice:
    """One method, as it is expected to do.

    Attributes:
        method: label of the configuration; "cut at" a budget where its fits were ended by one.
        score, low, high: expected score and its 80 % interval.
        train_seconds, peak_memory_bytes, predict_milliseconds: expected on the device; None where nothing was measured.
        trainable_parameters, stored_bytes: as measured.
        fits: whether it is within all limits.
        why_not: what it needs that is beyond them, in words.
        is_tied: whether it cannot be told from the best that fits (95 %).
        basis: `measured` (this task and size), `interpolated`, `extrapolated` or `seen at one size`.
        n_records, n_tasks: that say something of the method in tasks of this kind.
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
    choices: tuple[Choice, ...]
    metric: str
    device: str | None
    more: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def best(self) -> Choice | None:
        """The first that fits; None where nothing does."""
        return next((choice for choice in self.choices if choice.fits), None)

    @property
    def tied(self) -> list[Choice]:
        """What fits and cannot be told from the best."""
        return [choice for choice in self.choices if choice.fits and choice.is_tied and choice is not self.best]

    def to_frame(self) -> pd.DataFrame:
        """One row a choice."""
        import pandas as pd

        return pd.DataFrame([asdict(choice) for choice in self.choices])

    def to_json(self) -> str:
        """All of it, as JSON."""
        return json.dumps(asdict(self), indent=1)


def advise(question: Question, records: Iterable[Record] | Evidence, probes: Sequence[Probed] = ()) -> Advice:
    """Answer from records; nothing is run, and nothing is invented.

    Args:
        question: what is asked.
        records: what was measured, predictions not needed; or what `gather` made of it.
        probes: of devices that nothing, or little, was measured on.

    Raises:
        UsageError: nothing was measured that the answer could rest on: of this kind, on this backbone, near this size.
    """
    evidence = records if isinstance(records, Evidence) else gather(records)
    points, notes = _relevant(question, evidence)
    metric = points[0].metric
    device, timed = _device(question, evidence, points, probes)
    methods = list(dict.fromkeys(point.method for point in points))
    by_method = {method: [point for point in points if point.method == method] for method in methods}
    mean, covariance = expected_scores(question, points, by_method)
    scale = Scale(metric, points[0].higher_is_better)
    for i, method in enumerate(methods):  # what was measured of this very task and size is no matter of expectation
        own = next((p for p in by_method[method] if (p.task, p.n_train) == (question.task, question.n_train)), None)
        if own is not None:
            mean[i], covariance[i], covariance[:, i] = scale.there(own.score), 0.0, 0.0
            covariance[i, i] = scale.variance(own, seed_noise=0.0)
    found = costs_on(question, by_method, evidence, device, timed, probes)
    notes += found.notes
    choices = []
    for i, method in enumerate(methods):
        own_points, spread = by_method[method], math.sqrt(max(float(covariance[i, i]), 0.0))
        ends = sorted(scale.back(float(mean[i]) + sign * LEVEL_80 * spread) for sign in (-1, 1))
        costs = {
            "train_seconds": found.seconds.get(method),
            "peak_memory_bytes": found.memory.get(method),
            "predict_milliseconds": _milliseconds(found.predict.get(method)),
            "trainable_parameters": median_of([point.trainable for point in own_points]),
        }
        score = scale.back(float(mean[i]))
        why_not = _why_not(question, costs, score, scale)
        choices.append(
            Choice(
                method=method,
                family=own_points[0].family,
                score=score,
                low=ends[0],
                high=ends[1],
                **costs,
                stored_bytes=median_of([point.stored for point in own_points]),
                fits=not why_not,
                why_not=why_not,
                is_tied=False,
                basis=_basis(question, own_points),
                n_records=sum(point.n_records for point in own_points),
                n_tasks=len({point.task for point in own_points}),
            )
        )
    ranked = _ranked(question, choices, mean, covariance)
    return Advice(question, ranked, metric, device, _more(question, ranked, points, by_method, scale), tuple(notes))


# ---- what the answer rests on


def _relevant(question: Question, evidence: Evidence) -> tuple[list[Point], list[str]]:
    if not evidence.points:
        raise UsageError("There is no record with a score to advise from. Run a suite first, or name another store.")
    points = [point for point in evidence.points if point.kind == question.kind]
    if not points:
        raise unknown_name("kind of task among what was measured", question.kind, evidence.kinds)
    if question.task is not None:
        tasks = {point.task for point in points}
        if question.task not in tasks:
            raise unknown_name("task among what was measured", question.task, tasks)
    if question.backbone is not None:
        backbones = {point.backbone for point in points if point.backbone is not None}
        if question.backbone not in backbones:
            raise unknown_name("backbone among what was measured", question.backbone, backbones)
        points = [point for point in points if point.backbone in (None, question.backbone)]
    own = [point.metric for point in points if question.task in (None, point.task)]
    metric = max(sorted(set(own)), key=own.count)
    points = [point for point in points if point.metric == metric]
    sizes = [point.n_train for point in points if point.n_train]
    if sizes and not min(sizes) / MOST_BEYOND <= question.n_train <= max(sizes) * MOST_BEYOND:
        raise UsageError(
            f"{question.n_train:,} labels lie more than {MOST_BEYOND} times beyond what was measured of "
            f"{question.kind} ({min(sizes):,} to {max(sizes):,} labels): nothing can be said. Measure something nearer "
            "first."
        )
    if len(points) > MOST_POINTS:
        points.sort(key=lambda point: abs(math.log(max(point.n_train, 1) / question.n_train)))
        points = points[:MOST_POINTS]
    named = sorted({point.task for point in points})
    bases = sorted({point.backbone.rpartition("/")[2] for point in points if point.backbone})
    n_records = sum(point.n_records for point in points)
    notes = [
        f"From {n_records:,} records of {len(named)} tasks ({_listed(named)}) on {_listed(bases) or 'no backbone'}."
    ]
    if question.task is None and len(named) < 4:
        notes.append("So few tasks say little of another: intervals are wide for that.")
    if sizes and not min(sizes) <= question.n_train <= max(sizes):
        between = f"{min(sizes):,} to {max(sizes):,}"
        notes.append(f"{question.n_train:,} labels lie outside what was measured ({between}): extrapolated.")
    return points, notes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _device(
    question: Question, evidence: Evidence, points: list[Point], probes: Sequence[Probed]
) -> tuple[str | None, list[str]]:
    """Whose costs are given, and all devices that anything was timed on, those with the most points first.

    The former is the one that is asked for; else the last that was probed; else the first of the latter.
    """
    counted = Counter(device for point in points for device in point.seconds)
    timed = sorted(counted, key=lambda device: (-counted[device], device))
    most = timed[0] if timed else None
    probed = [one.device for one in probes]
    if question.device is None:
        wanted = probed[-1] if probed and most is not None else most
    else:
        known = set(timed) | set(evidence.devices) | set(probed)
        if question.device not in known:
            raise unknown_name("device among what was measured or probed", question.device, known)
        wanted = question.device
    return wanted, timed


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _basis(question: Question, own: list[Point]) -> str:
    if any(point.task == question.task and point.n_train == question.n_train for point in own):
        return "measured"
    sizes = [point.n_train for point in own]
    if set(sizes) == {0} or min(sizes) <= question.n_train <= max(sizes):
        return "interpolated"
    return "seen at one size" if len(set(sizes)) == 1 else "extrapolated"


def _ranked(question: Question, choices: list[Choice], mean: Floats, covariance: Floats) -> tuple[Choice, ...]:
    position = {choice.method: i for i, choice in enumerate(choices)}

    def by_score(choice: Choice) -> tuple[float, str]:
        return (-float(mean[position[choice.method]]), choice.method)

    def by_cost(choice: Choice) -> tuple[float, str]:
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


_SHOWN: Final[dict[str, Callable[[float], str]]] = {
    "train_seconds": text.seconds,
    "peak_memory_bytes": text.memory,
    "predict_milliseconds": lambda value: f"{value:.3g} ms a text",
    "trainable_parameters": lambda value: f"{text.number(value)} trainable parameters",
}


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


# ---- what more would buy


def _more(
    question: Question,
    ranked: tuple[Choice, ...],
    points: list[Point],
    by_method: dict[str, list[Point]],
    scale: Scale,
) -> tuple[str, ...]:
    """The best of what only one limit keeps out, and who overtakes with four times the labels."""
    best = next((choice for choice in ranked if choice.fits), None)
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
        top = max(outside, key=lambda choice: scale.there(choice.score))
        if best is None or scale.there(top.score) > scale.there(best.score):
            gain = "" if best is None else f", {abs(top.score - best.score):.3f} better than {best.method}"
            found.append(f"With {shown(getattr(top, name))}, {top.method} would fit: {top.score:.3f}{gain}.")
    sizes = [point.n_train for point in points]
    larger = 4 * question.n_train
    if best is not None and larger <= max(sizes) * MOST_BEYOND:
        asked = replace(question, n_train=larger)
        mean, _ = expected_scores(asked, points, by_method)
        methods = list(by_method)
        fitting = [methods.index(choice.method) for choice in ranked if choice.fits]
        top_i = max(fitting, key=lambda i: float(mean[i]))
        ahead = scale.back(float(mean[top_i]))
        if methods[top_i] != best.method and question.min_score is None:
            found.append(f"With {larger:,} labels {methods[top_i]} ({ahead:.3f}) overtakes {best.method}.")
        else:
            own = scale.back(float(mean[methods.index(best.method)]))
            found.append(f"With {larger:,} labels {best.method} is expected to reach {own:.3f}.")
    return tuple(found)
