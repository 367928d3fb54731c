"""Spans and their F1 against seqeval, on random tags of both schemes and in both of its modes."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, IOBES, Entities

from harness.metrics import metrics
from harness.metrics.label_sets import f1_of
from harness.metrics.tags import find_spans, span_counts, types_of

TYPES = ("LOC", "ORG", "a-b")
PREFIXES = {"IOB2": "BI", "IOBES": "BIES"}
SCHEMES = {"IOB2": IOB2, "IOBES": IOBES}
N_SEQUENCES = 10_000


@functools.cache
def sequences(scheme: str, seed: int) -> list[list[str]]:
    """Random tags, most of which break the scheme somewhere."""
    draw = np.random.default_rng([seed, len(scheme)])
    tags = np.array(["O", *(f"{prefix}-{kind}" for prefix in PREFIXES[scheme] for kind in TYPES)])
    weights = np.array([3, *(2 if prefix == "I" else 1 for prefix in PREFIXES[scheme] for _ in TYPES)], dtype=float)
    return [
        list(map(str, draw.choice(tags, draw.integers(1, 13), p=weights / weights.sum()))) for _ in range(N_SEQUENCES)
    ]


@functools.cache
def both(scheme: str) -> tuple[list[list[str]], list[list[str]]]:
    """Right tags, and predictions that share most of them."""
    draw = np.random.default_rng(9)
    right, others = sequences(scheme, 0), sequences(scheme, 1)
    predicted = [
        [tag if draw.random() < 0.8 else other[place % len(other)] for place, tag in enumerate(tags)]
        for tags, other in zip(right, others, strict=True)
    ]
    return predicted, right


@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_are_seqevals_in_both_modes(scheme: str) -> None:
    rows = sequences(scheme, 0)
    assert [find_spans(tags) for tags in rows] == [get_entities(tags) for tags in rows]
    strict = [
        [(one.tag, one.start, one.end - 1) for one in found] for found in Entities(rows, SCHEMES[scheme]).entities
    ]
    assert [find_spans(tags, scheme) for tags in rows] == strict


@pytest.mark.parametrize("scheme", SCHEMES)
def test_span_f1_is_seqevals_in_both_modes(scheme: str) -> None:
    predicted, right = both(scheme)
    micro, macro = metrics.get("span_f1"), metrics.get("span_f1_macro")
    assert micro.compute(predicted, right) == pytest.approx(f1_score(right, predicted), abs=1e-12)
    assert macro.compute(predicted, right) == pytest.approx(f1_score(right, predicted, average="macro"), abs=1e-12)
    assert metrics.get("token_accuracy").compute(predicted, right) == pytest.approx(
        accuracy_score(right, predicted), abs=1e-12
    )
    strict = span_counts(predicted, right, TYPES, scheme)
    asked = {"mode": "strict", "scheme": SCHEMES[scheme]}
    assert f1_of(*strict.sum(axis=(0, 1))) == pytest.approx(f1_score(right, predicted, **asked), abs=1e-12)
    assert f1_of(*strict.sum(axis=0).T).mean() == pytest.approx(
        f1_score(right, predicted, average="macro", **asked), abs=1e-12
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_single_sentences_score_as_seqeval_scores_them(scheme: str) -> None:
    predicted, right = both(scheme)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns where nothing was predicted or is true
        for given, wanted in list(zip(predicted, right, strict=True))[:400]:
            expected = f1_score([wanted], [given])
            assert metrics.get("span_f1").compute([given], [wanted]) == pytest.approx(expected, abs=1e-12)
            if get_entities(given) or get_entities(wanted):
                expected = f1_score([wanted], [given], average="macro")
                assert metrics.get("span_f1_macro").compute([given], [wanted]) == pytest.approx(expected, abs=1e-12)


def test_counts_of_each_type_are_seqevals() -> None:
    predicted, right = (rows[:500] for rows in both("IOBES"))
    assert types_of({tag for tags in right for tag in tags}) == TYPES
    found, given, true = span_counts(predicted, right, TYPES).sum(axis=0).T
    assert found / given == pytest.approx(precision_score(right, predicted, average=None))
    assert found / true == pytest.approx(recall_score(right, predicted, average=None))
    assert true.sum() == sum(len(get_entities(tags)) for tags in right)


@pytest.mark.parametrize("name", ["span_f1", "span_f1_macro", "token_accuracy"])
@pytest.mark.parametrize("n", [2, 3, 200])
def test_leaving_out_each_row_is_to_score_the_others(name: str, n: int) -> None:
    spec = metrics.get(name)
    predicted, right = (rows[:n] for rows in both("IOB2"))
    right = [["B-once", *tags[1:]] if row == 1 else tags for row, tags in enumerate(right)]
    statistics = {key: array.astype(np.uint8) for key, array in spec.row_statistics(predicted, right).items()}
    expected = [
        spec.from_statistics({key: np.delete(array, row, axis=0) for key, array in statistics.items()})
        for row in range(n)
    ]
    assert spec.leave_one_out(statistics) == pytest.approx(np.array(expected), rel=1e-9, abs=1e-9)


def test_rows_without_spans_score_zero() -> None:
    nothing = [["O", "O"], ["O"]]
    assert metrics.get("span_f1").compute(nothing, nothing) == 0
    assert metrics.get("span_f1_macro").compute(nothing, nothing) == 0
    assert metrics.get("token_accuracy").compute(nothing, nothing) == 1
    assert span_counts(nothing, nothing, ()).shape == (2, 0, 3)


def test_tags_that_cannot_be_scored_are_refused() -> None:
    for tag in ("PER", "B", "X-PER", "B-", ""):
        with pytest.raises(ValueError, match="expected O, or B-"):
            find_spans([tag])
    with pytest.raises(ValueError, match="IOB2 has B-, I- and O"):
        find_spans(["E-PER"], "IOB2")
    with pytest.raises(ValueError, match="Row 1 has 1 predicted tags for 2 right ones"):
        metrics.get("span_f1").compute([["O"], ["O"]], [["O"], ["O", "O"]])
    with pytest.raises(ValueError, match="Row 0 has a span of type 'LOC'; expected PER"):
        span_counts([["B-LOC"]], [["O"]], ("PER",))
    with pytest.raises(ValueError, match="the prediction of row 0 is 'B-LOC', not a list of tags"):
        metrics.get("span_f1").compute(["B-LOC"], [["O"]])
    with pytest.raises(ValueError, match="these rows have none"):
        metrics.get("token_accuracy").compute([[]], [[]])
