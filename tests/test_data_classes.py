"""Labels of every form become class indices, or an error that names the row."""

from __future__ import annotations

import datasets
import numpy as np
import pytest

from harness.data.classes import ClassRows, check_labels, check_texts, class_indices, read_classes, sorted_labels
from harness.data.raw import Origin, RawSplits
from harness.data.rows import row_digests
from harness.data.spec import DataSource, TaskSpec
from harness.support.errors import DataError

ORIGIN = Origin("rows.jsonl", "line", [2, 3, 5, 8])


def splits(train: dict, test: dict) -> RawSplits:
    return RawSplits(datasets.Dataset.from_dict(train), datasets.Dataset.from_dict(test))


def task(*names: str) -> TaskSpec:
    return TaskSpec(name="mine", data=DataSource(hub="someone/mine"), label_names=names)


def digests(rows: ClassRows) -> list[bytes]:
    return sorted(row_digests(rows.train_texts, [rows.label_names[label] for label in rows.train_labels]))


def test_rows_become_texts_and_indices():
    train = {"text": ["a", "b", "c"], "label": ["yes", "no", "yes"], "other": [1, 2, 3]}
    rows = read_classes(task("yes", "no"), splits(train, {"text": ["d"], "label": ["no"]}))
    assert (rows.train_texts, rows.test_texts) == (["a", "b", "c"], ["d"])
    assert rows.train_labels.tolist() == [0, 1, 0]
    assert rows.test_labels.dtype == np.int64
    assert rows.label_names == ("yes", "no")


def test_names_are_those_of_the_training_rows_where_none_are_given():
    rows = read_classes(task(), splits({"text": ["a", "b"], "label": [10, 9]}, {"text": ["c"], "label": [10]}))
    assert rows.label_names == ("9", "10")
    assert rows.train_labels.tolist() == [1, 0]


def test_the_fingerprint_is_the_same_for_labels_by_name_and_by_index():
    by_name = splits({"text": ["a", "b"], "label": ["no", "yes"]}, {"text": ["c"], "label": ["no"]})
    by_index = splits({"text": ["b", "a"], "label": [1, 0]}, {"text": ["c"], "label": [0]})
    spec = task("no", "yes")
    named, indexed = (read_classes(spec, data) for data in (by_name, by_index))
    assert digests(named) == digests(indexed)


def test_class_features_of_the_hub_are_indices():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "p"])})
    train = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features)
    rows = read_classes(task("negative", "positive"), RawSplits(train, train))
    assert rows.train_labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([True, False], ["true", "false"]),
        ([1, 2], ["1", "2"]),
        ([1.0, 2.0], ["1", "2"]),
        ([1, True], ["1", "true"]),  # told apart, although Python calls them equal
        (["NA", "None", "null", "01"], ["NA", "None", "null", "01"]),
    ],
)
def test_labels_become_names(values, names):
    assert check_labels(values, "label", ORIGIN) == names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None, " "], "rows.jsonl: lines 3, 5: the label in column 'queue' is missing"),
        ([1.0, float("nan")], "line 3: the label in column 'queue' is missing"),
        ([1.0, 0.5], "line 3: the label in column 'queue' is 0.5; expected a string"),
        ([["a"], "b"], r"line 2: the label .* is \['a'\]; expected"),
        ([1, "1"], "lines 2, 3: column 'queue' holds both 1 and '1'"),
        ([True, "true"], "holds both True and 'true'"),
    ],
)
def test_labels_that_cannot_be_used_name_their_row(values, message):
    with pytest.raises(DataError, match=message):
        check_labels(values, "queue", ORIGIN)


def test_texts_that_cannot_be_used_name_their_row():
    assert check_texts(["a", " b "], "body", ORIGIN) == ["a", " b "]
    with pytest.raises(DataError, match=r"rows.jsonl: lines 2, 3, 5 and 1 more: the text in column 'body' is empty"):
        check_texts(["", None, " \n", "\t"], "body", ORIGIN)
    with pytest.raises(DataError, match="line 3: column 'body' holds a value of type int; expected text"):
        check_texts(["a", 3], "body", ORIGIN)


def test_labels_are_sorted_by_number_only_where_all_are_numbers():
    assert sorted_labels(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert sorted_labels(["10", "9", "x"]) == ("10", "9", "x")
    assert sorted_labels(["01", "1", "10", "2"]) == ("01", "1", "10", "2")


def test_a_label_that_is_neither_name_nor_index_is_refused():
    assert class_indices(["1", "0"], ["neg", "pos"], "label", ORIGIN).tolist() == [1, 0]
    assert class_indices(["1", "2"], ["2", "1"], "label", ORIGIN).tolist() == [1, 0]
    with pytest.raises(
        DataError, match=r"line 3: the label 'neutral' .* not one of the task's: neg, pos \(or 0 to 1\)"
    ):
        class_indices(["neg", "neutral"], ["neg", "pos"], "label", ORIGIN)
    with pytest.raises(DataError, match="line 2: the label '0'"):  # names and indices are not mixed
        class_indices(["0", "pos"], ["neg", "pos"], "label", ORIGIN)
    with pytest.raises(DataError, match=r"let `splits\.test` be null"):
        class_indices(["-1", "-1"], ["neg", "pos"], "label", ORIGIN)


def test_splits_that_cannot_be_used_are_refused():
    good = {"text": ["a", "b"], "label": ["no", "yes"]}
    with pytest.raises(DataError, match="there are no test rows"):
        read_classes(task(), splits(good, {"text": [], "label": []}))
    with pytest.raises(DataError, match="row 2: the label 'maybe' occurs in the test rows only"):
        read_classes(task(), splits(good, {"text": ["c", "d"], "label": ["no", "maybe"]}))
    with pytest.raises(DataError, match="no training row has the label 'maybe'"):
        read_classes(task("no", "yes", "maybe"), splits(good, {"text": ["c"], "label": ["no"]}))
