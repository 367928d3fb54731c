"""SQuAD's two metrics of an answer's text against a question's references."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import Final

import numpy as np

from harness.metrics.base import MetricSpec, Statistics, metrics

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)
_SOURCE = "SQuAD, Rajpurkar et al., 2016, arXiv:1606.05250; its evaluate-v1.1.py"


def _normalise_answer(text: str) -> str:
    """Return an answer as SQuAD compares it: lower case, no ASCII punctuation, no English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def _word_f1(prediction: str, reference: str) -> float:
    """Return the F1 of the words of two normalised answers, 0 to 1; 0 where they share none."""
    words, right = prediction.split(), reference.split()
    n_shared = (Counter(words) & Counter(right)).total()
    if n_shared == 0:
        return 0.0
    precision, recall = n_shared / len(words), n_shared / len(right)
    return 2 * precision * recall / (precision + recall)


def _squad_f1(predictions: list[str], references: list[list[str]]) -> Statistics:
    scores = [
        max(_word_f1(_normalise_answer(text), _normalise_answer(right)) for right in rights)
        for text, rights in zip(predictions, references, strict=True)
    ]
    return {"squad_f1": np.array(scores, dtype=np.float64)}


def _squad_exact_match(predictions: list[str], references: list[list[str]]) -> Statistics:
    matches = [
        _normalise_answer(text) in {_normalise_answer(right) for right in rights}
        for text, rights in zip(predictions, references, strict=True)
    ]
    return {"squad_exact_match": np.array(matches, dtype=np.int8)}


metrics.add(
    "squad_f1",
    MetricSpec(
        name="squad_f1",
        scores=frozenset({"spans"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=True,
        description="F1 of the words of answer and reference, the best of a row's references, averaged over rows.",
        source=_SOURCE,
        inputs=("text", "texts"),
        measure=_squad_f1,
        statistics=("squad_f1",),
    ),
)
metrics.add(
    "squad_exact_match",
    MetricSpec(
        name="squad_exact_match",
        scores=frozenset({"spans"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=True,
        description="Share of rows whose answer is one of the references, both normalised.",
        source=_SOURCE,
        inputs=("text", "texts"),
        measure=_squad_exact_match,
        statistics=("squad_exact_match",),
    ),
)
