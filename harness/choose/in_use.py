"""Cost of the chosen method in use, beside the best prompted one, or the best trained one where a prompt won."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from harness.analysis import Expenses, Prices, break_even, said_break_even, spent
from harness.choose.candidates import Candidate
from harness.choose.tried import Tried, validated, validated_share
from harness.records import Record
from harness.support import text

_THOUSAND: Final = 1000


@dataclass(frozen=True)
class InUse:
    """Costs of predictions with the chosen method, and the best rival of the other sort. None is not known.

    Attributes:
        is_prompted: whether the chosen method prompts a language model.
        seconds_per_1000, price_per_1000: cost of 1,000 predictions.
        train_seconds, train_price: cost of training.
        beside: the rival: the best prompted method that was tried, or the best trained one where a prompt was chosen.
        beside_score: its score on validation rows.
        beside_seconds_per_1000, beside_price_per_1000: cost of 1,000 predictions with it.
        unit: unit in which the two compare: `money` where both have prices, else `seconds`.
        break_even: when training costs less than prompting: `from the first`, `after`, `until` or `never`.
        break_even_predictions: number of predictions at which both cost the same; single fits give no interval.
    """

    is_prompted: bool
    seconds_per_1000: float | None
    price_per_1000: float | None
    train_seconds: float | None
    train_price: float | None
    beside: str | None = None
    beside_score: float | None = None
    beside_seconds_per_1000: float | None = None
    beside_price_per_1000: float | None = None
    unit: str | None = None
    break_even: str | None = None
    break_even_predictions: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def in_words(self) -> str:
        """Return the costs, and the break-even where there is a rival, in one or two sentences."""
        said = f"{_THOUSAND:,} predictions: {_costs(self.seconds_per_1000, self.price_per_1000)}."
        if self.beside is None:
            return said
        other = _costs(self.beside_seconds_per_1000, self.beside_price_per_1000)
        reached = f"{text.score(self.beside_score)} on validation rows, {other}"
        pays = said_break_even(self.break_even, self.break_even_predictions)
        after = f"{pays} predictions" if pays.startswith(("after", "until")) else pays
        when = f" By cost alone, training pays {after}."
        if self.break_even is None:
            when = " A break-even needs prices of both: --prices FILE." if self.unit is None else ""
        return f"{said} Beside it: {self.beside} ({reached}).{when}"


def in_use(winner: Candidate, record: Record, tried: Sequence[Tried], prices: Prices) -> InUse:
    """Return the costs of the chosen method in use.

    Args:
        winner: the chosen method.
        record: record of its last fit.
        tried: all fits of the search; the rival's costs are those of its fits on validation rows.
        prices: what the machine and tokens cost.
    """
    own = spent([record], prices)
    found = InUse(
        is_prompted=winner.is_prompted,
        seconds_per_1000=_of_1000(own.seconds),
        price_per_1000=_of_1000(own.money),
        train_seconds=None if own.seconds is None else own.seconds.fixed,
        train_price=None if own.money is None else own.money.fixed,
    )
    fits = _best_of_other_sort(winner, tried)
    if not fits:
        return found
    rival = spent([one.record for one in fits], prices)
    score = validated(fits)
    unit = None
    if own.money is not None and rival.money is not None:
        unit = "money"
    elif own.seconds is not None and rival.seconds is not None and own.is_timed_like(rival):
        unit = "seconds"
    pair = (own.money, rival.money) if unit == "money" else (own.seconds, rival.seconds)
    trained, prompted = pair[::-1] if winner.is_prompted else pair
    even = None if unit is None or trained is None or prompted is None else break_even(_single(trained), prompted)
    return InUse(
        **{
            **asdict(found),
            "beside": fits[0].candidate.label,
            "beside_score": None if score is None else score[0],
            "beside_seconds_per_1000": _of_1000(rival.seconds),
            "beside_price_per_1000": _of_1000(rival.money),
            "unit": unit,
            "break_even": None if even is None else even.outcome,
            "break_even_predictions": None if even is None else even.n,
        }
    )


def _best_of_other_sort(winner: Candidate, tried: Sequence[Tried]) -> list[Tried]:
    """Return the scored fits of the best method that prompts where the winner trains, or the other way round."""
    by_label: dict[str, list[Tried]] = {}
    for one in tried:
        if one.candidate.is_prompted != winner.is_prompted and one.record.score is not None:
            by_label.setdefault(one.candidate.label, []).append(one)
    shares = {label: share for label, fits in by_label.items() if (share := validated_share(fits)) is not None}
    return [] if not shares else by_label[max(sorted(shares), key=lambda label: shares[label])]


def _single(costs: Expenses) -> Expenses:
    """Return costs without their spread: folds train on fewer rows than the last fit does."""
    return Expenses((costs.fixed - costs.labels,), (costs.per_prediction,), costs.labels)


def _of_1000(costs: Expenses | None) -> float | None:
    return None if costs is None else _THOUSAND * costs.per_prediction


def _costs(seconds: float | None, price: float | None) -> str:
    told = [text.seconds(seconds)] if seconds is not None else []
    told += [f"{text.price(price)} in money"] if price is not None else []
    return " or ".join(told) or "cost not known"
