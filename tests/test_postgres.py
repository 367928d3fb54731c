"""A store on a PostgreSQL server, which the tests start on the loopback interface."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from harness.backbones.locate import BackboneFiles
from harness.cli.main import app
from harness.measure.device import Device
from harness.records.jsonl import write_jsonl
from harness.records.record import Record
from harness.running.attempt import Job
from harness.running.worker import unrun
from harness.schedule.drive import run_cells
from harness.schedule.messages import Begun, Done, Event
from harness.schedule.prepare import Prepared
from harness.store.claims import Owner
from harness.store.store import STORE_SCHEMA, Store
from harness.support.errors import DuplicateError, StoreError
from harness.tasks import Task
from tests.commands import everything_said
from tests.executors import Quiet
from tests.planted import Planted
from tests.record_factory import DEVICE, make_grid, make_record
from tests.store_checks import CLAIM_CHECKS, STORE_CHECKS, check_a_claim_from_elsewhere_holds_until_its_lease_ends
from tests.toys import plan_one

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'adaptation-harness[postgres]'")

PASSWORD = "s3cret-of-the-tests"
START_SECONDS = 60
_PR_SET_PDEATHSIG = 1
_numbers = itertools.count()


def find_programs() -> Path:
    """The folder with PostgreSQL's server, the newest where there are several."""
    named = shutil.which("initdb")
    folders = [Path(named).resolve().parent] if named else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    for folder in folders:
        if all((folder / program).exists() for program in ("initdb", "postgres")):
            return folder
    pytest.skip("PostgreSQL's server is not installed: neither on the PATH nor in /usr/lib/postgresql")


def find_user() -> dict[str, Any]:
    """Whom the server runs as: it refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL's server does not run as root, and there is neither a user `postgres` nor `nobody`")


def _end_with_tests() -> None:
    """However they end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


class Server:
    """A server with a folder, a port and a password of its own."""

    def __init__(self, folder: Path, programs: Path, user: dict[str, Any]) -> None:
        self.folder = folder
        self.programs = programs
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, Any] = {"cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, **user}
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        command = [programs / "initdb", "-D", folder / "data", "-U", "harness", "-A", "scram-sha-256"]
        command += ["--pwfile", folder / "password", "--no-sync", "-E", "UTF8"]
        done = subprocess.run(command, **self.settings, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"PostgreSQL's initdb fails here: {done.stderr.strip()}")

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql+psycopg://harness:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        command = [self.programs / "postgres", "-D", self.folder / "data", "-h", "127.0.0.1", "-p", str(self.port)]
        command += ["-k", self.folder, "-F"]  # -F: what the tests store need not survive a power cut
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, **self.settings, stdout=log, stderr=log, preexec_fn=_end_with_tests
            )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self.do("SELECT 1")
                return
            except sa.exc.OperationalError:
                if time.monotonic() > until or self.process.poll() is not None:
                    pytest.skip(f"PostgreSQL's server does not start here: {(self.folder / 'log').read_text()[-1000:]}")
                time.sleep(0.1)

    def stop(self) -> None:
        """At once, as when it crashes."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)

    def do(self, statement: str) -> None:
        engine = sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    programs, user = find_programs(), find_user()
    # Not below pytest's own folders, which none but their owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="harness-postgres-"))
    if user:
        os.chown(folder, user["user"], user["group"])
    running = None
    try:
        running = Server(folder, programs, user)
        running.start()
        yield running
    finally:
        if running is not None:
            running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def url(server: Server) -> str:
    """A database of the test's own."""
    name = f"test_{next(_numbers)}"
    server.do(f"CREATE DATABASE {name}")
    return server.url(name)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as opened:
        yield opened


# ---- what is tested of SQLite holds here


@pytest.mark.parametrize("check", STORE_CHECKS)
def test_a_store_works_as_on_sqlite(check: Callable[[str], None], url: str) -> None:
    check(url)


@pytest.mark.parametrize("check", CLAIM_CHECKS)
def test_claims_hold_as_on_sqlite(check: Callable[[Store], None], store: Store) -> None:
    check(store)


def test_leases_end_as_on_sqlite(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    check_a_claim_from_elsewhere_holds_until_its_lease_ends(store, monkeypatch)


def test_a_second_record_under_one_key_is_refused_and_changes_nothing(store: Store) -> None:
    store.add(make_record())
    with pytest.raises(DuplicateError, match=r"Attempt 1 .* is in postgresql.*already"):
        store.add(make_record())
    assert store.count() == 1


def test_a_database_may_hold_other_tables_but_not_another_store(server: Server, url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE tickets (body TEXT)")
    with pytest.raises(StoreError, match="holds no records yet"):
        Store.open(url, create=False)
    with Store.open(url) as store:
        store.add(make_record())
    with Store.open(url, create=False) as store:
        assert store.count() == 1
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET value = '99'")
    with pytest.raises(StoreError, match=f"version 99; this one reads up to {STORE_SCHEMA}"):
        Store.open(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE meta RENAME COLUMN value TO content")
    with pytest.raises(StoreError, match="not a store of records"):
        Store.open(url)
    engine.dispose()


# ---- several runs at once


def claim_many(url: str, ids: list[str], gate: multiprocessing.synchronize.Barrier, got: multiprocessing.Queue) -> None:
    with Store.open(url) as store:
        gate.wait(60)
        got.put(list(store.claim(ids, DEVICE, Owner())))
        gate.wait(60)  # a dead owner's claims are free: both live until both have claimed


def test_runs_that_claim_in_opposite_orders_do_not_wait_for_each_other(store: Store, url: str) -> None:
    ids = [make_record(seed=seed).id for seed in range(200)]
    context = multiprocessing.get_context("fork")
    gate, got = context.Barrier(2), context.Queue()
    runs = [context.Process(target=claim_many, args=(url, order, gate, got), daemon=True) for order in (ids, ids[::-1])]
    for one in runs:
        one.start()
    first, second = got.get(timeout=60), got.get(timeout=60)
    for one in runs:
        one.join(60)
        assert one.exitcode == 0
    assert sorted(first + second) == sorted(ids)


class AtOnce:
    """Workers of no process, that end a cell as soon as it has been looked after."""

    n_free = 1

    def __init__(self, task: Task, device: Device, ran: list[str]) -> None:
        self.task = task
        self.device = device
        self.ran = ran
        self.jobs: deque[Job] = deque()

    @property
    def n_running(self) -> int:
        return len(self.jobs)

    def refusals(self, backbones: Sequence[BackboneFiles]) -> dict[str, str]:
        return {}

    def start(self, job: Job, task: Task) -> None:
        self.jobs.append(job)
        self.ran.append(job.id)
        self.n_free = 0

    def events(self, timeout: float) -> list[tuple[Job, Event]]:
        job = self.jobs.popleft()
        self.n_free = 1
        time.sleep(0.005)
        record = unrun(Job(job.planned, None, "tests"), self.task, self.device, "out_of_time", "planted")
        return [(job, Begun(0)), (job, Done(record))]

    def close(self) -> None: ...


def drive(url: str, task: Task, device: Device, gate: Any, told: Any) -> None:
    """One driver: runs the grid together with another, and tells which cells it ran."""
    cells = [plan_one(task, None, Planted(), seed=seed) for seed in range(60)]
    ran: list[str] = []
    with Store.open(url) as store:
        gate.wait(60)
        outcome = run_cells(
            Prepared("planted", tuple(cells), {task.name: task}, {}, device), store, Quiet(), AtOnce(task, device, ran)
        )
    told.put((ran, outcome.n_run, outcome.n_elsewhere, outcome.n_left))


def test_two_drivers_record_every_cell_once_and_run_none_twice(url: str, toy: Task, cpu: Device) -> None:
    context = multiprocessing.get_context("spawn")
    gate, told = context.Barrier(2), context.Queue()
    drivers = [context.Process(target=drive, args=(url, toy, cpu, gate, told), daemon=True) for _ in range(2)]
    for driver in drivers:
        driver.start()
    told_all = [told.get(timeout=120) for _ in drivers]
    for driver in drivers:
        driver.join(60)
        assert driver.exitcode == 0
    with Store.open(url) as store:
        records: list[Record] = list(store.records(latest_only=False))
        assert store.claimed() == set()
    assert len(records) == len({record.id for record in records}) == 60
    assert {record.attempt for record in records} == {1}
    ran = Counter(id_ for ids, *_ in told_all for id_ in ids)
    assert set(ran) == {record.id for record in records}
    assert max(ran.values()) == 1
    assert all(len(ids) == n_run > 0 and n_left == 0 for ids, n_run, _, n_left in told_all)


# ---- what goes wrong


def test_a_server_that_goes_away_is_named_and_one_that_comes_back_serves(server: Server, url: str) -> None:
    with Store.open(url) as store:
        store.add(make_record(seed=1))
        server.stop()
        try:
            messages = []
            for attempt in (
                lambda: store.add(make_record(seed=2)),
                lambda: store.claim(["a"], DEVICE, Owner()),
                lambda: Store.open(url),
            ):
                with pytest.raises(StoreError) as caught:
                    attempt()
                messages.append(str(caught.value))
        finally:
            server.start()
        for message in messages:
            assert "cannot be used" in message
            assert "Check that the server runs" in message
            assert f"127.0.0.1:{server.port}" in message
            assert PASSWORD not in message
        store.add(make_record(seed=2))
        assert store.count() == 2


def test_no_message_says_the_password(server: Server, url: str) -> None:
    wrong = "an0ther-secret"
    for bad in (server.url("postgres", wrong), server.url("nothing"), server.url("postgres").replace("harness:", "x:")):
        with pytest.raises(StoreError) as caught:
            Store.open(bad)
        assert PASSWORD not in str(caught.value)
        assert wrong not in str(caught.value)
    with Store.open(url) as store:
        assert PASSWORD not in store.name
        store.add(make_record())
        with pytest.raises(DuplicateError) as caught:
            store.add(make_record())
        assert PASSWORD not in str(caught.value)
        with store._engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE predictions")
        with pytest.raises(StoreError) as caught:
            store.add(make_record(seed=1))
        assert PASSWORD not in str(caught.value)
        assert "predictions" in str(caught.value)


# ---- reading


def test_a_reader_writes_nothing_and_upgrades_nothing(server: Server, url: str) -> None:
    with pytest.raises(StoreError, match="holds no records yet"):
        Store.open(url, read_only=True)
    engine = sa.create_engine(url)
    assert sa.inspect(engine).get_table_names() == []
    with Store.open(url) as store:
        store.add(make_record())
    with engine.begin() as connection:  # as version 0.1 left it
        connection.exec_driver_sql("DROP TABLE claims")
        connection.exec_driver_sql("UPDATE meta SET value = '1'")
    with Store.open(url, read_only=True) as reader:
        assert len(list(reader.records(with_predictions=True))) == 1
        assert reader.claimed() == set()
        with pytest.raises(StoreError, match="read-only"):
            reader.add(make_record(seed=1))
    assert "claims" not in sa.inspect(engine).get_table_names()
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT value FROM meta").scalar_one() == "1"
    engine.dispose()


@pytest.mark.parametrize(
    "command",
    [
        ["import", "records.jsonl"],
        ["status"],
        ["export", "out.csv"],
        pytest.param(["report", "--out", "report", "--figures", "png"], marks=pytest.mark.slow),
        ["advise", "--n-train", "64"],
        ["doctor"],
        ["forget", "--method", "full", "--yes"],
    ],
    ids=lambda command: command[0],
)
def test_no_command_shows_the_password_of_a_store_that_works(
    url: str, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl([make_record("full", seed=3)], tmp_path / "records.jsonl")
    with Store.open(url) as store:
        for record in make_grid(methods=("full", "tfidf"), sizes=(32, 128), seeds=(0,)):
            store.add(record)
    result = CliRunner().invoke(app, command, env={"HARNESS_STORE": url})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert PASSWORD not in everything_said(result, tmp_path)
    with Store.open(url) as store:
        assert all(PASSWORD not in str(record.to_json()) for record in store.records())


def test_two_stores_with_passwords_are_compared_without_showing_them(url: str, tmp_path: Path) -> None:
    with Store.open(url) as store:
        for record in make_grid(methods=("full", "tfidf"), sizes=(32,), seeds=(0,)):
            store.add(record)
    write_jsonl([make_record("full"), make_record("head")], tmp_path / "b.jsonl")
    for pair in ([url, str(tmp_path / "b.jsonl")], [str(tmp_path / "b.jsonl"), url]):
        result = CliRunner().invoke(app, ["compare", *pair, "--out", str(tmp_path / "out.csv")])
        assert "Not compared" in result.output
        assert PASSWORD not in everything_said(result, tmp_path)
