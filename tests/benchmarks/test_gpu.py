"""Costs on a CUDA device against independent figures; skipped where there is none.

`HARNESS_BENCHMARK_CPU=1` runs the same in small on a processor, to see that it runs; no target is asked of it. What a
device was measured to do is kept under `results/reference/<device>/` with the command:

    HARNESS_MIRROR=DIR pytest tests/benchmarks/test_gpu.py -s
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles
from harness.backbones.shapes import write_shape
from harness.cost.closed_form import amount
from harness.cost.synthetic import synthetic_task
from harness.measure.device import Device, find_device
from harness.methods import methods
from harness.records.record import Budget, Record
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.store.store import Store
from harness.tasks import Task
from tests.benchmarks.trainers import train_with_trainer
from tests.toys import plan_one

DRY = os.environ.get("HARNESS_BENCHMARK_CPU") == "1"
pytestmark = [
    pytest.mark.skipif(not (DRY or torch.cuda.is_available()), reason="needs a CUDA device"),
    pytest.mark.timeout(3600),
]


@pytest.fixture(scope="module")
def device() -> Device:
    return find_device("cpu" if DRY else "cuda")


@pytest.fixture(scope="module")
def worker(device: Device) -> Worker:
    return Worker(device, None)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> BackboneFiles:
    """A billion parameters with random weights."""
    if DRY:
        files: BackboneFiles = request.getfixturevalue("tiny_llama")
        return files
    return write_shape("llama-3.2-1b-like", tmp_path_factory.mktemp("llama"))


DROPOUT = 0.1
"""Dropout rate of LoRA on both sides; that of the head is 0.1 there too."""


def run(worker: Worker, task: Task, files: BackboneFiles, name: str, size: str, **settings: Any) -> Record:
    budget = settings.pop("budget", None)
    planned = plan_one(task, files, methods.get(name)(**settings), size=size, budget=budget)
    record = worker.run(Job(planned, files, "benchmark"), task)
    assert record.status == "ok", record.error
    return record


def say(what: str, **figures: Any) -> None:
    print(json.dumps({"what": what, **figures}))


# ---- against transformers.Trainer


@pytest.mark.parametrize("name", ["full", "lora"])
def test_minilm_against_trainer(name: str, sst2: Task, minilm: BackboneFiles, device: Device, worker: Worker) -> None:
    """The same sentences, epochs, batch size, rates and dropout; seconds of training alone, both sides warm."""
    n_train, epochs, seeds = (64, 1, 1) if DRY else (8192, 3, 3)
    rate = 5e-5 if name == "full" else 1e-3
    settings = {"learning_rate": rate, "head_learning_rate": rate, "weight_decay": 0.0, "warmup": 0.0, "batch_size": 32}
    if name == "lora":
        settings["adapter_dropout"] = DROPOUT
    run(worker, sst2, minilm, name, "64", **settings, budget=Budget(steps=3))
    ours, theirs = [], []
    for seed in range(seeds):
        index = worker.training_rows(sst2, n_train, seed, "stratified").index
        rank = None if name == "full" else methods.get("lora")().rank  # type: ignore[attr-defined]
        theirs.append(
            train_with_trainer(
                sst2, minilm, index, seed, device, epochs=epochs, tuned=True, batch_size=32, lora_rank=rank,
                learning_rate=rate, max_length=sst2.spec.max_length, adapter_dropout=DROPOUT, warm_up=True,
            )
        )  # fmt: skip
        planned = plan_one(
            sst2, minilm, methods.get(name)(**settings), size=str(n_train), seed=seed, budget=Budget(epochs=epochs)
        )
        record = worker.run(Job(planned, minilm, "benchmark"), sst2)
        assert record.score is not None
        ours.append((record.cost.fit_seconds or 0.0, record.score.value, record.cost.train_tokens or 0))
    ratio = statistics.median(one.seconds for one in theirs) / statistics.median(seconds for seconds, *_ in ours)
    gap = statistics.fmean(score for _, score, _ in ours) - statistics.fmean(one.accuracy for one in theirs)
    rates = [tokens / seconds for seconds, _, tokens in ours]
    say(f"MiniLM, {name}, against the Trainer with bf16", ratio=ratio, accuracy_gap=gap, tokens_per_second=rates)
    if not DRY:
        assert ratio >= 1.3
        assert abs(gap) <= 0.01


@pytest.mark.parametrize("name", ["full", "lora"])
def test_a_billion_parameters_against_trainer(name: str, llama: BackboneFiles, device: Device, worker: Worker) -> None:
    """Random weights, so that only seconds are compared; texts of as many tokens on both sides, both warm."""
    n_train, batch_size, length = (16, 4, 16) if DRY else (512, 16, 256)
    task = synthetic_task(n_train, 8, length)
    settings: dict[str, Any] = {"batch_size": batch_size, "warmup": 0.0}
    if name == "lora":
        settings["adapter_dropout"] = DROPOUT
    run(worker, task, llama, name, "all", **settings, budget=Budget(steps=2))
    record = run(worker, task, llama, name, "all", **settings, budget=Budget(epochs=1))
    rank = None if name == "full" else methods.get("lora")().rank  # type: ignore[attr-defined]
    index = np.arange(n_train)
    theirs = train_with_trainer(
        task, llama, index, 0, device, epochs=1, tuned=True, batch_size=batch_size, lora_rank=rank,
        max_length=length, adapter_dropout=DROPOUT, warm_up=True,
    )  # fmt: skip
    ratio = theirs.seconds / (record.cost.fit_seconds or 1.0)
    say(
        f"1B, {name}, against the Trainer with bf16", ratio=ratio, utilisation=record.utilisation,
        tokens_per_second=record.cost.train_tokens_per_second,
    )  # fmt: skip
    if not DRY:
        assert ratio >= 1.3
        assert (record.utilisation or 0.0) >= 0.4


# ---- memory

INDEPENDENT = """
import sys, torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoConfig, AutoModel
folder, rows, length, rank = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
base = AutoModel.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
base.pooler = None
for module in base.modules():  # frozen matrices are stored in bfloat16, all else in float32
    if isinstance(module, torch.nn.Linear):
        module.weight.data = module.weight.data.bfloat16()
model = get_peft_model(base, LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=rank, lora_alpha=16)).cuda().train()
head = torch.nn.Linear(base.config.hidden_size, 2).cuda()
moved = [p for p in [*model.parameters(), *head.parameters()] if p.requires_grad]
optimiser = torch.optim.AdamW(moved, lr=1e-3, fused=True)
ids = torch.randint(5, base.config.vocab_size, (rows, length)).cuda()
for _ in range(4):
    with torch.autocast("cuda", dtype=torch.bfloat16):
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        logits = head(states.mean(1))
    torch.nn.functional.cross_entropy(logits.float(), torch.zeros(rows, dtype=torch.long).cuda()).backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
print(torch.cuda.max_memory_allocated())
"""


@pytest.mark.skipif(DRY, reason="reads CUDA's own counter")
@pytest.mark.parametrize("rows", [8, 32])
def test_peak_memory_is_that_of_an_independent_script(rows: int, worker: Worker, tmp_path: Path) -> None:
    files = write_shape("bert-base-like", tmp_path)
    task = synthetic_task(4 * rows, 8, 128)
    record = run(worker, task, files, "lora", "all", batch_size=rows, budget=Budget(steps=4))
    rank = methods.get("lora")().rank  # type: ignore[attr-defined]
    said = subprocess.run(
        [sys.executable, "-c", INDEPENDENT, str(files.folder), str(rows), "128", str(rank)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    needed = (record.cost.fit_peak_bytes or 0) + (record.cost.shared_weights_bytes or 0)
    say("peak memory", rows=rows, record=needed, script=int(said))
    assert needed == pytest.approx(int(said), rel=0.02)


@pytest.mark.parametrize("name", ["full", "lora", "linear-probe"])
@pytest.mark.parametrize("shape", ["bert-base-like", "llama-3.2-1b-like"])
def test_memory_is_predicted_by_arithmetic(
    shape: str, name: str, device: Device, worker: Worker, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    files = request.getfixturevalue("tiny_llama") if DRY else write_shape(shape, tmp_path)
    errors = {}
    for rows in (1, 4) if DRY else (1, 4, 16, 64):
        task = synthetic_task(4 * rows, 8, 32 if DRY else 128)
        settings = {} if name == "linear-probe" else {"batch_size": rows, "budget": Budget(steps=4)}
        record = run(worker, task, files, name, "all", **settings)
        planned = plan_one(task, files, methods.get(name)(**{k: v for k, v in settings.items() if k != "budget"}),
                           size="all", budget=settings.get("budget"))  # fmt: skip
        expected = amount(planned, task, files, device).peak_bytes
        errors[rows] = expected / (record.cost.memory_bytes or 1.0) - 1.0
    say(f"memory by arithmetic, {shape}, {name}", errors={rows: round(error, 3) for rows, error in errors.items()})
    if not DRY:
        assert all(abs(error) <= 0.10 for error in errors.values())


# ---- many small cells


def test_packed_cells_are_three_times_as_many_a_minute(mirror: Path, tmp_path: Path) -> None:
    """A sample of the accuracy grid of MiniLM, one at a time and packed; the scores are the same within noise."""
    grid = ["--tasks", "sst2", "--sizes", "32,128" if DRY else "32,64,128,256,512", "--seeds", "0" if DRY else "0,1"]
    grid += ["--methods", "linear-probe,head" if DRY else "linear-probe,head,bitfit,lora,ia3,last-layers,full"]
    minutes, scores = {}, {}
    for at_a_time in (1, 2 if DRY else 8):
        store = tmp_path / f"{at_a_time}.sqlite"
        command = [sys.executable, "-m", "harness", "run", "sentiment", *grid, "--store", str(store)]
        command += ["--device", "cpu" if DRY else "cuda", "--reports", str(tmp_path / f"reports-{at_a_time}")]
        command += ["--throughput", str(at_a_time)] if at_a_time > 1 else []
        environment = {**os.environ, "HARNESS_MIRROR": str(mirror), "HARNESS_CACHE": str(tmp_path / f"c{at_a_time}")}
        began = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        minutes[at_a_time] = (time.perf_counter() - began) / 60.0
        assert done.returncode == 0, done.stderr[-2000:]
        assert re.search(r"\d+ cells", done.stdout + done.stderr)
        with Store.open(store, create=False) as opened:
            scores[at_a_time] = {
                (r.cell.method, r.cell.n_train, r.cell.seed): r.score.value for r in opened.records() if r.score
            }
    alone, packed = scores.values()
    assert alone.keys() == packed.keys()
    gaps = [packed[cell] - alone[cell] for cell in alone]
    ratio = minutes[1] / min(minutes[n] for n in minutes if n > 1)
    say("cells a minute, packed", n_cells=len(alone), ratio=ratio, mean_gap=float(np.mean(gaps)))
    assert abs(float(np.mean(gaps))) <= 0.01
    if not DRY:
        assert ratio >= 3.0
