"""Cells run in a worker process, which may die or be stopped: each comes to a record, and the run goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import psutil
import pytest

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.measure.device import Device
from harness.measure.memory import host_limit_bytes
from harness.records.record import Budget, Record
from harness.schedule.drive import run_cells
from harness.schedule.local import LocalWorkers
from harness.schedule.prepare import Prepared
from harness.schedule.slot import Limits
from harness.store.store import Store
from harness.support.durations import parse_duration
from harness.support.errors import UsageError
from harness.tasks import Task
from tests.executors import Quiet
from tests.planted import Planted
from tests.toys import plan_one
from tests.warm_workers import worker_processes


def run_planted(
    faults: dict[str, Budget | None], toy: Task, cpu: Device, folder: Path, limits: Limits
) -> tuple[dict[str, Record], Quiet]:
    cells = [plan_one(toy, None, Planted(fault=fault), budget=budget) for fault, budget in faults.items()]
    prepared = Prepared("planted", tuple(cells), {toy.name: toy}, {}, cpu)
    listener = Quiet()
    with Store.open(folder / "planted.sqlite") as store:
        outcome = run_cells(prepared, store, listener, LocalWorkers("cpu", None, limits=limits))
        assert outcome.n_run == len(cells)
        records = {record.cell.config["fault"]: record for record in store.records()}
        assert store.claimed() == set()
        again = run_cells(prepared, store, listener, LocalWorkers("cpu", None, limits=limits))
        assert again.n_run == 0
    return records, listener


def test_whatever_goes_wrong_is_a_record_and_the_run_goes_on(toy: Task, cpu: Device, tmp_path: Path) -> None:
    faults: dict[str, Budget | None] = dict.fromkeys(
        ["raise", "nan", "shape", "exit", "vanish", "crash", "chatter", "none", "sleep"]
    )
    faults["sleep"] = Budget(train_seconds=0.3)
    records, listener = run_planted(faults, toy, cpu, tmp_path, Limits())
    statuses = {fault: record.status for fault, record in records.items()}
    assert statuses == {
        "raise": "failed",
        "nan": "failed",
        "shape": "failed",
        "exit": "failed",
        "vanish": "failed",
        "crash": "failed",
        "chatter": "ok",
        "none": "ok",
        "sleep": "out_of_time",
    }
    assert "ValueError: planted" in str(records["raise"].error)
    assert "not finite" in str(records["nan"].error)
    assert "expected" in str(records["shape"].error)
    assert "2 workers died over this cell; the last one exited with status 3" in str(records["exit"].error)
    assert "exited with status 0" in str(records["vanish"].error)
    assert "killed by signal 11 (SIGSEGV)" in str(records["crash"].error)
    assert "last words" in str(records["crash"].error)
    assert "0.3 s, and cannot be interrupted" in str(records["sleep"].error)
    assert (records["sleep"].cost.fit_seconds or 0) > 0.6
    assert sum("trying once more" in remark for remark in listener.remarks) == 3
    assert len(listener.ended) == len(faults)
    assert worker_processes() == []


def test_limits_on_time_and_memory(toy: Task, cpu: Device, tmp_path: Path) -> None:
    records, _ = run_planted({"sleep": None, "none": None}, toy, cpu, tmp_path, Limits(cell_seconds=4.0))
    assert records["sleep"].status == "out_of_time"
    assert "its limit is 4 s (--cell-limit)" in str(records["sleep"].error)
    assert records["none"].status == "ok"


@pytest.mark.parametrize("which", ["budget", "host"])
def test_a_leak_is_stopped(which: str, toy: Task, cpu: Device, tmp_path: Path) -> None:
    budget = Budget(peak_memory_bytes=200_000_000) if which == "budget" else None
    limits = Limits(host_bytes=None if which == "budget" else 1_200_000_000)
    records, _ = run_planted({"leak": budget, "none": None}, toy, cpu, tmp_path, limits)
    assert records["leak"].status == "out_of_memory"
    expected = "its budget is 200,000,000" if which == "budget" else "this host gives it 1,200,000,000"
    assert expected in str(records["leak"].error)
    assert records["none"].status == "ok"
    assert host_limit_bytes() <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1h30m", 5400), (" 2 min ", 120)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--within") == seconds


@pytest.mark.parametrize("text", ["", "h", "3 parsecs", "-5m", "0", "1h-3m", "nan", "5mm", "90", "1h30", "5m1h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--within .* was given; expected a duration such as 90s"):
        parse_duration(text, "--within")


def test_a_backbone_is_loaded_while_the_data_are_read_and_its_faults_are_still_said(
    tiny: BackboneFiles, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 2 * config["hidden_size"]}))
    damaged = locate_backbone(str(folder))
    with LocalWorkers("cpu", None) as workers:
        workers.preload(damaged)
        workers.preload(tiny)
        refusals = workers.refusals([damaged, tiny])
    assert list(refusals) == [damaged.fingerprint]
    assert "The configuration and the weights are of different models" in refusals[damaged.fingerprint]
