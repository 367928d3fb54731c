"""Files as they are written: encodings, packed files, spreadsheets' marks, JSON arrays, names of classes in Parquet."""

from __future__ import annotations

import csv
import gzip
import json
import shlex
import subprocess
from pathlib import Path

import datasets
import pandas as pd
import pytest

from harness.data import encodings
from harness.data.files import read_rows
from harness.data.source import load_splits
from harness.data.table import table_task
from harness.support.errors import DataError
from tests.tables import ROWS, fingerprint, loaded, tickets, write

WESTERN = [
    ("The café’s bill — “only” 5 € more", "billing"),
    ("Größe ändern, déjà vu, señor", "post"),
    ("No accents here", "billing"),
] * 6
"""Curly quotes, a dash and the euro sign are where Windows-1252 and ISO-8859-1 differ."""

RUSSIAN = [("Добрый день, верните деньги", "billing"), ("Где моя посылка", "post")] * 6


def table_text(rows: list[tuple[str, str]], delimiter: str = ",") -> str:
    from io import StringIO

    handle = StringIO()
    writer = csv.writer(handle, delimiter=delimiter)
    writer.writerows([("body", "queue"), *rows])
    return handle.getvalue()


def read(path: Path) -> list[tuple[str, str]]:
    found = read_rows(path, ["body", "queue"])
    return list(zip(found.columns["body"], found.columns["queue"], strict=True))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_unicode_with_a_mark_is_read(tmp_path: Path, encoding: str, ending: str) -> None:
    raw = table_text(WESTERN + RUSSIAN).encode(encoding)
    path = write(tmp_path / f"t{ending}", gzip.compress(raw) if ending.endswith(".gz") else raw)
    assert read(path) == WESTERN + RUSSIAN


@pytest.mark.parametrize(
    ("encoding", "rows"),
    [
        ("cp1252", WESTERN),
        ("mac_roman", WESTERN),
        ("utf-16-le", WESTERN),
        ("utf-16-be", WESTERN),
        ("utf-16-le", RUSSIAN),
        ("latin-1", [("déjà vu, señor", "billing"), ("größer", "post")] * 6),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_command_that_a_refusal_names_gives_back_the_texts(
    tmp_path: Path, encoding: str, rows: list[tuple[str, str]], packed: bool
) -> None:
    raw = table_text(rows).encode(encoding)
    folder = tmp_path / "a folder; with signs"
    folder.mkdir()
    path = write(folder / ("t.csv.gz" if packed else "t.csv"), gzip.compress(raw) if packed else raw)
    with pytest.raises(DataError, match="Convert it: ") as refused:
        read(path)
    command = str(refused.value).split("Convert it: ")[1]
    subprocess.run(command, shell=True, check=True, executable="/bin/sh")
    assert read(folder / "t-utf8.csv") == rows


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "shift_jis"])
def test_no_command_is_named_that_would_garble_texts(tmp_path: Path, encoding: str) -> None:
    rows = [("返金してください、荷物はどこ", "billing")] * 6 if encoding == "shift_jis" else RUSSIAN
    rows = [*rows, *[("a long text in plain English letters, as most of this table's", "post")] * 20]
    path = write(tmp_path / "t.csv", table_text(rows).encode(encoding))
    with pytest.raises(DataError, match=r"not clear.*iconv -f ENCODING"):
        read(path)


def test_texts_that_were_converted_from_the_wrong_encoding_are_named_and_repaired(tmp_path: Path) -> None:
    rows = [(f"{text} {at}", queue) for at, (text, queue) in enumerate(WESTERN)]
    path = write(tmp_path / "t.csv", table_text(rows).encode("cp1252").decode("latin-1"))
    (warning,) = [w for w in load_splits(table_task(path, "body", "queue")).provenance["warnings"] if "control" in w]
    assert "on lines 2, 5, 8 and 3 more" in warning
    subprocess.run(warning.split("repair this file: ")[1], shell=True, check=True, executable="/bin/sh")
    assert read(tmp_path / "t-utf8.csv") == rows


def test_a_packed_file_is_refused_where_it_is_damaged_or_unpacks_to_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gzip.compress(table_text(ROWS * 40).encode())
    assert read(write(tmp_path / "t.csv.gz", whole)) == ROWS * 40
    for name, content in (
        ("short", whole[:-20]),
        ("not packed", b"body,queue\nx,y\n"),
        ("bad", whole[:40] + b"x" * 40),
    ):
        with pytest.raises(DataError, match="cannot be unpacked as gzip"):
            read(write(tmp_path / f"{name}.csv.gz", content))
    monkeypatch.setattr(encodings, "MOST_UNPACKED_BYTES", 1000)
    with pytest.raises(DataError, match="unpacks to more than"):
        read(tmp_path / "t.csv.gz")


@pytest.mark.parametrize("delimiter", [";", ",", "\t", "#"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_first_line_that_tells_spreadsheets_the_delimiter(tmp_path: Path, delimiter: str, newline: str) -> None:
    rows = [("a, b; c", "x"), ("two\nlines", "y"), ("", "y")]
    text = table_text(rows, delimiter).replace("\r\n", newline)
    path = write(tmp_path / "t.csv", f"sep={delimiter}{newline}{text}")
    found = read_rows(path, ["body", "queue"])
    assert list(zip(found.columns["body"], found.columns["queue"], strict=True)) == rows
    assert found.origin.at(2) == "line 6"  # as an editor counts them
    # Without the mark: pandas, as another reader.
    plain = pd.read_csv(write(tmp_path / "p.csv", text), sep=delimiter, keep_default_na=False)
    assert plain.values.tolist() == [list(row) for row in rows]


def test_a_json_array_and_json_lines_are_one_task(tmp_path: Path) -> None:
    rows = [{"body": text, "queue": queue, "more": [1, {"a": None}]} for text, queue in ROWS]
    lines = tickets(tmp_path / "t.jsonl")
    array = write(tmp_path / "a.json", json.dumps(rows, indent=2))
    renamed = write(tmp_path / "l.json", "".join(json.dumps(row) + "\n" for row in rows))
    packed = write(tmp_path / "l.jsonl.gz", gzip.compress(renamed.read_bytes()))
    assert len({fingerprint(table_task(path, "body", "queue")) for path in (lines, array, renamed, packed)}) == 1
    assert table_task(packed, "body", "queue").name == "l"
    for content, message in (
        ("[1, 2]", "row 1 of the array is not a JSON object"),
        ("[{}", "not JSON"),
        ('{"body": ["a"], "queue": ["b"]', "line 1 is not JSON"),
        ('[{"body": "a", "body": "b", "queue": "c"}]', "the key 'body' is there twice"),
        ('{"body": "a", "queue": "b", "queue": "c"}\n', "line 1: the key 'queue' is there twice"),
    ):
        with pytest.raises(DataError, match=message):
            read(write(tmp_path / "bad.json", content))


def test_classes_that_a_parquet_file_names_are_labels(tmp_path: Path) -> None:
    """As the `datasets` library writes them; pandas' categories are text or numbers already."""
    names = ["post", "billing"]
    features = datasets.Features({"body": datasets.Value("string"), "queue": datasets.ClassLabel(names=names)})
    indices = [names.index(queue) for _, queue in ROWS]
    data = datasets.Dataset.from_dict({"body": [text for text, _ in ROWS], "queue": indices}, features)
    data.to_parquet(tmp_path / "named.parquet")
    frame = pd.DataFrame(ROWS, columns=["body", "queue"])
    frame.astype({"queue": "category"}).to_parquet(tmp_path / "category.parquet")
    plain = tickets(tmp_path / "plain.parquet")
    wanted = fingerprint(table_task(plain, "body", "queue"))
    for name in ("named", "category"):
        assert fingerprint(table_task(tmp_path / f"{name}.parquet", "body", "queue")) == wanted, name
    unlabelled = datasets.Dataset.from_dict(
        {"body": [*(text for text, _ in ROWS), "?"], "queue": [*indices, -1]}, features
    )
    unlabelled.to_parquet(tmp_path / "some.parquet")
    spec = table_task(tmp_path / "some.parquet", "body", "queue")
    assert fingerprint(spec) == wanted
    assert load_splits(spec).provenance["left_out"] == {"no label": 1}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_of_the_same_name_that_nobody_asks_for_refuse_nothing(tmp_path: Path, ending: str) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / f"t.{ending}"
    columns = [["n1", "n2"], ["a", "b"], ["m1", "m2"], ["x", "y"]]
    names = ["note", "body", "note", "queue"]
    if ending == "csv":
        with path.open("w", newline="") as handle:
            csv.writer(handle).writerows([names, *zip(*columns, strict=True)])
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array(c) for c in columns], names), path)
    assert read(path) == [("a", "x"), ("b", "y")]
    every = read_rows(path, ["body"], others=True).columns
    assert every == dict(zip(["note", "body", "note.1", "queue"], columns, strict=True))
    with pytest.raises(DataError, match="there are 2 columns 'note'"):
        read_rows(path, ["note"])


def test_a_path_is_quoted_in_a_command(tmp_path: Path) -> None:
    path = tmp_path / "it's.csv"
    assert shlex.quote(str(path)) in encodings.repair_command(str(path))


def test_real_messages_are_read_alike_from_every_encoding_and_format(tmp_path: Path, mirror: Path) -> None:
    """SMS spam: pounds, quotes, line breaks. The csv module, pandas and `datasets` are the other readers."""
    folder = mirror / "datasets" / "ucirvine" / "sms_spam"
    source = next(iter(sorted(folder.rglob("train.*"))))
    records = [json.loads(line) for line in source.read_text("utf-8").split("\n") if line][:1500]
    column = next(name for name in records[0] if name != "label")
    rows = [(record[column], str(record["label"])) for record in records if record[column].strip()]
    wanted = None
    for name, encoding, delimiter in (
        ("a.csv", "utf-8", ","),
        ("b.csv", "utf-16", ";"),
        ("c.tsv", "utf-8-sig", "\t"),
        ("d.csv.gz", "utf-8", "|"),
    ):
        raw = table_text(rows, delimiter).encode(encoding)
        path = write(tmp_path / name, gzip.compress(raw) if name.endswith(".gz") else raw)
        assert read(path) == rows, name
        frame = pd.read_csv(path, sep=delimiter, encoding=encoding, dtype=str, keep_default_na=False)
        assert frame["body"].tolist() == [text.replace("\r\n", "\n") for text, _ in rows] or not any(
            "\r" in text for text, _ in rows
        )
        found = fingerprint(table_task(path, "body", "queue"))
        wanted = wanted or found
        assert found == wanted, name
    _, kept = loaded(tmp_path / "a.csv")
    assert sorted(kept.train_texts + kept.test_texts) == sorted(text for text, _ in rows)
