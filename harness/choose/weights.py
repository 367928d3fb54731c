"""Weights of an ensemble's members, and the gain to expect of it, from class probabilities of validation rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harness.forecast import Doubles
from harness.saved import calibrated, mixed
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

_ROUNDING: Final = 1e-9

_N_DRAWS: Final = 200
"""Draws of the validation rows, with replacement, for the standard error of the gain in the main metric."""

Metric = Callable[[Any, Ints], float]
"""A function of class probabilities, shape (rows, classes), and right classes, shape (rows,); higher is better."""


@dataclass(frozen=True)
class Gain:
    """The gain of an ensemble over the best single member, on rows that chose neither.

    Attributes:
        metric: gain in the main metric.
        metric_error: its standard error over rows.
        log_loss: gain in the mean log-likelihood of the right class.
        log_loss_error: its standard error over rows.
        n_rows: number of rows.
    """

    metric: float
    metric_error: float
    log_loss: float
    log_loss_error: float
    n_rows: int

    @property
    def is_above_noise(self) -> bool:
        """Whether the log-likelihood gains more than its error, and the metric does not lose more than its own.

        A few hundred rows hardly tell two accuracies apart. The log-likelihood of calibrated probabilities tells much
        more, and an ensemble that gains in it gains in accuracy on average (docs/decisions/0042).
        """
        return self.log_loss > max(self.log_loss_error, _ROUNDING) and self.metric >= -self.metric_error


def best_temperature(probabilities: Floats, right: Ints) -> float:
    """Return the temperature that gives the right classes the highest likelihood (Guo et al., 2017).

    Args:
        probabilities: shape (rows, classes).
        right: right classes, shape (rows,).
    """
    likely = [_log_of_right(calibrated(probabilities, float(t)), right).mean() for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmax(likely))])


def _log_of_right(probabilities: Doubles | Floats, right: Ints) -> Doubles:
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


def expected_gain(probabilities: Sequence[Floats], right: Ints, metric: Metric) -> Gain:
    """Return the gain of an ensemble by cross-fitting, so that the selection does not flatter it.

    Each part of the rows is predicted by the ensemble, and by the best single member, that the other parts choose. Both
    are calibrated there, so that the log-likelihood does not only tell who is over-confident.

    Args:
        probabilities: class probabilities by each member, each of shape (rows, classes).
        right: right classes, shape (rows,).
        metric: the main metric.
    """
    generator = np.random.default_rng(0)
    n = len(right)
    mixture = np.zeros(probabilities[0].shape)
    single = np.zeros_like(mixture)
    for part in np.array_split(generator.permutation(n), _N_PARTS):
        others = np.setdiff1d(np.arange(n), part)
        seen = [one[others] for one in probabilities]
        weights, temperatures = fitted_weights(seen, right[others])
        mixture[part] = mixed([one[part] for one in probabilities], list(weights), temperatures)
        best = int(np.argmax([metric(one, right[others]) for one in seen]))
        single[part] = calibrated(probabilities[best][part], temperatures[best])
    rows = _log_of_right(mixture, right) - _log_of_right(single, right)

    def gain(at: Ints) -> float:
        return metric(mixture[at], right[at]) - metric(single[at], right[at])

    draws = [gain(generator.integers(0, n, n)) for _ in range(_N_DRAWS)]
    return Gain(gain(np.arange(n)), float(np.std(draws)), float(rows.mean()), float(rows.std(ddof=1) / np.sqrt(n)), n)
