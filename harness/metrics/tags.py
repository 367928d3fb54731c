"""Metrics of tagged tokens: F1 of spans as seqeval counts them (micro, macro), and token accuracy.

Spans are found here and not by seqeval, which needs four times as long and has had no release since 2020. Tests compare
both.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from harness.metrics.base import MetricSpec, Statistics, metrics
from harness.metrics.label_sets import f1_of

Reals = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Scheme = Literal["IOB2", "IOBES"]
Span = tuple[str, int, int]
"""Type of a span, and the positions of its first and last token."""

_SOURCE: Final = "seqeval, Nakayama, 2018, github.com/chakki-works/seqeval; CoNLL-2003, aclanthology.org/W03-0419"
_PREFIXES: Final = frozenset("BIES")


@functools.lru_cache(maxsize=4096)
def split_tag(tag: str) -> tuple[str, str]:
    """Return the prefix (B, I, E, S or O) and the type of a tag; an `O` has the type "".

    Raises:
        ValueError: the tag is neither `O` nor a prefix, a hyphen and a type.
    """
    if tag == "O":
        return "O", ""
    if len(tag) < 3 or tag[0] not in _PREFIXES or tag[1] != "-":
        raise ValueError(f"The tag {tag!r} was given; expected O, or B-, I-, E- or S- and a type, as in B-PER.")
    return tag[0], tag[2:]


def types_of(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the types of these tags, sorted by name, each once."""
    return tuple(sorted({split_tag(tag)[1] for tag in tags} - {""}))


def find_spans(tags: Sequence[str], scheme: Scheme | None = None) -> list[Span]:
    """Return the spans of one sequence of tags, the first one first.

    Without a scheme, a span begins with any tag that does not continue the span before it, as in conlleval and in
    seqeval's default mode. With a scheme, it is seqeval's strict mode: a span of IOB2 begins with `B-`; one of IOBES
    begins with `B-` and ends with `E-`, or is one `S-`. Other tags belong to no span.

    Args:
        tags: tags of the tokens.
        scheme: scheme to hold the tags to, or None.

    Raises:
        ValueError: a tag has another form, or a prefix that the scheme has not.
    """
    spans: list[Span] = []
    start, open_type, may_go_on = -1, "", False
    for position, tag in enumerate((*tags, "O")):
        prefix, kind = split_tag(tag)
        if scheme == "IOB2" and prefix in ("E", "S"):
            raise ValueError(f"The tag {tag!r} was given; IOB2 has B-, I- and O.")
        if may_go_on and prefix in ("I", "E") and kind == open_type:
            may_go_on = prefix == "I"
            continue
        if start >= 0 and _is_whole(scheme, tags[position - 1]):
            spans.append((open_type, start, position - 1))
        begins = prefix != "O" and (scheme is None or prefix in ("B", "S"))
        start, open_type = (position, kind) if begins else (-1, "")
        may_go_on = begins and prefix in ("B", "I")
    return spans


def _is_whole(scheme: Scheme | None, last: str) -> bool:
    return scheme != "IOBES" or last[0] in ("E", "S")


def span_counts(
    predicted: Sequence[Sequence[str]],
    right: Sequence[Sequence[str]],
    types: Sequence[str],
    scheme: Scheme | None = None,
) -> Ints:
    """Return the counts of spans of each row and type. The metrics rest on those without a scheme.

    Args:
        predicted: predicted tags of each row.
        right: right tags of each row.
        types: types to count, such as `types_of` returns.
        scheme: as for `find_spans`.

    Returns:
        Shape (rows, types, 3): numbers of right, of predicted and of true spans.

    Raises:
        ValueError: a row has another number of tags on either side, a tag has another form, or a type is not listed.
    """
    place = {kind: at for at, kind in enumerate(types)}
    counts = np.zeros((len(right), len(types), 3), dtype=np.int64)
    for row, (given, wanted) in enumerate(zip(predicted, right, strict=True)):
        _check_length(row, given, wanted)
        found, true = set(find_spans(given, scheme)), set(find_spans(wanted, scheme))
        for column, spans in enumerate((found & true, found, true)):
            for kind, _, _ in spans:
                if kind not in place:
                    raise ValueError(f"Row {row} has a span of type {kind!r}; expected {', '.join(types) or 'none'}.")
                counts[row, place[kind], column] += 1
    return counts


def token_counts(predicted: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> Ints:
    """Return the numbers of right tags and of all tags of each row, shape (rows, 2).

    Args:
        predicted: predicted tags of each row.
        right: right tags of each row.

    Raises:
        ValueError: a row has another number of tags on either side.
    """
    counts = np.zeros((len(right), 2), dtype=np.int64)
    for row, (given, wanted) in enumerate(zip(predicted, right, strict=True)):
        _check_length(row, given, wanted)
        counts[row] = sum(a == b for a, b in zip(given, wanted, strict=True)), len(wanted)
    return counts


def _check_length(row: int, given: Sequence[str], wanted: Sequence[str]) -> None:
    if len(given) != len(wanted):
        raise ValueError(f"Row {row} has {len(given)} predicted tags for {len(wanted)} right ones; expected as many.")


def _measure_spans(predicted: list[list[str]], right: list[list[str]]) -> Statistics:
    types = types_of({tag for rows in (predicted, right) for tags in rows for tag in tags})
    return {"spans": span_counts(predicted, right, types)}


def _measure_tokens(predicted: list[list[str]], right: list[list[str]]) -> Statistics:
    return {"tokens": token_counts(predicted, right)}


def _span_f1(rows: Statistics) -> float:
    return float(f1_of(*rows["spans"].sum(axis=(0, 1), dtype=np.int64)))


def _span_f1_without(rows: Statistics) -> Reals:
    each = rows["spans"].sum(axis=1, dtype=np.int64)
    return f1_of(*(each.sum(axis=0) - each).T)


def _span_f1_macro(rows: Statistics) -> float:
    return float(_mean_over_types(rows["spans"].sum(axis=0, dtype=np.int64)))


def _span_f1_macro_without(rows: Statistics) -> Reals:
    spans = rows["spans"].astype(np.int64)
    return _mean_over_types(spans.sum(axis=0) - spans)


def _mean_over_types(counts: Ints) -> Reals:
    """Return the mean F1 of types that were predicted or are true, from counts of shape (..., types, 3)."""
    right, predicted, true = np.moveaxis(counts, -1, 0)
    occurs = (predicted + true) > 0
    n_types = np.maximum(1, occurs.sum(axis=-1))
    found: Reals = f1_of(right, predicted, true).sum(axis=-1) / n_types
    return found


def _token_accuracy(rows: Statistics) -> float:
    right, total = rows["tokens"].sum(axis=0, dtype=np.int64)
    if total == 0:
        raise ValueError("token_accuracy is a mean over tokens, and these rows have none.")
    return float(right / total)


def _token_accuracy_without(rows: Statistics) -> Reals:
    right, total = (rows["tokens"].sum(axis=0, dtype=np.int64) - rows["tokens"].astype(np.int64)).T
    if (total == 0).any():
        raise ValueError("token_accuracy is a mean over tokens, and all tokens are in one row.")
    found: Reals = right / total
    return found


metrics.add(
    "span_f1",
    MetricSpec(
        name="span_f1",
        scores=frozenset({"tags"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=False,
        description="F1 of the spans of all types together, as conlleval and seqeval's default mode count them: a span "
        "is right where its type, first and last token are; 0 where no span was predicted or is true.",
        source=_SOURCE,
        inputs=("tags", "tags"),
        measure=_measure_spans,
        statistics=("spans",),
        combine=_span_f1,
        leave_one_out=_span_f1_without,
    ),
)
metrics.add(
    "span_f1_macro",
    MetricSpec(
        name="span_f1_macro",
        scores=frozenset({"tags"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=False,
        description="F1 of the spans of each type, averaged over the types that were predicted or are true; 0 where "
        "there are none.",
        source=_SOURCE,
        inputs=("tags", "tags"),
        measure=_measure_spans,
        statistics=("spans",),
        combine=_span_f1_macro,
        leave_one_out=_span_f1_macro_without,
    ),
)
metrics.add(
    "token_accuracy",
    MetricSpec(
        name="token_accuracy",
        scores=frozenset({"tags"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=False,
        description="Share of tokens whose tag is right, `O` included.",
        source=_SOURCE,
        inputs=("tags", "tags"),
        measure=_measure_tokens,
        statistics=("tokens",),
        combine=_token_accuracy,
        leave_one_out=_token_accuracy_without,
    ),
)
