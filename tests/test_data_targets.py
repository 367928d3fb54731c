"""Targets that are numbers, and rows with several labels: what is read, and what is refused by row and rule."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import numpy as np
import pytest

from harness.data.label_sets import read_flags, read_label_sets
from harness.data.raw import Origin
from harness.data.targets import check_varies, number_of, read_numbers
from harness.support import DataError

FILE = Origin("t.csv", "line", range(2, 100))


def test_numbers_are_read_as_they_are_written() -> None:
    values = [1, 2.5, "3", " -4.25 ", "1e-3", ".5", "5.", Decimal("0.1"), np.float32(0.5), np.int64(7)]
    assert read_numbers(values, "score", FILE) == [1, 2.5, 3, -4.25, 0.001, 0.5, 5.0, 0.1, 0.5, 7.0]


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (None, "missing or NaN"),
        ("", "missing or NaN"),
        ("  ", "missing or NaN"),
        ("nan", "missing or NaN"),
        (math.nan, "missing or NaN"),
        (Decimal("NaN"), "missing or NaN"),
        (math.inf, "finite"),
        (-math.inf, "finite"),
        ("1e999", "finite"),
        ("inf", "expected a number"),
        ("good", "expected a number"),
        ("1,5", "decimal mark as a point"),
        ("1_000", "expected a number"),
        (True, "--kind classification"),
        ([1.0], "expected a number"),
        (10**400, "expected a number"),
    ],
)
def test_a_target_that_is_no_number_is_refused_by_row(value: object, rule: str) -> None:
    with pytest.raises(DataError, match=rule) as refused:
        read_numbers([1.0, value, 2.0], "score", FILE)
    assert str(refused.value).startswith("t.csv: line 3: the target in column 'score'")


def test_every_spelling_that_is_accepted_is_what_python_reads() -> None:
    draw = np.random.default_rng(0)
    for text in (repr(float(x)) for x in draw.normal(size=200) * 10.0 ** draw.integers(-8, 8, 200)):
        assert number_of(text) == float(text)


def test_constant_targets_are_refused() -> None:
    with pytest.raises(DataError, match=r"every row has the target 2.5 in column 'score' \(3 rows\)"):
        check_varies([2.5] * 3, "score", FILE)
    check_varies([2.5, 2.5, 2.6], "score", FILE)


def test_label_sets_are_sorted_and_without_repeats() -> None:
    listed = [["b", "a", "b"], [], ("c",), np.array(["a"]), [3, 1.0], {"y", "x"}, ""]
    wanted = [("a", "b"), (), ("c",), ("a",), ("1", "3"), ("x", "y"), ()]
    assert read_label_sets(listed, "labels", FILE, None) == wanted


def test_joined_and_written_lists() -> None:
    joined = ["b | a", "a", "", 7, ["c"], "a|a"]
    assert read_label_sets(joined, "labels", FILE, "|") == [("a", "b"), ("a",), (), ("7",), ("c",), ("a",)]
    lists = [["it's", "b"], ["a, b"], [], [1, 2]]
    written = [str(one) for one in lists] + [json.dumps(one) for one in lists]
    assert read_label_sets(written, "labels", FILE, None) == read_label_sets(lists * 2, "labels", FILE, None)


@pytest.mark.parametrize(
    ("value", "separator", "rule"),
    [
        (None, None, "the labels in column 'labels' are missing"),
        (math.nan, "|", "the labels in column 'labels' are missing"),
        ("a|b", None, r"expected a list of labels\..*--label-separator"),
        ("['a' 'b']", None, "expected a list of labels"),
        ({"a": 1}, None, "expected a list of labels"),
        (7, None, "expected a list of labels"),
        (True, "|", "or a text of labels joined by"),
        ("a||b", "|", "label 2 of 'a||b'"),
        (["a", None], None, "label 2 of"),
        (["a", ["b"]], None, "label 2 of"),
        ([True], None, "label 1 of"),
        ([1.5], None, "label 1 of"),
    ],
)
def test_labels_that_are_none_are_refused_by_row(value: object, separator: str | None, rule: str) -> None:
    with pytest.raises(DataError, match=rule.replace("||", r"\|\|")) as refused:
        read_label_sets([["a"], value], "labels", FILE, separator)
    assert str(refused.value).startswith("t.csv: line 3: ")


def test_flags() -> None:
    columns = {
        "b": [1, "0", True, "true"],
        "a": [0, "1", False, "False"],
        "c": [1.0, 0.0, np.int64(1), np.bool_(False)],
    }
    assert read_flags(columns, FILE) == [("b", "c"), ("a",), ("b", "c"), ("b",)]
    for wrong in (2, "yes", None, "", math.nan, [1]):
        with pytest.raises(DataError, match=r"t.csv: line 3: column 'b' holds .*; expected 0 or 1"):
            read_flags({"a": [1, 0], "b": [1, wrong]}, FILE)
