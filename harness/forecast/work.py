"""The texts that a fit reads and the bytes that it holds, from the settings in its record."""

from __future__ import annotations

import math
from typing import Final

from harness.forecast.evidence import Point
from harness.forecast.texts import TaskTexts
from harness.records import Facts

STEADY_TOKENS: Final = 128.0
"""Memory that a fit inside the transformer holds even for the shortest texts, in tokens of the longest text.

It holds gradients, the optimiser's state and rounded copies of weights. The log likelihoods of 96, 128 and 192 for the
reference results lie within 1 of each other."""

HEAD_TEXTS: Final = 12.0
"""Work of a logistic regression on frozen features, in encoded texts of 32 tokens; it counts where labels are few."""

_A_LOGIT: Final = 0.0035
"""The same for each text and row of coefficients."""

FROZEN_TOKENS: Final = 20.0
"""The same for a method on frozen features: only prediction holds memory."""

_LEAST_ENTRIES: Final = 3000.0
"""Entries of a matrix of words that the constant part of a fit without a backbone counts as."""

_BY_CLASSES: Final = 0.85
"""Power of the rows of coefficients that such a fit's seconds grow with: their errors in the reference results are half
as large as with the number of labels alone."""

_REPEATED: Final = 3.0
"""Largest mean number of texts with the same term, where texts are counted by their terms."""

_LEAST_BYTES: Final = 1.3e6
"""Least memory of any fit."""

_COEFFICIENT_BYTES: Final = 330.0
"""Memory of a coefficient of a logistic regression while L-BFGS looks for it. Ten pairs of vectors (scipy's `maxcor`)
and five more in float64 are 200; cells of the reference results with many have 290 to 410."""


def log_work(point: Point, texts: TaskTexts) -> float:
    """Return the logarithm of the work of a fit, up to a factor of its method.

    With a backbone it is the texts that the fit reads, times their tokens / 32. Steps are no straight line in the
    number of labels: small fits have a least number of them. The method's settings give the number. Passes per text and
    seconds of a unit of work are fitted for each method.

    Without a backbone it is the entries of the matrix of words, times classes, beside a constant part.
    """
    if point.backbone is not None and not texts.n_train:  # it reads the words of the classes at most
        return math.log(texts.classes or 2)
    if point.backbone is not None:
        head = 0.0
        if point.facts.penalty is not None:
            head = HEAD_TEXTS + _A_LOGIT * texts.n_train * texts.coefficients
        return math.log(texts_read(point.facts, texts.n_train) * (texts.tokens or 32.0) / 32 + head)
    entries = texts.n_train * (texts.tokens or 32.0)
    if texts.terms is not None:  # texts without spaces have one word each
        entries = min(entries, _REPEATED * texts.terms)
    return math.log(_LEAST_ENTRIES + entries * texts.coefficients**_BY_CLASSES)


def longest_read(point: Point, texts: TaskTexts) -> float | None:
    """Return the tokens of the longest text that counts for a fit's bytes; None where it is not known.

    A step of training holds more than prediction does, for its backward pass. A fit on frozen features holds most while
    it encodes, test texts too.
    """
    return texts.longest if point.facts.trains_inside else texts.longest_read


def log_bytes(point: Point, texts: TaskTexts, coefficients: float | None = None) -> float:
    """Return the logarithm of a fit's peak bytes, up to a factor of its method.

    Args:
        point: a point of the method.
        texts: texts of the fit.
        coefficients: number of coefficients of a method without a backbone; None takes the terms of the texts, or
            as many a row as the point has.
    """
    if point.backbone is not None:
        longest = longest_read(point, texts) or 64.0
        usual = min(texts.tokens or 32.0, longest)
        return math.log((longest + usual + (STEADY_TOKENS if point.facts.trains_inside else FROZEN_TOKENS)) / 64)
    if coefficients is None:
        coefficients = _terms(point, texts) * texts.coefficients
    return math.log(_LEAST_BYTES + _COEFFICIENT_BYTES * coefficients)


def _terms(point: Point, texts: TaskTexts) -> float:
    if not point.facts.counts_words and point.trainable:
        return point.trainable / TaskTexts(point.task, 1, classes=point.classes).coefficients
    return texts.terms or texts.n_train * (texts.tokens or 32.0)


def texts_read(facts: Facts, n_train: int) -> float:
    """Return the number of texts that go through the transformer in a fit to `n_train` labels, at least 1.

    A method that takes no steps inside the transformer reads each row once.
    """
    if not facts.trains_inside or facts.fit_length is None:
        return float(max(n_train, 1))
    return float(facts.fit_length.texts(n_train))
