"""What the world does to a run: disks that fill up, files that may not be written, caches that rot.

Either the run mends it and says so, or it ends with a message that says what to try; what was stored stays readable.
Elsewhere: kills (`test_kills.py`), claims and upgrades (`test_claims.py`), files that are no store (`test_store.py`).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from harness.backbones.locate import BackboneFiles
from harness.features.disk import FeatureDisk, Shard
from harness.measure.device import Device
from harness.methods import methods
from harness.records.record import Record
from harness.running.worker import Worker
from harness.store.store import STORE_SCHEMA, Store
from harness.support.errors import StoreError
from harness.tasks import Task
from tests.commands import run_cli
from tests.disks import OLD_STORE, on_a_small_disk
from tests.record_factory import make_record
from tests.toys import run_one, write_toy_table

ROOT = Path(__file__).parent.parent
N_OLD = 9


# ---- a disk that is full


@contextmanager
def pages_at_most(n_pages: int) -> Iterator[None]:
    """Every SQLite database that is opened within is as full as a disk would make it."""

    def limit(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {n_pages}")

    sa.event.listen(sa.engine.Engine, "connect", limit)
    try:
        yield
    finally:
        sa.event.remove(sa.engine.Engine, "connect", limit)


def n_pages(path: Path) -> int:
    connection = sqlite3.connect(path)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    return int(pages)


def texts_of(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Every record that can be read, predictions and all."""
    with Store.open(path, create=False) as store:
        found = store.records(with_predictions=True, latest_only=False)
        return {(record.id, record.attempt): record.to_json() for record in found}


def test_a_run_on_an_old_store_that_meets_a_full_disk_and_then_a_file_in_the_way(tmp_path: Path) -> None:
    """Each time the run ends with what to do, and no record is lost: neither old nor new ones."""
    write_toy_table(tmp_path / "tickets.csv", n_rows=90)
    store = tmp_path / "old.sqlite"
    shutil.copy(OLD_STORE, store)
    Store.open(store).close()  # the tables that are missing take room of their own
    arguments = ["run", "--data", "tickets.csv", "--methods", "majority", "--sizes", "12", "--seeds", "0,1,2,3,4,5"]
    with pages_at_most(n_pages(store) + 2):
        output = run_cli(*arguments, "--store", str(store), cwd=tmp_path, code=2)
    assert "disk is full. Free some space and run the same command again: what was stored is safe." in output
    before = texts_of(store)
    assert N_OLD < len(before) < N_OLD + 6
    (tmp_path / "file").write_text("no folder")
    output = run_cli(*arguments, "--store", str(store), "--reports", "file/below", cwd=tmp_path, code=2)
    assert re.search(rf"{len(before) - N_OLD} of 6 cells (is|are) done already", output)
    assert "The folder file/below/tickets cannot be made" in output
    after = texts_of(store)
    assert len(after) == N_OLD + 6
    assert {key: after[key] for key in before} == before


def test_an_upgrade_on_a_full_disk_leaves_the_old_store(tmp_path: Path) -> None:
    store = tmp_path / "old.sqlite"
    shutil.copy(OLD_STORE, store)
    with pages_at_most(n_pages(store)), pytest.raises(StoreError, match=r"disk is full\. Free some space"):
        Store.open(store)
    assert sqlite3.connect(store).execute("SELECT value FROM meta WHERE name = 'schema'").fetchall() == [("1",)]
    assert len(texts_of(store)) == N_OLD
    assert sqlite3.connect(store).execute("SELECT value FROM meta WHERE name = 'schema'").fetchall() == [
        (str(STORE_SCHEMA),)
    ]


FILL_A_DISK = """
import sys
from pathlib import Path
import numpy as np
from harness.support.errors import StoreError
from harness.features.disk import FeatureDisk, Shard
from harness.store.store import Store
from tests.record_factory import make_record

folder = Path(sys.argv[1])
store = Store.open(folder / "records.sqlite")
n_stored = 0
try:
    while True:
        store.add(make_record(seed=n_stored))
        n_stored += 1
except StoreError as error:
    print(error)
with Store.open(folder / "records.sqlite", create=False) as reader:
    assert len(list(reader.records(with_predictions=True))) == n_stored
store.close()
shard = Shard(np.arange(9999), np.ones((9999, 8), np.float32), np.ones(9999),
              *np.ones((2, 9999), int), np.zeros(9999, bool))
FeatureDisk(folder).write("some", "{}", shard)
assert not list(folder.glob("features/*/*.partial"))
with Store.open(folder / "records.sqlite", create=False) as reader:
    assert len(list(reader.records(with_predictions=True))) == n_stored
print(f"records: {n_stored}")
"""


def test_a_real_disk_that_is_full(tmp_path: Path) -> None:
    output = on_a_small_disk(FILL_A_DISK, tmp_path)
    assert "disk is full. Free some space and run the same command again: what was stored is safe." in output
    assert "UserWarning: Features could not be kept" in output
    assert int(output.split("records: ")[1].split()[0]) > 3


# ---- files that may not be written


def test_a_run_on_a_store_that_may_only_be_read_trains_nothing(tmp_path: Path) -> None:
    write_toy_table(tmp_path / "tickets.csv", n_rows=90)
    with Store.open(tmp_path / "records.sqlite") as store:
        store.add(make_record())
    before = texts_of(tmp_path / "records.sqlite")
    url = f"sqlite:///file:{tmp_path / 'records.sqlite'}?mode=ro&uri=true"
    arguments = ["run", "--data", "tickets.csv", "--methods", "majority", "--sizes", "12", "--seeds", "0"]
    output = run_cli(*arguments, "--store", url, cwd=tmp_path, code=2)
    assert "it is read-only. Check its permissions, or name another store with --store." in output
    assert "[1/1]" not in output
    assert texts_of(tmp_path / "records.sqlite") == before


READ_WHAT_MAY_ONLY_BE_READ = """
import sys, warnings
from pathlib import Path
import numpy as np
from harness.support.errors import StoreError
from harness.features.disk import FeatureDisk, Shard
from harness.store.store import Store

folder = Path(sys.argv[1])
for name in ("old.sqlite", "new.sqlite"):
    try:
        Store.open(folder / name, create=False)
    except StoreError as error:
        print(error)
with Store.open(f"sqlite:///file:{folder / 'new.sqlite'}?immutable=1&uri=true", create=False) as store:
    print(f"{len(list(store.records(with_predictions=True)))} readable")
disk = FeatureDisk(folder)
shard = Shard(np.arange(9), np.ones((9, 8), np.float32), np.ones(9), *np.ones((2, 9), int), np.zeros(9, bool))
disk.write("some", "{}", shard)
assert list(disk.read("some")) == []
"""


def test_a_disk_that_may_only_be_read(tmp_path: Path) -> None:
    """A writer is told what to do, and a reader can read (see also tests/test_read_only.py)."""
    kept, disk = tmp_path / "kept", tmp_path / "disk"
    kept.mkdir()
    disk.mkdir()
    shutil.copy(OLD_STORE, kept / "old.sqlite")
    with Store.open(kept / "new.sqlite") as store:
        store.add(make_record())
    fill = f'cp \'{kept}\'/*.sqlite "$0" && mount -o remount,ro "$0"'
    output = on_a_small_disk(READ_WHAT_MAY_ONLY_BE_READ, disk, then=fill)
    assert "old.sqlite cannot be used: it is read-only. Check its permissions" in output
    assert "new.sqlite cannot be used: it cannot be opened. Check that its folder exists and can be written." in output
    assert "1 readable" in output
    assert "UserWarning: Features could not be kept" in output


# ---- a feature cache that rots


def test_a_rotten_cache_is_noticed_and_mended(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path) -> None:
    """A shard that was cut short, and one with a flipped bit: a warning each, the same figures, whole ones again."""

    def run() -> Record:
        record = run_one(toy, tiny, methods.get("linear-probe")(c=1.0), cpu, worker=Worker(cpu, tmp_path))
        assert record.status == "ok", record.error
        return record

    fresh = run()
    shards = sorted(tmp_path.glob("features/*/*.safetensors"))
    assert len(shards) >= 2  # of training and of test rows
    intact = [path.read_bytes() for path in shards]
    shards[0].write_bytes(intact[0][: len(intact[0]) // 2])
    flipped = bytearray(intact[1])
    flipped[-5] ^= 0x04
    shards[1].write_bytes(bytes(flipped))
    with pytest.warns(UserWarning, match=r"Damaged feature cache .*: removed, and encoded again") as warned:
        mended = run()
    assert len([warning for warning in warned if "Damaged" in str(warning.message)]) == 2
    assert mended.score == fresh.score
    assert mended.predictions is not None
    assert fresh.predictions is not None
    assert mended.predictions.to_json() == fresh.predictions.to_json()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warm = run()
    assert "features" in warm.cost.reused
    assert warm.score == fresh.score


@pytest.mark.slow
def test_whoever_runs_cells_hears_of_a_rotten_cache(tiny: BackboneFiles, tmp_path: Path) -> None:
    write_toy_table(tmp_path / "tickets.csv", n_rows=90)
    arguments = ["run", "--data", "tickets.csv", "--backbone", str(tiny.folder), "--methods", "linear-probe[c=1.0]"]
    run_cli(*arguments, "--sizes", "12", "--seeds", "0", cwd=tmp_path, HARNESS_CACHE=str(tmp_path / "cache"))
    for path in tmp_path.glob("cache/features/*/*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    output = run_cli(*arguments, "--sizes", "12", "--seeds", "1", cwd=tmp_path, HARNESS_CACHE=str(tmp_path / "cache"))
    assert "Damaged feature cache" in output


def some_shard(n_rows: int = 16) -> Shard:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(n_rows, 8)).astype(np.float32)
    peaks, device_peaks = draw.integers(10**9, size=(2, n_rows))
    return Shard(np.arange(n_rows), values, draw.random(n_rows), peaks, device_peaks, np.zeros(n_rows, bool))


def test_no_byte_of_a_shard_changes_unnoticed(tmp_path: Path) -> None:
    """Not of its header either, which says what the numbers are."""
    disk = FeatureDisk(tmp_path)
    disk.write("some", "{}", some_shard())
    [path] = tmp_path.glob("features/some/*.safetensors")
    intact = path.read_bytes()
    draw = random.Random(0)
    n_header = 8 + int.from_bytes(intact[:8], "little")
    places = [*range(n_header), *draw.sample(range(n_header, len(intact)), 100)]
    for at in places:
        for value in {draw.randrange(256), intact[at] ^ 1, ord("0"), ord("9"), ord("I"), ord(" ")} - {intact[at]}:
            path.write_bytes(intact[:at] + bytes([value]) + intact[at + 1 :])
            with pytest.warns(UserWarning, match="Damaged feature cache"):
                assert list(disk.read("some")) == [], (at, value)
    for length in range(len(intact)):
        path.write_bytes(intact[:length])
        with pytest.warns(UserWarning, match="Damaged feature cache"):
            assert list(disk.read("some")) == []
        assert not path.exists()
    path.write_bytes(intact)
    [found] = disk.read("some")
    np.testing.assert_array_equal(found.values, some_shard().values)


def test_a_full_disk_costs_the_cache_and_not_the_cell(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    """And leaves no half file behind to keep it full."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes of a file
    try:
        with pytest.warns(UserWarning, match="could not be kept"):
            record = run_one(toy, tiny, methods.get("linear-probe")(c=1.0), cpu, worker=Worker(cpu, tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert record.status == "ok", record.error
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".partial", ".safetensors")]


def test_what_a_killed_run_left_unfinished_is_swept_away(tmp_path: Path) -> None:
    disk = FeatureDisk(tmp_path)
    disk.write("some", "{}", some_shard())
    folder = tmp_path / "features" / "some"
    for name, age in (("abandoned", 7200.0), ("being-written", 1.0)):
        (folder / f"{name}.partial").write_bytes(b"half a file")
        at = (folder / f"{name}.partial").stat().st_mtime - age
        os.utime(folder / f"{name}.partial", (at, at))
    disk.write("other", "{}", some_shard(8))
    assert [path.name for path in folder.glob("*.partial")] == ["being-written.partial"]
    assert len(list(disk.read("some"))) == 1
