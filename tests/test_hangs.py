"""Cells that hang: each ends in time as a record that says what hung, and nothing that still works is cut.

The default suite shortens the grace; the slow tests take the real one, as the protocol states it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from harness.measure.device import Device, find_device
from harness.measure.signs import n_signs
from harness.methods import _label_likelihood, methods
from harness.methods.bench import Bench
from harness.planning.plan import PlannedCell
from harness.records.record import Budget, Record
from harness.running.attempt import Job
from harness.running.watch import AttentiveClock, Presence, Standing, Watch
from harness.running.worker import Worker
from harness.schedule.drive import run_cells
from harness.schedule.local import LocalWorkers
from harness.schedule.prepare import Prepared
from harness.schedule.ray_workers import RayWorkers
from harness.schedule.slot import Limits
from harness.store.store import Store
from harness.tasks import Task, kinds
from harness.tasks.base import Rows
from harness.training import model
from tests.executors import Quiet, needs_ray
from tests.planted import Constant, Planted
from tests.toys import make_bench, plan_one, test_rows, write_toy_table
from tests.warm_workers import worker_processes

SAYS = {
    "hold": "The worker was silent for .* while fitting: a call holds Python's interpreter lock",
    "stop": r"The worker was silent for .* while fitting: (its process is stopped \(SIGSTOP\)|a call holds)",
    "hang": r"No progress for .* while predicting; the budget is .* \(train_seconds\)",
    "spin": r"No progress for .* while predicting; the budget is .* \(train_seconds\)",
}


class Timed(Quiet):
    """Keeps the seconds of each cell, from its beginning to its record."""

    def __init__(self) -> None:
        super().__init__()
        self.began_at: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def cell_begins(self, planned: PlannedCell) -> None:
        self.began_at[planned.cell.id] = time.monotonic()

    def cell_ends(self, record: Record, seconds_left: float | None) -> None:
        super().cell_ends(record, seconds_left)
        self.seconds[record.id] = time.monotonic() - self.began_at[record.id]


def run_all(
    budgets: dict[str, Budget | None], task: Task, device: Device, folder: Path, workers: LocalWorkers | RayWorkers
) -> tuple[dict[str, Record], dict[str, float]]:
    """Return the record of each fault, and its seconds; no cell is tried twice."""
    cells = [plan_one(task, None, Planted(fault=fault), budget=budget) for fault, budget in budgets.items()]
    listener = Timed()
    with Store.open(folder / "hangs.sqlite") as store:
        outcome = run_cells(Prepared("tests", tuple(cells), {task.name: task}, {}, device), store, listener, workers)
        records = {record.cell.config["fault"]: record for record in store.records()}
    assert outcome.n_run == len(cells)
    assert listener.remarks == []
    return records, {fault: listener.seconds[record.id] for fault, record in records.items()}


def test_workers_that_can_judge_nothing_are_cut_by_the_driver(toy: Task, cpu: Device, tmp_path: Path) -> None:
    budgets: dict[str, Budget | None] = dict.fromkeys(("hold", "stop"), Budget(train_seconds=0.5))
    workers = LocalWorkers("cpu", None, n_workers=2, limits=Limits(grace_seconds=1.5))
    records, seconds = run_all(budgets, toy, cpu, tmp_path, workers)
    for fault, record in records.items():
        assert record.status == "out_of_time", record.error
        assert re.search(SAYS[fault], str(record.error)), record.error
        assert 2 < seconds[fault] < 2 * 0.5 + 1.5 + 30
    assert worker_processes() == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", SAYS)
def test_a_hang_ends_by_twice_its_seconds_and_ten(fault: str, toy: Task, cpu: Device, tmp_path: Path) -> None:
    budgets: dict[str, Budget | None] = {fault: Budget(train_seconds=1), "none": None}
    records, seconds = run_all(budgets, toy, cpu, tmp_path, LocalWorkers("cpu", None))
    print(f"{fault}: {seconds[fault]:.1f} s")
    assert records[fault].status == "out_of_time"
    assert re.search(SAYS[fault], str(records[fault].error)), records[fault].error
    assert seconds[fault] < 2 * 1 + 10
    assert records["none"].status == "ok"


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("fault", SAYS)
def test_a_hang_in_a_ray_actor_ends_as_early(fault: str, toy: Task, tmp_path: Path) -> None:
    budgets: dict[str, Budget | None] = {fault: Budget(train_seconds=1), "none": None}
    with RayWorkers("cpu", None, n_workers=1) as workers:
        records, seconds = run_all(budgets, toy, workers.device, tmp_path, workers)
    print(f"{fault}: {seconds[fault]:.1f} s")
    assert records[fault].status == "out_of_time"
    assert re.search(SAYS[fault], str(records[fault].error)), records[fault].error
    assert seconds[fault] < 2 * 1 + 10
    assert records["none"].status == "ok"


@pytest.mark.slow
def test_a_driver_that_was_stopped_cuts_no_healthy_worker(toy: Task, cpu: Device, tmp_path: Path) -> None:
    """The driver is a process of its own, stopped for longer than a hang may last while its cell goes on."""
    code = (
        "import sys; from pathlib import Path; from tests.test_hangs import drive_a_slow_cell;"
        "drive_a_slow_cell(Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "began\n"
        time.sleep(1.0)
        os.kill(driver.pid, signal.SIGSTOP)
        time.sleep(15.0)
        os.kill(driver.pid, signal.SIGCONT)
        assert driver.stdout.read() == "ok\n"


def drive_a_slow_cell(folder: Path) -> None:
    """Run one cell that predicts for 20 s within a budget of 0.5 s of training; print when it begins and ends."""

    class Speaking(Timed):
        def cell_begins(self, planned: PlannedCell) -> None:
            super().cell_begins(planned)
            print("began", flush=True)

    task = kinds.get("classification").prepare(write_toy_table(folder / "toy.csv"), None)
    planned = plan_one(task, None, Planted(fault="slower"), budget=Budget(train_seconds=0.5))
    workers = LocalWorkers("cpu", None, limits=Limits(grace_seconds=2.0))
    prepared = Prepared("tests", (planned,), {task.name: task}, {}, find_device("cpu"))
    with Store.open(folder / "slow.sqlite") as store:
        run_cells(prepared, store, Speaking(), workers)
        [record] = store.records()
    print(record.status if record.status == "ok" else record.error, flush=True)


@pytest.mark.slow
def test_what_a_method_leaves_running_ends_with_its_cell(toy: Task, cpu: Device, tmp_path: Path) -> None:
    """Processes at once; busy threads with their worker, which another replaces."""
    before = {process.pid for process in psutil.process_iter()}
    budgets: dict[str, Budget | None] = dict.fromkeys(("children", "threads", "none"))
    records, _ = run_all(budgets, toy, cpu, tmp_path, LocalWorkers("cpu", None))
    assert {record.status for record in records.values()} == {"ok"}
    left = {fault: record.facts.left_behind for fault, record in records.items()}
    assert left == {"children": "2 processes, ended", "threads": "1 busy thread", "none": None}
    new = [process for process in psutil.process_iter() if process.pid not in before]
    assert not [process for process in new if "time.sleep(1e6)" in " ".join(process.cmdline())]


# ---- a worker judges its own cell


class Waiting(Constant):
    """Answers when it is allowed to, from the second question on if so asked; counts what it is asked."""

    def __init__(self, released: threading.Event, first: int = 1) -> None:
        super().__init__()
        self.released, self.first, self.n_asked = released, first, 0

    def predict(self, rows: Rows, bench: Bench) -> np.ndarray:
        self.n_asked += 1
        if self.n_asked >= self.first:
            self.released.wait(60)
        return super().predict(rows, bench)


def looked_at(
    task: Task, device: Device, monkeypatch: pytest.MonkeyPatch, first: int, budget: Budget | None
) -> tuple[Record | None, Record]:
    """Return the record that a look at the waiting cell gives, within 2 s, and the one that it ends with."""
    released = threading.Event()
    monkeypatch.setattr(Planted, "_fit", lambda _: Waiting(released, first))
    worker, ended = Worker(device, None), list[Record]()
    planned = plan_one(task, None, Planted(), budget=budget)
    thread = threading.Thread(target=lambda: ended.append(worker.run(Job(planned, None, "tests"), task)))
    thread.start()
    until, cut = time.monotonic() + 2.0, None
    while cut is None and time.monotonic() < until and thread.is_alive():
        time.sleep(0.02)
        cut = worker.look(0.3)
    released.set()
    thread.join(60)
    return cut, ended[0]


def test_a_prediction_that_hangs_is_cut_with_the_costs_of_its_fit(
    toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, _ = looked_at(toy, cpu, monkeypatch, 1, Budget(train_seconds=0.2))
    assert cut is not None
    assert cut.status == "out_of_time"
    assert re.search(SAYS["hang"], str(cut.error)), cut.error
    assert cut.cost.fit_seconds is not None
    assert cut.score is None


def test_a_training_score_that_hangs_does_not_cost_the_score(
    toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, ended = looked_at(toy, cpu, monkeypatch, 2, Budget(train_seconds=0.2))
    assert cut is not None
    assert (cut.status, cut.train_score) == ("ok", None)
    assert cut.score == ended.score
    assert cut.predictions is not None
    assert "No progress" in cut.facts.missing["train_score"]


def test_without_a_budget_of_seconds_nothing_is_cut_for_want_of_progress(
    toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, ended = looked_at(toy, cpu, monkeypatch, 1, None)
    assert cut is None
    assert ended.status == "ok"


# ---- the judgement, second by second


def standing(activity: Any, seconds: float = 0.0, n_signs: int = 0) -> Standing:
    return Standing("predicting" if activity == "watched" else "fitting", activity, seconds, n_signs)


def test_a_prediction_that_shows_progress_may_go_on_for_ever() -> None:
    watch = Watch(0.0, 1.0, grace=8.0)
    for second in range(1000):
        watch.hear(float(second), standing("watched", 1.0, n_signs=second // 5))
        assert watch.overdue(second + 0.9) is None
    watch.hear(1000.0, standing("watched", 1.0, n_signs=199))
    assert watch.overdue(995.0 + 8.9) is None
    watch.hear(1004.0, standing("watched", 1.0, n_signs=199))
    assert "No progress for 9 s while predicting" in str(watch.overdue(1004.1))


@pytest.mark.parametrize(("spent", "overdue_at"), [(0.0, 10.0), (1.5, 8.5)])
def test_silence_counts_with_what_was_trained_before(spent: float, overdue_at: float) -> None:
    watch = Watch(0.0, 1.0, grace=8.0)
    watch.hear(5.0, standing("counted", spent))
    assert watch.overdue(5.0 + overdue_at - 0.1) is None
    assert "silent" in str(watch.overdue(5.0 + overdue_at + 0.1))


def test_loading_may_be_silent_for_long_unless_the_process_is_stopped() -> None:
    watch = Watch(0.0, 1.0, grace=8.0, silence=600.0)
    watch.hear(0.0, standing("exempt"))
    assert watch.overdue(599.0) is None
    assert "its process is stopped" in str(watch.overdue(11.0, lambda: True))
    assert "silent for 601 s" in str(watch.overdue(601.0))


def test_a_cell_of_steps_is_cut_after_ten_minutes_of_silence_only() -> None:
    watch = Watch(0.0, None)
    watch.hear(0.0, standing("counted"))
    assert watch.overdue(599.0, lambda: True) is None
    assert "--cell-limit ends such cells sooner" in str(watch.overdue(601.0))


def test_time_that_the_driver_missed_counts_for_two_seconds() -> None:
    """A stopped driver, or one that waited for its store, sees no worker as late before it has listened again."""
    now = [0.0]
    clock = AttentiveClock(lambda: now[0])
    watch = Watch(clock.look(), 1.0, grace=8.0)
    watch.hear(clock.look(), standing("counted", 0.5))
    now[0] = 3600.0
    assert watch.overdue(clock.look()) is None
    for _ in range(100):
        now[0] += 0.1
        clock.look()
    assert clock.seconds == pytest.approx(12.0)


def test_a_process_that_stands_still_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, used = [0.0], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: wall[0])
    monkeypatch.setattr(time, "process_time", lambda: used[0])
    presence = Presence()
    for seconds, busy, still in ((0.25, 0.2, 0.0), (30.0, 0.0, 30.0), (30.0, 29.0, 0.0), (0.3, 0.0, 0.0)):
        wall[0], used[0] = wall[0] + seconds, used[0] + busy
        assert presence.look() == pytest.approx(still)


# ---- what shows progress


@pytest.mark.parametrize(
    ("name", "which", "kind", "least"),
    [
        ("linear-probe", "tiny", "text-pair", 2),
        ("full", "tiny", "text-pair", 6),
        ("full", "tiny", "question-answering", 6),
        ("zero-shot", "tiny_llama", "text-pair", 6),
        ("zero-shot", "tiny_llama", "perplexity", 1),
        ("zero-shot", "tiny_llama", "generation", 9),  # with each token that is written
    ],
)
def test_predicting_shows_progress_batch_by_batch(
    name: str,
    which: str,
    kind: str,
    least: int,
    toy_kinds: dict[str, Task],
    request: pytest.FixtureRequest,
    cpu: Device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or else a long prediction would be taken for one that hangs."""
    task, files = toy_kinds[kind], request.getfixturevalue(which)
    for module, size in ((model, "PREDICT_ROWS"), (_label_likelihood, "_MOST_ROWS")):
        monkeypatch.setattr(module, size, {"cpu": 4})
    method = methods.get(name)()
    bench = make_bench(task, files, cpu, budget=Budget(steps=1))
    rows = Worker(cpu, None).training_rows(task, 12 if method.uses_labels else 0, 0, "stratified")
    fitted = method.fit(rows, bench)
    before = n_signs()
    fitted.predict(test_rows(task), bench)
    assert n_signs() - before >= least, len(task.test)
