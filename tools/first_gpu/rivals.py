"""LoRA on a billion parameters against transformers' Trainer with peft: the same rows, both in bfloat16."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from harness.records import Budget
from tools.first_gpu.trial import Trial

RANK = 8
RATE = 1e-4


def against_trainer(trial: Trial) -> None:
    """Train as many rows of as many tokens with both, warm; print tokens a second and peaks."""
    rows, length, steps = (2, 16, 3) if trial.is_dry else (16, 256, 20)
    files, worker = trial.checkpoint("llama-3.2-1b-like"), trial.worker()
    task = trial.task(rows * steps, 8, length)
    settings = {"rank": RANK, "alpha": 16, "adapter_dropout": 0.0, "batch_size": rows, "learning_rate": RATE}
    trial.run(worker, task, files, "lora", **settings, budget=Budget(steps=2))
    record = trial.run(worker, task, files, "lora", **settings, budget=Budget(steps=steps))
    ours = rows * length * steps / (record.cost.fit_seconds or 1.0)
    needed = record.cost.memory_bytes or 0
    del worker
    trial.forget_backbones()
    theirs, peak = _trainer(trial, files.folder, rows, length, steps)
    trial.say(
        "LoRA on 1B against Trainer + peft",
        status=record.status,
        ours_tokens_per_second=ours,
        trainers_tokens_per_second=theirs,
        ratio=ours / theirs,
        ours_gb=needed / 1e9,
        trainers_gb=peak / 1e9,
    )


def _trainer(trial: Trial, folder: Path, rows: int, length: int, steps: int) -> tuple[float, int]:
    """Return tokens a second and the peak of bytes on the device."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.bfloat16)
    model.config.pad_token_id = 0
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=RANK, lora_alpha=16, lora_dropout=0.0)
    model = get_peft_model(model, config)
    ids = torch.randint(5, 60, ((steps + 2) * rows, length), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": one, "attention_mask": torch.ones_like(one), "labels": 0} for one in ids]
    started = [0.0]

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:  # kernels are chosen and memory is taken
                trial.device.synchronise()
                started[0] = time.perf_counter()

    if trial.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=output, per_device_train_batch_size=rows, learning_rate=RATE, num_train_epochs=1, bf16=True,
                report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
                use_cpu=not trial.on_gpu,
            ),
            train_dataset=data,
            callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    trial.device.synchronise()
    seconds = time.perf_counter() - started[0]
    peak = int(torch.cuda.max_memory_allocated()) if trial.on_gpu else 0
    return rows * length * steps / seconds, peak
