"""Faults: a device-side assertion in one cell, and one that runs out of memory."""

from __future__ import annotations

import dataclasses
import time

import torch

from harness.records import Budget
from harness.schedule.local import LocalWorkers
from harness.schedule.messages import Done
from tools.first_gpu.trial import Trial


def after_a_fault(trial: Trial) -> None:
    """Train on a label that is no class: the loss asserts on the device. The cells after it should be `ok`."""
    if not trial.on_gpu:
        trial.say("after a device-side fault", skipped="no GPU")
        return
    files = trial.shape("minilm-like")
    good = trial.task(32, 8, 16)
    labels = good.train_labels.copy()
    labels[3] = 7
    bad = dataclasses.replace(good, train_labels=labels, spec=good.spec.model_copy(update={"name": "bad"}))
    cells = [(bad, "full"), (good, "linear-probe"), (good, "lora"), (good, "majority")]
    found: dict[str, str] = {}
    began = time.perf_counter()
    with LocalWorkers("cuda", None) as workers:
        for task, name in cells:
            budget = Budget(steps=4) if name in ("full", "lora") else None
            planned = trial.plan(task, files, name, budget=budget)
            workers.start(trial.job(planned, files), task)
            while workers.n_running:
                if time.perf_counter() - began > 120:
                    trial.say("after a device-side fault", statuses=found, stopped="120 s are over")
                    return
                for job, event in workers.events(1.0):
                    if isinstance(event, Done):
                        found[f"{task.name}/{name}"] = event.record.status
                    else:
                        found.setdefault(f"{task.name}/{name}", f"{type(event).__name__}: {job.planned.cell.method}")
    trial.say("after a device-side fault", statuses=found, seconds=time.perf_counter() - began)


def out_of_memory(trial: Trial) -> None:
    """Fill the device but for half a gigabyte, train, free it, and train again."""
    if not trial.on_gpu:
        trial.say("out of memory", skipped="no GPU")
        return
    files, worker = trial.shape("minilm-like"), trial.worker()
    task = trial.task(128, 8, 512)
    trial.run(worker, task, files, "full", budget=Budget(steps=1))
    before = trial.allocated()
    spare = 2**20 if trial.is_dry else 2**28
    kept = torch.empty(max(1, torch.cuda.mem_get_info()[0] - spare), dtype=torch.uint8, device=trial.there)
    record = trial.run(worker, task, files, "full", batch_size=128, budget=Budget(steps=2))
    del kept
    trial.forget_backbones()
    after = trial.run(worker, task, files, "full", budget=Budget(steps=2))
    trial.say(
        "out of memory",
        status=record.status,
        error=(record.error or "")[:120],
        next=after.status,
        left_bytes=trial.allocated() - before,
    )
