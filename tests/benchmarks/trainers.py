"""What `full` is compared with: the same model in transformers.Trainer, as its documentation sets it up."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.tasks import Task
from harness.training.forms import answer_form
from harness.training.model import PooledModel


@dataclass(frozen=True)
class Trained:
    """Seconds of training alone, and accuracy on the test rows."""

    seconds: float
    accuracy: float


class _WithLoss(torch.nn.Module):
    """The harness's model with the signature that the Trainer wants."""

    def __init__(self, model: PooledModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        logits = self.model(input_ids, attention_mask)
        return {"loss": torch.nn.functional.cross_entropy(logits.float(), labels), "logits": logits}


def train_with_trainer(
    task: Task,
    files: BackboneFiles,
    index: np.ndarray,
    seed: int,
    device: Device,
    *,
    epochs: int,
    tuned: bool,
    batch_size: int = 16,
    lora_rank: int | None = None,
    learning_rate: float = 5e-5,
    max_length: int = 128,
    adapter_dropout: float = 0.0,
    warm_up: bool = False,
) -> Trained:
    """Fine-tune with `transformers.Trainer`.

    Args:
        tuned: False leaves its defaults (float32, random batches, padded to the longest of each); True adds bf16 and
            grouping by length.
        batch_size: rows of a step.
        lora_rank: of peft's LoRA, in the places that peft chooses; None trains everything.
        learning_rate: its peak; the Trainer's own default unless it is given.
        max_length: most tokens of a text.
        adapter_dropout: dropout rate of LoRA; the head's is 0.1, as the harness's.
        warm_up: pass the longest rows forward and backward first, as the harness does, and start the clock where the
            loop starts. Without it, the clock includes the first step's kernels and the Trainer's own preparations.
    """
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments, set_seed
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(seed)
    backbone = load_backbone(files)
    head = answer_form("classes").head(backbone.hidden_size, task.n_outputs, 0.1)
    transformer = backbone.fresh(device.torch_device())
    if lora_rank is not None:
        from peft import LoraConfig, TaskType, get_peft_model

        config = LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION, r=lora_rank, lora_alpha=16, lora_dropout=adapter_dropout
        )
        transformer = get_peft_model(transformer, config)
    model = PooledModel(transformer, head.to(device.torch_device()), files.pooling)
    encoded = backbone.tokenizer([task.train.texts[row] for row in index], truncation=True, max_length=max_length)
    rows = Dataset.from_dict(
        {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "labels": task.train_labels[index].tolist(),
        }
    )
    options: dict[str, Any] = {"bf16": True, "train_sampling_strategy": "group_by_length"} if tuned else {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=_WithLoss(model),
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=batch_size,
                learning_rate=learning_rate,
                num_train_epochs=epochs,
                seed=seed,
                use_cpu=device.kind == "cpu",
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                **options,
            ),
            train_dataset=rows,
            data_collator=DataCollatorWithPadding(backbone.tokenizer),
        )
        started = [time.perf_counter()]

        class Clock(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, *_: object, **__: object) -> None:
                device.synchronise()
                started[0] = time.perf_counter()

        if warm_up:
            longest = sorted(rows, key=lambda row: -len(row["input_ids"]))[:batch_size]
            _pass_once(trainer, longest, bf16=tuned, device=device)
            trainer.add_callback(Clock())
        trainer.train()
        device.synchronise()
        seconds = time.perf_counter() - started[0]
    tokens = backbone.tokenizer(list(task.test.texts), truncation=True, max_length=max_length)["input_ids"]
    logits = model.predict_logits(
        [np.asarray(row, dtype=np.int32) for row in tokens],
        task.n_outputs,
        pad_id=backbone.tokenizer.pad_token_id,
        device=device,
        precision=device.precision("auto"),
    )
    return Trained(seconds, float((logits.argmax(1) == task.test_labels).mean()))


def _pass_once(trainer: Any, rows: list[dict[str, Any]], *, bf16: bool, device: Device) -> None:
    """Pass rows forward and backward: kernels are chosen and memory is taken; weights and random state stay."""
    there = device.torch_device()
    batch = {name: value.to(there) for name, value in trainer.data_collator(rows).items()}
    with torch.random.fork_rng(devices=[there] if there.type == "cuda" else []):
        with torch.autocast(there.type, dtype=torch.bfloat16, enabled=bf16):
            loss = trainer.model.train()(**batch)["loss"]
        loss.backward()
    trainer.model.zero_grad(set_to_none=True)
    device.synchronise()
