"""The answer: tiers of methods from cheap to best, all methods with their costs, and what more would buy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from harness.advice.answering import Answering, Found
from harness.advice.choices import AdvisedMethod, have_few_tasks
from harness.advice.limits import Relaxation, all_limits, count_excluded, find_relaxations, useless_alone
from harness.advice.on_backbones import CARRIED, Basis, spread_over_backbones
from harness.advice.question import Question
from harness.advice.reach import Reach, find_reach
from harness.advice.relevant import MOST_BEYOND, device_of, points_with_costs, relevant
from harness.advice.spending import AdvisedSpending, AskedSpending, with_spending
from harness.advice.tiers import BEYOND_CHANCE, Tier, Unit, find_best, find_tiers, ties
from harness.cost import Probed
from harness.forecast import CostModel, Evidence, gather
from harness.records import EncoderFacts, PublishedEncoder, Record
from harness.support import text

if TYPE_CHECKING:
    import pandas as pd

_MORE_LABELS: Final = 4
"""Factor by which the number of labels grows in the sentence on more labels."""

_FIRST_LABELS_A_CLASS: Final = 4
"""Labels a class of a first few labels, where there are none."""

USUAL_PREDICTIONS: Final = 1000
"""Number of predictions that count in the cost of tiers where methods that prompt compete."""


@dataclass(frozen=True)
class Advice:
    """The answer to a question.

    Attributes:
        choices: methods that fit, best first (cheapest first, where a score was asked for); then those that do not.
        metric: metric of the scores.
        device: device of the seconds and memory; None where nothing was timed.
        tiers: methods from cheap to best, each worth its price over the one before; none where nothing fits. Where only
            the score to reach keeps all methods out, they are those without it.
        cost_unit: unit of the costs of tiers: `training seconds`; or `seconds` or `money` with predictions and labels.
        predictions: number of predictions that the costs of tiers include; 0 where they are training seconds.
        highest: upper end of the metric's range; None where there is none, as with a perplexity.
        higher_is_better: direction of the metric.
        relaxations: changes of limits that would buy something beyond chance, the most helpful first.
        reach: chance of the score that was asked for, and the labels needed, where no method is expected to reach it.
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
    tiers: tuple[Tier, ...] = ()
    cost_unit: Unit = "training seconds"
    predictions: float = 0
    highest: float | None = 1.0
    higher_is_better: bool = True
    relaxations: tuple[Relaxation, ...] = ()
    reach: Reach | None = None

    @property
    def best(self) -> AdvisedMethod | None:
        """First choice that fits; None where nothing does."""
        return next((choice for choice in self.choices if choice.fits), None)

    @property
    def tied(self) -> list[AdvisedMethod]:
        """Choices that fit and cannot be told from the best."""
        return [choice for choice in self.choices if choice.fits and choice.is_tied and choice is not self.best]

    @property
    def not_known(self) -> list[AdvisedMethod]:
        """Choices of which a cost that decides is not known; apart from that they are within all limits."""
        return [one for one in self.choices if one.unknown and all("not known" in why for why in one.why_not)]

    def choice(self, method: str) -> AdvisedMethod:
        """Return the choice with a label.

        Raises:
            KeyError: there is none.
        """
        found = next((choice for choice in self.choices if choice.method == method), None)
        if found is None:
            raise KeyError(method)
        return found

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each choice."""
        import pandas as pd

        found = pd.DataFrame([asdict(choice) for choice in self.choices])
        if not self.spending:
            return found
        further = pd.DataFrame([asdict(one) for one in self.spending]).drop(
            columns=["method", "backbone", "is_prompted"]
        )
        return found.join(further)

    def to_json(self) -> str:
        """Return the whole answer as JSON."""
        return json.dumps(asdict(self), indent=1)

    def _repr_html_(self) -> str:
        from harness.advice.words import html_of

        return html_of(self)


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
    timings = points_with_costs(question, points, evidence)
    several = spread_over_backbones(points, question.backbones, question.kind, encoders, facts)
    if several is not None:
        points = timings = several.points
        if any(label in several.wanted for label in several.carried):
            notes.append(CARRIED)
    device, timed = device_of(question, evidence, timings, probes, own_devices)
    answering = Answering(points, CostModel(timings, evidence, device, timed, probes), device, several)
    found = answering.find(question)
    bases = () if several is None else several.bases
    answer = Advice(
        question,
        _ordered(question, found),
        points[0].metric,
        device,
        notes=(*notes, *found.notes),
        bases=bases,
        highest=answering.scale.highest,
        higher_is_better=answering.scale.higher_is_better,
    )
    if spending is not None:
        answer = with_spending(answer, answering.points, spending)
    answer = _with_tiers(answer, found, spending)
    return _with_more(answer, found, answering, max(point.n_train for point in points))


def _ordered(question: Question, found: Found) -> tuple[AdvisedMethod, ...]:
    """Return the choices that fit, then the others.

    The best come first, or the cheapest where a score was asked for. Methods on few tasks come after all others.
    """
    few = have_few_tasks([one for one in found.choices if not set(found.over[one.method]) - {"min_score"}])
    marked = [replace(choice, has_few_tasks=choice.method in few) for choice in found.choices]

    def by_score(choice: AdvisedMethod) -> tuple[bool, float, float, int, str]:
        return (
            choice.has_few_tasks,
            -found.beliefs.worth(choice.method),
            _seconds(choice),
            -choice.n_tasks,
            choice.method,
        )

    def by_cost(choice: AdvisedMethod) -> tuple[float, int, str]:
        return _seconds(choice), -choice.n_tasks, choice.method

    fitting = [choice for choice in marked if choice.fits]
    ordered = sorted(fitting, key=by_score) if question.min_score is None else sorted(fitting, key=by_cost)
    return (*ordered, *sorted((choice for choice in marked if not choice.fits), key=by_score))


def _seconds(choice: AdvisedMethod) -> float:
    return math.inf if choice.train_seconds is None else choice.train_seconds


def _with_tiers(answer: Advice, found: Found, spending: AskedSpending | None) -> Advice:
    """Return the answer with its tiers. The best tier is the first choice, unless a score to reach was given.

    If the score to reach alone keeps all methods out, the tiers are those without it.
    """
    fitting = [choice for choice in answer.choices if choice.fits] or [
        choice for choice in answer.choices if _is_within_others(choice, found)
    ]
    costs, unit = _costs(answer, fitting, None if spending is None else spending.predictions)
    is_by_total = spending is not None and spending.predictions is not None
    tolerance = spending.score_tolerance if spending is not None and is_by_total else None
    tiers = find_tiers(fitting, costs, found.beliefs, unit, tolerance)
    if not tiers:
        return answer
    predictions = 0.0 if unit == "training seconds" else USUAL_PREDICTIONS
    if spending is not None and spending.predictions is not None:
        predictions = spending.predictions
    found_tiers = replace(answer, tiers=tiers, cost_unit=unit, predictions=predictions)
    if answer.question.min_score is not None and answer.best is not None and not is_by_total:
        return found_tiers
    top, first = answer.choices[0], found_tiers.choice(tiers[-1].method)
    if "train_seconds" in top.unknown and top.fits and not ties(top, first, found.beliefs):
        return found_tiers  # the best may be one whose cost is not known
    places = sorted(range(len(answer.choices)), key=lambda i: answer.choices[i].method != tiers[-1].method)
    in_use = tuple(answer.spending[i] for i in places) if answer.spending else ()
    return replace(found_tiers, choices=tuple(answer.choices[i] for i in places), spending=in_use)


def _may_fit(choice: AdvisedMethod) -> bool:
    return not any("not known" in reason for reason in choice.why_not)


def _costs(
    answer: Advice, fitting: Sequence[AdvisedMethod], predictions: float | None
) -> tuple[dict[str, float], Unit]:
    """Return the costs by which tiers are ordered, and their unit.

    With a number of predictions they are the totals, in money where prices are known. Where methods that prompt
    compete, they are seconds of training and of `USUAL_PREDICTIONS` predictions. Else they are seconds of training.
    """
    if predictions is not None:
        totals = [one for one, choice in zip(answer.spending, answer.choices, strict=True) if choice.fits]
        money = {one.method: one.total for one in totals if one.total is not None and one.total_unit == "money"}
        if money:
            return money, "money"
        return {one.method: one.total for one in totals if one.total is not None}, "seconds"
    if not any(choice.is_prompted for choice in fitting):
        return {one.method: one.train_seconds for one in fitting if one.train_seconds is not None}, "training seconds"
    return {
        one.method: (one.train_seconds or 0.0) + USUAL_PREDICTIONS * one.predict_milliseconds / 1000
        for one in fitting
        if one.predict_milliseconds is not None and (one.train_seconds is not None or one.is_prompted)
    }, "seconds"


def _with_more(answer: Advice, found: Found, answering: Answering, largest: int) -> Advice:
    """Return the answer with what other limits and more labels would buy.

    Args:
        answer: the answer.
        found: all methods, and what they exceed.
        answering: answers questions of other sizes.
        largest: largest measured number of labels.
    """
    question, best = answer.question, answer.best
    limited = bool(all_limits(question))
    ahead = answer.tiers[-1].method if answer.tiers else None
    relaxations = find_relaxations(question, answer.choices, found.over, found.beliefs, ahead) if limited else ()
    more = [] if answer.tiers or not limited else [count_excluded(question, answer.choices, found.over)]
    more += [relaxation.sentence for relaxation in relaxations if set(relaxation.limits) != {"min_score"}]
    more += useless_alone(question, relaxations) if more and best is None and not answer.tiers else []
    reach = None
    if question.min_score is not None and best is None and ahead is not None:
        reach = find_reach(
            question.min_score,
            int(question.n_train),
            ahead,
            [one.method for one in answer.choices if _is_within_others(one, found) and not one.has_few_tasks],
            found.beliefs,
            lambda size: answering.beliefs(replace(question, n_train=size)),
            largest,
        )
        more += reach.sentences
    shown = best
    if best is not None and ahead is not None and best.method not in {tier.method for tier in answer.tiers}:
        shown = answer.choice(ahead)  # the best has an unknown cost: what the table shows as best is compared
    more += _labels_buy(question, shown, answering, largest)
    return replace(answer, relaxations=relaxations, reach=reach, more=tuple(more))


def _is_within_others(choice: AdvisedMethod, found: Found) -> bool:
    """Return whether a method is within all limits but the score."""
    return not set(found.over[choice.method]) - {"min_score"} and _may_fit(choice)


def _labels_buy(question: Question, best: AdvisedMethod | None, answering: Answering, largest: int) -> list[str]:
    """Return a sentence on the best with four times the labels; without labels, on a first few."""
    n_more = _MORE_LABELS * question.n_train
    if question.n_train == 0:
        sizes = {point.n_train for own in answering.points.values() for point in own}
        least = _FIRST_LABELS_A_CLASS * (question.classes or 8)
        n_more = min((size for size in sizes if size >= least), default=0)
    if (best is None and question.n_train) or not 0 < n_more <= largest * MOST_BEYOND:
        return []
    asked = replace(question, n_train=n_more)
    later = answering.find(asked)
    fitting = [choice for choice in later.choices if choice.fits]
    first = find_best(fitting, {choice.method: choice.train_seconds for choice in fitting}, later.beliefs)
    return [_with_labels(n_more, best, first, later, by_cost=question.min_score is not None)]


def _with_labels(n_more: int, best: AdvisedMethod | None, first: str | None, later: Found, *, by_cost: bool) -> str:
    def reaching(method: str) -> str:
        low, high = later.beliefs.ends(method)
        return f"{text.score(later.beliefs.score(method))} ({text.interval(low, high)})"

    labels = text.counted(n_more, "label")
    own = None if best is None else next((one for one in later.choices if one.method == best.method), None)
    if own is not None and own.fits:
        is_beaten = first is not None and later.beliefs.is_better(first, own.method) >= BEYOND_CHANCE
        if by_cost or not is_beaten or first is None:
            return f"With {labels} {own.method} is expected to reach {reaching(own.method)}."
        return f"With {labels} {first}, at {reaching(first)}, overtakes {own.method}."
    then = "nothing fits" if first is None else f"{first} is the best that fits, at {reaching(first)}"
    if own is not None and own.why_not:
        return f"With {labels} {then}: {own.method} {', '.join(own.why_not)}."
    return f"With {labels} {then}."
