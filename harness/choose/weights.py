"""Weights of an ensemble's members, and the gain to expect of it, from class probabilities of validation rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.forecast import Doubles
from harness.tasks import Floats, Ints

_LEAST_PROBABILITY: Final = 1e-6
_TEMPERATURES: Final = np.exp(np.linspace(np.log(0.25), np.log(8.0), 31))

_N_BAGS: Final = 20
"""Number of bags: each draws rows with replacement and half of the members."""

_N_STEPS: Final = 10
"""Members that a bag picks one after the other, with replacement."""

_LEAST_WEIGHT: Final = 0.05
"""Weight below which a member is left out: it changes few predictions and costs a prediction."""

_N_PARTS: Final = 5
"""Parts of the validation rows; each is predicted with the weights that the other parts give."""

CLEARLY: Final = 1.644854
"""Standard errors above 0 of a gain beyond chance: one-sided, at a level of 5 %."""

Metric = Callable[[Ints, Ints], float]
"""A function of predicted and right classes; higher is better."""


@dataclass(frozen=True)
class Gain:
    """The gain of an ensemble over the best single member, on rows that chose neither.

    Attributes:
        metric: gain in the main metric.
        log_loss: gain in log-likelihood per row.
        standard_error: standard error of `log_loss` over rows.
    """

    metric: float
    log_loss: float
    standard_error: float

    @property
    def is_clear(self) -> bool:
        """Whether the log-likelihood gains more than chance would explain, and the metric does not lose."""
        return self.metric >= 0 and self.log_loss > CLEARLY * self.standard_error


def calibrated(probabilities: Floats, temperature: float) -> Doubles:
    """Return probabilities at another temperature: their logarithms are divided by it, then normalised."""
    logs = np.log(np.clip(np.asarray(probabilities, dtype=np.float64), _LEAST_PROBABILITY, 1.0)) / temperature
    logs -= logs.max(axis=1, keepdims=True)
    likelihoods = np.exp(logs)
    return np.asarray(likelihoods / likelihoods.sum(axis=1, keepdims=True))


def best_temperature(probabilities: Floats, right: Ints) -> float:
    """Return the temperature that gives the right classes the highest likelihood (Guo et al., 2017).

    Args:
        probabilities: shape (rows, classes).
        right: right classes, shape (rows,).
    """
    likely = [_log_of_right(calibrated(probabilities, float(t)), right).mean() for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmax(likely))])


def _log_of_right(probabilities: Doubles, right: Ints) -> Doubles:
    return np.asarray(np.log(np.clip(probabilities[np.arange(len(right)), right], _LEAST_PROBABILITY, 1.0)))


def bagged_weights(of_right: Doubles, seed: int = 0) -> Doubles:
    """Return weights by bagged greedy selection with replacement (Caruana et al., 2004), which sum to 1.

    Each bag starts with its best member and adds, step by step, the one that raises the log-likelihood most. Members
    that end with little weight are left out.

    Args:
        of_right: calibrated probability of the right class by each member, shape (members, rows).
        seed: seed of the bags.
    """
    generator = np.random.default_rng(seed)
    m, n = of_right.shape
    n_drawn = max(min(m, 2), (m + 1) // 2)
    weights = np.zeros(m)
    for _ in range(_N_BAGS):
        drawn = generator.permutation(m)[:n_drawn]
        found = of_right[drawn][:, generator.integers(0, n, n)]
        total = np.zeros(n)
        for step in range(1, _N_STEPS + 1):
            gains = np.log(np.maximum((total + found) / step, _LEAST_PROBABILITY)).mean(axis=1)
            best = int(np.argmax(gains))
            total += found[best]
            weights[drawn[best]] += 1
    weights /= weights.sum()
    kept = np.where(weights >= _LEAST_WEIGHT, weights, 0.0)
    return np.asarray(kept / kept.sum())


def fitted_weights(probabilities: Sequence[Floats], right: Ints) -> tuple[Doubles, list[float]]:
    """Return the weight and the temperature of each member.

    Args:
        probabilities: class probabilities by each member, each of shape (rows, classes).
        right: right classes, shape (rows,).
    """
    temperatures = [best_temperature(one, right) for one in probabilities]
    rows = np.arange(len(right))
    of_right = np.stack([calibrated(p, t)[rows, right] for p, t in zip(probabilities, temperatures, strict=True)])
    return bagged_weights(of_right), temperatures


def mixed(probabilities: Sequence[Floats], weights: Sequence[float], temperatures: Sequence[float]) -> Doubles:
    """Return the weighted mean of the calibrated probabilities, shape (rows, classes)."""
    used = [(p, w, t) for p, w, t in zip(probabilities, weights, temperatures, strict=True) if w > 0]
    return np.asarray(sum(w * calibrated(p, t) for p, w, t in used))


def expected_gain(probabilities: Sequence[Floats], right: Ints, metric: Metric, best: int | None = None) -> Gain:
    """Return the gain of an ensemble by cross-fitting, so that the selection does not flatter it.

    Each part of the rows is predicted by the ensemble and by the best single member that the other parts choose. Both
    are calibrated there, so that the log-likelihood tells more than over-confidence.

    Args:
        probabilities: class probabilities by each member, each of shape (rows, classes).
        right: right classes, shape (rows,).
        metric: the main metric, higher is better.
        best: position of the single member to compare with; None is the best by the metric on the other parts.
    """
    order = np.random.default_rng(0).permutation(len(right))
    mixture = np.zeros((len(right), probabilities[0].shape[1]))
    single = np.zeros_like(mixture)
    for part in np.array_split(order, _N_PARTS):
        others = np.setdiff1d(order, part)
        seen = [one[others] for one in probabilities]
        weights, temperatures = fitted_weights(seen, right[others])
        mixture[part] = mixed([one[part] for one in probabilities], list(weights), temperatures)
        at = best
        if at is None:
            at = int(np.argmax([metric(one.argmax(axis=1), right[others]) for one in seen]))
        single[part] = calibrated(probabilities[at][part], temperatures[at])
    rows = _log_of_right(mixture, right) - _log_of_right(single, right)
    found = metric(mixture.argmax(axis=1), right) - metric(single.argmax(axis=1), right)
    return Gain(found, float(rows.mean()), float(rows.std(ddof=1) / np.sqrt(len(rows))))
