"""Records reach trackers once each, and no tracker stops, slows or fails a run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

import harness
from harness.api.tracking import said_of_tracked, send_records
from harness.records.record import Cost, Record
from harness.store.store import Store
from harness.support.errors import UsageError
from harness.tracking import sending as sending_module
from harness.tracking.delivery import Tracked
from harness.tracking.runs import tracked_run
from harness.tracking.sender import masked
from harness.tracking.sending import Sending
from harness.tracking.tracker import TrackedRun, Tracker, read_trackers, trackers
from tests import trackers as planted
from tests.commands import run_apart, run_cli
from tests.record_factory import make_record, with_facts
from tests.toys import write_toy_table
from tests.trackers import SECRET, read_kept

API_KEY = "k3y-of-the-tracker"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trackers keep their runs in a folder of the test, and are known by their names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKER_API_KEY", API_KEY)
    trackers.names()
    for tracker in planted.ALL:
        monkeypatch.setitem(trackers._members, tracker.name, tracker)
    yield
    for process in senders():  # of trackers that hang
        process.kill()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines that run tests are busy: trackers that answer get the time they need."""
    monkeypatch.setattr(sending_module, "_MOST_SECONDS", 60.0)


def record(seed: int = 0, **fields: Any) -> Record:
    return with_facts(make_record("lora", 32, seed, **fields), at_defaults=True)


def send(tracker: type[Tracker], records: Sequence[Record], *, waits: bool = True) -> Tracked:
    with Sending([tracker]) as sending:
        for one in records:
            sending.add(one)
        (found,) = sending.finish_waiting() if waits else sending.finish()
        return found


def kept(folder: Path) -> list[dict[str, Any]]:
    file = folder / "kept.jsonl"
    return read_kept(file) if file.exists() else []


def senders() -> list[psutil.Process]:
    """Processes of trackers that this process has started."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if one.status() != psutil.STATUS_ZOMBIE and "harness.tracking" in " ".join(one.cmdline()):
                found.append(one)
    return found


def test_a_run_of_a_tracker_states_the_cell_and_every_figure() -> None:
    one = record(seed=3)
    run = tracked_run(one)
    assert run.name == "docstrings · all-MiniLM-L6-v2 · lora · 32 · seed 3"
    wanted = {"task": "docstrings", "method": "lora", "configuration": "lora", "n_train": 32, "seed": 3}
    wanted |= {"backbone": one.cell.backbone, "budget": one.cell.budget.label(), "device": one.device}
    assert wanted.items() <= run.parameters.items()
    assert run.tags["status"] == "ok"
    assert one.score is not None
    assert run.metrics["score"] == run.metrics["metric/accuracy"] == one.score.value
    for field in dataclasses.fields(Cost):  # every cost of the record
        value = getattr(one.cost, field.name)
        if isinstance(value, int | float):
            assert run.metrics[f"cost/{field.name}"] == value
    assert run.metrics["cost/total_seconds"] == pytest.approx(0.4 + 1.0 + 0.9)
    assert [(point.step, point.values) for point in run.curve] == [
        (8, {"curve/train_loss": 0.6, "curve/validation": 0.71})
    ]
    assert run.curve[0].time_ms == run.began_ms + 1200
    assert TrackedRun.from_json(run.to_json()) == run


def test_a_configuration_has_the_name_of_progress_lines() -> None:
    config = {**harness.methods.methods.get("lora")().config(), "rank": 4}
    run = tracked_run(make_record("lora", 32, config=config))
    assert "· lora[rank=4] ·" in run.name
    assert run.parameters["configuration"] == "lora[rank=4]"
    assert run.parameters["config.rank"] == 4
    assert run.tags["harness.attempt"] == "1"


def test_a_failed_cell_is_a_run_with_its_status() -> None:
    run = tracked_run(record(status="failed", error=f"ValueError: postgresql://me:{SECRET}@host is away\nmore"))
    assert (run.is_ok, run.tags["status"]) == (False, "failed")
    assert run.tags["error"] == "ValueError: postgresql://me:***@host is away"
    assert "score" not in run.metrics


def test_attempts_and_devices_have_keys_of_their_own() -> None:
    first = record()
    others = [dataclasses.replace(first, attempt=2), dataclasses.replace(first, device="another")]
    assert len({tracked_run(one).key for one in (first, *others)}) == 3
    assert tracked_run(others[0]).name.endswith("seed 0 · attempt 2")


def test_records_are_sent_once(tmp_path: Path) -> None:
    records = [record(seed) for seed in range(4)]
    found = send(planted.Keeping, records[:3])
    assert (found.n_sent, found.n_known, found.n_unsent, found.why) == (3, 0, 0, None)
    found = send(planted.Keeping, records)
    assert (found.n_sent, found.n_known, found.n_unsent) == (1, 3, 0)
    assert [run["parameters"]["seed"] for run in kept(tmp_path)] == [0, 1, 2, 3]
    assert found.where == "https://user:***@host/kept.jsonl"


@pytest.mark.parametrize("tracker", [planted.Hanging, planted.HangingAtStart])
def test_a_tracker_that_hangs_costs_a_second_and_is_ended(
    tracker: type[Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.tracking.delivery._STALLED_SECONDS", 0.5)
    monkeypatch.setattr("harness.tracking.delivery._STALLED_START_SECONDS", 0.5)
    with Sending([tracker]) as sending:
        began = time.monotonic()
        for seed in range(20):
            sending.add(record(seed))
        added = time.monotonic()
        (found,) = sending.finish()
        finished = time.monotonic()
    assert found.n_unsent == 20
    assert added - began < 0.5
    assert finished - added < 1.5  # 0.8 s by the clock; the rest is for busy machines
    assert senders() == []
    said = said_of_tracked(found, "results/my store.sqlite", "sentiment")
    assert f"{tracker.name}: 20 of 20 records were not sent: it " in said
    command = f"`harness export --track {tracker.name} --suite sentiment --store 'results/my store.sqlite'`"
    assert said.endswith(command)


def test_a_slow_tracker_costs_a_second_and_gets_the_rest_afterwards(tmp_path: Path) -> None:
    with Sending([planted.Slow]) as sending:
        for seed in range(10):
            sending.add(record(seed))
        began = time.monotonic()
        (found,) = sending.finish()
        assert time.monotonic() - began < 1.5
    assert found.goes_on
    assert found.n_sent + found.n_unsent == 10
    said = said_of_tracked(found, "results/harness.sqlite")
    assert "of 10 records sent; it is slow, and its process goes on for a minute at most. What is missing then:" in said
    assert "`harness export --track slow`" in said
    until = time.monotonic() + 50
    while len(kept(tmp_path)) < 10 and time.monotonic() < until:
        time.sleep(0.1)
    assert len({run["key"] for run in kept(tmp_path)}) == 10


PARENT = """
import os, time
from harness.tracking.sending import Sending
from tests.record_factory import make_record, with_facts
from tests.trackers import Slow
sending = Sending([Slow])
for seed in range(4):
    sending.add(with_facts(make_record("lora", 32, seed), at_defaults=True))
while sending._deliveries[0]._waiting:
    time.sleep(0.05)
time.sleep(0.5)
os._exit(0)
"""


def test_what_a_dead_run_has_handed_over_is_sent(tmp_path: Path) -> None:
    """Nobody reads the tracker's answers then."""
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", PARENT], check=True, cwd=tmp_path, env=path)
    until = time.monotonic() + 50
    while len(kept(tmp_path)) < 4 and time.monotonic() < until:
        time.sleep(0.1)
    assert len(kept(tmp_path)) == 4


def test_two_trackers_that_hang_cost_no_more_than_one() -> None:
    with Sending([planted.Hanging, planted.HangingAtStart]) as sending:
        sending.add(record())
        began = time.monotonic()
        assert [found.n_unsent for found in sending.finish()] == [1, 1]
        assert time.monotonic() - began < 1.5


@pytest.mark.parametrize(
    ("tracker", "n_sent", "why"),
    [
        (planted.Raising, 0, "it refused 3 runs in a row, the last with ConnectionError: refused: api_key *** at"),
        (planted.RaisingOnce, 4, "ConnectionError: refused once"),
        (planted.FailingAtStart, 0, "ConnectionError: no server at https://user:***@host"),
        (planted.Dying, 0, "its process ended with status 3"),
    ],
)
def test_what_a_tracker_did_not_keep_is_counted_with_the_reason(
    tracker: type[Tracker], n_sent: int, why: str, tmp_path: Path
) -> None:
    found = send(tracker, [record(seed) for seed in range(5)])
    assert (found.n_sent, found.n_unsent) == (n_sent, 5 - n_sent)
    assert why in (found.why or "")
    assert SECRET not in (found.why or "") + (found.where or "")


def test_secrets_of_the_environment_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    assert masked(f"401 for 0123456789abcdef, a-token and {API_KEY}") == "401 for ***, *** and ***"


def test_a_full_queue_leaves_records_out_and_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.tracking.delivery._MOST_WAITING", 3)
    with Sending([planted.HangingAtStart]) as sending:
        began = time.monotonic()
        for seed in range(50):
            sending.add(record(seed))
        assert time.monotonic() - began < 1.0
        (found,) = sending.finish()
        assert found.n_unsent == 50


def test_a_record_that_cannot_be_told_keeps_back_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    odd = dataclasses.replace(record(1), device=None)  # type: ignore[arg-type]
    found = send(planted.Keeping, [record(0), odd, record(2)])
    assert (found.n_sent, found.n_unsent) == (2, 1)
    assert "AttributeError" in (found.why or "")


def test_a_tracker_gives_way_to_cells_and_hurries_afterwards() -> None:
    with Sending([planted.HangingAtStart]) as sending:
        (process,) = senders()
        before = process.nice()
        sending.give_way()
        assert process.nice() == 19
        sending.hurry()
        assert process.nice() in (before, 19)  # only some users may raise a priority


def grid(folder: Path) -> tuple[str, ...]:
    write_toy_table(folder / "toy.csv", n_rows=120)
    return ("run", "--data", "toy.csv", "--methods", "majority", "--sizes", "12,24,36,48", "--seeds", "0")


@pytest.mark.usefixtures("patient")
def test_36_cells_are_36_runs_and_a_resumed_run_adds_the_new_ones(tmp_path: Path) -> None:
    write_toy_table(tmp_path / "toy.csv", n_rows=120)
    given = {"data": "toy.csv", "methods": "majority", "sizes": [12, 24, 36, 48], "track": "keeping"}
    quiet = {"progress": False, "reports": None}
    done = harness.run(**given, **quiet, seeds=list(range(9)))
    assert done.n_run == 36
    assert done.tracked == (Tracked("keeping", "https://user:***@host/kept.jsonl", 36, 0, 0, None),)
    runs = kept(tmp_path)
    assert len({run["key"] for run in runs}) == len({run["name"] for run in runs}) == len(runs) == 36
    with Store.open(str(tmp_path / "results" / "harness.sqlite")) as store:
        assert {run["tags"]["harness.cell"] for run in runs} == {one.id for one in store.records()}
        assert {run["metrics"]["score"] for run in runs} == {one.score.value for one in store.records() if one.score}
    done = harness.run(**given, **quiet, seeds=[0, 9])
    assert [(one.n_sent, one.n_known) for one in done.tracked] == [(4, 0)]
    assert len(kept(tmp_path)) == 40
    said = run_cli("export", "--track", "keeping", "--suite", "toy", cwd=tmp_path)
    assert "keeping: 0 records sent, 40 were there already" in said
    assert len(kept(tmp_path)) == 40
    code, out, _ = run_apart("export", "--track", "keeping", "--json", cwd=tmp_path)
    assert code == 0
    assert '"n_known": 40' in out


def test_a_run_says_which_records_its_trackers_lack_and_goes_on(tmp_path: Path) -> None:
    said = run_cli(*grid(tmp_path), "--track", "hanging,raising", cwd=tmp_path, code=0)
    assert "4 cells run" in said
    assert "hanging: 0 of 4 records sent; it is slow, and its process goes on for a minute at most." in said
    assert "raising: 4 of 4 records were not sent: it" in said
    assert "`harness export --track hanging --suite toy`" in said
    assert API_KEY not in said
    assert SECRET not in said
    code, out, _ = run_apart("export", "--track", "raising", cwd=tmp_path)
    assert code == 1
    assert "raising: 4 of 4 records were not sent: it refused 3 runs in a row" in out
    for file in (tmp_path / "results").rglob("*"):
        assert API_KEY.encode() not in file.read_bytes()


def test_python_gets_the_outcome(tmp_path: Path) -> None:
    write_toy_table(tmp_path / "toy.csv", n_rows=60)
    done = harness.run(
        data="toy.csv", methods=["majority"], sizes=[12], seeds=[0], reports=None, progress=False, track=["raising"]
    )
    assert [(one.tracker, one.n_sent, one.n_unsent) for one in done.tracked] == [("raising", 0, 1)]


def test_unknown_and_missing_trackers_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planted.Keeping, "module", "no_such_module")
    monkeypatch.setattr(planted.Keeping, "install", "pip install 'adaptation-harness[track-keeping]'")
    said = run_cli(*grid(tmp_path), "--track", "keeping", cwd=tmp_path, code=2)
    assert "the module no_such_module is not installed. Try `pip install 'adaptation-harness[track-keeping]'`" in said
    said = run_cli(*grid(tmp_path), "--track", "mlfow", cwd=tmp_path, code=2)
    assert "Did you mean 'mlflow'?" in said
    assert not (tmp_path / "results").exists()
    with pytest.raises(UsageError, match="names of trackers"):
        read_trackers(3)  # type: ignore[arg-type]
    assert read_trackers(None) == []
    assert "expected one to write" in run_cli("export", cwd=tmp_path, code=2)
    assert "it goes with --track" in run_cli("export", "a.csv", "--suite", "toy", cwd=tmp_path, code=2)
    assert "expected one of them" in run_cli("export", "a.csv", "--track", "hanging", cwd=tmp_path, code=2)


def test_every_tracker_of_the_package_has_an_extra() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8")
    own = [tracker for tracker in trackers if tracker not in planted.ALL]
    assert {tracker.name for tracker in own} == {"mlflow", "trackio", "wandb", "tensorboard"}
    for tracker in own:
        assert f"track-{tracker.name} = [" in text
        assert tracker.install == f"pip install 'adaptation-harness[track-{tracker.name}]'"


def test_all_attempts_of_a_store_are_sent(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.sqlite") as store:
        store.add(record(status="failed"))
        store.add(dataclasses.replace(record(), attempt=2))
    (found,) = send_records("keeping", str(tmp_path / "s.sqlite"))
    assert found.n_sent == 2
    assert [run["tags"]["status"] for run in kept(tmp_path)] == ["failed", "ok"]
