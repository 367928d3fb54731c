"""`harness forget`: what is asked for goes, with its predictions, and nothing else."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.store.claims import Owner
from harness.store.forgetting import Wanted, find_records, forget_records
from harness.store.store import Store
from harness.support.errors import UsageError
from tests.record_factory import DEVICE, make_record

RECORDS = [
    make_record("full", 32, seed=0),
    make_record("full", 32, seed=1, task="other"),
    make_record("tfidf", 32, backbone=None),
    make_record("lora", 32, status="failed", error="boom"),
    dataclasses.replace(make_record("lora", 32), attempt=2),
    dataclasses.replace(make_record("head", 32), device="GPU", suite="mine"),
]


def fill(url: str | Path) -> None:
    with Store.open(url) as store:
        for record in RECORDS:
            store.add(record)


def check_filters(url: str | Path) -> None:
    """Each filter finds what a comprehension over the records finds."""
    fill(url)
    expected = {
        Wanted(task="other"): [r for r in RECORDS if r.cell.task == "other"],
        Wanted(method="lora"): [r for r in RECORDS if r.cell.method == "lora"],
        Wanted(method="lora", status="failed"): [RECORDS[3]],
        Wanted(backbone="none"): [RECORDS[2]],
        Wanted(backbone=str(RECORDS[0].cell.backbone)): [r for r in RECORDS if r.cell.backbone],
        Wanted(device="GPU"): [RECORDS[5]],
        Wanted(suite="mine"): [RECORDS[5]],
        Wanted(status="ok"): [r for r in RECORDS if r.status == "ok"],
        Wanted(id=RECORDS[0].id[:12]): [RECORDS[0]],
        Wanted(before="2020-01-01"): [],
        Wanted(after="2020-01-01T00:00+02:00"): RECORDS,
        Wanted(task="othe"): [],
        Wanted(task="%"): [],
    }
    with Store.open(url) as store:
        for wanted, records in expected.items():
            found = {(key.id, key.device, key.attempt) for key in find_records(store, wanted)}
            assert found == {(r.id, r.device, r.attempt) for r in records}, wanted
        n_all = store.count()
        assert forget_records(store, find_records(store, Wanted(method="lora", status="failed"))) == (1, 0)
        assert store.count() == n_all - 1
        left = {record.id: record for record in store.records(with_predictions=True)}
        assert left[RECORDS[4].id].to_json() == RECORDS[4].to_json()  # the second attempt, predictions and all
        assert forget_records(store, find_records(store, Wanted(after="2020-01-01"))) == (n_all - 1, 0)
        assert store.count() == 0


def test_filters_on_sqlite(tmp_path: Path) -> None:
    check_filters(tmp_path / "s.sqlite")
    rows = sqlite3.connect(tmp_path / "s.sqlite").execute("SELECT count(*) FROM predictions").fetchone()
    assert rows == (0,)


def check_claims(url: str | Path) -> None:
    fill(url)
    with Store.open(url) as store:
        mine = RECORDS[0]
        owner = Owner(host="elsewhere")
        assert store.claim([mine.id], mine.device, owner, again=[mine.id]) == {mine.id: 2}
        keys = find_records(store, Wanted(method="full"))
        assert forget_records(store, keys) == (1, 1)
        assert mine.id in store.statuses([mine.id], DEVICE)
        store.release(owner)
        assert forget_records(store, keys) == (1, 0)


def test_records_of_cells_that_are_being_run_stay(tmp_path: Path) -> None:
    check_claims(tmp_path / "s.sqlite")


def test_a_record_that_cannot_be_read_can_be_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    fill(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE records SET payload = '{' WHERE id = ?", (RECORDS[1].id,))
    with Store.open(path) as store, pytest.raises(Exception, match=rf"harness forget --id {RECORDS[1].id}"):
        list(store.records())
    result = CliRunner().invoke(app, ["forget", "--id", RECORDS[1].id, "--yes", "--store", str(path)])
    assert "1 records forgotten; 5 are left" in result.output
    with Store.open(path) as store:
        assert len(list(store.records(latest_only=False))) == 5


def test_the_command_shows_what_goes_and_asks(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    fill(path)
    arguments = ["forget", "--method", "lora", "--store", str(path)]
    for answer, n_left in (("n\n", 6), ("", 6), ("y\n", 4)):
        result = CliRunner().invoke(app, arguments, input=answer, env={"COLUMNS": "160"})
        assert "2 records of" in result.output
        assert "failed" in result.output
        with Store.open(path) as store:
            assert store.count() == n_left, result.output
    result = CliRunner().invoke(app, [*arguments, "--yes"])
    assert result.exit_code == 0
    assert "has method lora" in result.output
    missing = CliRunner().invoke(app, ["forget", "--task", "x", "--yes", "--store", str(tmp_path / "none.sqlite")])
    assert "There is no store" in str(missing.exception)
    assert not (tmp_path / "none.sqlite").exists()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "Nothing says which records to forget"),
        ({"status": "fine"}, "expected one of ok"),
        ({"before": "yesterday"}, "--before 'yesterday' was given; expected a date or time"),
        ({"id": "xyz"}, "expected the first of a cell's 32 hexadecimal digits"),
        ({"id": ""}, "hexadecimal digits"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(wanted: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Wanted(**wanted)
