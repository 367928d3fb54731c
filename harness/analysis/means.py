"""Average scores over the fits that have them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def mean_over_fits(values: npt.NDArray[np.float64] | Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Return the mean over fits, shape (n_fits, n), over those that have a value; NaN where none has."""
    stacked = np.stack(list(values))
    n_known = (~np.isnan(stacked)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        mean: npt.NDArray[np.float64] = np.nansum(stacked, axis=0) / n_known
    return mean
