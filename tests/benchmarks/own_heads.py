"""What `full` and `lora` are compared with on the newer kinds: transformers.Trainer with transformers' own heads."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.backbones.locate import BackboneFiles
from harness.tasks import Rows, Task

MAX_LENGTH = 128
BATCH_SIZE = 16


@dataclass(frozen=True)
class Recipe:
    """Settings that both sides share.

    Attributes:
        method: `full` or `lora`.
        learning_rate: peak rate of the transformer or of LoRA's matrices.
        head_learning_rate: peak rate of the head.
        epochs: passes over the rows.
    """

    method: str
    learning_rate: float
    head_learning_rate: float
    epochs: int


@dataclass(frozen=True)
class Trained:
    """Seconds of training alone, and the task's main metric on the test rows."""

    seconds: float
    score: float


def train_with_own_head(
    task: Task, files: BackboneFiles, rows: Rows, seed: int, recipe: Recipe, *, tuned: bool
) -> Trained:
    """Fine-tune an `AutoModelFor...` with `transformers.Trainer` and score it by the task's metric.

    Args:
        task: a task of the kind similarity, regression, multi-label or token-classification.
        files: an encoder.
        rows: the training rows.
        seed: seed of head, order and dropout.
        recipe: settings.
        tuned: False leaves the Trainer's float32 and random batches; True adds bf16 and grouping by length.
    """
    from transformers import AutoTokenizer, Trainer, TrainingArguments, get_linear_schedule_with_warmup, set_seed
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(files.folder)
    model, collator = _model(task, files, tokenizer)
    if recipe.method == "lora":
        from peft import LoraConfig, get_peft_model

        of_tags = task.kind.form == "tags"
        config = LoraConfig(task_type="TOKEN_CLS" if of_tags else "SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0)
        model = get_peft_model(model, config)
    labels = rows.known_labels
    mean, deviation = 0.0, 1.0
    if task.kind.form == "number":
        mean, deviation = float(labels.mean()), float(labels.std())
        labels = (labels - mean) / deviation
    train = _encoded(task, tokenizer, rows.source, rows.index, labels)
    head = [p for n, p in model.named_parameters() if p.requires_grad and ("classifier" in n or "pooler" in n)]
    known = {id(parameter) for parameter in head}
    body = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [
        {"params": body, "lr": recipe.learning_rate},
        {"params": head, "lr": recipe.head_learning_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
    n_steps = recipe.epochs * -(-len(rows) // BATCH_SIZE)
    schedule = get_linear_schedule_with_warmup(optimiser, round(0.1 * n_steps), n_steps)
    options: dict[str, Any] = {"bf16": True, "train_sampling_strategy": "group_by_length"} if tuned else {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=BATCH_SIZE,
                per_device_eval_batch_size=64,
                num_train_epochs=recipe.epochs,
                seed=seed,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                **options,
            ),
            train_dataset=train,
            data_collator=collator,
            optimizers=(optimiser, schedule),
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        # Grouping by length would put the predictions in another order too.
        plain = TrainingArguments(
            output_dir=folder, per_device_eval_batch_size=64, use_cpu=True, report_to="none", disable_tqdm=True
        )
        trainer = Trainer(model=model, args=plain, data_collator=collator)
        test = task.test_rows_to_predict
        outputs = trainer.predict(_encoded(task, tokenizer, test.source, test.index, task.test_labels))
    return Trained(seconds, task.kind.measure(task, _answers(task, outputs, mean, deviation), task.test_labels))


def _model(task: Task, files: BackboneFiles, tokenizer: Any) -> tuple[Any, Any]:
    from transformers import (
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        DataCollatorForTokenClassification,
        DataCollatorWithPadding,
    )

    if task.kind.form == "tags":
        model = AutoModelForTokenClassification.from_pretrained(files.folder, num_labels=task.n_outputs)
        return model, DataCollatorForTokenClassification(tokenizer)
    problem = "regression" if task.kind.form == "number" else "multi_label_classification"
    model = AutoModelForSequenceClassification.from_pretrained(
        files.folder, num_labels=task.n_outputs, problem_type=problem
    )
    return model, DataCollatorWithPadding(tokenizer)


def _encoded(task: Task, tokenizer: Any, source: Any, index: Any, labels: Any) -> Any:
    from datasets import Dataset

    if task.kind.form == "tags":
        words = [list(source.fields["tokens"][row]) for row in index]
        found = tokenizer(words, is_split_into_words=True, truncation=True, max_length=MAX_LENGTH)
        placed = []
        for row, tags in enumerate(labels):
            ids = found.word_ids(row)
            firsts = [word is not None and word != before for word, before in zip(ids, [None, *ids], strict=False)]
            placed.append([int(tags[word]) if first else -100 for word, first in zip(ids, firsts, strict=True)])
        return Dataset.from_dict({**found, "labels": placed})
    texts = [[source.fields[role][row] for row in index] for role in source.fields]
    found = tokenizer(*texts, truncation=True, max_length=MAX_LENGTH)
    return Dataset.from_dict({**found, "labels": np.asarray(labels, dtype=np.float32).tolist()})


def _answers(task: Task, outputs: Any, mean: float, deviation: float) -> Any:
    logits = outputs.predictions
    if task.kind.form == "number":
        return np.asarray(logits.reshape(-1, 1) * deviation + mean, dtype=np.float32)
    if task.kind.form == "labels":
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)
    flat, outside = [], list(task.label_names).index("O")
    for scores, given, tags in zip(logits, outputs.label_ids, task.test_labels, strict=True):
        found = np.zeros((len(tags), task.n_outputs), dtype=np.float32)
        kept = scores[given != -100]
        found[:, outside] = 1.0
        found[: len(kept)] = np.exp(kept - kept.max(axis=1, keepdims=True))
        flat.append(found / found.sum(axis=1, keepdims=True))
    return np.concatenate(flat)
