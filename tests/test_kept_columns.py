"""Columns beside stores and files: the same tables with them as without, whatever happened to the records."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import pickle
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from rich.console import Console

from harness.analysis import kept
from harness.analysis.columns import rows_of
from harness.analysis.frame import tidy_columns, tidy_frame
from harness.api import reading
from harness.api.reading import stream_records
from harness.cli.console import print_tables
from harness.records.canonical import made
from harness.records.jsonl import dump, payload_of, read_jsonl, write_jsonl
from harness.records.parsing import CurveText, parse_json, parse_record
from harness.records.record import Cost, CurvePoint, Record
from harness.report.compare import compare_methods
from harness.store.forgetting import Wanted, find_records, forget_records
from harness.store.reading import stream_source
from harness.store.store import Store
from harness.support.errors import StoreError
from tests.record_factory import make_grid, make_record


@pytest.fixture(autouse=True)
def _keep_small_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_LEAST_BYTES", 0)
    monkeypatch.setattr(kept, "_LEAST_ROWS", 1)
    monkeypatch.setattr(kept, "_BATCH", 7)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "records.sqlite"
    with Store.open(path) as opened:
        for record in make_grid(sizes=(32, 128), n_test=20):
            opened.add(record)
    return path


def beside(path: Path) -> Path:
    return path.with_name(path.name + ".columns")


def check_same(path: Path) -> list[Record]:
    """Compare what is read with and without the file beside, twice: it may be made in the first reading."""
    plain = list(stream_source(str(path), with_predictions=False))
    wanted = tidy_frame(plain)
    for _ in range(2):
        found = list(stream_records(str(path), with_predictions=False))
        pd.testing.assert_frame_equal(tidy_frame(found), wanted)
        names = ["score", "config", "variant", "n_per_class", "train_seconds"]
        assert tidy_columns(found, names) == tidy_columns(plain, names)
        assert printed(found) == printed(plain)
        assert [record.id for record in found] == [record.id for record in plain]
        assert [dump(payload_of(record)) for record in found] == [dump(payload_of(record)) for record in plain]
        assert found == plain
    return found


def printed(records: list[Record]) -> str:
    out = io.StringIO()
    print_tables(Console(file=out, width=100), records)
    return out.getvalue()


def n_unread(records: list[Record]) -> int:
    return sum("_text" in record.__dict__ for record in records)


def test_a_second_reading_parses_nothing_for_a_table(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(stream_records(str(store), with_predictions=False))
    assert beside(store).exists()
    monkeypatch.setattr(Record, "from_json", lambda _: pytest.fail("a record was parsed"))
    found = list(stream_records(str(store), with_predictions=False))
    assert n_unread(found) == len(found) == 36
    tidy_frame(found)
    printed(found)


@pytest.mark.parametrize("seed", range(4))
def test_tables_are_the_same_after_any_change_of_the_store(store: Path, seed: int) -> None:
    rng = random.Random(seed)

    def add() -> None:
        with Store.open(store) as opened:
            for _ in range(rng.randint(1, 12)):
                number = rng.randrange(10**6)
                status = rng.choice(["ok", "ok", "failed"])
                with_curve = {"curve": ()} if rng.random() < 0.3 else {}
                opened.add(make_record("full", 8, number, n_test=5, status=status, **with_curve))

    def repeat() -> None:
        with Store.open(store) as opened:
            one = rng.choice(list(opened.records()))
            opened.add(dataclasses.replace(one, attempt=opened.next_attempt(one.id, one.device), train_score=0.25))

    def forget() -> None:
        with Store.open(store) as opened:
            keys = find_records(opened, Wanted(method=rng.choice(["full", "lora", "head"])))
            forget_records(opened, rng.sample(keys, min(len(keys), 3)))

    def edit() -> None:
        with sqlite3.connect(store) as connection:
            key, payload = rng.choice(connection.execute("SELECT rowid, payload FROM records").fetchall())
            value = json.loads(payload)
            value["cost"]["fit_seconds"] = rng.random()
            connection.execute("UPDATE records SET payload = ? WHERE rowid = ?", (dump(value), key))

    def reuse_a_place() -> None:
        with Store.open(store) as opened:
            last = find_records(opened, Wanted(task="docstrings"))[-1:]
            forget_records(opened, last)
            opened.add(make_record("lora", 16, rng.randrange(10**6), n_test=5))

    def vacuum() -> None:
        with sqlite3.connect(store) as connection:
            connection.execute("VACUUM")

    for _ in range(6):
        rng.choice([add, add, repeat, forget, edit, reuse_a_place, vacuum])()
        check_same(store)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda _: b"",
        lambda content: content[:40] + b"x" + content[41:],
        lambda content: content[:-3000] + bytes([content[-3000] ^ 1]) + content[-2999:],
        lambda _: b"SQLite format 3\0" * 100,
    ],
)
def test_a_damaged_file_is_ignored_and_replaced(store: Path, damage: Callable[[bytes], bytes]) -> None:
    check_same(store)
    whole = beside(store).read_bytes()
    beside(store).write_bytes(damage(whole))
    found = list(stream_records(str(store), with_predictions=False))
    assert n_unread(found) == 0
    assert beside(store).read_bytes() == whole
    check_same(store)


def test_a_file_of_other_code_is_ignored(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_same(store)
    monkeypatch.setattr(kept, "_code", lambda: b"0" * 16)
    assert n_unread(list(stream_records(str(store), with_predictions=False))) == 0
    assert n_unread(check_same(store)) == 0  # the comparison has read them whole


def test_nothing_is_written_where_nothing_can_be(store: Path) -> None:
    beside(store).mkdir()  # also for root, who may write anywhere
    check_same(store)
    assert sorted(path.name for path in store.parent.iterdir()) == ["records.sqlite", "records.sqlite.columns"]
    assert not list(beside(store).iterdir())


def test_small_stores_have_no_file(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    check_same(store)
    assert not beside(store).exists()


def test_a_reader_that_stops_early_writes_nothing(store: Path) -> None:
    stream = stream_records(str(store), with_predictions=False)
    first = next(stream)
    stream.close()
    assert first.status == "ok"
    assert not beside(store).exists()


def test_rows_of_deleted_records_leave_the_file(store: Path) -> None:
    check_same(store)
    with Store.open(store) as opened:
        forget_records(opened, find_records(opened, Wanted(method="lora")))
    check_same(store)
    table = kept._load(beside(store))
    assert table is not None
    assert table.num_rows == 30


def test_several_processes_may_read_and_write_at_once(store: Path) -> None:
    script = f"""
import sys
from harness.analysis import kept
from harness.api import reading
reading._LEAST_BYTES, kept._LEAST_ROWS = 0, 1
from harness.analysis.frame import tidy_frame
from harness.store.store import Store
from tests.record_factory import make_record
start = int(sys.argv[1])
for seed in range(start, start + 8):
    with Store.open({str(store)!r}) as opened:
        opened.add(make_record("full", 4, seed, n_test=5))
    tidy_frame(reading.stream_records({str(store)!r}, with_predictions=False))
"""
    running = [subprocess.Popen([sys.executable, "-c", script, str(start)]) for start in (1000, 2000)]
    for _ in range(3):
        frame = tidy_frame(stream_records(str(store), with_predictions=False))
        assert frame["score"].notna().all()
        assert len(frame) >= 36
    assert [one.wait(120) for one in running] == [0, 0]
    assert len(check_same(store)) == 52


def test_lines_are_checked_once_and_again_where_they_changed(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_jsonl(make_grid(("lora", "full"), n_test=20), path)
    assert len(check_same(path)) == 24
    assert beside(path).exists()
    lines = path.read_text().splitlines()
    bad = json.loads(lines[5])
    bad["cost"]["fit_seconds"] = -1
    path.write_text("\n".join([*lines[:5], dump(bad), *lines[6:]]) + "\n")
    with pytest.raises(StoreError, match=r"line 6 is not a record: cost\.fit_seconds is -1"):
        list(stream_records(str(path), with_predictions=False))
    path.write_text("\n".join([*lines[:5], *lines[6:], lines[0]]) + "\n")
    check_same(path)


def test_predictions_that_were_not_read_are_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    record = make_record(n_test=20)
    value = payload_of(record)
    value["predictions"]["target"]["n"] = 19
    path.write_text(dump(value) + "\n")
    for _ in range(2):
        assert len(list(stream_records(str(path), with_predictions=False))) == 1
        with pytest.raises(StoreError, match="line 1 is not a record"):
            list(stream_records(str(path)))


@pytest.mark.parametrize("suffix", ["sqlite", "jsonl"])
def test_records_with_predictions_are_those_of_the_store(store: Path, suffix: str) -> None:
    path = store.with_suffix(f".{suffix}")
    if suffix == "jsonl":
        write_jsonl(stream_source(str(store)), path)
    wanted = [dump(payload_of(record)) for record in stream_source(str(path))]
    for _ in range(3):
        assert [dump(payload_of(record)) for record in stream_records(str(path))] == wanted
        pd.testing.assert_frame_equal(tidy_frame(stream_records(str(path))), tidy_frame(stream_source(str(path))))
        found = compare_methods(stream_records(str(path)), stream_records(str(path))).rows
        pd.testing.assert_frame_equal(found, compare_methods(stream_source(str(path)), stream_source(str(path))).rows)


def test_texts_that_columns_escape_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    with Store.open(path) as opened:
        opened.add(make_record(task="caf\u00e9"))
        opened.add(make_record(task="odd\ud800"))
    found = check_same(path)
    assert [record.cell.task for record in found] == ["caf\u00e9", "odd\ud800"]
    assert rows_of(found) is None


def test_a_changed_copy_has_no_columns(store: Path) -> None:
    check_same(store)
    one = next(stream_records(str(store), with_predictions=False))
    assert one.row is not None
    for changed in (
        dataclasses.replace(one, suite="other"),
        one.replaced(suite="other"),
        one.replaced(cell=dataclasses.replace(one.cell, seed=77)),
        pickle.loads(pickle.dumps(one)),
        copy.deepcopy(one),
    ):
        assert changed.row is None
        assert tidy_frame([changed])["suite"].tolist() == [changed.suite]
        assert changed.id == changed.cell.id
    assert one.replaced(predictions=None).row == one.row
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        one.scores  # type: ignore[attr-defined]  # noqa: B018


# ---- what parsing fast must not change


def texts_like_json() -> Iterator[str]:
    record = dump(payload_of(dataclasses.replace(make_record("full"), predictions=None)))
    value = json.loads(record)
    yield record
    for change in (
        {"error": 'lone \ud800 surrogate, \u00e9 and ],"provenance":'},
        {"curve": []},
        {"curve": [{"step": 1, "seconds": 1e-400}, {"step": 2, "seconds": 12345678901234567890}]},
        {"curve": [{"step": [1], "seconds": 2}]},
        {"curve": "],"},
        {"cell": {**value["cell"], "config": {"a": {}, "curve": [1], "provenance": {"x": [1]}}}},
        {"train_score": 1e308, "attempt": 2**70},
    ):
        yield json.dumps({**value, **change}, separators=(",", ":"))
        yield json.dumps({**value, **change}, separators=(",", ":"), ensure_ascii=False).replace("\ud800", "")
        yield json.dumps({**value, **change}, separators=(",", ":"), sort_keys=True)
        yield json.dumps({**value, **change})
    yield from ("[]", "7", "null", '"x"', '{"curve":[1],"curve":0,"provenance":1}', ' {"curve":[],"provenance":{}}')
    yield '{"cost":{},"curve":[1],"provenance":{},"curve":[2]}'


def test_parsing_gives_the_values_of_the_standard_library() -> None:
    for text in texts_like_json():
        wanted = json.loads(text)
        assert typed(parse_json(text)) == typed(wanted)
        found = parse_record(text)
        if isinstance(found, dict) and isinstance(found.get("curve"), CurveText):
            found["curve"] = json.loads(found["curve"])
        assert typed(found) == typed(wanted)


def typed(value: Any) -> Any:
    """A value in which 1, 1.0 and true differ."""
    if isinstance(value, dict):
        return [(name, typed(item)) for name, item in value.items()]
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), repr(value))


@pytest.mark.parametrize(
    "text", ["", "{", "{}x", "NaN", '{"a": Infinity}', "{'a': 1}", '{"a": 01}', '"\n"', "\ufeff{}"]
)
def test_faults_have_the_messages_of_the_standard_library(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as fault:
        parse_json(text)
    if "N" not in text and "I" not in text:
        with pytest.raises(ValueError, match=r".") as wanted:
            json.loads(text)
        assert str(fault.value) == str(wanted.value)


def test_a_curve_is_parsed_when_asked_for() -> None:
    record = dataclasses.replace(make_record("full"), predictions=None)
    found = Record.from_json(parse_record(dump({**payload_of(record), "predictions": None})))
    assert "curve" not in found.__dict__
    assert found.curve == record.curve
    assert found == record
    broken = Record.from_json(parse_record(dump({**payload_of(record), "curve": [{"step": 1}]})))
    with pytest.raises(StoreError, match="The curve of record"):
        _ = broken.curve


def test_made_is_what_a_call_gives() -> None:
    for of, value in ((Cost, {"fit_seconds": 1.5}), (CurvePoint, {"step": 1, "seconds": 2.0, "flops": None})):
        assert made(of, value) == of(**value)
        assert repr(made(of, value)) == repr(of(**value))
    for value in ({"step": 1}, {"step": 1, "seconds": 2.0, "other": 3}):
        with pytest.raises(TypeError) as fault:
            made(CurvePoint, value)
        with pytest.raises(TypeError) as wanted:
            CurvePoint(**value)  # type: ignore[arg-type]
        assert str(fault.value) == str(wanted.value)


def test_decoding_gives_the_values_of_arrow() -> None:
    for array in (
        pa.array(["a", None, "b", "a"]).dictionary_encode(),
        pa.array([None, None], pa.string()).dictionary_encode(),
        pa.array([1, None, 2**62]),
        pa.array([1.5, None, 1e300]),
        pa.array([True, None, False]),
        pa.array([True, False]),
        pa.array([], pa.float64()),
    ):
        found = kept.decode(pa.chunked_array([array, array]))
        assert typed(found) == typed([*array.to_pylist(), *array.to_pylist()])


def test_reading_jsonl_without_columns_is_as_before(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    records = make_grid(("lora",), n_test=10)
    write_jsonl(records, path)
    assert [dump(payload_of(record)) for record in read_jsonl(path)] == [dump(payload_of(r)) for r in records]
