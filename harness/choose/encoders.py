"""Expect scores on one backbone from those on another: larger ones do better, by an uncertain amount."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.backbones import BackboneFiles
from harness.cost import read_shape
from harness.forecast import Doubles

if TYPE_CHECKING:
    from harness.choose.candidates import Candidate

_PER_DOUBLING: Final = 0.2
"""Logits by which a backbone of the same kind with twice the weights in its blocks does better.

`full` at 256 labels: all-mpnet-base-v2, with 8 times the weights of all-MiniLM-L6-v2, was 0.5, 0.7 and 0.2 better on
TREC, SST-2 and Banking77; paraphrase-MiniLM-L3-v2, with half of them, was 1.5, 0.3 and 0.5 worse."""

_OTHER_KIND: Final = -0.3
"""The same for a backbone of another architecture than the one that was measured."""

_SPREAD: Final = 0.35
_SPREAD_OF_OTHERS: Final = 0.6
"""Standard deviation of the effect of a backbone on all methods, in logits; the second is for another architecture."""

_SPREAD_OF_PART: Final = 0.2
"""Standard deviation of its effect on methods with frozen features, and on those that train inside, in logits."""


def backbone_effects(candidates: Sequence[Candidate], known: BackboneFiles | None) -> tuple[Doubles, Doubles]:
    """Return mean, shape (m,), and covariance, shape (m, m), of what the backbones of m candidates add, in logits.

    Args:
        candidates: the candidates.
        known: the backbone of the measurements on other tasks; None if there is none, or it does not matter.
    """
    m = len(candidates)
    mean, covariance = np.zeros(m), np.zeros((m, m))
    others = [
        one.files
        if known is not None and one.files is not None and one.files.fingerprint != known.fingerprint
        else None
        for one in candidates
    ]
    for i, files in enumerate(others):
        if files is None or known is None:
            continue
        if files.architecture == "served":  # its size is unknown
            for j, other in enumerate(others):
                if other is not None and other.fingerprint == files.fingerprint:
                    covariance[i, j] = _SPREAD_OF_OTHERS**2
            continue
        same_kind = files.architecture == known.architecture
        doublings = math.log2(block_weights(files) / block_weights(known))
        mean[i] = _PER_DOUBLING * doublings + (0.0 if same_kind else _OTHER_KIND)
        for j, other in enumerate(others):
            if other is not None and other.fingerprint == files.fingerprint:
                covariance[i, j] = (_SPREAD if same_kind else _SPREAD_OF_OTHERS) ** 2
                if candidates[i].is_cheap == candidates[j].is_cheap:
                    covariance[i, j] += _SPREAD_OF_PART**2
    return mean, covariance


def block_weights(files: BackboneFiles) -> float:
    """Return the number of weights in the blocks of a backbone, which its time of reading a text grows with.

    It is 1 where its configuration does not tell.
    """
    shape = read_shape(files.folder)
    return 1.0 if shape is None else float(max(1, shape.n_blocks * shape.block_parameters))
