"""Reading a store changes nothing: neither its file nor the folder that it is in, whoever else uses it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.store.store import Store
from harness.support.errors import StoreError
from tests.disks import OLD_STORE, on_a_small_disk
from tests.record_factory import make_grid, make_record


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file, and of the folder itself."""
    found = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    return {**found, ".": (b"", folder.stat().st_mtime_ns)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of now, and one of version 0.1 with older tables."""
    kept = tmp_path / "kept"
    kept.mkdir()
    with Store.open(kept / "new.sqlite") as store:
        for record in make_grid(methods=("full", "tfidf"), sizes=(32, 128), seeds=(0,)):
            store.add(record)
    shutil.copy(OLD_STORE, kept / "old.sqlite")
    return kept


@pytest.mark.parametrize("name", ["new.sqlite", "old.sqlite"])
def test_a_reader_leaves_no_trace(folder: Path, name: str, tmp_path: Path) -> None:
    before = state_of(folder)
    with Store.open(folder / name, read_only=True) as store:
        records = list(store.records(with_predictions=True))
        assert len(records) == store.count() > 1
        assert store.claimed() == set()
        assert state_of(folder) == before  # nor while it is open
        with pytest.raises(StoreError, match="read-only"):
            store.add(make_record(seed=99))
    with Store.open(folder / name, read_only=True) as store:
        assert sum(store.summary().values()) == len({(record.id, record.device) for record in records})
    assert state_of(folder) == before


@pytest.mark.parametrize("name", ["new.sqlite", "old.sqlite"])
@pytest.mark.parametrize(
    "command",
    [
        ["status", "--store", "STORE"],
        ["export", "OUT.csv", "--store", "STORE"],
        ["report", "--store", "STORE", "--out", "OUT", "--figures", "png"],
        ["compare", "STORE", "STORE"],
        ["advise", "--n-train", "64", "--store", "STORE"],
        ["doctor", "--store", "STORE"],
    ],
    ids=lambda command: command[0],
)
def test_commands_that_read_leave_no_trace(folder: Path, name: str, command: list[str], tmp_path: Path) -> None:
    before = state_of(folder)
    values = {"STORE": str(folder / name), "OUT": str(tmp_path / "out"), "OUT.csv": str(tmp_path / "out.csv")}
    result = CliRunner().invoke(app, [values.get(part, part) for part in command])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert state_of(folder) == before


def test_a_store_that_is_missing_is_not_made_by_a_reader(tmp_path: Path) -> None:
    for source in (tmp_path / "no" / "s.sqlite", f"sqlite:///{tmp_path}/s.sqlite"):
        with pytest.raises(StoreError, match="There is no store at"):
            Store.open(source, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_what_a_run_commits_meanwhile(folder: Path) -> None:
    with Store.open(folder / "new.sqlite", read_only=True) as reader, Store.open(folder / "new.sqlite") as writer:
        for seed in range(10, 20):
            writer.add(make_record(seed=seed))
            assert {record.cell.seed for record in reader.records() if record.cell.method == "lora"} >= {seed}
        writer.close()  # which folds the log back into the file
        assert len(list(reader.records())) == 14


def test_what_a_killed_run_left_in_its_log_is_read_without_touching_it(folder: Path) -> None:
    """A log without its index, as a copied folder may hold it: SQLite alone would make the index, or ignore the log."""
    with Store.open(folder / "new.sqlite") as writer:
        writer.add(make_record(seed=50))
        copy = folder.parent / "copy"
        copy.mkdir()
        for ending in ("", "-wal"):
            shutil.copy(folder / f"new.sqlite{ending}", copy / f"new.sqlite{ending}")
    assert (copy / "new.sqlite-wal").stat().st_size > 0
    before = state_of(copy)
    with Store.open(copy / "new.sqlite", read_only=True) as reader:
        assert {record.cell.seed for record in reader.records()} == {0, 50}
    assert state_of(copy) == before


def test_a_file_that_is_written_to_in_the_middle_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of two states must never be mixed: an immutable file that changed is read from the start."""
    reader = Store.open(folder / "new.sqlite", read_only=True)
    n_reads = 0

    def work(connection):
        nonlocal n_reads
        n_reads += 1
        if n_reads == 1:
            with Store.open(folder / "new.sqlite") as writer:
                writer.add(make_record(seed=77))
        return connection.exec_driver_sql("SELECT count(*) FROM records").scalar_one()

    assert reader.read(work) == 5
    assert n_reads == 2
    reader.close()


READ = """
import sys
from pathlib import Path
from harness.store.store import Store
for name in ("old.sqlite", "new.sqlite", "log.sqlite"):
    with Store.open(Path(sys.argv[1]) / name, read_only=True) as store:
        print(name, len(list(store.records(with_predictions=True, latest_only=False))), "readable")
"""


def test_a_store_on_a_read_only_disk_can_be_read(folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with Store.open(folder / "log.sqlite") as writer:
        writer.add(make_record())
        for ending in ("", "-wal"):
            shutil.copy(folder / f"log.sqlite{ending}", folder / f"copied.sqlite{ending}")
    for ending in ("", "-wal"):
        (folder / f"copied.sqlite{ending}").replace(folder / f"log.sqlite{ending}")
    n_old = sqlite3.connect(folder / "old.sqlite").execute("SELECT count(*) FROM records").fetchone()[0]
    output = on_a_small_disk(READ, disk, then=f'cp \'{folder}\'/* "$0" && mount -o remount,ro "$0"')
    assert f"old.sqlite {n_old} readable" in output
    assert "new.sqlite 4 readable" in output
    assert "log.sqlite 1 readable" in output
