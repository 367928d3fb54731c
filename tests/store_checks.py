"""Checks of every store, on SQLite as on PostgreSQL."""

from __future__ import annotations

import dataclasses
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.records.record import FINAL_STATUSES, CurvePoint, Record, Score
from harness.store import claims as claims_module
from harness.store.claims import Owner
from harness.store.forgetting import Wanted, find_records, forget_records
from harness.store.store import Store
from harness.support.errors import StoreError
from tests.record_factory import DEVICE, make_record


def same(left: Record, right: Record) -> bool:
    return left.to_json() == right.to_json()


def check_a_record_comes_back_as_it_was_stored(path):
    record = make_record()
    with Store.open(path) as store:
        store.add(record)
        (found,) = store.records(with_predictions=True)
        (bare,) = store.records()
        assert store.count() == 1
    assert same(found, record)
    assert bare.predictions is None
    assert same(bare, dataclasses.replace(record, predictions=None))
    assert np.array_equal(found.predictions.predicted, record.predictions.predicted)


def check_done_asks_for_the_latest_attempt_on_the_device(path):
    ended = {status: make_record(seed=seed, status=status) for seed, status in enumerate(FINAL_STATUSES)}
    failed, mended, missing = make_record(seed=10, status="failed"), make_record(seed=11), make_record(seed=12)
    elsewhere = make_record(seed=13, device="H200")
    with Store.open(path) as store:
        for record in (*ended.values(), failed, elsewhere):
            store.add(record)
        store.add(dataclasses.replace(make_record(seed=11, status="failed"), attempt=1))
        assert store.next_attempt(mended.id, DEVICE) == 2
        store.add(dataclasses.replace(mended, attempt=2))
        ids = {record.id for record in (*ended.values(), failed, mended, missing, elsewhere)}
        final = {record.id for record in ended.values()} | {mended.id}
        assert store.done(ids, DEVICE) == final | {failed.id}
        assert store.done(ids, DEVICE, retry_failed=True) == final
        assert store.done(ids, "H200") == {elsewhere.id}
        assert store.done([missing.id], DEVICE) == set()
        assert store.next_attempt(missing.id, DEVICE) == 1
        assert store.latest([mended.id])[mended.id, DEVICE].attempt == 2
        assert len(list(store.records())) == 7
        assert len(list(store.records(latest_only=False))) == store.count() == 8
        assert [record.id for record in store.records(device="H200")] == [elsewhere.id]
        assert list(store.records(suite="nothing")) == []


def check_records_stream_in_the_order_they_were_stored_while_more_are_added(path):
    records = [make_record(seed=seed) for seed in (3, 1, 2)]
    with Store.open(path) as store:
        for record in records:
            store.add(record)
        found = []
        for record in store.records():
            found.append(record.id)
            store.add(make_record(seed=100 + len(found)))
    assert found == [record.id for record in records]


def check_two_processes_may_create_and_fill_one_store(path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_some, args=(path, start)) for start in (0, 100, 200)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    with Store.open(path) as store:
        assert store.count() == 15


def add_some(path: Path, start: int) -> None:
    with Store.open(path) as store:
        for seed in range(start, start + 5):
            store.add(make_record(seed=seed))


def check_side_figures_that_are_no_numbers_become_null_and_a_score_that_is_none_is_refused(path):
    point = CurvePoint(1, 0.5, train_loss=float("nan"), validation=np.float32(0.25))
    diverged = dataclasses.replace(make_record(), curve=(point,))
    score = Score("accuracy", float("nan"), None, None, True, 10)
    with Store.open(path) as store:
        store.add(diverged)
        (found,) = store.records()
        with pytest.raises(StoreError, match="nan"):
            store.add(dataclasses.replace(make_record(seed=1), score=score))
    assert found.curve == (CurvePoint(1, 0.5, None, None, 0.25),)


def check_hostile_text_is_stored_unchanged(path):
    record = make_record(
        task="a\0b\ud800'; DROP TABLE records; --", device="d\0\udfff", error="line\n\0\ud83d", status="failed"
    )
    with Store.open(path) as store:
        store.add(record)
        (found,) = store.records(device=record.device)
        assert store.done([record.id], record.device) == {record.id}
        with pytest.raises(StoreError) as caught:
            store.add(record)
    assert same(found, record)
    assert str(caught.value).encode()  # can be printed


ELSEWHERE = "another-host/boot/pid"


def dead_owner() -> Owner:
    """An owner on this host whose process has ended."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    born = psutil.Process(process.pid).create_time()
    process.wait()
    return Owner(pid=process.pid, born=born)


def check_what_one_claims_another_does_not_get(store: Store) -> None:
    mine, theirs = Owner(), Owner(host=ELSEWHERE)
    record = make_record()
    assert store.claim([record.id], DEVICE, mine) == {record.id: 1}
    assert store.claim([record.id], DEVICE, theirs) == {}
    assert store.claim([record.id], "another device", theirs) == {record.id: 1}
    assert store.claimed(DEVICE) == {record.id}
    store.release(mine)
    assert store.claim([record.id], DEVICE, theirs) == {record.id: 1}


def check_a_record_ends_the_claim_and_is_not_run_again(store: Store) -> None:
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


def check_the_claims_of_the_dead_are_broken_at_once(store: Store) -> None:
    record = make_record()
    assert store.claim([record.id], DEVICE, dead_owner())
    assert store.claim([record.id], DEVICE, Owner()) == {record.id: 1}


def check_a_number_that_is_used_again_is_another_process(store: Store) -> None:
    record = make_record()
    reborn = Owner(born=Owner().born - 100)
    assert store.claim([record.id], DEVICE, reborn)
    assert store.claim([record.id], DEVICE, Owner()) == {record.id: 1}


def check_a_claim_from_elsewhere_holds_until_its_lease_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
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


RECORDS = [
    make_record("full", 32, seed=0),
    make_record("full", 32, seed=1, task="other"),
    make_record("tfidf", 32, backbone=None),
    make_record("lora", 32, status="failed", error="boom"),
    dataclasses.replace(make_record("lora", 32), attempt=2),
    dataclasses.replace(make_record("head", 32), device="GPU", suite="mine"),
]


def fill(url: str | Path) -> None:
    with Store.open(url) as store:
        for record in RECORDS:
            store.add(record)


def check_filters_of_forget(url: str | Path) -> None:
    """Each filter finds what a comprehension over the records finds."""
    fill(url)
    expected = {
        Wanted(task="other"): [r for r in RECORDS if r.cell.task == "other"],
        Wanted(method="lora"): [r for r in RECORDS if r.cell.method == "lora"],
        Wanted(method="lora", status="failed"): [RECORDS[3]],
        Wanted(backbone="none"): [RECORDS[2]],
        Wanted(backbone=str(RECORDS[0].cell.backbone)): [r for r in RECORDS if r.cell.backbone],
        Wanted(device="GPU"): [RECORDS[5]],
        Wanted(suite="mine"): [RECORDS[5]],
        Wanted(status="ok"): [r for r in RECORDS if r.status == "ok"],
        Wanted(id=RECORDS[0].id[:12]): [RECORDS[0]],
        Wanted(before="2020-01-01"): [],
        Wanted(after="2020-01-01T00:00+02:00"): RECORDS,
        Wanted(task="othe"): [],
        Wanted(task="%"): [],
    }
    with Store.open(url) as store:
        for wanted, records in expected.items():
            found = {(key.id, key.device, key.attempt) for key in find_records(store, wanted)}
            assert found == {(r.id, r.device, r.attempt) for r in records}, wanted
        n_all = store.count()
        assert forget_records(store, find_records(store, Wanted(method="lora", status="failed"))) == (1, 0)
        assert store.count() == n_all - 1
        left = {record.id: record for record in store.records(with_predictions=True)}
        assert left[RECORDS[4].id].to_json() == RECORDS[4].to_json()  # the second attempt, predictions and all
        assert forget_records(store, find_records(store, Wanted(after="2020-01-01"))) == (n_all - 1, 0)
        assert store.count() == 0


def check_that_claimed_records_stay(url: str | Path) -> None:
    fill(url)
    with Store.open(url) as store:
        mine = RECORDS[0]
        owner = Owner(host="elsewhere")
        assert store.claim([mine.id], mine.device, owner, again=[mine.id]) == {mine.id: 2}
        keys = find_records(store, Wanted(method="full"))
        assert forget_records(store, keys) == (1, 1)
        assert mine.id in store.statuses([mine.id], DEVICE)
        store.release(owner)
        assert forget_records(store, keys) == (1, 0)


STORE_CHECKS = [
    check_a_record_comes_back_as_it_was_stored,
    check_done_asks_for_the_latest_attempt_on_the_device,
    check_records_stream_in_the_order_they_were_stored_while_more_are_added,
    check_two_processes_may_create_and_fill_one_store,
    check_side_figures_that_are_no_numbers_become_null_and_a_score_that_is_none_is_refused,
    check_hostile_text_is_stored_unchanged,
    check_filters_of_forget,
    check_that_claimed_records_stay,
]

CLAIM_CHECKS = [
    check_what_one_claims_another_does_not_get,
    check_a_record_ends_the_claim_and_is_not_run_again,
    check_the_claims_of_the_dead_are_broken_at_once,
    check_a_number_that_is_used_again_is_another_process,
]
