"""Memory of models of billions: planned and measured, with tokens a second of the same cells."""

from __future__ import annotations

import importlib.util
import time

import torch

from harness.cost.closed_form import amount
from harness.records import Budget, Record
from tools.first_gpu.trial import Trial


def one_billion(trial: Trial) -> None:
    """Adapt a Llama of a billion parameters."""
    for method in ("lora", "full", *_four_bits()):
        _measure(trial, "llama-3.2-1b-like", method, rows=16, length=256, steps=8)


def three_billion(trial: Trial) -> None:
    """Adapt a Llama of three billion parameters in single rows, and with more."""
    for method in ("lora", *_four_bits()):
        _measure(trial, "llama-3.2-3b-like", method, rows=1, length=352, steps=8)
    _measure(trial, "llama-3.2-3b-like", "lora", rows=8, length=352, steps=4)


def _four_bits() -> tuple[str, ...]:
    return ("qlora",) if importlib.util.find_spec("bitsandbytes") is not None else ()


def _measure(trial: Trial, shape: str, method: str, *, rows: int, length: int, steps: int) -> None:
    files, worker = trial.checkpoint(shape), trial.worker()
    rows, steps = (2, 2) if trial.is_dry else (rows, steps)
    task = trial.task(rows * steps, 8, length)
    how = {"batch_size": rows, "budget": Budget(steps=steps)}
    planned = trial.plan(task, files, method, **how)  # type: ignore[arg-type]
    expected = amount(planned, task, files, trial.device).peak_bytes
    began = time.perf_counter()
    before = trial.allocated()
    if trial.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    record = trial.run(worker, task, files, method, **how)
    seconds = time.perf_counter() - began
    left = trial.allocated()
    trial.say(f"{shape}, {method}, {rows} x {length}", **_figures(record, expected), before_gb=before / 1e9,
              left_gb=left / 1e9, wall_seconds=seconds)  # fmt: skip


def _figures(record: Record, expected: float) -> dict[str, object]:
    cost = record.cost
    needed = cost.memory_bytes or 0
    return {
        "status": record.status,
        "error": (record.error or "")[:200],
        "needed_gb": needed / 1e9,
        "planned_gb": expected / 1e9,
        "planned_over_needed": expected / needed if needed else None,
        "weights_gb": (cost.weights_bytes or 0) / 1e9,
        "shared_gb": (cost.shared_weights_bytes or 0) / 1e9,
        "driver_gb": (cost.peak_driver_bytes or 0) / 1e9,
        "tokens_per_second": cost.train_tokens_per_second,
        "utilisation": record.utilisation,
        "load_seconds": cost.load_seconds,
        "warmup_seconds": cost.warmup_seconds,
        "device_clock_over_host": (cost.device_fit_seconds or 0.0) / (cost.fit_seconds or 1.0),
        "joules": cost.energy_joules,
        "unsteady": record.unsteady,
    }
