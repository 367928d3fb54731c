"""Choose the methods whose total cost a figure draws: the best prompted and the best trained ones of one task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from harness.report.prompting import Contender, Pair, Unit
from harness.support import text

_MOST_TRAINED: Final = 5


@dataclass(frozen=True)
class CostLine:
    """The total cost of one method: `fixed + N * each` for N predictions.

    Attributes:
        name: name of the method with its backbone; of a prompted one with its number of labels.
        crosses_at: number of predictions at which training begins to cost less; None where it never or always does.
        low, high: ends of its interval; see `BreakEven`.
    """

    name: str
    score: float
    is_prompted: bool
    fixed: float
    each: float
    crosses_at: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def said(self) -> str:
        """The line in words, for readers who do not see the figure."""
        pays = "" if self.crosses_at is None else f", pays after {self.crosses_at:,.0f} predictions"
        return f"{self.name} ({text.score(self.score)}{pays})"


@dataclass(frozen=True)
class CostFigure:
    """The lines of one figure: prompted methods, then trained ones, the best score first.

    Attributes:
        where: the task, and the device where costs are seconds.
        metric: metric of the scores.
        n_train: labels of the trained methods.
    """

    where: str
    metric: str
    n_train: int
    unit: Unit
    lines: tuple[CostLine, ...]


def cost_figures(pairs: Sequence[Pair]) -> Iterator[CostFigure]:
    """Return one figure for each task, and for each device where costs are seconds.

    It shows the trained methods with the best scores at the size that most of them have, the larger one of several. It
    shows the prompted method that they were compared with, and the one whose predictions cost least.

    Args:
        pairs: every trained method beside every prompted one (`every_pair`).
    """
    groups: dict[tuple[object, ...], list[Pair]] = {}
    for pair in pairs:
        if pair.unit is not None:
            device = pair.trained.row.device if pair.unit == "seconds" else None
            groups.setdefault((*pair.trained.task, pair.unit, device), []).append(pair)
    for own in groups.values():
        first, unit = own[0].trained.row, own[0].unit
        sign = -1 if bool(first.higher_is_better) else 1
        sizes = Counter(size for size, _ in {(pair.trained.row.n_train, id(pair.trained)) for pair in own})
        size = max(sizes, key=lambda one: (sizes[one], one))
        at_size = [pair for pair in own if pair.trained.row.n_train == size]
        prompted = list({id(pair.prompted): pair.prompted for pair in at_size}.values())
        trained = list({id(pair.trained): pair.trained for pair in at_size}.values())
        best = min(prompted, key=lambda one: (sign * one.row.score, one.name))
        cheapest = min(prompted, key=lambda one: (_line(one, unit).each, sign * one.row.score))
        trained.sort(key=lambda one: (sign * one.row.score, one.name))
        against = {id(pair.trained): pair for pair in at_size if pair.prompted is best}
        yield CostFigure(
            where=text.plain(first.task) + (f" · {text.plain(first.device)}" if unit == "seconds" else ""),
            metric=text.plain(first.metric),
            n_train=int(size),
            unit="money" if unit == "money" else "seconds",
            lines=(
                _line(best, unit),
                *([] if cheapest is best else [_line(cheapest, unit)]),
                *(_line(one, unit, against.get(id(one))) for one in trained[:_MOST_TRAINED]),
            ),
        )


def _line(one: Contender, unit: Unit | None, pair: Pair | None = None) -> CostLine:
    costs = one.spent.money if unit == "money" else one.spent.seconds
    assert costs is not None
    found = None if pair is None or pair.found is None or pair.found.outcome != "after" else pair.found
    n_train = int(one.row.n_train)
    labels = f", {text.counted(n_train, 'label') if n_train else 'no labels'}" if one.is_prompted else ""
    return CostLine(
        name=f"{one.name}{labels}",
        score=float(one.row.score),
        is_prompted=one.is_prompted,
        fixed=costs.fixed,
        each=costs.per_prediction,
        crosses_at=None if found is None else found.n,
        low=None if found is None or not found.has_interval else found.low,
        high=None if found is None else found.high,
    )
