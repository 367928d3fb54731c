"""How much a fit reads and holds, by the settings that its record states: what its seconds and bytes grow with."""

from __future__ import annotations

import math
from typing import Final

from harness.advice.evidence import Point
from harness.advice.texts import TaskTexts
from harness.records import Facts

STEADY_TOKENS: Final = 128.0
"""Memory that a fit inside the transformer holds however short its texts are, in tokens of the longest text.

It holds gradients, the optimiser's state and rounded copies of weights. The log likelihoods of 96, 128 and 192 for the
reference results lie within 1 of each other."""

_LEAST_BYTES: Final = 1.3e6
"""Memory that a fit of anything takes."""

_COEFFICIENT_BYTES: Final = 330.0
"""Memory of a coefficient of a logistic regression while L-BFGS looks for it. Ten pairs of vectors (scipy's `maxcor`)
and five more in float64 are 200; cells of the reference results with many have 290 to 410."""


def log_work(point: Point, n_train: int, tokens: float | None) -> float:
    """Logarithm of the texts that a fit to `n_train` labels reads, times their tokens (of 32).

    A small fit has as many steps as a somewhat larger one, and a large one as many as its rows: its settings tell,
    where a straight line in the number of labels does not. How many passes a text of a step takes is the method's own,
    and so is what a unit of work takes; methods without a backbone grow with their rows.
    """
    if point.backbone is None:
        return math.log(max(n_train, 1))
    return math.log(texts_read(point.facts, n_train) * (tokens or 32.0) / 32)


def longest_read(point: Point, texts: TaskTexts) -> float | None:
    """Tokens of the longest text that a fit's bytes go by.

    A step of training holds what its backward pass needs, more than predicting does; what trains on features holds most
    while it encodes, of texts to predict too.
    """
    return texts.longest if point.facts.trains_inside else texts.longest_read


def log_bytes(point: Point, texts: TaskTexts, coefficients: float | None = None) -> float:
    """Logarithm of what a fit holds at most, up to a factor of its method.

    Args:
        point: of the method.
        texts: it is fitted to.
        coefficients: of a method that reads no transformer, where they are known; else by the terms of the texts, or as
            many a row as the point has.
    """
    if point.backbone is not None:
        longest = longest_read(point, texts) or 64.0
        return math.log((longest + STEADY_TOKENS if point.facts.trains_inside else longest) / 64)
    if coefficients is None:
        coefficients = _terms(point, texts) * texts.coefficients
    return math.log(_LEAST_BYTES + _COEFFICIENT_BYTES * coefficients)


def _terms(point: Point, texts: TaskTexts) -> float:
    if not point.facts.counts_words and point.trainable:
        return point.trainable / TaskTexts(1, classes=point.classes).coefficients
    return texts.terms or texts.n_train * (texts.tokens or 32.0)


def texts_read(facts: Facts, n_train: int) -> float:
    """Return the texts that go through the transformer in a fit to `n_train` labels, at least 1.

    A method that takes no steps inside the transformer grows with its rows.
    """
    if not facts.trains_inside or facts.fit_length is None:
        return float(max(n_train, 1))
    return float(facts.fit_length.texts(n_train))
