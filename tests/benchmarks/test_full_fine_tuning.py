"""Full fine-tuning on SST-2 against transformers.Trainer, in one process, run by run in turn."""

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
from tests.benchmarks.trainers import Trained, train_with_trainer
from tests.toys import plan_one

N_TRAIN = 1024
EPOCHS = 2
SEEDS = 5
TRAINERS_DEFAULTS = {"learning_rate": 5e-5, "head_learning_rate": 5e-5, "weight_decay": 0.0, "warmup": 0.0}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("rival", "at_least"),
    [pytest.param("bf16 and grouped by length", 1.05, id="bf16-grouped"), pytest.param("defaults", 3.0, id="defaults")],
)
def test_full_against_trainer(
    benchmark: BenchmarkFixture, rival: str, at_least: float, sst2: Task, minilm: BackboneFiles, cpu: Device
) -> None:
    worker = Worker(cpu, None)
    method = methods.get("full")(**TRAINERS_DEFAULTS, batch_size=16)
    seeds = iter(range(-1, SEEDS))
    theirs: list[Trained] = []
    ours: list[Trained] = []
    current = {"seed": -1}

    def rival_first() -> None:
        """Before each round of ours, the rival trains on the very same rows."""
        seed = current["seed"] = next(seeds)
        if seed >= 0:
            index = worker.training_rows(sst2, N_TRAIN, seed, "stratified").index
            tuned = rival != "defaults"
            theirs.append(train_with_trainer(sst2, minilm, index, seed, cpu, epochs=EPOCHS, tuned=tuned))

    def harness_run() -> None:
        seed = current["seed"]
        size, budget = (str(N_TRAIN), Budget(epochs=EPOCHS)) if seed >= 0 else ("32", Budget(steps=3))
        planned = plan_one(sst2, minilm, method, size=size, seed=max(seed, 0), budget=budget)
        record = worker.run(Job(planned, minilm, "benchmark"), sst2)
        assert record.status == "ok", record.error
        assert record.score is not None
        assert record.cost.fit_seconds is not None
        if seed >= 0:
            ours.append(Trained(record.cost.fit_seconds, record.score.value))

    benchmark.pedantic(harness_run, setup=rival_first, rounds=SEEDS, warmup_rounds=1)
    ratio = statistics.median(run.seconds for run in theirs) / statistics.median(run.seconds for run in ours)
    gap = statistics.fmean(run.accuracy for run in ours) - statistics.fmean(run.accuracy for run in theirs)
    benchmark.extra_info.update(
        {
            "rival": f"transformers.Trainer, {rival}",
            "rival_seconds": [round(run.seconds, 2) for run in theirs],
            "fit_seconds": [round(run.seconds, 2) for run in ours],
            "ratio": round(ratio, 2),
            "rival_accuracy": [round(run.accuracy, 4) for run in theirs],
            "accuracy": [round(run.accuracy, 4) for run in ours],
            "mean_accuracy_gap": round(gap, 4),
        }
    )
    print(benchmark.extra_info)
    assert abs(gap) <= 0.01
    assert ratio >= at_least
