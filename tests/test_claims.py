"""Claims: two runs on one store never run one cell twice, and the dead hold nothing."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.schedule import claiming
from harness.schedule.claiming import Claims
from harness.store.claims import Owner
from harness.store.store import STORE_SCHEMA, Store
from tests.record_factory import DEVICE, make_record
from tests.store_checks import CLAIM_CHECKS, ELSEWHERE, check_a_claim_from_elsewhere_holds_until_its_lease_ends

FIXTURE = Path(__file__).parent / "fixtures" / "store-schema-1.sqlite"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "claims.sqlite")


@pytest.mark.parametrize("check", CLAIM_CHECKS)
def test_claims_hold(check: Callable[[Store], None], store: Store) -> None:
    check(store)


def test_leases_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    check_a_claim_from_elsewhere_holds_until_its_lease_ends(store, monkeypatch)


def test_a_run_renews_what_it_holds_and_gives_it_up_at_its_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "RENEW_SECONDS", 0.01)
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
