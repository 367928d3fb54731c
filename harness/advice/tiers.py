"""Tiers of an answer: three to five methods from cheap to best, each worth its price over the one before.

The rule, for the methods that fit and whose cost is known:

1. A method on one or two tasks, where another has twice as many at least, competes only if it is clearly better than
   every better measured method that costs no more.
2. **Best** is the highest expected score. Ties go to the cheapest method, and of those with the same cost in two digits
   to the better measured one. Methods tie if their expected scores are at most a point apart, and the better one is
   better with a probability below 60 %.
3. The other tiers cost less and do not tie with the best. They lie on the upper hull of expected score against the
   logarithm of cost, so that each doubling of cost buys less than the one before.
4. A method that beats the tier before it with a probability below 60 % is no tier, unless it is the best. A tier that
   costs more than two thirds of the next one is left out; less than a second counts as one. There are at most five.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from harness.advice.choices import AdvisedMethod, Beliefs, Gain, have_few_tasks

BEYOND_CHANCE: Final = 0.6
"""Least probability of being better at all with which a method is a tier."""

TIE: Final = 0.01
"""Largest distance of two expected scores that is a tie, as a share of the metric's range: one point."""

SAVING: Final = 2 / 3
"""Largest share of the next tier's cost at which a cheaper tier is worth a line."""

CLEARLY: Final = 0.9
"""The same for a method that was measured on few tasks."""

_MOST: Final = 5
"""Largest number of tiers."""

NEARLY_FREE_SHARE: Final = 0.05
"""Largest share of the best tier's cost that is nearly free."""

NEARLY_FREE_SECONDS: Final = 2.0
"""Seconds that are nearly free beside any cost."""

Name = Literal["nearly free", "cheapest", "good value", "between", "best"]
Unit = Literal["training seconds", "seconds", "money"]


@dataclass(frozen=True)
class Tier:
    """A method on the way from cheap to best, and what it buys over the tier before it.

    Attributes:
        name: `best` is the last tier. Others are `nearly free` at no more than 2 seconds, or a twentieth of the best.
            `good value` is the one of the rest that gains most over the tier before it for a doubling of cost.
            `cheapest` is the first tier where it is not nearly free; any further one is `between`.
        method, backbone: as in `AdvisedMethod`, which holds its price.
        cost: cost by which tiers are ordered, in `Advice.cost_unit`; None where no method's is known.
        gain: expected gain over the tier before it, with its interval and probability; None for the first tier.
        extra_seconds: seconds of training more than the tier before it; None for the first tier, or if not known.
    """

    name: Name
    method: str
    backbone: str | None
    cost: float | None
    gain: Gain | None = None
    extra_seconds: float | None = None


def find_tiers(
    choices: Sequence[AdvisedMethod],
    costs: Mapping[str, float],
    beliefs: Beliefs,
    unit: Unit = "training seconds",
    tolerance: float | None = None,
) -> tuple[Tier, ...]:
    """Return the tiers, from the cheapest to the best; none where nothing fits.

    Args:
        choices: methods that fit.
        costs: costs by label; methods without one are no tiers, unless no cost is known at all.
        beliefs: expected scores.
        unit: unit of the costs.
        tolerance: distance of expected scores that is a tie, whatever its probability; None is the usual rule.
    """
    by_method = {choice.method: choice for choice in choices}
    known = [choice for choice in choices if choice.method in costs] or list(choices)
    if not known:
        return ()
    able = _able(known, costs, beliefs)
    last = _best(able, costs, beliefs, tolerance)
    limit = costs.get(last, 0.0)
    below = [
        one
        for one in able
        if costs.get(one.method, math.inf) < limit and _is_worse(one, by_method[last], beliefs, tolerance)
    ]
    kept = _worth_it(_hull([*below, by_method[last]], last, costs, beliefs, unit), beliefs)
    found = []
    before: AdvisedMethod | None = None
    for (*_, method), name in zip(kept, _names(kept, costs, unit), strict=True):
        own = by_method[method]
        gain = extra = None
        if before is not None:
            gain = beliefs.gain(method, before.method)
            if own.train_seconds is not None and before.train_seconds is not None:
                extra = own.train_seconds - before.train_seconds
        found.append(Tier(name, method, own.backbone, costs.get(method), gain, extra))
        before = own
    return tuple(found)


def find_best(choices: Sequence[AdvisedMethod], costs: Mapping[str, float | None], beliefs: Beliefs) -> str | None:
    """Return the label of the best tier alone; None where there is no choice."""
    known = {method: cost for method, cost in costs.items() if cost is not None}
    among = [choice for choice in choices if choice.method in known] or list(choices)
    return _best(_able(among, known, beliefs), known, beliefs) if among else None


def _able(known: Sequence[AdvisedMethod], costs: Mapping[str, float], beliefs: Beliefs) -> list[AdvisedMethod]:
    """Return the methods that may be tiers: well measured, or clearly better than those that cost no more."""
    few = have_few_tasks(known)
    able = [choice for choice in known if choice.method not in few]
    for choice in known:
        if choice.method not in few:
            continue
        no_dearer = [one for one in able if costs.get(one.method, 0.0) <= costs.get(choice.method, 0.0)]
        rivals = no_dearer or [min(able, key=lambda one: costs.get(one.method, 0.0))]
        if all(beliefs.is_better(choice.method, rival.method) >= CLEARLY for rival in rivals):
            able.append(choice)
    return able


def _is_worse(choice: AdvisedMethod, best: AdvisedMethod, beliefs: Beliefs, tolerance: float | None) -> bool:
    """Return whether a method is behind the best and does not tie with it, and is itself above chance."""
    is_above_chance = beliefs.chance is None or choice.score != beliefs.chance
    is_behind = beliefs.worth(best.method) > beliefs.worth(choice.method)
    return is_above_chance and is_behind and not ties(best, choice, beliefs, tolerance)


def _best(
    able: Sequence[AdvisedMethod], costs: Mapping[str, float], beliefs: Beliefs, tolerance: float | None = None
) -> str:
    """Return the cheapest method that ties with the top one; of equal costs the better measured.

    Costs are equal where two significant digits are.
    """

    def worth(choice: AdvisedMethod) -> float:
        return beliefs.worth(choice.method)

    def place(choice: AdvisedMethod) -> tuple[float, int, float, float, str]:
        cost = costs.get(choice.method, 0.0)
        return float(f"{cost:.2g}"), -choice.n_tasks, -worth(choice), cost, choice.method

    top = max(able, key=worth)
    return min((one for one in able if ties(top, one, beliefs, tolerance)), key=place).method


def ties(better: AdvisedMethod, other: AdvisedMethod, beliefs: Beliefs, tolerance: float | None = None) -> bool:
    """Return whether a method with a better expected score ties with another: by little, and perhaps by chance.

    With a tolerance, they tie if their expected scores are no further apart.
    """
    if tolerance is not None:
        return abs(better.score - other.score) <= tolerance + 1e-12
    is_near = abs(better.score - other.score) <= TIE * (beliefs.highest or better.score)
    return is_near and beliefs.is_better(better.method, other.method) < BEYOND_CHANCE


def _hull(
    choices: Sequence[AdvisedMethod], best: str, costs: Mapping[str, float], beliefs: Beliefs, unit: Unit
) -> list[tuple[float, float, str]]:
    """Return log cost, expected score (more is better) and label of the methods on the upper hull, up to the best."""
    least = max(_LEAST_SHARE * costs.get(best, 0.0), 0.0 if unit == "money" else _LEAST_SECONDS)
    found: list[tuple[float, float, str]] = []
    for choice in choices:
        cost = max(costs.get(choice.method, 0.0), least)
        found.append((math.log2(cost) if cost else 0.0, beliefs.worth(choice.method), choice.method))
    hull: list[tuple[float, float, str]] = []
    for place in sorted(found, key=lambda one: (one[0], -one[1], one[2] != best, one[2])):
        if hull and place[1] <= hull[-1][1]:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], place):
            hull.pop()
        hull.append(place)
    return hull


_LEAST_SHARE: Final = 1e-4
"""Share of the best tier's cost below which all costs count as the same: their logarithms would differ without end."""


_LEAST_SECONDS: Final = 1.0
"""Seconds below which all costs count as the same."""


def _slope(one: tuple[float, float, str], other: tuple[float, float, str]) -> float:
    """Return the gain for each doubling of cost."""
    return (other[1] - one[1]) / (other[0] - one[0]) if other[0] > one[0] else math.inf


def _worth_it(hull: Sequence[tuple[float, float, str]], beliefs: Beliefs) -> list[tuple[float, float, str]]:
    """Return the places on the hull that beat the one before them beyond chance, and the last; at most `_MOST`."""
    kept = list(hull[:1])
    for place in hull[1:]:
        if place is hull[-1] or beliefs.is_better(place[2], kept[-1][2]) >= BEYOND_CHANCE:
            while kept and 2 ** (kept[-1][0] - place[0]) > SAVING:
                kept.pop()
            kept.append(place)
    while len(kept) > _MOST:
        least = min(range(1, len(kept) - 1), key=lambda i: kept[i][1] - kept[i - 1][1])
        del kept[least]
    return kept


def _names(kept: Sequence[tuple[float, float, str]], costs: Mapping[str, float], unit: Unit) -> list[Name]:
    """Return the names of tiers; see `Tier`."""
    last = costs.get(kept[-1][2], 0.0)
    limit = max(NEARLY_FREE_SHARE * last, 0.0 if unit == "money" else NEARLY_FREE_SECONDS)
    found: list[Name] = ["nearly free" if costs.get(method, 0.0) <= limit else "between" for *_, method in kept]
    if found[0] == "between":
        found[0] = "cheapest"
    others = [i for i in range(1, len(kept) - 1) if found[i] == "between"]
    if others:
        found[max(others, key=lambda i: _slope(kept[i - 1], kept[i]))] = "good value"
    found[-1] = "best"
    return found
