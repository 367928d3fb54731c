"""Claims while clocks are set: a live run keeps its cells, a dead one loses them, a number used again is noticed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.store import claims
from harness.store.claims import LEASE_SECONDS, Owner
from harness.store.store import Store
from tests.record_factory import DEVICE, make_record

STEPS = (10.0, -10.0, 7200.0, -7200.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "claims.sqlite")


def step_the_clock(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the clock, as this process sees it: the time of day, and the starts of processes that follow from it."""
    of_day, of_start = time.time, psutil.Process.create_time
    monkeypatch.setattr(time, "time", lambda: of_day() + seconds)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: of_start(self) + seconds)


@contextlib.contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def owner_of(pid: int) -> Owner:
    return Owner(pid=pid, born=claims._look_up(pid).born)


@pytest.mark.skipif(claims._TICKS is None, reason="no Linux: starts of processes move with the clock")
@pytest.mark.parametrize("seconds", STEPS)
def test_a_live_claim_stays_live_and_a_dead_one_is_freed(
    seconds: float, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, dead = make_record(seed=1).id, make_record(seed=2).id
    with sleeping() as running:
        assert store.claim([live], DEVICE, owner_of(running.pid))
        with sleeping() as ending:
            assert store.claim([dead], DEVICE, owner_of(ending.pid))
        step_the_clock(seconds, monkeypatch)
        mine = Owner()
        assert store.claim([live, dead], DEVICE, mine) == {dead: 1}
        store.renew(mine)
    assert store.claim([live], DEVICE, Owner()) == {live: 1}  # its process has ended now


def test_a_number_that_is_used_again_is_another_process(store: Store) -> None:
    with sleeping() as running:
        owner = owner_of(running.pid)
        assert not owner.is_dead()
        assert not dataclasses.replace(owner, born=owner.born + 0.004).is_dead()  # less than a tick of the kernel
        assert dataclasses.replace(owner, born=owner.born - 1.0).is_dead()
        assert dataclasses.replace(owner, born=owner.born + 1.0).is_dead()


def test_a_stopped_run_keeps_its_claims_for_its_lease_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_record()
    with sleeping() as stopped:
        assert store.claim([record.id], DEVICE, owner_of(stopped.pid))
        os.kill(stopped.pid, signal.SIGSTOP)
        until = time.monotonic() + 10
        while psutil.Process(stopped.pid).status() != psutil.STATUS_STOPPED and time.monotonic() < until:
            time.sleep(0.01)
        assert store.claim([record.id], DEVICE, Owner()) == {}
        step_the_clock(LEASE_SECONDS + 1, monkeypatch)
        assert store.claim([record.id], DEVICE, Owner()) == {record.id: 1}


def test_a_lease_from_another_host_outlives_a_small_step(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is renewed every quarter of its length, so three quarters are left at the worst."""
    record = make_record()
    theirs = Owner(host="another-host/boot/pid/ticks")
    assert store.claim([record.id], DEVICE, theirs)
    step_the_clock(0.7 * LEASE_SECONDS, monkeypatch)
    assert store.claim([record.id], DEVICE, Owner()) == {}


@pytest.mark.parametrize("seconds", [10.0, -10.0])
def test_where_starts_are_times_of_day_a_small_step_is_tolerated(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_TICKS", None)
    with sleeping() as running:
        owner = owner_of(running.pid)
        assert owner.born > 1e9
        step_the_clock(seconds, monkeypatch)
        assert not owner.is_dead()
        assert owner.is_running()
        assert dataclasses.replace(owner, born=owner.born - 100.0).is_dead()
    assert owner.is_dead()


def test_an_owner_of_an_older_version_is_left_its_lease() -> None:
    """Its start is a time of day: its host's name, as that version made it, says so."""
    old = Owner(host=claims.host_name().rpartition("/")[0], born=psutil.Process().create_time())
    assert not old.is_dead()
    assert not old.is_running()
