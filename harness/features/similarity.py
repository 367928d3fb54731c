"""Similarity of two sets of features of the same texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_MIN_ROWS = 4
"""Minimum number of rows for which the debiased estimate exists."""

_NO_SPREAD = 1e-12
"""Smallest variation of the similarities between rows, as a share of their size, from which CKA can be computed."""


def debiased_cka(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return the linear centred kernel alignment (CKA) of two sets of features of the same rows, debiased.

    It is the cosine of the two Gram matrices, centred such that the estimate of HSIC has no bias (Song et al., 2012,
    JMLR 13:1393; Kornblith et al., 2019, arXiv:1905.00414). The plain estimate is close to 1 for any two sets of
    features that are wider than there are rows. Equal features give exactly 1.

    Args:
        first: features, shape (rows, width).
        second: features of the same rows, shape (rows, another width).

    Raises:
        ValueError: there are fewer than four rows, or the numbers of rows differ.
        FloatingPointError: the rows of one set do not differ, or a feature is not finite.
    """
    grams = [_gram(features) for features in (first, second)]
    if grams[0].shape != grams[1].shape or len(grams[0]) < _MIN_ROWS:
        counts = " and ".join(str(len(gram)) for gram in grams)
        raise ValueError(f"CKA was given {counts} rows of features; expected at least {_MIN_ROWS}, the same of both.")
    sizes = [float(np.square(gram).sum()) for gram in grams]
    centred = [_centred(gram) for gram in grams]
    norms = [float((gram * gram).sum()) for gram in centred]
    if not all(norm > _NO_SPREAD * size for norm, size in zip(norms, sizes, strict=True)):
        raise FloatingPointError("CKA is unknown: the features of all rows are the same, or one is not finite.")
    return float((centred[0] * centred[1]).sum() / np.sqrt(norms[0] * norms[1]))


def _gram(features: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values: npt.NDArray[Any] = np.asarray(features, dtype=np.float64)
    return np.asarray(values @ values.T)


def _centred(gram: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a Gram matrix without its diagonal, centred without bias (U-centring)."""
    n = len(gram)
    own = gram.copy()
    np.fill_diagonal(own, 0.0)
    sums = own.sum(axis=1) / (n - 2)
    own += own.sum() / ((n - 1) * (n - 2)) - sums[:, None] - sums[None, :]
    np.fill_diagonal(own, 0.0)
    return own
