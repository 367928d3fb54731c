"""Expected accuracy of frozen probes on encoders, from published results of these and of other encoders.

An encoder's accuracies on all tasks, as logits, and its covariates are one multivariate value: the mean of all
encoders, what encoders of its publisher have in common, and what is its own. The own part is Student's t, so an
unusual encoder (an untrained one, a run without its prompt) widens its own intervals and moves others little.
Covariances are fitted by expectation maximisation over the results that are there (Liu and Rubin, "ML estimation of the
t distribution using EM and its extensions, ECM and ECME", Statistica Sinica 5, 1995; effects of groups are added).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.forecast.pooled import Doubles
from harness.records import EncoderFacts, PublishedEncoder

_FREEDOM: Final = 5.0
"""Degrees of freedom of an encoder's own part."""

_PRIOR: Final = 10.0
"""Number of encoders that the prior covariance counts as much as."""

_ALIKE: Final = 0.7
"""Prior correlation between two tasks."""

_OF_PUBLISHER: Final = 0.3
"""Prior share of the variance that encoders of one publisher have in common."""

WIDTH: Final = 0.8
"""Factor of the standard deviations that makes 80 % intervals hold 80 % (`harness validate-advice --encoders`)."""

_ROUNDS: Final = 12
_LEAST: Final = 0.005
"""Accuracies closer to 0 or 1 count as this close: an encoder at chance level is no finer known."""

_LEAST_SPREAD: Final = 0.05

Names = Sequence[str]
"""Names of tasks."""


def to_logit(accuracy: float) -> float:
    """Return the logit of an accuracy, cut near 0 and 1."""
    share = min(max(accuracy, _LEAST), 1 - _LEAST)
    return math.log(share / (1 - share))


def from_logit(value: float) -> float:
    """Return the accuracy of a logit."""
    return 1 / (1 + math.exp(-max(min(value, 50.0), -50.0)))


@dataclass(frozen=True)
class ExpectedProbe:
    """Expected accuracy of a frozen probe on one task.

    Attributes:
        accuracy, low, high: median and 80 % interval.
        mean, sd: mean and standard deviation as a logit.
        is_measured: whether it was published, and is not expected.
    """

    accuracy: float
    low: float
    high: float
    mean: float
    sd: float
    is_measured: bool = False


@dataclass(frozen=True)
class Effect:
    """How much better one encoder is than another on a task that neither was measured on.

    Attributes:
        mean: difference of the logits of their accuracies.
        own: standard deviation of the mean over tasks.
        between: standard deviation of such differences between tasks.
        n_results: number of published results of the encoder.
        n_unknown: number of these of which nobody says whether the encoder was trained on the task.
    """

    mean: float
    own: float
    between: float
    n_results: int
    n_unknown: int


class EncoderModel:
    """Expected accuracies of encoders, fitted once.

    Args:
        encoders: encoders with results. Results on tasks that an encoder was trained on do not count.
        about: the encoders that the spreads are fitted to, by name; None takes all.

    Attributes:
        tasks: names of the tasks.
    """

    def __init__(self, encoders: Iterable[PublishedEncoder], about: Iterable[str] | None = None) -> None:
        self._encoders = {encoder.name: clean(encoder) for encoder in encoders}
        self.tasks: tuple[str, ...] = tuple(sorted({r.task for e in self._encoders.values() for r in e.results}))
        wanted = set(self._encoders if about is None else about)
        self._rows = {name: self._row(encoder) for name, encoder in self._encoders.items()}
        by_publisher: defaultdict[str, list[str]] = defaultdict(list)
        for name in self._encoders:
            by_publisher[publisher(name)].append(name)
        self._by_publisher = dict(by_publisher)
        fitted = {p: [n for n in names if n in wanted] for p, names in by_publisher.items()}
        self._fit({p: names for p, names in fitted.items() if names})

    @property
    def names(self) -> list[str]:
        """Names of the encoders with results that count."""
        return [name for name, encoder in self._encoders.items() if encoder.results]

    def facts(self, name: str) -> EncoderFacts | None:
        """Return the published facts about an encoder; None where it is not known."""
        encoder = self._encoders.get(name)
        return None if encoder is None else encoder.facts

    def expected(
        self, name: str, facts: EncoderFacts | None = None, known: Mapping[str, float] | None = None
    ) -> dict[str, ExpectedProbe]:
        """Return the expected accuracy of an encoder on each task.

        Args:
            name: name of the encoder; encoders of its publisher tell of it.
            facts: facts about it; None takes the published ones.
            known: accuracy by task, in place of its published results; None takes these.
        """
        row = self._asked(name, facts, known)
        mean, variance, freedom = self._condition(name, row)
        half = _t_quantile_90(freedom)
        found = {}
        for i, task in enumerate(self.tasks):
            if not math.isnan(row[i]):
                score = from_logit(row[i])
                found[task] = ExpectedProbe(score, score, score, float(row[i]), 0.0, is_measured=True)
                continue
            sd = WIDTH * math.sqrt(max(float(variance[i, i]), 0.0))
            ends = [from_logit(float(mean[i]) + sign * half * sd) for sign in (-1, 1)]
            found[task] = ExpectedProbe(from_logit(float(mean[i])), ends[0], ends[1], float(mean[i]), sd)
        return found

    def effect(self, name: str, base: str, facts: EncoderFacts | None = None) -> Effect:
        """Return how much better an encoder is than `base` on a task that neither was measured on.

        Tasks count alike: the mean over tasks of the expected difference.
        """
        one, other = self._asked(name, facts, None), self._asked(base, None, None)
        n = len(self.tasks)
        mean, variance, _ = self._condition(name, one)
        base_mean, base_variance, _ = self._condition(base, other)
        gaps = mean[:n] - base_mean[:n]
        own = float(np.mean(variance[:n, :n])) + float(np.mean(base_variance[:n, :n]))
        # The mean of measured tasks is known exactly; that of all tasks is not, since tasks differ.
        between = float(np.std(gaps, ddof=1)) if n > 1 else 0.0
        encoder = self._encoders.get(name)
        results = () if encoder is None else encoder.results
        unknown = sum(result.has_seen_task is None for result in results)
        return Effect(float(gaps.mean()), math.sqrt(own + between**2 / n), between, len(results), unknown)

    def _asked(self, name: str, facts: EncoderFacts | None, known: Mapping[str, float] | None) -> Doubles:
        encoder = self._encoders.get(name, PublishedEncoder(name, EncoderFacts()))
        row = self._row(encoder if facts is None else replace(encoder, facts=facts))
        if known is not None:
            row[: len(self.tasks)] = [to_logit(known[task]) if task in known else math.nan for task in self.tasks]
        return row

    def _row(self, encoder: PublishedEncoder) -> Doubles:
        results = {result.task: to_logit(result.accuracy) for result in encoder.results}
        scores = [results.get(task, math.nan) for task in self.tasks]
        return np.array([*scores, *_covariates(encoder)], dtype=np.float64)

    def _fit(self, names: Mapping[str, Sequence[str]]) -> None:
        """Fit mean, covariances of publishers and of encoders, and the weight of each encoder."""
        groups = [np.array([self._rows[name] for name in own]) for own in names.values()]
        rows = np.concatenate(groups)
        usual, spread = _column_spreads(rows)
        alike = np.eye(rows.shape[1])
        n = len(self.tasks)
        alike[:n, :n] = _ALIKE + (1 - _ALIKE) * np.eye(n)
        prior = np.outer(spread, spread) * alike
        self._mean = usual
        self._between, self._within = _OF_PUBLISHER * prior, (1 - _OF_PUBLISHER) * prior
        weights = [np.ones(len(group)) for group in groups]
        for _ in range(_ROUNDS):
            between, within, moved, total = np.zeros_like(prior), np.zeros_like(prior), np.zeros_like(usual), 0.0
            updated = []
            for group, weight in zip(groups, weights, strict=True):
                found = _posterior(group, self._mean, self._between, self._within, weight)
                between += np.outer(found.common, found.common) + found.common_variance
                new = np.empty(len(group))
                for i, own in enumerate(found.own):
                    square = np.outer(own, own) + found.own_variance[i]
                    within += weight[i] * square
                    moved += weight[i] * own
                    total += weight[i]
                    new[i] = _weight(square, self._within, ~np.isnan(group[i]))
                updated.append(new)
            self._between = (between + _PRIOR * _OF_PUBLISHER * prior) / (len(groups) + _PRIOR)
            self._within = (within + _PRIOR * (1 - _OF_PUBLISHER) * prior) / (len(rows) + _PRIOR)
            self._mean = self._mean + moved / total
            weights = updated
        flat = [name for own in names.values() for name in own]
        self._weights = dict(zip(flat, np.concatenate(weights).tolist(), strict=True))

    def _condition(self, name: str, row: Doubles) -> tuple[Doubles, Doubles, float]:
        """Return mean, covariance and degrees of freedom of an encoder's values, given its row and its publisher's."""
        siblings = [other for other in self._by_publisher.get(publisher(name), []) if other != name]
        rows = np.array([*(self._rows[other] for other in siblings), row])
        weights = np.array([*(self._weights.get(other, 1.0) for other in siblings), 1.0])
        observed = ~np.isnan(row)
        for _ in range(4):
            found = _posterior(rows, self._mean, self._between, self._within, weights)
            square = np.outer(found.own[-1], found.own[-1]) + found.own_variance[-1]
            weights[-1] = _weight(square, self._within, observed)
        mean = self._mean + found.common + found.own[-1]
        crossed = found.crossed
        variance = found.common_variance + found.own_variance[-1] + crossed + crossed.T
        return mean, variance, _FREEDOM + float(observed.sum())


def clean(encoder: PublishedEncoder) -> PublishedEncoder:
    """Return an encoder without its results on tasks that it was trained on."""
    return replace(encoder, results=tuple(result for result in encoder.results if not result.has_seen_task))


def publisher(name: str) -> str:
    """Return the publisher of an encoder, as its name states it; the name itself where it states none."""
    first, slash, _ = name.partition("/")
    return first.lower() if slash else name


def _covariates(encoder: PublishedEncoder) -> list[float]:
    """Return the covariates of an encoder, about 0 and of size 1; NaN is unknown."""
    facts = encoder.facts
    kind = facts.pretraining
    without_draws = [result.n_draws is None for result in encoder.results]
    return [
        math.log10(facts.n_parameters) - 8 if facts.n_parameters else math.nan,
        math.log2(facts.width) - 9 if facts.width else math.nan,
        math.log2(facts.layers) - 3 if facts.layers else math.nan,
        math.log2(facts.max_tokens) - 10 if facts.max_tokens else math.nan,
        _year(facts.released),
        math.nan if kind is None else float(kind == "instruct embedding"),
        math.nan if kind is None else float(kind == "static"),
        sum(without_draws) / len(without_draws) if without_draws else math.nan,
    ]


def _year(released: str | None) -> float:
    """Return the years after 2023 of a date such as 2021-08-30; NaN where it is none."""
    try:
        return math.nan if released is None else int(released[:4]) + int(released[5:7]) / 12 - 2023
    except ValueError:
        return math.nan


def _column_spreads(rows: Doubles) -> tuple[Doubles, Doubles]:
    """Return the median and the standard deviation of each column; the usual spread where few values tell."""
    found, spread = np.zeros(rows.shape[1]), np.full(rows.shape[1], math.nan)
    for i, column in enumerate(rows.T):
        known = column[~np.isnan(column)]
        found[i] = np.median(known) if known.size else 0.0
        if known.size > 2 and known.std() > _LEAST_SPREAD:
            spread[i] = known.std()
    usual = float(np.nanmedian(spread)) if not np.isnan(spread).all() else 1.0
    return found, np.where(np.isnan(spread), usual, spread)


@dataclass(frozen=True)
class _Posterior:
    """What the encoders of one publisher have in common, and each one's own part: means and covariances.

    Attributes:
        common, common_variance: shape (d,) and (d, d).
        own, own_variance: the same for each encoder.
        crossed: covariance of the common part with the last encoder's own, shape (d, d).
    """

    common: Doubles
    common_variance: Doubles
    own: list[Doubles]
    own_variance: list[Doubles]
    crossed: Doubles


def _posterior(rows: Doubles, mean: Doubles, between: Doubles, within: Doubles, weights: Doubles) -> _Posterior:
    """Return the posterior of one publisher's encoders.

    Args:
        rows: values, shape (n, d); NaN is unknown.
        mean: mean of all encoders, shape (d,).
        between: covariance of publishers, shape (d, d).
        within: covariance of encoders of one publisher, shape (d, d).
        weights: factors that an encoder's own covariance is divided by, shape (n,).
    """
    which, where = np.nonzero(~np.isnan(rows))
    residual = rows[which, where] - mean[where]
    own = within[np.ix_(where, where)] * (which[:, None] == which) / weights[which][:, None]
    covariance = between[np.ix_(where, where)] + own
    covariance[np.diag_indices_from(covariance)] += 1e-9
    inverse = np.linalg.inv(covariance)
    solved = inverse @ residual
    common = between[:, where]
    owns, variances, crossed = [], [], np.zeros_like(between)
    for i, weight in enumerate(weights):
        mine: npt.NDArray[np.bool_] = which == i
        across = within[:, where[mine]] / weight
        owns.append(across @ solved[mine])
        variances.append(within / weight - across @ inverse[np.ix_(mine, mine)] @ across.T)
        if i == len(weights) - 1:
            crossed = -common @ inverse[:, mine] @ across.T
    return _Posterior(common @ solved, between - common @ inverse @ common.T, owns, variances, crossed)


def _weight(square: Doubles, within: Doubles, observed: npt.NDArray[np.bool_]) -> float:
    """Return the weight of an encoder by the size of its own part: below 1 for an unusual one."""
    if not observed.any():
        return 1.0
    at = np.ix_(observed, observed)
    distance = float(np.trace(np.linalg.solve(within[at], square[at])))
    return (_FREEDOM + float(observed.sum())) / (_FREEDOM + distance)


def _t_quantile_90(freedom: float) -> float:
    """Return the 90 % quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.9, freedom))
