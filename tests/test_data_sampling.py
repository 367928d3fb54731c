"""Draws: nested, stratified, per seed, independent of the file's order; checked against plain re-statements."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.rows import row_digests
from harness.data.sampling import Size, carve_validation, class_counts, folds, parse_size, training_order
from harness.support.errors import DataError, UsageError

pools = st.lists(st.integers(0, 4), min_size=1, max_size=120)


def identities(labels: list[int]) -> list[bytes]:
    return row_digests([f"text {at}" for at in range(len(labels))], labels)


@given(pools, st.sampled_from(["stratified", "balanced"]), st.integers(0, 10**6))
def test_an_order_is_a_permutation_with_every_class_first(labels, draw, seed):
    order = training_order(labels, identities(labels), seed, draw)
    assert sorted(order.tolist()) == list(range(len(labels)))
    n_classes = len(set(labels))
    assert {labels[at] for at in order[:n_classes]} == set(labels)


@given(pools, st.integers(0, 100))
def test_each_row_goes_to_the_class_that_the_textbook_gives_it_to(labels, seed):
    counts = Counter(labels)
    order = training_order(labels, identities(labels), seed, "stratified")
    seats = Counter(labels[at] for at in order[: len(counts)])
    for at in order[len(counts) :]:  # Webster: the next seat goes to the largest quotient N / (2k + 1)
        quotients = {label: Fraction(n, 2 * seats[label] + 1) for label, n in counts.items() if seats[label] < n}
        assert quotients[labels[at]] == max(quotients.values())
        seats[labels[at]] += 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(2, 200), min_size=2, max_size=6), st.integers(0, 50))
def test_every_size_is_close_to_its_quota(class_sizes, seed):
    labels = [label for label, n in enumerate(class_sizes) for _ in range(n)]
    order = training_order(labels, identities(labels), seed, "stratified")
    shares = np.array(class_sizes) / len(labels)
    drawn = np.bincount([labels[at] for at in order[: len(class_sizes)]], minlength=len(class_sizes))
    for size, at in enumerate(order[len(class_sizes) :], start=len(class_sizes) + 1):
        drawn[labels[at]] += 1
        # What classes with a quota below one have beyond it, the others give up.
        forced = np.clip(1 - size * shares, 0, None).sum()
        # Rounding by class is within half a row; that the sum must be `size` adds at most half a row per class, in
        # proportion. (No rule that nests stays within one row of every quota: Balinski and Young, 1982.)
        bound = 0.5 if len(class_sizes) == 2 else 1 + shares * len(class_sizes) / 2
        assert (np.abs(drawn - size * shares) <= bound + forced + 1e-9).all()


@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.integers(0, 50))
def test_balanced_draws_hold_the_same_number_of_each_class(class_sizes, seed):
    labels = [label for label, n in enumerate(class_sizes) for _ in range(n)]
    order = training_order(labels, identities(labels), seed, "balanced")
    for per_class in range(1, min(class_sizes) + 1):
        n_train, draw = Size(per_class, per_class=True).resolve(class_sizes)
        assert draw == "balanced"
        assert set(Counter(labels[at] for at in order[:n_train]).values()) == {per_class}


@given(pools, st.randoms(use_true_random=False), st.sampled_from(["stratified", "balanced"]))
def test_the_order_of_the_file_does_not_matter(labels, random, draw):
    digests = identities(labels)
    order = training_order(labels, digests, 3, draw)
    shuffle = list(range(len(labels)))
    random.shuffle(shuffle)
    again = training_order([labels[at] for at in shuffle], [digests[at] for at in shuffle], 3, draw)
    assert [digests[shuffle[at]] for at in again] == [digests[at] for at in order]


def test_seeds_draw_other_rows_at_even_odds():
    labels = [at % 2 for at in range(400)]
    digests = identities(labels)
    drawn = [set(training_order(labels, digests, seed, "stratified")[:200].tolist()) for seed in range(20)]
    assert len({frozenset(rows) for rows in drawn}) == 20
    times = Counter(row for rows in drawn for row in rows)
    assert min(times[row] for row in range(400)) >= 2  # each row is in a binomial(20, 1/2) of the draws
    assert max(times.values()) <= 18
    overlaps = [len(a & b) for a, b in itertools.pairwise(drawn)]
    assert 80 < np.mean(overlaps) < 120


def test_a_draw_is_what_it_was():
    # Pinned: results that are stored rest on this order, so it must not drift with a library's version.
    labels = [0, 0, 0, 0, 1, 1, 2, 0]
    assert training_order(labels, identities(labels), 0, "stratified").tolist() == [5, 0, 6, 1, 2, 7, 4, 3]
    assert training_order(labels, identities(labels), 1, "balanced").tolist() == [5, 1, 6, 4, 7, 2, 0, 3]


@given(pools)
def test_validation_is_every_fifth_row_of_each_class(labels):
    fit, validation = carve_validation(labels)
    assert sorted([*fit, *validation]) == list(range(len(labels)))
    for label, n in Counter(labels).items():
        assert sum(labels[at] == label for at in validation) == n // 5
    if len(labels) > 1:  # nested: a shorter draw validates on the same rows
        _, shorter = carve_validation(labels[:-1])
        assert set(shorter) <= set(validation)


@given(pools, st.integers(2, 6))
def test_folds_share_each_class_out_evenly(labels, n_folds):
    fold = folds(labels, n_folds)
    for label in set(labels):
        sizes = Counter(fold[np.array(labels) == label].tolist())
        assert max(sizes.values()) - min(sizes.get(at, 0) for at in range(n_folds)) <= 1


def test_folds_and_fractions_out_of_range_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        folds([0, 1], 1)
    with pytest.raises(ValueError, match="at most"):
        carve_validation([0, 1], 0.9)


@pytest.mark.parametrize(
    ("text", "size"),
    [("32", Size(32)), (32, Size(32)), ("8/class", Size(8, True)), (" 8 / class ", Size(8, True)), ("all", Size(None))],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size
    assert parse_size(str(size)) == size


@pytest.mark.parametrize("text", ["0", "-3", "3.5", "8/clas", "", "many", "0/class", True])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="expected a number above 0"):
        parse_size(text)


def test_sizes_resolve_against_what_there_is():
    counts = class_counts([0, 0, 0, 0, 0, 1, 1, 1, 2, 2], 3)
    assert counts == [5, 3, 2]
    assert Size(10).resolve(counts) == (10, "stratified")
    assert Size(None).resolve(counts) == (10, "stratified")
    assert Size(2, per_class=True).resolve(counts) == (6, "balanced")
    with pytest.raises(DataError, match="3 classes; ask for at least 3"):
        Size(2).resolve(counts)
    with pytest.raises(DataError, match="above the 10 training rows"):
        Size(11).resolve(counts)
    with pytest.raises(DataError, match="class 'rare' has only 2 training rows; ask for at most 2/class"):
        Size(3, per_class=True).resolve(counts, ["a", "b", "rare"])
    with pytest.raises(DataError, match="Class 'c' has no training row"):
        Size(4).resolve([5, 3, 0], ["a", "b", "c"])


def test_an_empty_pool_has_an_empty_order():
    assert training_order([], [], 0, "stratified").tolist() == []
    with pytest.raises(ValueError, match="expected one each"):
        training_order([0, 1], identities([0]), 0, "stratified")
