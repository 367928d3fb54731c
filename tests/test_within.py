"""Runs with a deadline, runs that halve, runs of several cells at a time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.analysis.frame import tidy_frame
from harness.cost.estimate import Estimate, Estimator
from harness.data.sampling import parse_size
from harness.measure.device import Device
from harness.planning.plan import PlannedCell, join_parts, plan_cells
from harness.records.record import Budget, Record
from harness.running.attempt import Job
from harness.running.worker import unrun
from harness.schedule.drive import Policy, run_cells
from harness.schedule.local import LocalWorkers
from harness.schedule.pending import Pending
from harness.schedule.prepare import Prepared
from harness.store.store import Store
from harness.tasks import Task
from tests.executors import Quiet
from tests.planted import Hungry, Planted
from tests.toys import plan_one


class Told(Estimator):
    """Expects what it is told of each method."""

    def __init__(self, toy: Task, cpu: Device, seconds: dict[str, float]) -> None:
        super().__init__({toy.name: toy}, cpu)
        self.seconds = seconds

    def estimate(self, planned: PlannedCell) -> Estimate:
        fault = str(planned.cell.config["fault"])
        return Estimate(self.seconds[fault] * (planned.cell.n_train or 1), 0.0, 0.0, "records")


class Counting(Quiet):
    """Counts how many cells run at a time, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.running = self.most = 0

    def cell_begins(self, planned: PlannedCell) -> None:
        self.running += 1
        self.most = max(self.most, self.running)

    def cell_ends(self, record: Record, seconds_left: float | None) -> None:
        self.running -= 1


def grid(toy: Task, faults: list[str], sizes: list[str], seeds: list[int]) -> list[PlannedCell]:
    return plan_cells(
        tasks=[toy],
        backbones={},
        methods=[Planted(fault=fault) for fault in faults],
        sizes=[parse_size(size) for size in sizes],
        seeds=seeds,
        budgets=[Budget()],
        device="cpu",
    )


def names(cells: list[PlannedCell]) -> list[tuple[int, int, str]]:
    return [(planned.cell.n_train, planned.cell.seed, str(planned.cell.config["fault"])) for planned in cells]


def test_small_sizes_and_one_seed_first_and_cheap_cells_before_dear_ones(toy: Task, cpu: Device) -> None:
    cells = grid(toy, ["dear", "cheap"], ["48", "24"], [3, 1])
    estimator = Told(toy, cpu, {"dear": 2.0, "cheap": 0.5})
    in_order = Pending(cells, estimator)
    assert names([in_order.take() for _ in range(8)]) == names(cells)  # type: ignore[misc]
    assert in_order.take() is None
    by_use = Pending(cells, estimator, deadline=time.monotonic() + 1e6)
    assert names([by_use.take() for _ in range(8)]) == [  # type: ignore[misc]
        (24, 3, "cheap"),
        (24, 3, "dear"),
        (24, 1, "cheap"),
        (24, 1, "dear"),
        (48, 3, "cheap"),
        (48, 3, "dear"),
        (48, 1, "cheap"),
        (48, 1, "dear"),
    ]


def test_with_a_deadline_parts_of_a_suite_keep_their_order(toy: Task, cpu: Device) -> None:
    estimator = Told(toy, cpu, {"none": 1.0, "slow": 2.0})
    later, first = grid(toy, ["none"], ["8"], [0]), grid(toy, ["slow"], ["16", "8"], [0])
    pending = Pending(join_parts([first, later]), estimator, deadline=time.monotonic() + 1e6)
    taken = [pending.take() for _ in range(3)]
    assert [(one.cell.config["fault"], one.cell.n_train) for one in taken if one] == [
        ("slow", 8),
        ("slow", 16),
        ("none", 8),
    ]


def test_what_does_not_fit_is_passed_over(toy: Task, cpu: Device) -> None:
    cells = grid(toy, ["dear", "cheap"], ["24", "48"], [0])
    estimator = Told(toy, cpu, {"dear": 5.0, "cheap": 1.0})
    pending = Pending(cells, estimator, deadline=time.monotonic() + 100)
    taken = []
    while (planned := pending.take()) is not None:
        taken.append(planned)
    assert names(taken) == [(24, 0, "cheap"), (48, 0, "cheap")]  # 24 and 48 s; 120 and 240 do not fit
    assert len(pending) == 2
    assert pending.seconds_left() == pytest.approx(100, abs=5)  # there is no more time, though they would take 360 s


def test_a_run_ends_at_its_deadline_and_goes_on_another_time(toy: Task, cpu: Device, tmp_path: Path) -> None:
    cells = [plan_one(toy, None, Planted(fault=fault)) for fault in ("none", "sleep")]
    prepared = Prepared("planted", tuple(cells), {toy.name: toy}, {}, cpu)
    listener = Quiet()
    with Store.open(tmp_path / "within.sqlite") as store:
        workers = LocalWorkers("cpu", None)
        workers.start(Job(cells[0], None, "warms up", 1), toy)  # imports: what is measured here is the run
        while workers.n_running:
            workers.events(1.0)
        began = time.monotonic()
        outcome = run_cells(prepared, store, listener, workers, Policy(deadline=began + 5.0))
        assert time.monotonic() - began < 5 + 20  # the cell that sleeps would take an hour
        assert (outcome.n_cells, outcome.n_run, outcome.n_left, outcome.interrupted) == (2, 1, 1, False)
        assert store.claimed() == set()
        late = run_cells(prepared, store, listener, LocalWorkers("cpu", None), Policy(deadline=time.monotonic() - 1))
        assert (late.n_run, late.n_left) == (0, 1)
        assert [record.cell.config["fault"] for record in store.records()] == ["none"]


def test_out_of_memory_is_halved_until_it_fits(toy: Task, cpu: Device, tmp_path: Path) -> None:
    cells = (plan_one(toy, None, Hungry()), plan_one(toy, None, Hungry(fits=100)), plan_one(toy, None, Planted()))
    prepared = Prepared("planted", cells, {toy.name: toy}, {}, cpu)
    policy = Policy(halve_on_oom=True)
    with Store.open(tmp_path / "oom.sqlite") as store:
        # One of them ran out before, in a run that was not to halve.
        store.add(unrun(Job(cells[0], None, "planted"), toy, cpu, "out_of_memory", "planted"))
        outcome = run_cells(prepared, store, Quiet(), LocalWorkers("cpu", None), policy)
        assert outcome.n_run == 7  # 2 and 4 pieces of the one; 1, 2, 4 and 8 of the other, which never fits; the third
        records = {(r.cell.config.get("fits"), r.cell.config.get("accumulation")): r for r in store.records()}
        statuses = {key: record.status for key, record in records.items()}
        assert statuses == {
            (4, 1): "out_of_memory",
            (4, 2): "out_of_memory",
            (4, 4): "ok",
            **dict.fromkeys([(100, 1), (100, 2), (100, 4), (100, 8)], "out_of_memory"),
            (None, None): "ok",
        }
        noted = records[4, 4].facts.on_oom
        assert noted == "batch_size=8 in accumulation=4, after batch_size=8 in accumulation=2 ran out of memory"
        again = run_cells(prepared, store, Quiet(), LocalWorkers("cpu", None), policy)
        assert (again.n_run, again.n_cells, again.n_left) == (0, 8, 0)
        assert again.ids == {record.id for record in records.values()}
        plain = run_cells(prepared, store, Quiet(), LocalWorkers("cpu", None))
        assert (plain.n_run, plain.n_cells, plain.n_left) == (0, 3, 0)


def test_cells_that_share_a_device_bear_no_seconds(toy: Task, cpu: Device, tmp_path: Path) -> None:
    cells = tuple(plan_one(toy, None, Planted(fault=f"nap {seconds}")) for seconds in (3.0, 3.01, 3.02, 3.03))
    with Store.open(tmp_path / "shared.sqlite") as store, LocalWorkers("cpu", None, n_workers=2) as workers:
        device = workers.device
        assert device.cells_at_a_time == 2
        assert device.name.endswith(", 2 cells at a time")
        prepared = Prepared("planted", cells, {toy.name: toy}, {}, device)
        listener = Counting()
        outcome = run_cells(prepared, store, listener, workers)
        assert (outcome.n_run, outcome.n_failed) == (4, 0)
        assert listener.most == 2
        records = list(store.records(with_predictions=True))
    assert {record.provenance.cells_at_a_time for record in records} == {2}
    assert all(record.cost.fit_seconds for record in records)  # kept in the record, and in no table
    frame = tidy_frame(records)
    for column in ("fit_seconds", "predict_seconds", "total_seconds", "train_seconds"):
        assert frame[column].isna().all()
    assert frame["peak_rss_bytes"].notna().all()
    assert cpu.shared_by(1) is cpu


def test_cells_that_cannot_run_take_no_time(toy: Task, cpu: Device) -> None:
    planned = PlannedCell(plan_one(toy, None, Planted()).cell, Planted(), unsupported="there is a reason")
    assert Estimator({toy.name: toy}, cpu).estimate(planned).seconds == 0.0
