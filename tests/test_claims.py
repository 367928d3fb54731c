"""Claims: two runs on one store never run one cell twice, and the dead hold nothing."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.schedule import pending
from harness.schedule.pending import Claims
from harness.store import claims as claims_module
from harness.store.claims import Owner
from harness.store.store import STORE_SCHEMA, Store
from tests.record_factory import DEVICE, make_record

FIXTURE = Path(__file__).parent / "fixtures" / "store-schema-1.sqlite"
ELSEWHERE = "another-host/boot/pid"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "claims.sqlite")


def dead_owner() -> Owner:
    """An owner on this host whose process has ended."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    born = psutil.Process(process.pid).create_time()
    process.wait()
    return Owner(pid=process.pid, born=born)


def test_what_one_claims_another_does_not_get(store: Store) -> None:
    mine, theirs = Owner(), Owner(host=ELSEWHERE)
    record = make_record()
    assert store.claim([record.id], DEVICE, mine) == {record.id: 1}
    assert store.claim([record.id], DEVICE, theirs) == {}
    assert store.claim([record.id], "another device", theirs) == {record.id: 1}
    assert store.claimed(DEVICE) == {record.id}
    store.release(mine)
    assert store.claim([record.id], DEVICE, theirs) == {record.id: 1}


def test_a_record_ends_the_claim_and_is_not_run_again(store: Store) -> None:
    mine, theirs = Owner(), Owner(host=ELSEWHERE)
    ok, failed = make_record(seed=1), make_record(seed=2, status="failed")
    for record in (ok, failed):
        store.claim([record.id], DEVICE, mine)
        store.add(record, mine)
    assert store.claimed() == set()
    ids = [ok.id, failed.id]
    assert store.claim(ids, DEVICE, theirs) == {}
    assert store.claimed() == set()
    assert store.claim(ids, DEVICE, theirs, retry_failed=True) == {failed.id: 2}


def test_the_claims_of_the_dead_are_broken_at_once(store: Store) -> None:
    record = make_record()
    assert store.claim([record.id], DEVICE, dead_owner())
    assert store.claim([record.id], DEVICE, Owner()) == {record.id: 1}


def test_a_number_that_is_used_again_is_another_process(store: Store) -> None:
    record = make_record()
    reborn = Owner(born=Owner().born - 100)
    assert store.claim([record.id], DEVICE, reborn)
    assert store.claim([record.id], DEVICE, Owner()) == {record.id: 1}


def test_a_claim_from_elsewhere_holds_until_its_lease_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Owner(host=ELSEWHERE)
    record = make_record()
    store.claim([record.id], DEVICE, theirs)
    later = time.time() + 0.9 * claims_module.LEASE_SECONDS
    monkeypatch.setattr(claims_module, "current_time", lambda _: later)
    assert store.claim([record.id], DEVICE, Owner()) == {}
    store.renew(theirs)
    monkeypatch.setattr(claims_module, "current_time", lambda _: later + 0.9 * claims_module.LEASE_SECONDS)
    assert store.claim([record.id], DEVICE, Owner()) == {}
    monkeypatch.setattr(claims_module, "current_time", lambda _: later + 1.1 * claims_module.LEASE_SECONDS)
    assert store.claim([record.id], DEVICE, Owner()) == {record.id: 1}


def test_a_run_renews_what_it_holds_and_gives_it_up_at_its_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "RENEW_SECONDS", 0.01)
    renewed: list[str] = []
    monkeypatch.setattr(store, "renew", lambda owner: renewed.append(owner.name))
    record = make_record()
    with Claims(store, DEVICE) as mine:
        assert mine.claim([record.id]) == {record.id: 1}
        until = time.monotonic() + 10
        while not renewed and time.monotonic() < until:
            time.sleep(0.01)
    assert set(renewed) == {mine.owner.name}
    assert store.claimed() == set()


def claim_all(path: str, seeds: range, gate: multiprocessing.synchronize.Barrier, got: multiprocessing.Queue) -> None:
    with Store.open(path) as store:
        owner = Owner()
        gate.wait()
        mine = [id_ for seed in seeds for id_ in store.claim([make_record(seed=seed).id], DEVICE, owner)]
        got.put(mine)
        gate.wait()  # a dead owner's claims are free: both live until both have claimed


def test_two_processes_share_the_cells(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    gate, got = context.Barrier(2), context.Queue()
    path = str(tmp_path / "shared.sqlite")
    Store.open(path).close()
    runs = [context.Process(target=claim_all, args=(path, range(40), gate, got)) for _ in range(2)]
    for run in runs:
        run.start()
    first, second = got.get(timeout=60), got.get(timeout=60)
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    assert len(first) + len(second) == 40
    assert not set(first) & set(second)


def test_a_store_from_before_claims_is_upgraded_on_opening(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    shutil.copy(FIXTURE, path)
    with Store.open(path) as store:
        records = list(store.records(with_predictions=True))
        assert [(record.cell.method, record.status) for record in records][-1] == ("full", "failed")
        assert len(records) == 9
        assert records[0].predictions is not None
        fresh = dataclasses.replace(make_record(seed=5), suite="new")
        assert store.claim([fresh.id], DEVICE, Owner()) == {fresh.id: 1}
        store.add(fresh)
    with Store.open(path) as store:
        assert store.count() == 10
        assert store._version == STORE_SCHEMA


def test_an_owner_elsewhere_is_never_called_dead() -> None:
    assert not Owner(host=ELSEWHERE, pid=2**22 - 1).is_dead()
    assert not Owner().is_dead()
    assert Owner().pid == os.getpid()
