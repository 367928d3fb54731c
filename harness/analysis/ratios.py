"""Test whether costs changed by more than a tolerance, from the logarithms of paired ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.stats


@dataclass(frozen=True)
class RatioTest:
    """A mean ratio with its interval and test.

    Attributes:
        ratio: geometric mean of the ratios.
        low, high: ends of its interval.
        p_value: two-sided p-value of the hypothesis that the ratio lies within the tolerance.
    """

    ratio: float
    low: float
    high: float
    p_value: float


def mean_log_ratio(logs: npt.ArrayLike, tolerance: float = 0.0, level: float = 0.95) -> RatioTest:
    """Return the mean of paired ratios, by Student's t on their logarithms.

    The test is at the nearer end of the tolerance, which is where it rejects a change within it most often. Without a
    tolerance, it is the paired t-test on logarithms. Ratios that are all equal leave no doubt.

    Args:
        logs: logarithms of the ratios, at least 2.
        tolerance: relative change that does not count: 0.1 for ratios from 1 / 1.1 to 1.1.
        level: coverage of the interval.

    Raises:
        ValueError: fewer than two ratios, one that is not finite, or a negative tolerance.
    """
    values = np.asarray(logs, dtype=np.float64)
    if values.ndim != 1 or values.size < 2 or not np.isfinite(values).all():
        raise ValueError(f"{values.size} logarithms of ratios were given; expected at least 2 finite ones.")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"A tolerance of {tolerance} was given; expected 0 or more.")
    n, mean = values.size, float(values.mean())
    beyond = abs(mean) - math.log1p(tolerance)
    if np.ptp(values) < 1e-12:  # rounding of equal ratios
        ratio = math.exp(mean)
        return RatioTest(ratio, ratio, ratio, 0.0 if beyond > 1e-12 else 1.0)
    error = float(values.std(ddof=1)) / math.sqrt(n)
    half = float(scipy.stats.t.ppf((1 + level) / 2, n - 1)) * error
    p_value = min(1.0, 2 * float(scipy.stats.t.sf(beyond / error, n - 1)))
    return RatioTest(math.exp(mean), math.exp(mean - half), math.exp(mean + half), p_value)
