"""Rows: identity by content, fingerprints, overlaps, the cap, the held-out part."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.rows import (
    cap_test_rows,
    content_fingerprint,
    digest,
    drop_overlap,
    hold_out,
    order_fingerprint,
    overlap_key,
    row_digests,
)

texts = st.lists(st.text(max_size=6), max_size=30)
BASE = {"kind": "classification", "label_names": ["a", "b"], "metric": "accuracy", "max_length": 128, "test_cap": 2000}


@given(texts)
def test_rows_have_distinct_identities_even_where_they_are_equal(values):
    labels = [len(value) % 2 for value in values]
    digests = row_digests(values, labels)
    assert len(set(digests)) == len(values)
    assert sorted(row_digests(values[::-1], labels[::-1])) == sorted(digests)


def test_identity_covers_text_and_label_and_does_not_run_them_together():
    assert row_digests(["ab"], ["c"]) != row_digests(["a"], ["bc"])
    assert row_digests(["a"], ["x"]) != row_digests(["a"], ["y"])
    assert digest("a", key="one") != digest("a", key="two")
    assert row_digests(["\ud800"], [0])  # a lone surrogate, as JSON can hold
    with pytest.raises(ValueError, match="shorter"):
        row_digests(["a", "b"], ["x"])


def test_a_digest_is_blake2b_of_lengths_and_parts():
    expected = hashlib.blake2b(digest_size=16, person=b"row")
    for part in ("é", "pos", "0"):
        raw = part.encode()
        expected.update(len(raw).to_bytes(8, "little") + raw)
    assert row_digests(["é"], ["pos"]) == [expected.digest()]


def test_the_fingerprint_is_of_content_and_not_of_order():
    train, test = row_digests(["a", "b", "c"], [0, 1, 0]), row_digests(["d", "e"], [0, 1])
    pinned = content_fingerprint(**BASE, train=train, test=test)
    assert pinned == content_fingerprint(**BASE, train=train[::-1], test=test[::-1])
    others = [
        content_fingerprint(**BASE, train=test, test=train),
        content_fingerprint(**BASE, train=train[:2], test=test),
        content_fingerprint(**BASE, train=[*train, test[0]], test=test[1:]),
        *(
            content_fingerprint(**{**BASE, **change}, train=train, test=test)
            for change in (
                {"kind": "other"},
                {"label_names": ["b", "a"]},
                {"metric": "macro_f1"},
                {"max_length": 64},
                {"test_cap": None},
            )
        ),
    ]
    assert len({pinned, *others}) == len(others) + 1
    assert len(pinned) == 64


def test_overlaps_are_dropped_whatever_their_white_space_and_label():
    keep, n_dropped = drop_overlap(["a  b", "A b", " a b\n", "c"], ["a b", "z"])
    assert keep.tolist() == [False, True, False, True]
    assert n_dropped == 2
    assert overlap_key(" a\t\nb ") == "a b"


def test_trec_has_the_overlap_that_a_plain_count_finds(mirror: Path):
    folder = mirror / "datasets" / "SetFit" / "TREC-QC"
    train, test = (
        [json.loads(line)["text"] for line in (folder / f"{split}.jsonl").read_text("utf-8").splitlines()]
        for split in ("train", "test")
    )
    keep, n_dropped = drop_overlap(train, test)
    assert n_dropped == sum(text in set(test) for text in train) == 10
    assert not set(np.array(train)[keep]) & set(test)


@given(texts, st.integers(1, 40))
def test_the_cap_keeps_the_same_rows_in_the_same_order(values, cap):
    digests = row_digests(values, values)
    kept = [digests[at] for at in cap_test_rows(digests, cap)]
    turned = digests[::-1]
    assert [turned[at] for at in cap_test_rows(turned, cap)] == kept
    everything = [digests[at] for at in cap_test_rows(digests, None)]
    assert kept == everything[:cap]
    assert sorted(everything) == sorted(digests)
    assert len(values) < 2 or order_fingerprint(kept) != order_fingerprint([*kept, digests[0]])


def test_the_cap_does_not_favour_the_start_of_the_file():
    digests = row_digests([str(at) for at in range(4000)], ["x"] * 4000)
    kept = cap_test_rows(digests, 2000)
    assert 900 < (kept < 2000).sum() < 1100


labelled = st.lists(st.tuples(st.integers(0, 25), st.sampled_from("xyz")), min_size=1, max_size=80)


@given(labelled, st.randoms(use_true_random=False))
def test_a_held_out_part_is_stratified_and_keeps_copies_together(rows, random):
    values, labels = [f"text {number}" for number, _ in rows], [label for _, label in rows]
    held = hold_out(values, labels)
    sides: dict[tuple[str, str], set[bool]] = {}
    for value, label, side in zip(values, labels, held.tolist(), strict=True):
        sides.setdefault((value, label), set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    for label in set(labels):
        distinct = [side for (_, other), (side,) in sides.items() if other == label]
        expected = min(max(round(0.25 * len(distinct)), 1), len(distinct) - 1)
        assert sum(distinct) == expected
    order = list(range(len(rows)))
    random.shuffle(order)
    again = hold_out([values[at] for at in order], [labels[at] for at in order])
    assert again.tolist() == held[order].tolist()


def test_a_quarter_of_each_class_is_held_out():
    values, labels = [f"text {at}" for at in range(400)], ["x"] * 300 + ["y"] * 100
    held = hold_out(values, labels)
    assert Counter(np.array(labels)[held].tolist()) == {"x": 75, "y": 25}
