"""Perplexity, from each row's summed negative log-likelihood and its number of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.metrics.base import MetricSpec, Statistics, metrics


def _likelihoods(nll: npt.NDArray[Any], n_tokens: npt.NDArray[np.int64]) -> Statistics:
    return {"nll": nll, "n_tokens": n_tokens.astype(np.int32)}


def _perplexity(rows: Statistics) -> float:
    n_tokens = int(rows["n_tokens"].sum(dtype=np.int64))
    if (rows["n_tokens"] < 0).any() or n_tokens == 0:
        raise ValueError(
            f"perplexity is a mean over tokens: every row has 0 or more, and these have {n_tokens} in all."
        )
    with np.errstate(over="ignore"):  # beyond the largest number it is inf, which is within the range
        return float(np.exp(rows["nll"].sum(dtype=np.float64) / n_tokens))


metrics.add(
    "perplexity",
    MetricSpec(
        name="perplexity",
        scores=frozenset({"generation"}),
        higher_is_better=False,
        low=1.0,
        high=None,
        mean_over_rows=False,
        description="exp of the mean negative log-likelihood (natural logarithm) of a token, from each row's sum and "
        "its number of tokens. Comparable between models of one tokenizer only.",
        source="Jelinek et al., 1977, doi:10.1121/1.2016299; huggingface.co/docs/transformers/perplexity",
        inputs=("real", "count"),
        measure=_likelihoods,
        statistics=("nll", "n_tokens"),
        combine=_perplexity,
    ),
)
