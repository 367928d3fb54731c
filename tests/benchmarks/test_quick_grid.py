"""A quick grid from the command line to its report, against one process a cell with the libraries at their defaults.

HARNESS_GRID_SEEDS says with how many seeds (3 unless it is set): the rival's time grows with them, the harness's less.
The small grid has equal training on both sides: one size, two epochs, two seeds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.store.store import Store

METHODS = ("linear-probe", "head", "lora", "full")
SIZES = (64, 256, 1024)
SEEDS = tuple(range(int(os.environ.get("HARNESS_GRID_SEEDS", "3"))))


@pytest.mark.timeout(7200)
def test_quick_grid_against_one_process_a_cell(benchmark: BenchmarkFixture, mirror: Path, tmp_path: Path) -> None:
    compare_grid(benchmark, mirror, tmp_path, sizes=SIZES, seeds=SEEDS, epochs=None)


@pytest.mark.timeout(3600)
def test_small_grid_of_equal_training(benchmark: BenchmarkFixture, mirror: Path, tmp_path: Path) -> None:
    compare_grid(benchmark, mirror, tmp_path, sizes=(1024,), seeds=(0, 1), epochs=2)


def compare_grid(
    benchmark: BenchmarkFixture,
    mirror: Path,
    tmp_path: Path,
    *,
    sizes: tuple[int, ...],
    seeds: tuple[int, ...],
    epochs: int | None,
) -> None:
    """Run a grid both ways, with caches cold; `epochs` None leaves each side its defaults."""
    environment = {**os.environ, "HARNESS_MIRROR": str(mirror), "HARNESS_CACHE": str(tmp_path / "cache")}

    def ours() -> None:
        grid = ["--methods", ",".join(METHODS), "--sizes", ",".join(map(str, sizes))]
        command = [sys.executable, "-m", "harness", "run", "sentiment", "--tasks", "sst2", *grid]
        command += ["--seeds", ",".join(map(str, seeds)), "--store", str(tmp_path / "g.sqlite")]
        command += ["--reports", str(tmp_path / "reports")]
        command += [] if epochs is None else ["--budget", f"epochs={epochs}"]
        subprocess.run(command, check=True, env=environment, capture_output=True)

    benchmark.pedantic(ours, rounds=1)
    with Store.open(tmp_path / "g.sqlite", create=False) as store:
        reached = {(r.cell.method, r.cell.n_train, r.cell.seed): r.score.value for r in store.records() if r.score}
    theirs: dict[tuple[str, int, int], float] = {}
    started = time.perf_counter()
    for method in METHODS:
        for n_train in sizes:
            for seed in seeds:
                command = [sys.executable, "-m", "tests.benchmarks.rival_cell", method, str(n_train), str(seed)]
                command += [] if epochs is None else [str(epochs)]
                done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
                found = re.search(r"^accuracy ([0-9.]+)$", done.stdout, re.MULTILINE)
                assert found is not None, done.stdout
                theirs[method, n_train, seed] = float(found[1])
    rival_seconds = time.perf_counter() - started
    ratio = rival_seconds / benchmark.stats.stats.median
    gap = float(np.mean([reached[cell] - theirs[cell] for cell in theirs]))
    benchmark.extra_info.update(
        {
            "n_cells": len(theirs),
            "rival_seconds": round(rival_seconds, 1),
            "ratio": round(ratio, 2),
            "mean_accuracy": round(float(np.mean(list(reached.values()))), 4),
            "mean_accuracy_gap": round(gap, 4),
        }
    )
    print(benchmark.extra_info)
    assert gap >= -0.01
    assert ratio >= 4
