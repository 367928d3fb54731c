"""Seconds of measuring forgetting as a share of a small cell: at most 5 %, in one process.

A small cell is 32 labels of TREC, the shortest texts of the suites, with its 500 test rows. The pretrained model is
read in the first cell of a process; the later ones are measured.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from harness.backbones import BackboneFiles
from harness.measure import Device
from harness.methods import methods
from harness.planning import load_suite
from harness.running import forgetting
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.tasks import kinds
from tests.toys import plan_one

MOST = 0.05


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_small_cells(
    method: str, mirror: Path, minilm: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = kinds.get("classification").prepare(load_suite("questions").task("trec"), mirror)
    own, taken = forgetting.ForgettingMeter.measure, []

    def timed(*args: Any) -> Any:
        started = time.perf_counter()
        found = own(*args)
        taken.append(time.perf_counter() - started)
        return found

    monkeypatch.setattr(forgetting.ForgettingMeter, "measure", timed)
    worker = Worker(cpu, None)
    shares = []
    for seed in range(2):
        record = worker.run(Job(plan_one(task, minilm, methods.get(method)(), size="32", seed=seed), minilm, "t"), task)
        assert record.facts.forgetting is not None, record.facts.missing
        assert record.provenance.wall_seconds is not None
        shares.append(taken[-1] / (record.provenance.wall_seconds - taken[-1]))
    print(f"{method}: {shares[0]:.1%} of the first cell, {shares[1]:.1%} of the next")
    assert shares[1] <= MOST
