from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.records.jsonl import read_jsonl, write_jsonl
from harness.store import tables
from harness.store.store import STORE_SCHEMA, Store
from harness.support.errors import StoreError
from tests.record_factory import DEVICE, make_record
from tests.store_checks import STORE_CHECKS, same


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / "harness.sqlite"


@pytest.mark.parametrize("check", STORE_CHECKS)
def test_a_store_works(check: Callable[[Path], None], path: Path) -> None:
    check(path)


def test_what_lies_on_disk_is_a_plain_sqlite_file_with_predictions_apart(path):
    record = make_record(method="full", status="ok")
    with Store.open(f"sqlite:///{path}") as store:
        store.add(record)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone() == (str(STORE_SCHEMA),)
    row = connection.execute("SELECT id, device, attempt, suite, task, method, status, payload FROM records").fetchone()
    assert row[:7] == (record.id, DEVICE, 1, "quickstart", "docstrings", "full", "ok")
    assert "predictions" not in json.loads(row[7])
    (packed,) = connection.execute("SELECT payload FROM predictions").fetchone()
    assert json.loads(packed) == record.predictions.to_json()


def test_a_second_record_under_one_key_is_refused_and_changes_nothing(path):
    with Store.open(path) as store:
        store.add(make_record())
        with pytest.raises(StoreError, match=r"Attempt 1 .* in .*harness.sqlite already.*next_attempt"):
            store.add(dataclasses.replace(make_record(), train_score=0.0))
        (found,) = store.records(with_predictions=True)
    assert same(found, make_record())


def test_neither_row_is_kept_when_the_predictions_cannot_be_written(path, monkeypatch):
    with Store.open(path) as store:
        sqlite3.connect(path).executescript(
            "CREATE TRIGGER no BEFORE INSERT ON predictions BEGIN SELECT RAISE(FAIL, 'no'); END;"
        )
        with pytest.raises(StoreError):
            store.add(make_record())
        assert store.count() == 0


def test_a_hundred_thousand_cells_are_checked_quickly(path):
    with Store.open(path) as store:
        store.add(make_record())
    connection = sqlite3.connect(path)
    with connection:
        connection.executemany(
            "INSERT INTO records VALUES (?, ?, 1, 's', 't', 'm', ?, '2025', ?)",
            ((f"{i:032x}", DEVICE, "failed" if i % 10 == 0 else "ok", "x" * 100) for i in range(100_000)),
        )
    connection.close()
    ids = [f"{i:032x}" for i in range(50_000, 150_000)]
    with Store.open(path) as store:
        started = time.process_time()
        done = store.done(ids, DEVICE, retry_failed=True)
        seconds = time.process_time() - started
        assert done == {id for i, id in enumerate(ids, start=50_000) if i < 100_000 and i % 10}
        assert store.done(ids[:700], DEVICE) == set(ids[:700])
    assert seconds < 3


def add_until_killed(path: Path, sender) -> None:
    with Store.open(path) as store:
        for seed in range(10_000):
            record = make_record(seed=seed)
            store.add(record)
            sender.send(record.id)


def test_kill_9_loses_no_committed_record(path):
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=add_until_killed, args=(path, sender))
    process.start()
    sender.close()
    committed = [receiver.recv() for _ in range(5)]
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while receiver.poll():
        try:
            committed.append(receiver.recv())
        except EOFError:
            break
    with Store.open(path) as store:
        found = list(store.records(with_predictions=True))
    assert {record.id for record in found} >= set(committed)
    assert len(found) - len(committed) in (0, 1)  # the last one may be committed and not yet reported
    assert all(record.predictions is not None for record in found)


# ---- what cannot be opened or written


def test_a_store_that_is_missing_is_made_only_on_request(path):
    with pytest.raises(StoreError, match=r"no store at .*harness\.sqlite.*Run something first"):
        Store.open(path, create=False)
    assert not path.parent.exists()
    Store.open(path).close()
    with Store.open(path, create=False) as store:
        assert store.count() == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a database, but long enough to be told from one" * 10, "not a SQLite database"),
        ("CREATE TABLE tickets (body TEXT)", "not a store of records: it holds tickets"),
        ("CREATE TABLE meta (key TEXT, value TEXT)", "not a store of records"),
        (
            "CREATE TABLE meta (name TEXT, value TEXT); INSERT INTO meta VALUES ('schema', '99')",
            r"newer version .*version 99; this one reads up to 2\).*Upgrade",
        ),
        ("CREATE TABLE meta (name TEXT, value TEXT); INSERT INTO meta VALUES ('schema', 'x')", "schema version 'x'"),
    ],
)
def test_what_is_no_store_of_this_version_is_refused(tmp_path, content, message):
    file = tmp_path / "other.db"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        sqlite3.connect(file).executescript(content)
    before = file.read_bytes()
    with pytest.raises(StoreError, match=message):
        Store.open(file)
    if isinstance(content, bytes):
        assert file.read_bytes() == before


def test_a_creation_that_was_killed_is_finished(tmp_path):
    file = tmp_path / "half.db"
    sqlite3.connect(file).executescript("CREATE TABLE meta (name VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)")
    with pytest.raises(StoreError, match="holds no records yet"):
        Store.open(file, create=False)
    with Store.open(file) as store:
        store.add(make_record())
        assert store.count() == 1


def test_older_tables_are_upgraded_step_by_step(path, monkeypatch):
    Store.open(path).close()
    now = STORE_SCHEMA
    monkeypatch.setattr(tables, "STORE_SCHEMA", now + 2)
    ran = []
    steps = {version: lambda _, version=version: ran.append(version) for version in (now, now + 1)}
    monkeypatch.setattr(tables, "UPGRADES", steps)
    Store.open(path).close()
    Store.open(path).close()
    assert ran == [now, now + 1]
    assert sqlite3.connect(path).execute("SELECT value FROM meta").fetchall() == [(str(now + 2),)]


def test_a_store_that_may_only_be_read_can_be_read(path):
    with Store.open(path) as store:
        store.add(make_record())
        with Store.open(f"sqlite:///file:{path}?mode=ro&uri=true", create=False) as reader:
            assert len(list(reader.records())) == 1
            with pytest.raises(StoreError, match=r"read-only.*--store"):
                reader.add(make_record(seed=1))


def test_a_full_disk_is_named_and_loses_nothing(path):
    with Store.open(path) as store:
        store.add(make_record())
        with store._engine.connect() as connection:
            (pages,) = connection.exec_driver_sql("PRAGMA page_count").one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match=r"disk is full\. Free some space"):
            store.add(dataclasses.replace(make_record(seed=1), status="failed", error="x" * 100_000))
        assert store.count() == 1


def test_a_folder_a_file_in_the_way_and_an_unknown_url_are_named(tmp_path):
    with pytest.raises(StoreError, match="is a folder; expected a file"):
        Store.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        Store.open(tmp_path / "file" / "harness.sqlite")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open("/proc/harness.sqlite")
    with pytest.raises(StoreError, match="expected a path"):
        Store.open("://")
    with pytest.raises(StoreError, match="empty"):
        Store.open("")
    with pytest.raises(StoreError, match=re.escape("nodb://")):
        Store.open("nodb://x")


def test_a_database_server_that_does_not_answer_is_named_without_its_password():
    with pytest.raises(StoreError) as caught:
        Store.open("postgresql+psycopg://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_the_tables_and_queries_compile_for_postgresql():
    from sqlalchemy.dialects import postgresql

    for table in tables.metadata.sorted_tables:
        assert "CREATE TABLE" in str(sa.schema.CreateTable(table).compile(dialect=postgresql.dialect()))


# ---- JSONL


def test_jsonl_holds_everything(tmp_path):
    records = [make_record(seed=seed) for seed in range(3)] + [make_record(seed=9, status="failed", error="\ud800\n=1")]
    file = tmp_path / "deep" / "reference.jsonl"
    assert write_jsonl(iter(records), file) == 4
    assert [json.loads(line)["id"] for line in file.read_text("ascii").splitlines()] == [r.id for r in records]
    found = list(read_jsonl(str(file)))
    assert all(same(left, right) for left, right in zip(found, records, strict=True))
    assert found[0].predictions is not None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "Expecting"),
        (b"[1]", "it is an array of 1 entries; expected an object"),
        (b"\xff", "utf-8"),
        (b'{"schema": 7}', "schema is 7; this version reads schema 1"),
        (b'{"schema": 1}', "attempt is missing"),
        (b'{"schema": NaN}', "NaN"),
        (b"EDITED", "has been edited"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line, message):
    file = tmp_path / "some.jsonl"
    write_jsonl([make_record()], file)
    edited = file.read_bytes().replace(b'"n_train":32', b'"n_train":64')
    file.write_bytes(file.read_bytes() + b"\n" + (edited if line == b"EDITED" else line) + b"\n")
    with pytest.raises(StoreError, match=rf"some\.jsonl, line 3 is not a record: .*{message}"):
        list(read_jsonl(file))


def test_a_file_that_is_missing_or_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"none\.jsonl cannot be read"):
        list(read_jsonl(tmp_path / "none.jsonl"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"x\.jsonl cannot be written"):
        write_jsonl([make_record()], tmp_path / "file" / "x.jsonl")


def test_a_write_that_breaks_leaves_the_old_file(tmp_path):
    file = tmp_path / "kept.jsonl"
    write_jsonl([make_record()], file)
    before = file.read_bytes()

    def break_off():
        yield make_record(seed=1)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_jsonl(break_off(), file)
    assert file.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["kept.jsonl"]
