"""What caching the frozen lower blocks gives: `last-layers` against `full` on SST-2, in one process, in turn."""

from __future__ import annotations

import statistics

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.backbones.locate import BackboneFiles
from harness.measure.device import Device
from harness.methods import methods
from harness.records.record import Budget
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.tasks import Task
from tests.toys import plan_one

N_TRAIN = 1024
ROUNDS = 3
AT_LEAST = 1.8


@pytest.mark.timeout(3600)
def test_last_two_blocks_against_full(
    benchmark: BenchmarkFixture, sst2: Task, minilm: BackboneFiles, cpu: Device
) -> None:
    worker = Worker(cpu, None)
    seconds: dict[str, list[float]] = {"full": [], "last-layers": []}
    scores: dict[str, list[float]] = {"full": [], "last-layers": []}
    seeds = iter(range(-1, ROUNDS))
    current = {"seed": -1}

    def run(name: str) -> None:
        seed = current["seed"]
        size, budget = (str(N_TRAIN), Budget()) if seed >= 0 else ("32", Budget(steps=3))
        settings = {"k": 2} if name == "last-layers" else {}
        planned = plan_one(sst2, minilm, methods.get(name)(**settings), size=size, seed=max(seed, 0), budget=budget)
        record = worker.run(Job(planned, minilm, "benchmark"), sst2)
        assert record.status == "ok", record.error
        assert record.score is not None
        if seed >= 0:
            # What is encoded once is part of the price.
            assert record.cost.train_seconds is not None
            seconds[name].append(record.cost.train_seconds)
            scores[name].append(record.score.value)

    def full_first() -> None:
        current["seed"] = next(seeds)
        run("full")

    benchmark.pedantic(lambda: run("last-layers"), setup=full_first, rounds=ROUNDS, warmup_rounds=1)
    ratio = statistics.median(seconds["full"]) / statistics.median(seconds["last-layers"])
    benchmark.extra_info.update(
        {
            "train_seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
            "accuracy": {name: [round(value, 4) for value in values] for name, values in scores.items()},
            "ratio": round(ratio, 2),
        }
    )
    print(benchmark.extra_info)
    assert ratio >= AT_LEAST
