"""Outputs that a user names: no file of others is lost, and files are written whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.records.jsonl import write_jsonl
from harness.store.store import Store
from harness.support.errors import UsageError
from harness.support.outputs import check_folder, check_output, csv_starts_with, mark_folder, replacing
from tests.record_factory import make_grid

RECORDS = make_grid(methods=("full", "tfidf"), sizes=(32,), seeds=(0, 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "a.sqlite") as store:
        for record in RECORDS:
            store.add(record)
    shutil.copy(tmp_path / "a.sqlite", tmp_path / "b.sqlite")
    write_jsonl(RECORDS, tmp_path / "records.jsonl")
    (tmp_path / "mine.csv").write_text("day,hours\n1,2\n")
    (tmp_path / "mine.jsonl").write_text('{"day": 1}\n')
    (tmp_path / "mine.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "b.sqlite")
    return tmp_path


def commands(folder: Path) -> dict[str, Callable[[Path], list[str]]]:
    """Every command that writes one file under a user's name, as the arguments that write to it."""
    a, b = str(folder / "a.sqlite"), str(folder / "b.sqlite")
    return {
        "compare": lambda out: ["compare", a, b, "--out", str(out)],
        "export": lambda out: ["export", str(out), "--store", a],
    }


@pytest.mark.parametrize("name", ["compare", "export"])
def test_a_file_that_the_command_did_not_write_stays_as_it_was(folder: Path, name: str) -> None:
    arguments = commands(folder)[name]
    inputs = ["mine.csv", "link.csv", "folder.csv"]
    inputs += ["a.sqlite", "b.sqlite"] if name == "compare" else ["mine.jsonl", "records.jsonl", "mine.parquet"]
    for target in inputs:
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        result = CliRunner().invoke(app, arguments(folder / target))
        assert isinstance(result.exception, UsageError), (target, result.output)
        assert "Name a" in str(result.exception), target
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("name", ["compare", "export"])
def test_its_own_earlier_file_is_replaced_and_another_on_request(folder: Path, name: str) -> None:
    arguments = commands(folder)[name]
    out = folder / "out.csv"
    for _ in range(2):
        result = CliRunner().invoke(app, arguments(out))
        assert result.exception is None, result.output
    written = out.read_bytes()
    result = CliRunner().invoke(app, [*arguments(folder / "mine.csv"), "--overwrite"])
    assert result.exception is None, result.output
    assert (folder / "mine.csv").read_bytes() == written
    for target in ("a.sqlite", "folder.csv"):  # never, whatever is allowed
        result = CliRunner().invoke(app, [*arguments(folder / target), "--overwrite"])
        assert isinstance(result.exception, UsageError), target


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_export_knows_its_own_files_of_every_form(folder: Path, ending: str) -> None:
    arguments = commands(folder)["export"]
    for _ in range(2):
        result = CliRunner().invoke(app, arguments(folder / f"out.{ending}"))
        assert result.exception is None, result.output


def test_a_report_replaces_a_report_and_nothing_else(folder: Path) -> None:
    mine = folder / "mine"
    mine.mkdir()
    (mine / "comparison.csv").write_text("mine")
    arguments = ["report", "--store", str(folder / "a.sqlite"), "--figures", "png", "--out"]
    result = CliRunner().invoke(app, [*arguments, str(mine)])
    assert isinstance(result.exception, UsageError)
    assert "holds a comparison.csv that this command did not write" in str(result.exception)
    assert (mine / "comparison.csv").read_text() == "mine"
    result = CliRunner().invoke(app, [*arguments, str(folder / "a.sqlite")])
    assert "is a file; expected a folder" in str(result.exception)
    for _ in range(2):
        result = CliRunner().invoke(app, [*arguments, str(folder / "new")])
        assert result.exception is None, result.output


def test_folders_are_told_by_their_mark_or_by_what_they_hold(tmp_path: Path) -> None:
    check_folder(tmp_path / "none", ["a.csv"])
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(UsageError, match="add --overwrite"):
        check_folder(tmp_path, ["a.csv"])
    with pytest.raises(UsageError, match=r"Name another folder\.$"):
        check_folder(tmp_path, ["a.csv"], overwrite=None)
    with pytest.raises(UsageError, match="is read by this command"):
        check_folder(tmp_path, ["a.csv"], inputs=[tmp_path / "a.csv"], overwrite=True)
    check_folder(tmp_path, ["b.csv"])
    check_folder(tmp_path, ["a.csv"], overwrite=True)
    mark_folder(tmp_path)
    check_folder(tmp_path, ["a.csv"])


def test_an_input_is_refused_by_every_name_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.csv").write_text("text,prediction\n")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "in.csv")
    (tmp_path / "soft.csv").symlink_to("in.csv")
    monkeypatch.chdir(tmp_path)
    for name in ("in.csv", "./in.csv", "hard.csv", "soft.csv", str(tmp_path / "in.csv")):
        with pytest.raises(UsageError, match="this command reads"):
            check_output(Path(name), inputs=["in.csv"], ours=csv_starts_with("text"), overwrite=True)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UsageError, match="not a regular file"):
        check_output(tmp_path / "pipe.csv", overwrite=True)


def test_a_write_that_breaks_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")

    def break_half_way() -> None:
        with replacing(tmp_path / "a.csv") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_half_way()
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "old"
    name = "x" * 250 + ".csv"  # the longest that file systems take
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("new")
    assert (tmp_path / name).read_text() == "new"
