"""Searchers to compare in replays: `choose`, and the baselines that it must beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.choose import Belief, Candidate
from harness.planning import PlannedCell
from harness.records import Record
from harness.replay.grids import Configuration
from harness.replay.runs import RecordedRuns

if TYPE_CHECKING:
    import optuna

_ETA: Final = 3
"""Share of the configurations of a rung that goes on to the next is one in so many (Li et al., 2020)."""

_FALLBACK: Final = ("linear-probe", "prototypes", "tfidf")
"""Methods of a rule whose own method does not fit into the time, the first that does."""


@dataclass(frozen=True)
class Play:
    """One replay of one search.

    Attributes:
        runs: the recorded runs, with their clock at 0.
        within: seconds of the search.
        seed: seed of the searcher's own draws.
        belief: expected scores from other tasks.
    """

    runs: RecordedRuns
    within: float
    seed: int
    belief: Belief

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers of the searcher."""
        return np.random.default_rng(self.seed)

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """The configurations to search among."""
        return self.runs.configurations

    def expected_seconds(self, configuration: Configuration, n_train: int | None = None) -> float:
        """Return the expected seconds of a fit on the first fold."""
        return self.runs.estimate(self._plan(configuration, 0, n_train)).seconds

    def may_end(self, configuration: Configuration, n_train: int | None = None) -> bool:
        """Return whether a fit on the first fold is expected to end in time."""
        return self.runs.now() + self.expected_seconds(configuration, n_train) <= self.within

    def fit(self, configuration: Configuration, fold: int = 0, n_train: int | None = None) -> Record | None:
        """Return the record of a whole fit on a fold; None where the time ends before it."""
        return self.runs.run(self._plan(configuration, fold, n_train), self.runs.folds[fold], self.within)

    def _plan(self, configuration: Configuration, fold: int, n_train: int | None) -> PlannedCell:
        files = self.runs.files_of(configuration)
        return self.runs.plan(self.runs.folds[fold], configuration.method, n_train, files=files)


Searcher = Callable[[Play], "Record | None"]
"""Returns the record of the fit whose model it keeps; None where no fit ended in time."""


def score_of(record: Record | None) -> float:
    """Return the score of a record on validation rows; the worst where there is none."""
    return -math.inf if record is None or record.score is None else record.score.value


def random_search(play: Play) -> Record | None:
    """Fit configurations in random order, and keep the best on validation rows (Bergstra and Bengio, 2012)."""
    best: Record | None = None
    for i in play.rng.permutation(len(play.configurations)):
        one = play.configurations[int(i)]
        if not play.may_end(one):
            continue
        record = play.fit(one)
        if score_of(record) > score_of(best):
            best = record
    return best


@dataclass(frozen=True)
class _Rung:
    """A rung of successive halving: a size, or several folds at the full size."""

    n_train: int | None
    folds: tuple[int, ...]


def rungs_of(play: Play) -> list[_Rung]:
    """Return the recorded fidelities of a grid, cheapest first.

    These are fits to fewer labels where most configurations have them, then a fold at the full size, then all folds.
    """
    n_fold, n_full = len(play.runs.folds[0].train_labels), play.runs.grid.n_train
    sizes = sorted({n for one in play.configurations for n in one.smaller})
    common = [n for n in sizes if 2 * sum(n in one.smaller for one in play.configurations) > len(play.configurations)]
    found = [_Rung(max(1, n * n_fold // n_full), (0,)) for n in common]
    found.append(_Rung(None, (0,)))
    if len(play.runs.folds) > 1:
        found.append(_Rung(None, tuple(range(1, len(play.runs.folds)))))
    return found


class _Rungs:
    """Scores of configurations by rung, and the models to keep."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.rungs = rungs_of(play)
        self.scores: list[dict[int, float]] = [{} for _ in self.rungs]
        self.models: dict[int, tuple[int, Record]] = {}
        self._rows: dict[int, list[tuple[int, float]]] = {}

    def climb(self, i: int, rung: int) -> float | None:
        """Return the score of a configuration on a rung once it is fitted there; None where time does not allow it."""
        play, at, one = self.play, self.rungs[rung], self.play.configurations[i]
        found = list(self._rows.get(i, ())) if at.n_train is None else []
        for fold in at.folds:
            record = play.fit(one, fold, at.n_train) if play.may_end(one, at.n_train) else None
            if record is None or record.score is None:
                return None
            found.append((record.score.n_test, record.score.value))
            known = self.models.get(i)
            if known is None or (known[0] < rung and fold == 0):  # the model of the first fold at the largest size
                self.models[i] = (rung, record)
        if at.n_train is None:
            self._rows[i] = found
        score = sum(n * value for n, value in found) / sum(n for n, _ in found)
        self.scores[rung][i] = score
        return score

    def best(self) -> Record | None:
        """Return the model of the best configuration on the highest rung that any has reached."""
        for scores in reversed(self.scores):
            if scores:
                return self.models[max(scores, key=lambda i: scores[i])][1]
        return None


def asha(play: Play) -> Record | None:
    """Promote the best third of each rung as soon as there is one, else start another (ASHA, Li et al., 2020)."""
    rungs, order = _Rungs(play), [int(i) for i in play.rng.permutation(len(play.configurations))]
    refused: set[tuple[int, int]] = set()
    while True:
        for rung in reversed(range(len(rungs.rungs) - 1)):
            scores = rungs.scores[rung]
            best = sorted(scores, key=lambda i: -scores[i])[: len(scores) // _ETA]
            up = next((i for i in best if i not in rungs.scores[rung + 1] and (i, rung + 1) not in refused), None)
            if up is not None:
                if rungs.climb(up, rung + 1) is None:
                    refused.add((up, rung + 1))
                break
        else:
            if not order:
                return rungs.best()
            i = order.pop(0)
            rungs.climb(i, 0)


def tpe(play: Play) -> Record | None:
    """Sample by tree-structured Parzen estimators with Hyperband's pruner, as optuna has them (BOHB's parts).

    The method is one categorical parameter; the settings of a method with several are another.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rungs = _Rungs(play)
    by_method: dict[str, list[int]] = {}
    for i, one in enumerate(play.configurations):
        by_method.setdefault(one.method.name, []).append(i)
    seen: dict[int, float] = {}

    def objective(trial: optuna.Trial) -> float:
        name = trial.suggest_categorical("method", sorted(by_method))
        own = by_method[name]
        i = own[0] if len(own) == 1 else own[trial.suggest_categorical(f"settings of {name}", list(range(len(own))))]
        if i in seen:
            return seen[i]
        score = None
        for rung in range(len(rungs.rungs)):
            found = rungs.climb(i, rung)
            if found is None:
                break
            score = seen[i] = found
            trial.report(score, rung + 1)
            if rung + 1 < len(rungs.rungs) and trial.should_prune():
                raise optuna.TrialPruned
        if score is None:
            seen[i] = 0.0
            raise optuna.TrialPruned
        return score

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=play.seed),
        pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=len(rungs.rungs), reduction_factor=_ETA),
        study_name="replay",
    )
    for _ in range(3 * len(play.configurations)):
        study.optimize(objective, n_trials=1)
        if not any(play.may_end(one) for i, one in enumerate(play.configurations) if i not in seen):
            break
    return rungs.best()


def always(*names: str) -> Searcher:
    """Return a rule: fit the first of some methods that is expected to end in time, with default settings."""

    def search(play: Play) -> Record | None:
        default = {one.label: one for one in play.configurations}
        cheapest = min(play.configurations, key=play.expected_seconds).label
        for name in (*names, *_FALLBACK, cheapest):
            if name in default and play.may_end(default[name]):
                record = play.fit(default[name])
                if record is not None:
                    return record
        return None

    return search


def advice(play: Play) -> Record | None:
    """Fit what other tasks lead to expect most of, among what is expected to end in time."""
    left = [one for one in play.configurations if play.may_end(one)]
    n = play.runs.grid.n_train
    while left:
        mean, _ = play.belief.expect([candidate_of(play.runs, one) for one in left], [n] * len(left), [])
        best = left[int(np.argmax(mean))]
        record = play.fit(best)
        if record is not None:
            return record
        left.remove(best)
    return None


def candidate_of(runs: RecordedRuns, one: Configuration) -> Candidate:
    """Return a configuration as a candidate of `harness choose`."""
    return Candidate(one.method, one.label, not one.trains_inside, files=runs.files_of(one))


def best_rule(play: Play) -> Record | None:
    """Validate a linear probe, then fine-tune fully if time allows, and keep the better: the usual rule of thumb."""
    found = [always("linear-probe")(play), always("full")(play) if play.runs.now() < play.within else None]
    return max(found, key=score_of)


BASELINES: Final[Mapping[str, Searcher]] = {
    "random": random_search,
    "asha": asha,
    "tpe": tpe,
    "always full": always("full"),
    "probe, then full": best_rule,
    "advice": advice,
}
