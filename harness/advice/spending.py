"""Prompting beside training in an answer: prices of predictions, totals, and after how many training pays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Literal

from harness.analysis import NO_PRICES, Expenses, Prices, break_even, price_of_requests, split_requests
from harness.records import prompts_model
from harness.support import UsageError, real_number

if TYPE_CHECKING:
    from harness.advice.answer import Advice
    from harness.advice.choices import AdvisedMethod
    from harness.forecast import Point

_THOUSAND: Final = 1000
DEFAULT_TOLERANCE: Final = 0.01
"""Score below the best one that counts as good enough, where methods are ranked by their total cost."""


@dataclass(frozen=True)
class AskedSpending:
    """A question about what methods cost in use.

    Attributes:
        predictions: number of predictions that will be made; None where it is not known.
        prices: prices of machines, labels and tokens.
        score_tolerance: score below the best one that counts as good enough, where `predictions` is given.
    """

    predictions: float | None = None
    prices: Prices = NO_PRICES
    score_tolerance: float = DEFAULT_TOLERANCE


@dataclass(frozen=True)
class AdvisedSpending:
    """Expected cost of using one method. None is not known.

    Attributes:
        method, backbone: as in `AdvisedMethod`.
        is_prompted: whether it prompts a language model.
        seconds_per_1000: seconds of 1,000 predictions.
        price_per_1000: price of 1,000 predictions.
        train_price: price of the seconds of training.
        label_price: price of the labels that it learns from or shows.
        against: best prompted method whose costs compare with its own; None for prompted ones, and where there is none.
        unit: unit of the break-even and the totals: `money` where both have prices, else `seconds`.
        break_even: when training costs less than prompting: `from the first`, `after`, `until` or `never`.
        break_even_predictions: number of predictions at which both cost the same. Expected costs give no interval.
        total: cost of all predictions, with training and labels, in money where prices are known, else in seconds.
        total_unit: unit of `total`.
        is_good_enough: whether its expected score is within the tolerance of the best that fits.
    """

    method: str
    backbone: str | None
    is_prompted: bool
    seconds_per_1000: float | None
    price_per_1000: float | None
    train_price: float | None
    label_price: float | None
    against: str | None = None
    unit: Literal["money", "seconds"] | None = None
    break_even: str | None = None
    break_even_predictions: float | None = None
    total: float | None = None
    total_unit: Literal["money", "seconds"] | None = None
    is_good_enough: bool | None = None


def asked_spending(
    predictions: float | None, prices: Prices, score_tolerance: float | None = None
) -> AskedSpending | None:
    """Return the question about costs in use; None where nothing of it is asked.

    Raises:
        UsageError: a number of predictions that is not above 0, or a tolerance below 0.
    """
    count = None
    if predictions is not None:
        count = float(real_number("predictions", predictions, "a number of predictions, such as 100000"))
        if not 0 < count < math.inf:
            raise UsageError(f"--predictions {count:g} was given; expected a number above 0, such as 100000.")
    tolerance = DEFAULT_TOLERANCE
    if score_tolerance is not None:
        tolerance = float(real_number("score_tolerance", score_tolerance, "a difference of scores, such as 0.01"))
        if not 0 <= tolerance < math.inf:
            raise UsageError(f"--score-tolerance {tolerance:g} was given; expected a number from 0 on, such as 0.01.")
        if count is None:
            raise UsageError("--score-tolerance was given without --predictions; expected both.")
    return None if count is None and prices == NO_PRICES else AskedSpending(count, prices, tolerance)


def with_spending(answer: Advice, points: Mapping[str, Sequence[Point]], asked: AskedSpending) -> Advice:
    """Return the answer with the costs of each method in use, ranked by total cost for a number of predictions.

    Args:
        answer: the answer to the question about scores and costs of training.
        points: the points behind each choice, by its label.
        asked: number of predictions and prices.
    """
    costs = [_Costs.of(choice, points.get(choice.method, ()), answer, asked.prices) for choice in answer.choices]
    prompted = [one for one in costs if one.is_prompted]
    best = _best_score(answer)
    sign = 1 if _is_higher(points) else -1
    found = []
    for one in costs:
        enough = best is not None and sign * (best - one.choice.score) <= asked.score_tolerance + 1e-12
        found.append(_advised(one, prompted, asked.predictions, sign, is_good_enough=enough))
    notes = [*answer.notes, *_notes(found, prompted, asked)]
    choices = list(answer.choices)
    if asked.predictions is not None:
        order = sorted(range(len(choices)), key=lambda i: _place(choices[i], found[i], i))
        choices, found = [choices[i] for i in order], [found[i] for i in order]
    return replace(answer, choices=tuple(choices), notes=tuple(notes), spending=tuple(found))


def _is_higher(points: Mapping[str, Sequence[Point]]) -> bool:
    return all(point.higher_is_better for own in points.values() for point in own)


def _best_score(answer: Advice) -> float | None:
    """Return the expected score of the best choice that fits; None where nothing fits."""
    fitting = [choice for choice in answer.choices if choice.fits]
    tied = [choice for choice in fitting if choice.is_tied] or fitting
    return max((choice.score for choice in tied), default=None)


def _place(choice: AdvisedMethod, costs: AdvisedSpending, i: int) -> tuple[bool, bool, int, float, int]:
    """Return the place of a choice: those that fit and are good enough first, the cheapest in total of them first."""
    is_first = choice.fits and bool(costs.is_good_enough) and costs.total is not None
    unit = 0 if costs.total_unit == "money" else 1
    return not choice.fits, not is_first, unit, costs.total if is_first and costs.total is not None else 0.0, i


@dataclass(frozen=True)
class _Costs:
    """Expected costs of one choice.

    Attributes:
        choice: the choice.
        is_prompted: whether it prompts.
        is_served: whether a server answers.
        seconds: training and predictions in seconds; None where unknown, or where a server answers.
        money: the same in money, with labels.
    """

    choice: AdvisedMethod
    is_prompted: bool
    is_served: bool
    seconds: Expenses | None
    money: Expenses | None

    @classmethod
    def of(cls, choice: AdvisedMethod, own: Sequence[Point], answer: Advice, prices: Prices) -> _Costs:
        """Return the costs of a choice from its forecast, and the prices of requests from its points."""
        is_prompted = any(prompts_model(point.facts.role, point.name) for point in own)
        served = [point for point in own if point.facts.served is not None]
        n_labels = 0 if own and all(point.n_train == 0 for point in own) else answer.question.n_train
        labels = (prices.per_label or 0.0) * n_labels
        train, each = choice.train_seconds, choice.predict_milliseconds
        if served:
            before, paid = _prices_of_requests(served, answer.question.n_train, prices)
            money = None if paid is None or before is None else Expenses((before,), (paid,), labels)
            return cls(choice, is_prompted, True, None, money)
        if is_prompted and train is None:  # a prompt trains nothing, and no time was seen of it
            train = 0.0
        if train is None or each is None:
            return cls(choice, is_prompted, False, None, None)
        hour = prices.machines.get(answer.device or "", prices.per_hour)
        money = None if hour is None else Expenses((train * hour / 3600,), (each / 1000 * hour / 3600,), labels)
        return cls(choice, is_prompted, False, Expenses((train,), (each / 1000,)), money)

    def unit_with(self, other: _Costs) -> Literal["money", "seconds"] | None:
        """Return the unit in which two compare."""
        if self.money is not None and other.money is not None:
            return "money"
        return "seconds" if self.seconds is not None and other.seconds is not None else None


def _prices_of_requests(served: Iterable[Point], n_train: int, prices: Prices) -> tuple[float | None, float | None]:
    """Return the price of a served model's requests before the first prediction, and that of one prediction.

    They are those at the nearest number of labels that was measured.
    """
    nearest = min(served, key=lambda point: abs(math.log((point.n_train + 1) / (n_train + 1))))
    facts = nearest.facts.served
    assert facts is not None
    seconds = median(nearest.predict.values()) * nearest.n_test if nearest.predict else None
    fit, predictions = split_requests(facts, n_train=nearest.n_train, n_test=nearest.n_test, config=nearest.config)
    before = price_of_requests(fit, nearest.backbone, prices, median(nearest.seconds.values() or [0.0]))
    paid = price_of_requests(predictions, nearest.backbone, prices, seconds)
    return before, None if paid is None else paid / nearest.n_test


def _advised(
    one: _Costs, prompted: Sequence[_Costs], predictions: float | None, sign: int, *, is_good_enough: bool
) -> AdvisedSpending:
    told: dict[str, Any] = {}
    rivals = [] if one.is_prompted else [other for other in prompted if one.unit_with(other) is not None]
    if rivals:
        against = max(rivals, key=lambda other: (sign * other.choice.score, other.choice.method))
        unit = one.unit_with(against)
        pair = (one.money, against.money) if unit == "money" else (one.seconds, against.seconds)
        assert pair[0] is not None
        assert pair[1] is not None
        found = break_even(pair[0], pair[1])
        told = {"against": against.choice.method, "unit": unit, "break_even": found.outcome}
        told["break_even_predictions"] = found.n
    if predictions is not None:
        costs = one.seconds if one.money is None else one.money
        told["total"] = None if costs is None else costs.total(predictions)
        told["total_unit"] = None if costs is None else "seconds" if one.money is None else "money"
        told["is_good_enough"] = is_good_enough
    money = one.money
    return AdvisedSpending(
        method=one.choice.method,
        backbone=one.choice.backbone,
        is_prompted=one.is_prompted,
        seconds_per_1000=None if one.seconds is None else _THOUSAND * one.seconds.per_prediction,
        price_per_1000=None if money is None else _THOUSAND * money.per_prediction,
        train_price=None if money is None else money.fixed - money.labels,
        label_price=None if money is None else money.labels,
        **told,
    )


def _notes(found: Sequence[AdvisedSpending], prompted: Sequence[_Costs], asked: AskedSpending) -> list[str]:
    said = []
    if not prompted:
        said.append(
            "No prompted method is among the records, so there is no break-even. `harness run SUITE --methods "
            "zero-shot,few-shot` measures some."
        )
    elif any(one.break_even is not None for one in found):
        said.append("Training pays after the number of predictions shown, by expected costs and without an interval.")
    if asked.predictions is not None:
        said.append(
            f"Methods whose expected score is within {asked.score_tolerance:g} of the best come first, and of them the "
            f"cheapest for {asked.predictions:,.0f} predictions."
        )
    return said
