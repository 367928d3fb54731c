"""Replay searchers on recorded grids, and compare what their models score on rows that they did not see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.choose import Belief
from harness.forecast import gather
from harness.records import Record
from harness.replay.chooser import choose
from harness.replay.grids import Grid, find_grids, twin
from harness.replay.runs import RecordedRuns, Split
from harness.replay.searchers import BASELINES, Play, Searcher
from harness.support import UsageError, describe_duration, unknown_name

if TYPE_CHECKING:
    import pandas as pd

SEARCHERS: Final[Mapping[str, Searcher]] = {"choose": choose, **BASELINES}
"""Searchers by name: `choose`, and the baselines."""

DEFAULT_GRIDS: Final = (
    "sst2:32", "sst2:256", "trec:32", "trec:256",
    "sst2-validation:128", "sst2-validation:512", "trec-validation:128", "trec-validation:512",
)  # fmt: skip
"""Grids of many methods, and of many settings, among the reference results."""


@dataclass(frozen=True)
class Allowance:
    """Time of a search: seconds, or a share of the time in which every configuration of a grid is fitted once."""

    seconds: float | None = None
    share: float | None = None

    @property
    def label(self) -> str:
        """`5 %` or `30 s`."""
        if self.share is not None:
            return f"{100 * self.share:g} %"
        return describe_duration(self.seconds or 0.0)

    def within(self, whole: float) -> float:
        """Return the seconds of a search of a grid whose every fit together takes `whole` seconds."""
        return self.share * whole if self.share is not None else self.seconds or 0.0


@dataclass(frozen=True)
class Outcome:
    """One replay of one search.

    Attributes:
        grid: the grid, as `TASK:LABELS`.
        allowance: the time, in words.
        searcher: name of the searcher.
        seed: seed of the split, of the drawn fits and of the searcher.
        within: seconds of the search.
        seconds: seconds that it took by the simulated clock.
        chosen: the configuration whose model is kept; None where nothing was fitted in time.
        score: score of that model on the test rows; without one, that of the most frequent class.
        regret: points behind the best configuration, whose luck is taken out (`Grid.best_predictions`).
        regret_of_luckiest: points behind the configuration with the best mean score over all rows, luck included.
    """

    grid: str
    allowance: str
    searcher: str
    seed: int
    within: float
    seconds: float
    chosen: str | None
    score: float
    regret: float
    regret_of_luckiest: float


@dataclass(frozen=True)
class Replayed:
    """All replays of a comparison.

    Attributes:
        outcomes: one for each grid, time, searcher and seed.
        refused: why grids of the records cannot be replayed, by name.
        baselines: names of the searchers that `choose` is compared with.
    """

    outcomes: tuple[Outcome, ...] = field(repr=False)
    refused: dict[str, str] = field(repr=False)
    baselines: tuple[str, ...]

    @property
    def grids(self) -> list[str]:
        """The grids."""
        return list(dict.fromkeys(one.grid for one in self.outcomes))

    @property
    def allowances(self) -> list[str]:
        """The times, in words."""
        return list(dict.fromkeys(one.allowance for one in self.outcomes))

    @property
    def searchers(self) -> list[str]:
        """The searchers."""
        return list(dict.fromkeys(one.searcher for one in self.outcomes))

    def regret(self, searcher: str, allowance: str, *, luckiest: bool = False) -> tuple[float, float, float]:
        """Return the mean regret over grids in points, and the ends of its 95 % interval.

        The interval is Student's over the grids' means. These vary with their seeds too.
        """
        means = self._by_grid(searcher, allowance, luckiest=luckiest)
        values = np.array(list(means.values()))
        mean = float(values.mean())
        if len(values) < 2:
            return mean, math.nan, math.nan
        from scipy.stats import t

        half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
        return mean, mean - half, mean + half

    def _by_grid(self, searcher: str, allowance: str, *, luckiest: bool = False) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for one in self.outcomes:
            if (one.searcher, one.allowance) == (searcher, allowance):
                found.setdefault(one.grid, []).append(one.regret_of_luckiest if luckiest else one.regret)
        return {grid: float(np.mean(values)) for grid, values in found.items()}

    def best_baseline(self, allowance: str, *, luckiest: bool = False) -> str | None:
        """Return the baseline with the least mean regret; None where none was replayed."""
        known = [name for name in self.searchers if name in self.baselines]
        return min(known, key=lambda name: self.regret(name, allowance, luckiest=luckiest)[0], default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        rows = []
        for allowance in self.allowances:
            for searcher in self.searchers:
                mean, low, high = self.regret(searcher, allowance)
                own = [one for one in self.outcomes if (one.searcher, one.allowance) == (searcher, allowance)]
                rows.append(
                    {
                        "allowance": allowance,
                        "searcher": searcher,
                        "regret_points": {"mean": mean, "low": low, "high": high},
                        "regret_of_luckiest_points": self.regret(searcher, allowance, luckiest=True)[0],
                        "regret_points_by_grid": self._by_grid(searcher, allowance),
                        "n_replays": len(own),
                        "n_without_a_model": sum(one.chosen is None for one in own),
                        "largest_share_of_time": max(one.seconds / one.within for one in own),
                    }
                )
        return {
            "grids": self.grids,
            "n_seeds": len({one.seed for one in self.outcomes}),
            "searchers": rows,
            "best_baseline": {allowance: self.best_baseline(allowance) for allowance in self.allowances},
            "refused": self.refused,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each replay, with the attributes of `Outcome` as columns."""
        import pandas as pd

        return pd.DataFrame([vars(one) for one in self.outcomes])


def replay_searches(
    records: Iterable[Record],
    evidence: Sequence[Record],
    *,
    allowances: Sequence[Allowance],
    n_seeds: int,
    grids: Sequence[str] | None = None,
    searchers: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Replayed:
    """Replay searchers on recorded grids.

    Args:
        records: records with predictions, whose grids are replayed.
        evidence: records that `choose` and advice know beforehand; those of the grid's own task, and of tasks that
            share texts with it, are left out.
        allowances: the times of a search.
        n_seeds: number of seeds, from 0: each is a split of the rows and a draw of the recorded seeds.
        grids: grids as `TASK:LABELS`; None is all. Of several with a name, the one with the most configurations counts.
        searchers: names of searchers; None is all.
        say: called with the name of each grid.

    Raises:
        UsageError: unknown names, or no grid that can be replayed; the message says why.
    """
    found, refused = find_grids(records)
    largest: dict[str, Grid] = {}
    for grid in found:
        if grid.key not in largest or len(grid.configurations) > len(largest[grid.key].configurations):
            largest[grid.key] = grid
    if not largest:
        why = "; ".join(list(refused.values())[:3]) or "they hold no classification task"
        raise UsageError(f"No recorded grid can be replayed: {why}")
    for name in grids or ():
        if name not in largest:
            near = [why for key, why in refused.items() if key.startswith(name.replace(":", " x ") + " ")]
            if near:
                raise UsageError(f"The grid {name} cannot be replayed: {near[0]}")
            raise unknown_name("grid", name, largest, "among these records")
    names = list(searchers or SEARCHERS)
    for name in names:
        if name not in SEARCHERS:
            raise unknown_name("searcher", name, SEARCHERS)
    outcomes = []
    for key in grids or sorted(largest):
        say(key)
        outcomes += _replay_grid(largest[key], evidence, allowances, n_seeds, names)
    return Replayed(tuple(outcomes), refused, tuple(BASELINES))


def _replay_grid(
    grid: Grid, evidence: Sequence[Record], allowances: Sequence[Allowance], n_seeds: int, names: Sequence[str]
) -> list[Outcome]:
    belief = belief_about(grid, evidence)
    whole = whole_seconds(grid)
    outcomes = []
    for seed in range(n_seeds):
        split = Split.of(grid, seed)
        best, luckiest = grid.best_score(split.test), grid.luckiest_score(split.test)
        nothing = grid.score(np.full(grid.n_rows, grid.majority), split.test)
        for allowance in allowances:
            within = allowance.within(whole)
            for name in names:
                runs = RecordedRuns(split)
                record = SEARCHERS[name](Play(runs, within, seed, belief))
                score = nothing if record is None else runs.tested(record)
                chosen = None if record is None else runs.label_of(record)
                regret, lucky = 100 * (best - score), 100 * (luckiest - score)
                outcomes.append(
                    Outcome(grid.key, allowance.label, name, seed, within, runs.clock, chosen, score, regret, lucky)
                )
    return outcomes


def whole_seconds(grid: Grid) -> float:
    """Return the seconds of fitting every configuration of a grid once, on one fold."""
    runs = RecordedRuns(Split.of(grid, 0))
    fold = runs.folds[0]
    for one in grid.configurations:
        runs.run(runs.plan(fold, one.method, files=runs.files_of(one)), fold, math.inf)
    return runs.clock


def belief_about(grid: Grid, evidence: Iterable[Record]) -> Belief:
    """Return what other tasks lead to expect: records of the grid's task, and of its twins, are left out."""
    own = twin(grid.task)
    points = [p for p in gather(r for r in evidence if twin(r.cell.task) != own).points if p.kind == "classification"]
    names = {one.cell.backbone for one in grid.configurations if one.cell.backbone is not None}
    if any(point.backbone in names for point in points):
        points = [point for point in points if point.backbone is None or point.backbone in names]
    return Belief(points, grid.n_classes)
