"""`kill -9` at any moment: the same command again completes, and the records are those of an undisturbed run.

Moments are spread over the whole of a run, from the first import to the report. Whatever dies, the driver or its
worker, a cell is recorded once, with the same figures but for those of the clock and of memory.
"""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing.resource_tracker
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.backbones.locate import BackboneFiles
from harness.schedule.local import LocalWorkers
from harness.store.store import Store
from harness.support.errors import StoreError
from tests.commands import command, interrupts, run_cli
from tests.record_factory import essence
from tests.toys import write_toy_table
from tests.warm_workers import use_warm_workers, worker_processes

FEW = "majority,tfidf,linear-probe[c=1.0],head"
MORE = "majority,tfidf,linear-probe,head,lora,full"

FIVE_KILLS = ([("driver", 2), ("worker", 3)], [("driver", 0), ("driver", 4), ("worker", 1)])
"""One after another on one store, each in its own fifth of the run."""

N_KILLS = 100

MARK = "HARNESS_TEST_OF_KILLS"
"""In the environment of all processes of one case, so that any that outlive it are found."""

ENDS_IN_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is run over and over, and what comes of it when nothing is killed."""

    folder: Path
    arguments: list[str]
    seconds: float
    records: dict[str, dict[str, Any]]

    def command(self, folder: Path) -> list[str]:
        """The arguments of `harness` for a run whose store and report are in a folder."""
        return [*self.arguments, "--store", str(folder / "records.sqlite"), "--reports", str(folder / "reports")]


def grid_of(methods: str, folder: Path, tiny: BackboneFiles) -> Grid:
    write_toy_table(folder / "tickets.csv", n_rows=120)
    options = ["--backbone", str(tiny.folder), "--methods", methods, "--sizes", "12,24", "--seeds", "0,1"]
    return Grid(folder, ["run", "--data", "tickets.csv", *options, "--budget", "steps=3"], 0.0, {})


def undisturbed(grid: Grid) -> Grid:
    """Add the seconds and the records of a run as users start it."""
    multiprocessing.resource_tracker.ensure_running()  # it lives as long as this process: no case's to leave behind
    whole = grid.folder / "undisturbed"
    whole.mkdir()
    began = time.monotonic()
    with started(grid, whole) as running:
        assert running.wait(240) == 0, output_of(whole)
    return dataclasses.replace(grid, seconds=time.monotonic() - began, records=essence_by_cell(whole))


@pytest.fixture(scope="module")
def few_here(tmp_path_factory: pytest.TempPathFactory, tiny: BackboneFiles) -> Grid:
    """A grid whose undisturbed run is one of this process: it imports nothing anew."""
    grid = grid_of(FEW, tmp_path_factory.mktemp("few here"), tiny)
    with pytest.MonkeyPatch.context() as patch:
        use_warm_workers(patch)
        run_cli(*grid.command(grid.folder), cwd=grid.folder, HARNESS_CACHE=str(grid.folder / "cache"))
    multiprocessing.resource_tracker.ensure_running()
    return dataclasses.replace(grid, records=essence_by_cell(grid.folder))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, tiny: BackboneFiles) -> Grid:
    return undisturbed(grid_of(FEW, tmp_path_factory.mktemp("few"), tiny))


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory, tiny: BackboneFiles) -> Grid:
    return undisturbed(grid_of(MORE, tmp_path_factory.mktemp("more"), tiny))


def test_a_worker_and_then_the_driver_are_killed(few_here: Grid, tmp_path: Path) -> None:
    """In one run as users start it, after some records; the run that goes on with the rest is one of this process."""
    with started(few_here, tmp_path) as running:
        for n_records, kill in KILLED_AFTER.items():
            while n_stored(tmp_path) < n_records:
                assert running.poll() is None, output_of(tmp_path)
                time.sleep(0.02)
            kill(running)
        assert running.wait(240) == -signal.SIGKILL
    before = essence_by_cell(tmp_path)
    assert before == {id_: few_here.records[id_] for id_ in before}
    assert max(KILLED_AFTER) <= len(before) < len(few_here.records)
    output = run_cli(*few_here.command(tmp_path), cwd=few_here.folder, **environment_of(tmp_path))
    assert f"{len(few_here.records) - len(before)} cells run, {len(before)} were there already" in output
    assert_nothing_is_left(tmp_path)
    assert essence_by_cell(tmp_path) == few_here.records


@pytest.mark.slow
@pytest.mark.parametrize("case", [0, 1])
def test_kills_lose_nothing_and_change_nothing(case: int, few: Grid, tmp_path: Path) -> None:
    draw, fifth_of_run = random.Random(case), few.seconds / 5
    kills = [(whom, after((fifth + draw.random()) * fifth_of_run)) for whom, fifth in FIVE_KILLS[case]]
    check_kills(kills, few, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", range(N_KILLS))
def test_a_hundred_kills_lose_nothing_and_change_nothing(case: int, more: Grid, tmp_path: Path) -> None:
    """Even cases kill the driver and odd ones the worker."""
    moment = (case + random.Random(case).random()) / N_KILLS
    check_kills([(("driver", "worker")[case % 2], after(moment * more.seconds))], more, tmp_path)


def after(seconds: float) -> Callable[[], bool]:
    """Return what says whether the seconds have passed since it was first asked."""
    began: list[float] = []

    def is_over() -> bool:
        began.append(time.monotonic())
        return began[-1] - began[0] >= seconds

    return is_over


def check_kills(kills: Sequence[tuple[str, Callable[[], bool]]], grid: Grid, folder: Path) -> None:
    """Run the command and kill it, over and over, each time when a moment has come; then let it end."""
    before: dict[str, dict[str, Any]] = {}
    for whom, has_come in kills:
        with started(grid, folder) as running:
            while not has_come() and running.poll() is None:
                time.sleep(0.02)
            {"driver": running.kill, "worker": functools.partial(kill_worker, running)}[whom]()
            code = running.wait(240)
        assert code in {"driver": (0, -signal.SIGKILL), "worker": (0, 2)}[whom], output_of(folder)
        if code == 2:  # no cell has begun: nobody knows whether the backbone can be loaded
            assert "was killed by signal 9" in output_of(folder)
        found = essence_by_cell(folder) if (folder / "records.sqlite").exists() else {}
        assert found == {id_: grid.records[id_] for id_ in found}
        assert set(before) <= set(found)
        before = found
    if code != 0:
        output = run_cli(*grid.command(folder), cwd=grid.folder, **environment_of(folder))
        assert f"{len(grid.records) - len(before)} cells run, {len(before)} were there already" in output
        assert_nothing_is_left(folder)
    assert essence_by_cell(folder) == grid.records
    with Store.open(folder / "records.sqlite", create=False) as store:
        assert store.count() == len(grid.records)
        assert store.claimed() == set()


def kill_worker(running: subprocess.Popen[bytes]) -> None:
    """Kill it as soon as there is one; a run that is over already has none."""
    while running.poll() is None:
        for child in worker_of(running):
            child.kill()
            return
        time.sleep(0.05)


KILLED_AFTER: dict[int, Callable[[subprocess.Popen[bytes]], None]] = {3: kill_worker, 6: subprocess.Popen.kill}
"""Kills of the default suite, by the number of records there are."""


def worker_of(running: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [child for child in psutil.Process(running.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    return []


def test_ctrl_c_once_ends_with_the_running_cell(few_here: Grid, tmp_path: Path) -> None:
    """And twice ends at once: `test_cli.py`."""
    arguments = [argument if argument != FEW else "head[epochs=1000]" for argument in few_here.arguments]
    slower = dataclasses.replace(few_here, arguments=[*arguments[:-1], "epochs=1000"])
    with interrupts(lambda: n_stored(tmp_path), pause=0.2):  # the second cell is running
        output = run_cli(*slower.command(tmp_path), cwd=few_here.folder, code=130)
    assert worker_processes() == []
    assert "Stopping after the running cell; Ctrl-C again stops now." in output
    assert re.search(r"Stopped after 2 of \d+ cells\. The same command resumes with the rest\.", output)
    n_ended = len(re.findall(r"^\[\d/4\]", output, re.MULTILINE))
    assert n_ended in (2, 3)
    with Store.open(tmp_path / "records.sqlite", create=False) as store:
        assert [record.status for record in store.records()] == ["ok"] * n_ended
        assert store.claimed() == set()


@pytest.mark.cold_workers
def test_a_worker_that_is_killed_before_its_first_cell_is_no_fault_of_the_backbone(tiny: BackboneFiles) -> None:
    with LocalWorkers("cpu", None) as workers:
        workers.warm_up()
        [worker] = worker_processes()
        threading.Timer(0.3, worker.kill).start()  # it imports for longer than that
        assert workers.refusals([tiny]) == {}


# ---- processes


def n_stored(folder: Path) -> int:
    """Return how many records a folder's store holds; 0 before there is one."""
    with suppress(StoreError), Store.open(folder / "records.sqlite", create=False) as store:
        return store.count()
    return 0


def environment_of(folder: Path) -> dict[str, str]:
    # One thread: two of each process would spend their time waiting for those of the others.
    return {MARK: str(folder), "HARNESS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


@contextmanager
def started(grid: Grid, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command, started; whatever it has started is over when this ends, or the test fails."""
    root = Path(__file__).parent.parent
    with (folder / "output.txt").open("wb") as output:
        running = subprocess.Popen(
            command(*grid.command(folder)),
            cwd=grid.folder,
            env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200", **environment_of(folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait()
    assert_nothing_is_left(folder)


def output_of(folder: Path) -> str:
    return (folder / "output.txt").read_text(encoding="utf-8", errors="replace")


def assert_nothing_is_left(folder: Path) -> None:
    until = time.monotonic() + ENDS_IN_SECONDS
    while found := [process for process in psutil.process_iter() if _is_of(process, folder)]:
        assert time.monotonic() < until, [process.cmdline() for process in found]
        time.sleep(0.05)


def _is_of(process: psutil.Process, folder: Path) -> bool:
    with suppress(psutil.Error, OSError):
        mark = process.environ().get(MARK)
        return mark == str(folder) and process.status() != psutil.STATUS_ZOMBIE
    return False


# ---- records


def essence_by_cell(folder: Path) -> dict[str, dict[str, Any]]:
    """The essence of each record in a folder's store, by cell."""
    with Store.open(folder / "records.sqlite") as store:
        records = list(store.records(with_predictions=True, latest_only=False))
    found = {record.id: essence(record) for record in records}
    assert len(found) == len(records)
    assert {record.status for record in records} <= {"ok"}, [record.error for record in records]
    return found
