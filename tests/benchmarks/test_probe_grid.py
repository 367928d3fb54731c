"""A grid of probes on cached features against encoding each cell anew."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.backbones.locate import BackboneFiles
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._logistic import choose_penalty, fit_logistic
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.tasks import Task
from tests.toys import plan_one

SIZES = (32, 64, 128, 256, 512)
SEEDS = (0, 1, 2)


@pytest.mark.timeout(3600)
def test_probe_grid_against_encoding_each_cell_anew(
    benchmark: BenchmarkFixture, sst2: Task, minilm: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    """The rival encodes the training and the test rows of every cell with sentence-transformers, 16 at a time.

    Beside it, for what the cache alone gives: the harness's own encoder, anew for every cell.
    """
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(minilm.folder), device="cpu")
    method = methods.get("linear-probe")()
    config = method.config()
    drawing = Worker(cpu, None)
    theirs: dict[tuple[int, int], float] = {}
    encoder.encode(list(sst2.test.texts[:64]), normalize_embeddings=False)
    started = time.perf_counter()
    for n_train in SIZES:
        for seed in SEEDS:
            rows = drawing.training_rows(sst2, n_train, seed, "stratified")
            train = np.asarray(encoder.encode(rows.texts, batch_size=16))
            labels = rows.known_labels
            chosen = choose_penalty(train, labels, 2, tuple(config["c_grid"]), config["folds"], default=1.0)
            model = fit_logistic(train, labels, 2, chosen.inverse_penalty)
            test = np.asarray(encoder.encode(list(sst2.test.texts), batch_size=16))
            theirs[n_train, seed] = float((model.probabilities(test).argmax(1) == sst2.test_labels).mean())
    rival_seconds = time.perf_counter() - started

    ours: dict[tuple[int, int], float] = {}

    def grid(anew: bool) -> None:
        worker = Worker(cpu, tmp_path / "cold")  # made anew: nothing is encoded yet
        for n_train in SIZES:
            for seed in SEEDS:
                if anew:
                    worker = Worker(cpu, None)
                planned = plan_one(sst2, minilm, method, size=str(n_train), seed=seed)
                record = worker.run(Job(planned, minilm, "benchmark"), sst2)
                assert record.score is not None, record.error
                ours[n_train, seed] = record.score.value

    started = time.perf_counter()
    grid(anew=True)
    anew_seconds = time.perf_counter() - started
    benchmark.pedantic(grid, args=(False,), rounds=1)
    ratio = rival_seconds / benchmark.stats.stats.median
    gap = float(np.mean([ours[cell] - theirs[cell] for cell in ours]))
    benchmark.extra_info.update(
        {
            "rival": "sentence-transformers encoding each cell anew",
            "rival_seconds": round(rival_seconds, 2),
            "ratio": round(ratio, 2),
            "mean_accuracy_gap": round(gap, 4),
            "own_encoder_anew_seconds": round(anew_seconds, 2),
            "own_encoder_ratio": round(anew_seconds / benchmark.stats.stats.median, 2),
        }
    )
    print(benchmark.extra_info)
    assert abs(gap) <= 0.01
    assert ratio >= 10
