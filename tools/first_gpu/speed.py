"""Speed of what the harness does besides large fits: steps of a small model, prompts, features, packed cells."""

from __future__ import annotations

import dataclasses
import itertools
import time

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from harness.records import Budget
from harness.schedule.local import LocalWorkers
from harness.schedule.messages import Done
from tools.first_gpu.trial import Trial


def small_steps(trial: Trial) -> None:
    """Time a step of a MiniLM, and how long the host takes to queue it: the greater bounds the speed."""
    files, worker = trial.shape("minilm-like"), trial.worker()
    task = trial.task(512, 8, 32)
    steps = 5 if trial.is_dry else 200
    trial.run(worker, task, files, "full", budget=Budget(steps=3))
    for name in ("full", "lora", "adalora", "last-layers", "bitfit"):
        times: list[float] = []
        hook = register_optimizer_step_post_hook(lambda *_, times=times: times.append(time.perf_counter()))
        record = trial.run(worker, task, files, name, budget=Budget(steps=steps))
        hook.remove()
        gaps = sorted(after - before for before, after in itertools.pairwise(times))
        trial.say(
            f"step of minilm-like, {name}, 16 x 32",
            status=record.status,
            error=(record.error or "")[:200],
            ms=1e3 * (record.cost.fit_seconds or 0.0) / steps,
            queued_ms=1e3 * gaps[len(gaps) // 2] if gaps else None,
            utilisation=record.utilisation,
            warmup_seconds=record.cost.warmup_seconds,
            joules=record.cost.energy_joules,
        )


def in_context(trial: Trial) -> None:
    """Answer with demonstrations, and without, on a model of a billion."""
    files, worker = trial.checkpoint("llama-3.2-1b-like"), trial.worker()
    task = trial.task(64, 8 if trial.is_dry else 256, 48)
    names = ("good", "first")  # words of the shapes' tokenizer
    task = dataclasses.replace(task, label_names=names, spec=task.spec.model_copy(update={"label_names": names}))
    for name in ("zero-shot", "few-shot"):
        record = trial.run(worker, task, files, name)
        seconds = record.cost.predict_seconds or 0.0
        trial.say(
            f"llama-3.2-1b-like, {name}",
            status=record.status,
            error=(record.error or "")[:200],
            rows_per_second=task.n_test / seconds if seconds else None,
            needed_gb=(record.cost.memory_bytes or 0) / 1e9,
        )


def features(trial: Trial) -> None:
    """Encode rows for a linear probe, with an encoder and with a model of a billion."""
    for shape, n_rows in (("bert-base-like", 2048), ("llama-3.2-1b-like", 512)):
        files = trial.checkpoint(shape) if "llama" in shape else trial.shape(shape)
        task = trial.task(16 if trial.is_dry else n_rows, 8, 128)
        record = trial.run(trial.worker(), task, files, "linear-probe")
        seconds = record.cost.encode_seconds or 0.0
        trial.say(
            f"{shape}, linear-probe",
            status=record.status,
            error=(record.error or "")[:200],
            tokens_per_second=record.cost.train_tokens / seconds if record.cost.train_tokens and seconds else None,
            needed_gb=(record.cost.memory_bytes or 0) / 1e9,
            utilisation=record.utilisation,
        )
        trial.forget_backbones()


def packed(trial: Trial) -> None:
    """Run small cells one at a time and several at a time; print cells a minute."""
    task, files = trial.task(64, 64, 32), trial.shape("minilm-like")
    n_cells = 2 if trial.is_dry else 24
    planned = trial.plan(task, files, "lora", budget=Budget(steps=2 if trial.is_dry else 60))
    jobs = [
        trial.job(dataclasses.replace(planned, cell=dataclasses.replace(planned.cell, seed=seed)), files)
        for seed in range(n_cells)
    ]
    for n in (1,) if trial.is_dry else (1, 4, 8):
        with LocalWorkers(trial.device.kind, None, n_workers=n) as workers:
            workers.warm_up()
            workers.refusals([files])
            waiting, n_done, began = list(jobs), 0, time.perf_counter()
            while n_done < n_cells:
                while waiting and workers.n_free:
                    workers.start(waiting.pop(), task)
                n_done += sum(isinstance(event, Done) for _, event in workers.events(1.0))
        trial.say(f"{n} at a time", cells_per_minute=60 * n_cells / (time.perf_counter() - began))
    if trial.on_gpu:
        torch.cuda.empty_cache()
