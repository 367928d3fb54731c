"""Find where estimates of numbers are wrong: by the size of the true number, and row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

_N_PARTS = 5
"""Number of groups of test rows, by the true number."""


@dataclass(frozen=True, eq=False)
class NumberAnswers:
    """Estimated and true numbers of the same test rows, by one or several fits.

    Attributes:
        estimate: estimate of each fit and row, shape (n_fits, n_rows).
        truth: true number of each row, shape (n_rows,).
        is_on_scale: whether estimates are in the unit of the true numbers; otherwise only their order has a meaning.
    """

    estimate: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    is_on_scale: bool = True

    @property
    def n_fits(self) -> int:
        """Number of fits."""
        return len(self.estimate)

    @property
    def n_rows(self) -> int:
        """Number of test rows."""
        return len(self.truth)

    @property
    def residual(self) -> npt.NDArray[np.float64]:
        """Estimate less the true number, shape (n_fits, n_rows)."""
        return np.asarray(self.estimate, dtype=np.float64) - np.asarray(self.truth, dtype=np.float64)


def largest_residuals(answers: NumberAnswers, most: int = 10) -> pd.DataFrame:
    """Return the test rows with the largest residuals, as means over the fits; none without a common scale.

    An error that the fits share comes before one of a single fit.

    Columns: row (position among the test rows, from 0), truth, estimate (mean over fits), residual (estimate less
    truth), n_fits.
    """
    mean = answers.residual.mean(axis=0)
    shown = np.lexsort((np.arange(len(mean)), -np.abs(mean)))[: most if answers.is_on_scale else 0]
    truth = np.asarray(answers.truth, dtype=np.float64)
    return pd.DataFrame(
        {
            "row": pd.array(shown, dtype="Int64"),
            "truth": pd.array(truth[shown], dtype="Float64"),
            "estimate": pd.array(truth[shown] + mean[shown], dtype="Float64"),
            "residual": pd.array(mean[shown], dtype="Float64"),
            "n_fits": pd.array([answers.n_fits] * len(shown), dtype="Int64"),
        }
    )


def residuals_by_truth(answers: NumberAnswers) -> pd.DataFrame:
    """Return the errors in five groups of test rows, by the true number; none without a common scale.

    Groups hold about as many rows each; equal numbers share a group. Figures are means over rows and fits. A method
    that estimates too near to the mean has positive residuals in the first group and negative ones in the last.

    Columns: low, high (least and greatest true number), n_test (rows), truth, estimate, residual (estimate less truth),
    mae (mean absolute residual).
    """
    columns = ("low", "high", "n_test", "truth", "estimate", "residual", "mae")
    truth = np.asarray(answers.truth, dtype=np.float64)
    rows: list[tuple[float, ...]] = []
    if answers.is_on_scale and len(truth):
        edges = np.unique(np.quantile(truth, np.arange(1, _N_PARTS) / _N_PARTS))
        part = np.searchsorted(edges, truth, side="left")
        residual = answers.residual
        for which in np.unique(part):
            own, errors = truth[part == which], residual[:, part == which]
            mean, error = float(own.mean()), float(errors.mean())
            rows.append((own.min(), own.max(), len(own), mean, mean + error, error, float(np.abs(errors).mean())))
    dtypes = {name: "Int64" if name == "n_test" else "Float64" for name in columns}
    return pd.DataFrame(
        {name: pd.array([row[i] for row in rows], dtype=dtypes[name]) for i, name in enumerate(columns)}  # type: ignore[call-overload]
    )
