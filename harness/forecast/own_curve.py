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

from harness.forecast.pooled import Doubles
from harness.forecast.scale import logit_variance, shrunk


@dataclass(frozen=True)
class Constants:
    """Spreads of logits that the model takes as known, and the prior of the bend.

    Attributes:
        level: standard deviation of the level around `middle`.
        middle: mean of the level.
        slope: standard deviation of a curve's slope around the mean that its method leads to expect.
        method: standard deviation of a method's mean slope around that of all methods.
        bend, bend_sd: mean and standard deviation of the bend, before the grid cuts its distribution off.
        bend_counts: curves that the bends of all methods count as much as, beside a method's own.
        off: standard deviation of each measured size around its curve, beyond rows and draws.
        unshared: share of a score's row noise that two sizes do not have in common, on the same test rows.
        beyond: standard deviation of the logarithm of the rise beyond the most labels that were measured, around the
            rise that the curve's form states.
        draw: standard deviation between draws of `draw_labels` labels.
        draw_power: power of the number of labels with which that standard deviation falls.
        draw_counts: draws that this expectation counts as much as, beside the user's own.
    """

    level: float = 2.0
    middle: float = 1.0
    slope: float = 0.13
    method: float = 0.15
    bend: float = 0.5
    bend_sd: float = 0.35
    bend_counts: float = 3.0
    off: float = 0.02
    unshared: float = 0.2
    beyond: float = 0.15
    draw: float = 0.06
    draw_power: float = 0.5
    draw_counts: float = 5.0


_DRAW_LABELS: Final = 256.0

BENDS: Final = np.array([-0.3, -0.2, -0.1, 0.001, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3])
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
class CurveBelief:
    """Expectation of a curve before it is measured.

    Attributes:
        slope: expected slope, in logits per factor e of labels.
        sd: its standard deviation.
        bends: probability of each bend of `BENDS`.
    """

    slope: float
    sd: float
    bends: tuple[float, ...]


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
        beyond: factor of the rise beyond the most labels that were measured; shape (n_draws,).
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
    beyond: Doubles

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
        rise = self.slope * _rise(n_train / self.largest, self.bend)
        return np.asarray(self.level + (rise * self.beyond if n_train > self.largest else rise), dtype=np.float64)


def fit_curve(
    scores: Sequence[Scores],
    belief: CurveBelief,
    constants: Constants = OWN_CURVES,
    n_draws: int = 4000,
    seed: int = 0,
) -> OwnCurve:
    """Return the posterior of the curve of one method, from its scores at two numbers of labels or more.

    Args:
        scores: scores at different numbers of labels, on the same test rows.
        belief: expected slope and bend.
        constants: spreads.
        n_draws: number of draws.
        seed: seed of the draws.
    """
    found = Conditional(scores, belief, constants)
    log_weights = np.log(np.maximum(np.array(belief.bends), 1e-300)) + found.log_evidence
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    generator = np.random.default_rng(seed)
    which = np.repeat(np.arange(len(weights)), _apportioned(weights, n_draws))
    generator.shuffle(which)
    level, slope = _draw(found.means[which], found.covariances[which], generator)
    last = max(scores, key=lambda one: one.n_train)
    of_rows = logit_variance(shrunk(last.mean, last.n_rows), last.n_rows)
    return OwnCurve(
        largest=last.n_train,
        smallest=min(one.n_train for one in scores),
        level=level,
        slope=slope,
        bend=BENDS[which],
        shared=math.sqrt((1 - constants.unshared) * of_rows),
        rows=max(one.n_rows for one in scores),
        draw_ratio=found.draw_ratio,
        constants=constants,
        beyond=np.exp(constants.beyond * generator.standard_normal(n_draws)),
    )


class Conditional:
    """The posterior of level and slope for each bend of `BENDS`.

    Args:
        scores: scores at different numbers of labels, on the same test rows.
        belief: expected slope.
        constants: spreads.

    Attributes:
        log_evidence: logarithm of the likelihood of the scores; shape (bends,).
        means, covariances: posterior of level and slope; shapes (bends, 2) and (bends, 2, 2).
        draw_ratio: standard deviation between draws, as a multiple of the expected one.
    """

    def __init__(self, scores: Sequence[Scores], belief: CurveBelief, constants: Constants = OWN_CURVES) -> None:
        n_train = np.array([one.n_train for one in scores])
        shares = [shrunk(one.mean, one.n_rows) for one in scores]
        values = np.array([_logit(share) for share in shares])
        of_rows = np.array([logit_variance(p, one.n_rows) for p, one in zip(shares, scores, strict=True)])
        self.draw_ratio = _draw_ratio(scores, constants)
        of_draws = np.array([(self.draw_ratio * draw_sd(one.n_train, constants)) ** 2 / one.n_apart for one in scores])
        noise = constants.off**2 + constants.unshared * of_rows + of_draws
        prior_mean = np.array([constants.middle, belief.slope])
        prior = np.diag([constants.level**2, belief.sd**2])
        rises = _rise(n_train[None, :] / n_train.max(), BENDS[:, None])
        design = np.stack([np.ones_like(rises), rises], axis=2)  # shape (bends, sizes, 2)
        spread = design @ prior @ design.transpose(0, 2, 1) + np.diag(noise)
        off = values - design @ prior_mean
        solved = np.linalg.solve(spread, off[..., None])[..., 0]
        gain = prior @ design.transpose(0, 2, 1) @ np.linalg.inv(spread)
        self.means = prior_mean + (gain @ off[..., None])[..., 0]
        self.covariances = prior - gain @ design @ prior
        evidence = -0.5 * (np.linalg.slogdet(spread)[1] + (off * solved).sum(axis=1))
        # The slope is at least 0: the likelihood is that of the part of the prior where it is.
        rising = ndtr(self.means[:, 1] / np.sqrt(self.covariances[:, 1, 1])) / ndtr(belief.slope / belief.sd)
        self.log_evidence = np.asarray(evidence + np.log(np.maximum(rising, 1e-300)), dtype=np.float64)


def draw_sd(n_train: float, constants: Constants) -> float:
    """Return the standard deviation of a score, in logits, between draws of so many labels."""
    return float(constants.draw * (n_train / _DRAW_LABELS) ** -constants.draw_power)


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


def usual_bends(constants: Constants = OWN_CURVES) -> Doubles:
    """Return the probabilities of the bends of a curve of which nothing is known: densities times widths of cells."""
    widths = np.gradient(BENDS)
    weights = widths * np.exp(-0.5 * ((BENDS - constants.bend) / constants.bend_sd) ** 2)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _rise(ratio: float | Doubles, bend: Doubles) -> Doubles:
    """Return (1 - ratio^-bend) / bend: about the logarithm of the ratio for a small bend."""
    return np.asarray(-np.expm1(-bend * np.log(ratio)) / bend, dtype=np.float64)


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
