"""What disturbs a measurement is noticed, and measured again when that is asked for."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.backbones.locate import BackboneFiles
from harness.measure import steadiness
from harness.measure.device import Device
from harness.measure.steadiness import Steadiness, judge_processors, unevenness
from harness.methods import methods
from harness.records.record import CurvePoint
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.store.store import Store
from harness.tasks import Task
from harness.testing.laboratory import plan_cell, run_cell
from tests.commands import run_cli
from tests.record_factory import with_facts


def spin(until: float) -> None:
    while time.time() < until:
        pass


def curve(rates: list[float]) -> list[CurvePoint]:
    points, seconds = [CurvePoint(0, 0.0, 0.0, 1.0, None)], 0.0
    for i, rate in enumerate(rates, start=1):
        seconds += 1.0 / rate
        points.append(CurvePoint(i, seconds, float(i), 1.0, None))
    return points


def test_words_follow_from_seconds() -> None:
    assert judge_processors(busy=20.0, stolen=0.0, own=19.0, available=20.0) is None
    assert (
        judge_processors(busy=20.0, stolen=0.0, own=15.0, available=20.0)
        == "other processes took 25% of its processors' time"
    )
    assert (
        judge_processors(busy=18.0, stolen=2.0, own=18.0, available=20.0) == "the host took 10% of its processors' time"
    )
    assert judge_processors(busy=10.0, stolen=0.0, own=11.0, available=20.0) is None  # counted in hundredths


def test_a_fit_that_slows_down_is_uneven() -> None:
    assert unevenness(curve([2.0] * 20)) is None
    assert unevenness(curve([0.1, *[2.0] * 20])) is None  # the first window chooses kernels
    assert unevenness(curve([2.0, 1.2] * 10)) is None
    said = unevenness(curve([*[2.0] * 10, *[0.5] * 5, *[2.0] * 5]))
    assert said == "59% of its fit went at less than half of its usual rate"  # 10 of 17 s, by hand
    assert unevenness(curve([2.0] * 3)) is None  # too few to say


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc/stat")
def test_a_busy_neighbour_is_noticed() -> None:
    meter = Steadiness()
    if meter._all is None:
        pytest.skip("/proc/stat does not show the processors of this process")
    until = time.time() + 3.0
    neighbours = [
        multiprocessing.get_context("fork").Process(target=spin, args=(until,)) for _ in os.sched_getaffinity(0)
    ]
    for one in neighbours:
        one.start()
    spin(until - 0.5)
    said = meter.disturbance()
    for one in neighbours:
        one.join()
    assert said is not None
    assert said.startswith("other processes took ")


@pytest.mark.skipif(not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists(), reason="no list of children")
@pytest.mark.parametrize(("priority", "is_noticed"), [(19, False), (0, True)])
def test_a_neighbour_that_yields_is_no_disturbance(
    priority: int, is_noticed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processor seconds are planted, so that other work on this machine changes nothing."""
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.setpriority(os.PRIO_PROCESS, neighbour.pid, priority)
        monkeypatch.setattr(os, "getppid", os.getpid)  # the neighbour is a child of the process that started this one
        monkeypatch.setattr(steadiness, "_own_seconds", lambda: 0.0)
        monkeypatch.setattr(steadiness, "_processor_seconds", lambda: (seconds_of(neighbour.pid), 0.0, 1))
        wait_for_seconds(neighbour.pid, 0.1)
        meter = Steadiness()
        began, before = time.perf_counter(), seconds_of(neighbour.pid)
        wait_for_seconds(neighbour.pid, before + 0.3)
        monkeypatch.setattr(meter, "_began", began - 1.0)
        monkeypatch.setattr(time, "perf_counter", lambda: began + 0.5)
        assert (meter.disturbance() is not None) == is_noticed
    finally:
        neighbour.kill()
        neighbour.wait()


def seconds_of(pid: int) -> float:
    spent = psutil.Process(pid).cpu_times()
    return float(spent.user + spent.system)


def wait_for_seconds(pid: int, seconds: float) -> None:
    while seconds_of(pid) < seconds:
        time.sleep(0.01)


def test_remeasure_runs_again_what_was_disturbed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("run", "quickstart", "--methods", "majority,tfidf", "--sizes", "48", "--seeds", "0")
    run_cli(*given, cwd=tmp_path)
    with Store.open(str(tmp_path / "results" / "harness.sqlite")) as store:
        [disturbed] = [r for r in store.records(with_predictions=True) if r.cell.method == "tfidf"]
        store.add(replace(with_facts(disturbed, unsteady="a neighbour"), attempt=2))
    said = run_cli(*given, cwd=tmp_path)
    assert "0 cells run" in said
    assert "The machine was busy: 1 of 2 cells was disturbed (the first: a neighbour). Scores are unaffected" in said
    assert "--remeasure" in said
    assert said.index("The machine was busy") < said.index("accuracy: mean over")
    said = run_cli(*given, "--remeasure", cwd=tmp_path)
    assert "1 cell run" in said
    with Store.open(str(tmp_path / "results" / "harness.sqlite")) as store:
        assert {r.cell.method: r.attempt for r in store.records()} == {"majority": 1, "tfidf": 3}


def test_a_quiet_cell_is_unsteady_if_its_features_were_encoded_on_a_busy_machine(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = methods.get("linear-probe")()
    with monkeypatch.context() as patched:
        patched.setattr(Steadiness, "disturbance", lambda _: "a neighbour")
        assert run_cell(toy, tiny, probe, Worker(cpu, tmp_path)).unsteady == "a neighbour"
    monkeypatch.setattr(Steadiness, "disturbance", lambda _: None)
    worker = Worker(cpu, tmp_path)
    reused = run_cell(toy, tiny, probe, worker)
    assert reused.unsteady == "other work took processors while its features were encoded"
    planned = plan_cell(toy, tiny, probe)
    again = worker.run(Job(planned, tiny, "tests", attempt=2), toy)  # what --remeasure asks for
    assert again.unsteady is None
    assert again.score == reused.score
    assert run_cell(toy, tiny, probe, Worker(cpu, tmp_path)).unsteady is None
