"""A learning curve of one method on a user's own labels: a power law to an asymptote, with a prior from records.

On the scale of logits, the score at n labels is

    y(n) = level + slope · (1 - r^-bend) / bend,    r = n / (most labels that were measured)

`slope` is the gain in logits per factor e of labels where the measurements end, and `level + slope / bend` is the
asymptote. For a given bend the curve is linear in the other two, so that their posterior is exact; the posterior of all
three is a mixture over a grid of bends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtr, ndtri

from harness.forecast.curves import logit_variance, shrunk
from harness.forecast.pooled import Doubles


@dataclass(frozen=True)
class Constants:
    """Spreads of logits that the model takes as known, and the prior of the bend.

    Attributes:
        level: standard deviation of the level around `middle`.
        middle: mean of the level.
        slope: standard deviation of a curve's slope around the mean that its method leads to expect.
        bend, bend_sd: mean and standard deviation of the bend, before the grid cuts its distribution off.
        off: standard deviation of each measured size around its curve, beyond rows and draws.
        unshared: share of a score's row noise that two sizes do not have in common, on the same test rows.
        draw: standard deviation between draws of `draw_labels` labels.
        draw_power: power of the number of labels with which that standard deviation falls.
        draw_counts: draws that this expectation counts as much as, beside the user's own.
    """

    level: float = 2.0
    middle: float = 1.0
    slope: float = 0.11
    bend: float = 0.35
    bend_sd: float = 0.35
    off: float = 0.02
    unshared: float = 0.25
    draw: float = 0.08
    draw_power: float = 0.5
    draw_counts: float = 5.0


_DRAW_LABELS: Final = 256.0

_BENDS: Final = np.array([-0.3, -0.2, -0.1, 0.001, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3])
"""Grid of bends: 0.001 is nearly a straight line in the logarithm of labels; a curve with less has no asymptote yet."""


OWN_CURVES: Final = Constants()
"""Spreads of the reference results: they make the measured scores of held-out larger sizes most likely."""


@dataclass(frozen=True)
class Scores:
    """Scores of one method at one number of labels.

    Attributes:
        n_train: number of labels.
        shares: score of each draw, as a share of the way from the metric's worst value to its best.
        n_rows: number of test rows of all draws together that are worth as much as these; the same rows count once.
        n_apart: number of draws that tell as much as these, if none had labels in common.
        same_rows: whether all draws were scored on the same rows, so that they differ by their labels alone.
    """

    n_train: float
    shares: tuple[float, ...]
    n_rows: float
    n_apart: float
    same_rows: bool = True

    @property
    def mean(self) -> float:
        """Mean share over the draws."""
        return sum(self.shares) / len(self.shares)


@dataclass(frozen=True)
class SlopeBelief:
    """What is expected of a curve's slope before it is measured.

    Attributes:
        mean: expected slope, in logits per factor e of labels.
        sd: its standard deviation.
    """

    mean: float
    sd: float


@dataclass(frozen=True)
class OwnCurve:
    """The posterior of a curve, as equally likely draws.

    Attributes:
        largest, smallest: most and fewest labels that were measured.
        level, slope, bend: the draws; shape (n_draws,).
        shared: standard deviation, in logits, that the test rows give all sizes in common.
        rows: number of test rows.
        draw_ratio: standard deviation between draws, as a multiple of the expected one.
        constants: spreads.
    """

    largest: float
    smallest: float
    level: Doubles
    slope: Doubles
    bend: Doubles
    shared: float
    rows: float
    draw_ratio: float
    constants: Constants

    def at(self, n_train: float) -> Doubles:
        """Return draws of the share that the method reaches with so many labels, on these very test rows."""
        return np.asarray(expit(self._logits(n_train)), dtype=np.float64)

    def on_new_rows(self, n_train: float) -> Doubles:
        """Return draws of the share that the method reaches with so many labels on other rows of the same sort."""
        noise = self.shared * _spread(len(self.level))
        return np.asarray(expit(self._logits(n_train) + noise), dtype=np.float64)

    def of_measurement(self, n_train: float, n_draws: int = 1) -> Doubles:
        """Return draws of the mean share that so many fits would measure, on these very test rows."""
        logits = self._logits(n_train)
        share = float(expit(np.median(logits)))
        c = self.constants
        rows = c.unshared * logit_variance(share, self.rows)
        sd = math.sqrt(c.off**2 + rows + (self.draw_ratio * draw_sd(n_train, c)) ** 2 / n_draws)
        return np.asarray(expit(logits + sd * _spread(len(logits))), dtype=np.float64)

    def _logits(self, n_train: float) -> Doubles:
        return np.asarray(self.level + self.slope * _rise(n_train / self.largest, self.bend), dtype=np.float64)


def fit_curve(
    scores: Sequence[Scores],
    belief: SlopeBelief,
    constants: Constants = OWN_CURVES,
    n_draws: int = 4000,
    seed: int = 0,
) -> OwnCurve:
    """Return the posterior of the curve of one method, from its scores at two numbers of labels or more.

    Args:
        scores: scores at different numbers of labels, on the same test rows.
        belief: expected slope.
        constants: spreads.
        n_draws: number of draws.
        seed: seed of the draws.
    """
    largest = max(one.n_train for one in scores)
    values = np.array([_logit(shrunk(one.mean, one.n_rows)) for one in scores])
    of_rows = np.array([logit_variance(shrunk(one.mean, one.n_rows), one.n_rows) for one in scores])
    ratio = _draw_ratio(scores, constants)
    of_draws = np.array([(ratio * draw_sd(one.n_train, constants)) ** 2 / one.n_apart for one in scores])
    noise = constants.off**2 + constants.unshared * of_rows + of_draws
    prior_mean = np.array([constants.middle, belief.mean])
    prior_precision = np.diag([constants.level**-2, belief.sd**-2])
    log_weights, means, covariances = [], [], []
    for bend, prior in zip(_BENDS, _bend_prior(constants), strict=True):
        design = np.stack(
            [np.ones(len(scores)), [float(_rise(one.n_train / largest, bend)) for one in scores]], axis=1
        )
        precision = prior_precision + design.T @ (design / noise[:, None])
        covariance = np.linalg.inv(precision)
        mean = covariance @ (prior_precision @ prior_mean + design.T @ (values / noise))
        spread = design @ np.linalg.inv(prior_precision) @ design.T + np.diag(noise)
        off = values - design @ prior_mean
        evidence = -0.5 * (np.linalg.slogdet(spread)[1] + off @ np.linalg.solve(spread, off))
        rises = float(ndtr(mean[1] / math.sqrt(covariance[1, 1]))) / float(ndtr(belief.mean / belief.sd))
        log_weights.append(math.log(prior) + evidence + math.log(max(rises, 1e-300)))
        means.append(mean)
        covariances.append(covariance)
    weights = np.exp(np.array(log_weights) - max(log_weights))
    weights /= weights.sum()
    generator = np.random.default_rng(seed)
    which = np.repeat(np.arange(len(weights)), _apportioned(weights, n_draws))
    generator.shuffle(which)
    level, slope = _draw(np.array(means)[which], np.array(covariances)[which], generator)
    shared = math.sqrt((1 - constants.unshared) * float(of_rows[int(np.argmax([s.n_train for s in scores]))]))
    rows = max(one.n_rows for one in scores)
    return OwnCurve(largest, min(one.n_train for one in scores), level, slope, _BENDS[which], shared, rows, ratio, constants)


def draw_sd(n_train: float, constants: Constants) -> float:
    """Return the standard deviation of a score, in logits, between draws of so many labels."""
    return constants.draw * (n_train / _DRAW_LABELS) ** -constants.draw_power


def _draw_ratio(scores: Sequence[Scores], constants: Constants) -> float:
    """Return the standard deviation between the draws, as a multiple of the expected one, drawn to 1."""
    total, counts = constants.draw_counts, constants.draw_counts
    for one in scores:
        if one.same_rows and len(one.shares) > 1 and one.n_apart > 1:
            logits = [_logit(shrunk(share, one.n_rows)) for share in one.shares]
            # Draws that have labels in common differ less than others do.
            less = (one.n_apart - 1) / (len(one.shares) - 1)
            total += float(np.var(logits, ddof=1)) * (len(logits) - 1) / draw_sd(one.n_train, constants) ** 2
            counts += (len(logits) - 1) * less
    return math.sqrt(total / counts)


def _bend_prior(constants: Constants) -> Doubles:
    """Return the prior weights of the grid's bends: densities times the widths of the cells."""
    widths = np.gradient(_BENDS)
    weights = widths * np.exp(-0.5 * ((_BENDS - constants.bend) / constants.bend_sd) ** 2)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _rise(ratio: float, bend: float | Doubles) -> Doubles:
    """Return (1 - ratio^-bend) / bend: about the logarithm of the ratio for a small bend."""
    return np.asarray(-np.expm1(-np.asarray(bend) * math.log(ratio)) / bend, dtype=np.float64)


def _draw(means: Doubles, covariances: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
    """Return draws of level and slope; the slope is at least 0."""
    sd = np.sqrt(covariances[:, 1, 1])
    least = ndtr(-means[:, 1] / sd)
    slope = means[:, 1] + sd * ndtri(np.clip(least + (1 - least) * generator.random(len(sd)), 1e-12, 1 - 1e-12))
    slope = np.maximum(slope, 0.0)
    gain = covariances[:, 0, 1] / covariances[:, 1, 1]
    rest = np.sqrt(np.maximum(covariances[:, 0, 0] - gain * covariances[:, 0, 1], 0.0))
    level = means[:, 0] + gain * (slope - means[:, 1]) + rest * generator.standard_normal(len(sd))
    return level, slope


def _apportioned(weights: Doubles, n: int) -> npt.NDArray[np.int64]:
    """Return whole numbers that add up to n and are nearest to its shares."""
    shares = weights * n
    counts = np.floor(shares).astype(np.int64)
    counts[np.argsort(counts - shares)[: n - int(counts.sum())]] += 1
    return counts


def _spread(n: int) -> Doubles:
    """Return n standard normal values in a fixed order."""
    return np.random.default_rng(1).standard_normal(n)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
