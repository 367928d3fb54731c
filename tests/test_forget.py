"""`harness forget`: what is asked for goes, with its predictions, and nothing else."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.store.forgetting import Wanted
from harness.store.store import Store
from harness.support.errors import UsageError
from tests.store_checks import RECORDS, check_filters_of_forget, fill


def test_filters_on_sqlite(tmp_path: Path) -> None:
    check_filters_of_forget(tmp_path / "s.sqlite")
    rows = sqlite3.connect(tmp_path / "s.sqlite").execute("SELECT count(*) FROM predictions").fetchone()
    assert rows == (0,)


def test_a_record_that_cannot_be_read_can_be_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    fill(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE records SET payload = '{' WHERE id = ?", (RECORDS[1].id,))
    with Store.open(path) as store, pytest.raises(Exception, match=rf"harness forget --id {RECORDS[1].id}"):
        list(store.records())
    result = CliRunner().invoke(app, ["forget", "--id", RECORDS[1].id, "--yes", "--store", str(path)])
    assert "1 record forgotten; 5 are left" in result.output
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
