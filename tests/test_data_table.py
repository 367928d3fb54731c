"""The user's own file: exact values in every format, and for each thing that can be wrong an error that names it."""

from __future__ import annotations

import csv
import json
from collections import Counter

import pandas as pd
import pytest

from harness.data.table import table_task
from harness.support.errors import DataError, UsageError
from tests.tables import ROWS, fingerprint, loaded, tickets, write


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_task(tmp_path, ending):
    spec, rows = loaded(tickets(tmp_path / f"tickets.{ending}"))
    assert (spec.name, spec.kind, spec.metric, spec.label_names) == (
        "tickets",
        "classification",
        "accuracy",
        ("billing", "post"),
    )
    assert spec.splits.test is None
    pairs = [(text, rows.label_names[label]) for text, label in zip(rows.train_texts, rows.train_labels, strict=True)]
    pairs += [(text, rows.label_names[label]) for text, label in zip(rows.test_texts, rows.test_labels, strict=True)]
    assert sorted(pairs) == sorted(ROWS)
    assert Counter(rows.test_labels.tolist()) == {0: 2, 1: 2}  # a quarter of each class, 1.5, rounds to even
    assert fingerprint(spec) == fingerprint(loaded(tickets(tmp_path / "other.csv"))[0])


def test_a_reordered_file_is_the_same_data_and_an_edited_one_is_not(tmp_path):
    before = fingerprint(loaded(tickets(tmp_path / "a.csv"))[0])
    assert fingerprint(loaded(tickets(tmp_path / "b.csv", ROWS[::-1]))[0]) == before
    edited = loaded(tickets(tmp_path / "a.csv", [("Another message about parcels", "post"), *ROWS[1:]]))[0]
    assert fingerprint(edited) != before  # and no cache gave the old rows


def test_a_test_file_is_taken_as_it_is(tmp_path):
    train, test = tickets(tmp_path / "train.csv", ROWS[:8]), tickets(tmp_path / "test.jsonl", ROWS[8:])
    spec, rows = loaded(train, test=test, name="mail", test_cap=3)
    assert (spec.name, spec.test_cap, spec.splits.test) == ("mail", 3, "test")
    assert rows.train_texts == [text for text, _ in ROWS[:8]]
    assert rows.test_texts == [text for text, _ in ROWS[8:]]


def test_nothing_is_mangled(tmp_path):
    texts = [
        "NA",
        "null",
        "None",
        "1e5",
        "007",
        "2024-01-01",
        "true",
        "a;b",
        ' "quoted", twice\n\nand\r\nbroken ',
        "é\u2028ü",
    ]
    labels = ["NA", "null", "None", "01", "1", "2024-01-01", "TRUE", "nan", "-", " x"]
    rows = [(f"{text} {at}" if at > 9 else text, labels[at % 10]) for at, text in enumerate(texts * 3)]
    for ending in ("csv", "jsonl", "parquet", "tsv"):
        _, found = loaded(tickets(tmp_path / f"odd.{ending}", rows))
        assert sorted(found.train_texts + found.test_texts) == sorted(text for text, _ in rows), ending
        assert found.label_names == tuple(sorted(labels))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([1, 2, 10], ("1", "2", "10")),
        ([True, False], ("false", "true")),
        (["b", "a"], ("a", "b")),
        ([-1, 1], ("-1", "1")),
        ([1.0, 2.0], ("1", "2")),
    ],
)
def test_labels_of_each_type(tmp_path, labels, names):
    rows = [(f"text {at}", labels[at % len(labels)]) for at in range(12)]
    for ending in ("jsonl", "parquet"):
        spec, found = loaded(tickets(tmp_path / f"typed.{ending}", rows))
        assert spec.label_names == names
        assert Counter(found.train_labels.tolist()).keys() == set(range(len(names)))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_dialects_of_csv(tmp_path, delimiter, newline, mark):
    lines = [
        f"id{delimiter}body{delimiter}queue",
        "",
        *(f"{at}{delimiter}{t}{delimiter}{q}" for at, (t, q) in enumerate(ROWS)),
    ]
    _, rows = loaded(write(tmp_path / "d.csv", mark + newline.join(lines) + newline * 2))
    assert sorted(rows.train_texts + rows.test_texts) == sorted(text for text, _ in ROWS)


def test_very_long_fields(tmp_path):
    long = "word " * 60_000
    limit = csv.field_size_limit()
    _, rows = loaded(tickets(tmp_path / "long.csv", [(long, "post"), *ROWS]))
    assert long in rows.train_texts + rows.test_texts
    assert csv.field_size_limit() == limit  # global to the process, so it is put back


def test_folders_with_the_signs_of_patterns(tmp_path):
    folder = tmp_path / "run [1] * {a}"
    folder.mkdir()
    for ending in ("csv", "parquet"):
        assert len(loaded(tickets(folder / f"t[0].{ending}"))[1].test_texts) == 4


GOOD = "body,queue\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
BAD = {
    "missing column": (
        "a.csv",
        GOOD.replace("body", "Bodies"),
        r"a.csv: there is no column 'body'. Did you mean 'Bodies'",
    ),
    "column of the wrong case": (
        "a.csv",
        GOOD.replace("queue", "Queue"),
        r"Did you mean 'Queue'\? Columns: 'body', 'Queue'",
    ),
    "missing column, JSONL": ("a.jsonl", '{"body": "x", "kind": 1}\n', r"there is no column 'queue'.*'body', 'kind'"),
    "column named twice": ("a.csv", "body,queue,queue\nx,y,z\n", r"there are 2 columns 'queue'"),
    "empty text": ("a.csv", GOOD + ' ,post\n"\n",post\n', r"a.csv: lines 14, 15: the text in column 'body' is empty"),
    "text of another type": ("a.jsonl", '{"body": "x", "queue": 1}\n{"body": 3, "queue": 1}\n', r"line 2: .*type int"),
    "missing label": ("a.csv", GOOD + '"two\nlines",post\nx,\n', r"line 16: the label in column 'queue' is missing"),
    "null label": ("a.jsonl", '{"body": "x", "queue": 1}\n\n{"body": "y"}\n', r"line 3: the label .* is missing"),
    "label of another type": ("a.jsonl", '{"body": "x", "queue": [1]}\n', r"line 1: the label .* is \[1\]; expected"),
    "fractions": ("a.jsonl", '{"body": "x", "queue": 0.5}\n', r"line 1: the label .* is 0.5; expected a string"),
    "one label in two ways": (
        "a.jsonl",
        '{"body": "x", "queue": 1}\n{"body": "y", "queue": "1"}\n',
        r"lines 1, 2: .*one way",
    ),
    "one class": ("a.csv", "body,queue\na,x\nb,x\n", r"every row has the label 'x' in column 'queue'"),
    "single example": ("a.csv", GOOD + "z,rare\n", r"line 14: the class 'rare' has only one example"),
    "copies": ("a.csv", GOOD + "z,rare\nz ,rare\n", r"lines 14, 15: the class 'rare' has only 2 examples of the same"),
    "identifiers": ("a.csv", "body,queue\na,1\nb,2\nc,3\n", r"each of the 3 rows has another label.*identifier"),
    "not UTF-8": ("a.csv", GOOD.encode() + b"caf\xe9,post\n", r"line 14 is not UTF-8: byte 0xe9 at offset \d+"),
    "not UTF-8, with a mark": (
        "a.csv",
        b"\xef\xbb\xbfbody,queue\n\xff,x\n",
        r"line 2 is not UTF-8: byte 0xff at offset 14",
    ),
    "UTF-16 without a mark": ("a.csv", GOOD.encode("utf-16-le"), r"UTF-16LE without a byte-order mark"),
    "empty file": ("a.csv", "", r"a.csv: the file is empty"),
    "header only": ("a.csv", "body,queue\n", r"the file has no rows"),
    "blank lines only": ("a.jsonl", "\n\n", r"the file has no rows"),
    "no header": ("a.csv", "\n\n1,2\n", r"line 1 is not a header"),
    "too few fields": ("a.csv", GOOD + "alone\n", r"line 14 has 1 field, the header has 2"),
    "too many fields": ("a.csv", GOOD + "a, b, c\n", r"line 14 has 3 fields, the header has 2.*double quotes"),
    "open quote": ("a.csv", GOOD + '"never closed,post\nb,post\n', r"row that begins at line 14 is malformed"),
    "broken JSON": ("a.jsonl", '{"body": "x", "queue": 1}\n{"body": \n', r"line 2 is not JSON"),
    "a JSON array": ("a.jsonl", "[1, 2]\n", r"line 1 is not a JSON object"),
    "not Parquet": ("a.parquet", "hello", r"a.parquet: the file cannot be read"),
    "ending": ("a.xlsx", "x", r"end in '.xlsx' are not read; expected one of .csv, .tsv, .jsonl, .json, .conll"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_named(tmp_path, what):
    name, content, message = BAD[what]
    with pytest.raises(DataError, match=message):
        table_task(write(tmp_path / name, content), "body", "queue", strict=True)


def test_bad_parquet_rows_are_named(tmp_path):
    rows = [*ROWS, (None, "post")]
    with pytest.raises(DataError, match=r"a.parquet: row 13: the text in column 'body' is empty"):
        table_task(tickets(tmp_path / "a.parquet", rows), "body", "queue", strict=True)
    with pytest.raises(DataError, match=r"a.parquet: there is no column 'text'.* Columns: 'body', 'queue'"):
        table_task(tmp_path / "a.parquet", "text", "queue")
    dated = [(text, pd.Timestamp("2024-01-01")) for text, _ in ROWS]
    with pytest.raises(DataError, match=r"row 1: the label .* expected a string, a whole number, true or false"):
        table_task(tickets(tmp_path / "b.parquet", dated), "body", "queue")


def test_missing_files_are_named(tmp_path):
    tickets(tmp_path / "tickets.csv")
    with pytest.raises(DataError, match=r"there is no such file. Did you mean 'tickets.csv'\?"):
        table_task(tmp_path / "ticket.csv", "body", "queue")
    with pytest.raises(DataError, match="Nor is there a folder"):
        table_task(tmp_path / "nowhere" / "tickets.csv", "body", "queue")
    with pytest.raises(DataError, match="not a file"):
        table_task(tmp_path, "body", "queue")
    with pytest.raises(UsageError, match="both text and label"):
        table_task(tmp_path / "tickets.csv", "body", "body")


def test_bad_test_files_are_named(tmp_path):
    train = tickets(tmp_path / "train.csv")
    for rows, message in (
        (
            [*ROWS[:2], ("z", "spam")],
            r"test.csv: line 4: the label 'spam' occurs in the test rows only.*'billing', 'post'",
        ),
        ([("z", "")], r"test.csv: line 2: the label in column 'queue' is missing"),
        ([], r"test.csv: the file has no rows"),
    ):
        with pytest.raises(DataError, match=message):
            table_task(train, "body", "queue", test=tickets(tmp_path / "test.csv", rows), strict=True)
    with pytest.raises(DataError, match=r"test.csv: there is no column 'queue'"):
        table_task(train, "body", "queue", test=tickets(tmp_path / "test.csv", ROWS, ("body", "label")))
    train = tickets(tmp_path / "train.csv", [*ROWS, ("z", "rare")])
    with pytest.raises(DataError, match=r"train.csv: line 14: the class 'rare' has a single example"):
        table_task(train, "body", "queue", test=tickets(tmp_path / "test.csv"), strict=True)


def test_names_of_files_become_names_of_tasks(tmp_path):
    assert table_task(tickets(tmp_path / "my tickets (2).csv"), "body", "queue").name == "my-tickets-2"
    assert table_task(tickets(tmp_path / "вход.csv"), "body", "queue").name == "data"


def test_real_reviews_survive_a_round_trip_through_csv(tmp_path, mirror):
    folder = mirror / "datasets" / "stanfordnlp" / "imdb"
    records = [json.loads(line) for line in (folder / "test.jsonl").read_text("utf-8").split("\n") if line]
    _, rows = loaded(tickets(tmp_path / "imdb.csv", [(record["text"], record["label"]) for record in records]))
    assert sorted(rows.train_texts + rows.test_texts) == sorted(record["text"] for record in records)
    assert rows.label_names == ("0", "1")
    assert rows.test_labels.tolist().count(0) == pytest.approx(250, abs=2)
