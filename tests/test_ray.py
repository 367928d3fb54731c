"""Cells in Ray actors: what dies costs the cell that it ran, and records are those of any other executor."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.backbones.locate import BackboneFiles
from harness.methods import methods
from harness.planning.plan import PlannedCell
from harness.records.record import Budget, Record
from harness.running.attempt import Job
from harness.schedule.drive import run_cells
from harness.schedule.local import LocalWorkers
from harness.schedule.messages import Begun, Lost
from harness.schedule.prepare import Prepared
from harness.schedule.ray_actor import CellActor
from harness.schedule.ray_cluster import connect, plan_places
from harness.schedule.ray_workers import RayWorkers
from harness.schedule.slot import Limits
from harness.store.store import Store
from harness.support.errors import UsageError
from harness.tasks import Task
from tests.executors import Quiet, needs_ray
from tests.planted import Planted
from tests.record_factory import essence
from tests.toys import plan_one


class Acting(Quiet):
    """A listener that does something when a cell of this fault first begins, and when so many cells have ended."""

    def __init__(
        self,
        fault: str,
        when_it_begins: Callable[[], object],
        n_ended: int = -1,
        when_they_have: Callable[[], object] = bool,
    ) -> None:
        super().__init__()
        self.fault: str | None = fault
        self.when_it_begins = when_it_begins
        self.n_ended = n_ended
        self.when_they_have = when_they_have

    def cell_begins(self, planned: PlannedCell) -> None:
        if self.fault is not None and planned.cell.config.get("fault") == self.fault:
            self.fault = None
            self.when_it_begins()

    def cell_ends(self, record: Record, seconds_left: float | None) -> None:
        super().cell_ends(record, seconds_left)
        if len(self.ended) == self.n_ended:
            self.when_they_have()


def kill_worker_of(fault: str, workers: RayWorkers) -> None:
    """Kill the process that runs the cell of this fault."""
    for slot in workers._slots:
        if slot.job is not None and slot.job.planned.cell.config.get("fault") == fault:
            os.kill(int(slot._life.partition("-")[0]), signal.SIGKILL)


def run(
    cells: list[PlannedCell],
    files: dict[str, tuple[BackboneFiles, ...]],
    task: Task,
    workers: RayWorkers | LocalWorkers,
    listener: Quiet,
    path: Path,
) -> dict[str, Record]:
    """Records by fault or method, each of which is there once."""
    prepared = Prepared("planted", tuple(cells), {task.name: task}, files, workers.device)
    with Store.open(path) as store:
        outcome = run_cells(prepared, store, listener, workers)
        records = list(store.records(with_predictions=True, latest_only=False))
        assert store.claimed() == set()
    assert outcome.n_run == len(records) == len(cells)
    assert {record.id for record in records} == {planned.cell.id for planned in cells}
    assert sorted(listener.ended) == sorted(record.id for record in records)
    return {str(record.cell.config.get("fault", record.cell.method)): record for record in records}


@needs_ray
def test_whatever_dies_is_a_record_and_the_records_are_those_of_any_executor(
    toy: Task, tiny: BackboneFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # one for each worker
    real = plan_one(toy, tiny, methods.get("head")(epochs=3), size="48")
    faults = ["sleep", "nap 2", "none", "raise", "nap 0.5", "leak"]
    budgets = {"leak": Budget(peak_memory_bytes=200_000_000)}
    planned = [plan_one(toy, None, Planted(fault=fault), budget=budgets.get(fault)) for fault in faults]

    def limit_cells() -> None:  # no sooner, or a busy machine's first imports would be over it
        for slot in workers._slots:
            slot._limits = Limits(cell_seconds=1.0)

    listener = Acting("nap 2", lambda: kill_worker_of("nap 2", workers), len(faults), limit_cells)
    with RayWorkers("cpu", None, n_workers=2, limits=Limits(cell_seconds=60.0)) as workers:
        workers.warm_up()
        with LocalWorkers("cpu", None, n_workers=2) as local:
            same = run([real], {toy.name: (tiny,)}, toy, local, Quiet(), tmp_path / "local.sqlite")
        assert workers.device == local.device
        assert workers.shares_machine
        assert workers.n_free == 2
        while not all(slot.is_ready for slot in workers._slots):  # one that starts later is given up for `absent`
            workers._look(0.1)
        other = dataclasses.replace(tiny, fingerprint="0" * 64)
        absent = dataclasses.replace(tiny, folder=tmp_path / "absent", fingerprint="1" * 64)
        refusals = workers.refusals([other, tiny, absent])
        assert list(refusals) == ["0" * 64, "1" * 64]
        assert "0" * 12 + " where the run was started" in refusals["0" * 64]
        assert f"no folder {tmp_path / 'absent'}" in refusals["1" * 64]
        assert workers.refusals([tiny]) == {}
        cells = [*planned[:2], real, *planned[2:]]
        records = run(cells, {toy.name: (tiny,)}, toy, workers, listener, tmp_path / "ray.sqlite")
        assert workers.remarks == []
    assert {fault: record.status for fault, record in records.items()} == {
        "sleep": "out_of_time",
        "nap 2": "ok",
        "head": "ok",
        "none": "ok",
        "raise": "failed",
        "nap 0.5": "ok",
        "leak": "out_of_memory",
    }
    assert listener.fault is None
    assert workers.remarks == []
    assert len(listener.remarks) == 1
    assert "the worker died on node" in listener.remarks[0]
    assert "trying once more" in listener.remarks[0]
    assert "ValueError: planted" in str(records["raise"].error)
    assert "its budget is 200,000,000" in str(records["leak"].error)
    assert "its limit is 1 s (--cell-limit)" in str(records["sleep"].error)
    assert essence(records["head"]) == essence(same["head"])
    assert records["head"].provenance.cells_at_a_time == 2
    until = time.monotonic() + 30
    while left := [child for child in psutil.Process().children(recursive=True) if "ray" in child.name()]:
        assert time.monotonic() < until, left
        time.sleep(0.1)


@needs_ray
@pytest.mark.slow
def test_a_node_that_dies_costs_the_cell_that_it_ran(
    toy: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "3")
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        cells = [plan_one(toy, None, Planted(fault=fault)) for fault in ("nap 4", "nap 4.5", "none", "raise")]
        listener = Acting("nap 4.5", lambda: cluster.remove_node(node, allow_graceful=False))
        with RayWorkers("cpu", None, address=cluster.address) as workers:
            assert not workers.shares_machine
            assert workers.device.threads == 1
            until = time.monotonic() + 60
            while not all(slot.is_ready for slot in workers._slots) and time.monotonic() < until:
                workers._look(0.1)
            assert workers.n_free == 2
            records = run(cells, {}, toy, workers, listener, tmp_path / "ray.sqlite")
            low, gone = workers.remarks
            assert "low priority (nice 3)" in low
            assert "is not used: the node is gone." in gone
        assert {fault: record.status for fault, record in records.items()} == {
            "nap 4": "ok",
            "nap 4.5": "ok",
            "none": "ok",
            "raise": "failed",
        }
        assert len(listener.remarks) == 1
    finally:
        cluster.shutdown()


# ---- without a cluster


def test_what_would_end_a_process_of_its_own_ends_the_actor(toy: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = CellActor("cpu", None, n_here=1, is_limited=True)
    monkeypatch.setattr(actor, "_task", lambda _: toy)
    hello = actor.hello([])
    assert hello.device is not None
    assert hello.refusals == {}
    planned = plan_one(toy, None, Planted(fault="exit"))
    begun, *_, last = actor.run(Job(planned, None, "tests", 1), [None])
    assert isinstance(begun, Begun)
    assert last == Lost("exited with status 3")


def test_a_device_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    hello = CellActor("cuda", None, n_here=1, is_limited=False).hello([])
    assert hello.device is None
    assert "no CUDA device" in hello.why_not


def node(name: str, n_cores: int, n_gpus: int = 0, *, alive: bool = True) -> dict[str, Any]:
    return {
        "NodeID": name,
        "NodeManagerAddress": f"10.0.0.{name}",
        "Alive": alive,
        "Resources": {"CPU": float(n_cores)} | ({"GPU": float(n_gpus)} if n_gpus else {}),
    }


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([node("1", 8), node("2", 4), node("3", 4, alive=False), node("4", 0)], {}, ["1:8/1", "2:4/1"]),
        ([node("1", 8), node("2", 4)], {"cores_per_worker": 4}, ["1:4/2", "1:4/2", "2:4/1"]),
        ([node("1", 8), node("2", 8)], {"n_workers": 5}, ["1:4/2", "1:4/2", "2:4/2", "2:4/2"]),
        ([node("1", 8), node("2", 8)], {"n_workers": 1}, ["1:8/1"]),
        ([node("1", 8)], {"n_workers": 2, "cores_per_worker": 2}, ["1:2/2", "1:2/2"]),
        ([node("1", 2)], {"n_workers": 3}, ["1:1/2", "1:1/2"]),
        ([node("1", 8, 2), node("2", 8)], {}, ["1:4/2 cuda", "1:4/2 cuda"]),
        ([node("1", 8, 2), node("2", 8)], {"device": "cpu"}, ["1:8/1", "2:8/1"]),
        ([node("1", 8, 4)], {"n_workers": 2}, ["1:2/4 cuda", "1:2/4 cuda"]),
    ],
)
def test_where_actors_live(nodes: list[dict[str, Any]], asked: dict[str, Any], expected: list[str]) -> None:
    places, remarks = plan_places(nodes, **{"device": "auto", **asked})
    said = [f"{place.node}:{place.n_threads}/{place.n_here}{' cuda' * (place.device == 'cuda')}" for place in places]
    assert said == expected
    assert bool(remarks) == (asked.get("n_workers", 0) > len(expected))


@pytest.mark.parametrize(
    ("nodes", "asked", "message"),
    [
        ([], {}, "its nodes: none"),
        ([node("1", 2)], {"cores_per_worker": 4}, r"has 4 cores for a worker; its nodes: 10\.0\.0\.1 with 2 cores"),
        ([node("1", 2)], {"device": "cuda"}, "has no GPU; try --device cpu"),
        ([node("1", 2)], {"n_workers": 0}, "n_workers=0 was given"),
    ],
)
def test_what_a_cluster_has_no_room_for_is_refused(
    nodes: list[dict[str, Any]], asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan_places(nodes, **{"device": "auto", **asked})


def test_where_ray_is_missing_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'adaptation-harness\[ray\]'"):
        assert RayWorkers("cpu", None).device


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there_is_refused_at_once(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(UsageError, match=f"no Ray cluster at '{address}' .*ray start --head"):
        connect(address)
    assert time.monotonic() - began < 20
