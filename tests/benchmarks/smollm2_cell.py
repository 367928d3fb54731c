"""One fit of SmolLM2 on SST-2, by the harness or by transformers.Trainer, in a process of its own.

`python -m tests.benchmarks.smollm2_cell SIDE METHOD N_TRAIN FOLDER` prints one line of JSON. SIDE is `harness`,
`trainer` (autocast to bfloat16) or `trainer-pure` (no autocast). METHOD is `lora` or `full`. FOLDER holds the model
(`save_as_published`).

Both sides see the same batches in the same order and start from the same numbers, without dropout.
The Trainer's LoRA is on weights loaded in bfloat16. Its full fine-tuning is on float32 weights, as the harness's:
with bfloat16 weights, small updates are lost.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

RATE = {"lora": 1e-3, "full": 2e-5}
BATCH, SEED, RANK = 16, 0, 8

Batches = list[np.ndarray]


def main(side: str, method: str, n_train: int, folder: str) -> None:
    """Fit, and print seconds, tokens, peak memory and the loss of each step."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from harness.backbones.locate import locate_backbone
    from harness.measure.device import find_device
    from harness.measure.memory import MemoryMeter
    from harness.planning.suites import load_suite
    from harness.running.worker import Worker
    from harness.tasks import kinds
    from harness.training.batches import shuffled

    mirror = Path(os.environ["HARNESS_MIRROR"])
    task = kinds.get("classification").prepare(load_suite("sentiment").task("sst2"), mirror)
    files = locate_backbone(folder)
    device = find_device("cpu")
    torch.set_num_threads(device.threads)
    rows = Worker(device, None).training_rows(task, n_train, SEED, "stratified")
    import peft  # noqa: F401
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(files.folder)
    ids = tokenizer(list(rows.texts), truncation=True, max_length=task.spec.max_length)["input_ids"]
    batches = shuffled(n_train, BATCH, np.asarray([len(row) for row in ids]), SEED, 0)
    ends: list[tuple[float, float]] = []
    register_optimizer_step_post_hook(lambda *_: ends.append((time.perf_counter(), time.process_time())))
    with MemoryMeter() as meter:
        if side == "harness":
            losses = _harness(task, files, device, method, n_train)
        else:
            losses = _trainer(files, ids, rows.known_labels, batches, method, autocast=side == "trainer")
    n_tokens = [sum(len(ids[row]) for row in batch) for batch in batches]
    ends = ends[-len(batches) :]
    found = {
        "tokens": n_tokens[1:],
        "seconds": [after[0] - before[0] for before, after in itertools.pairwise(ends)],
        "cpu_seconds": [after[1] - before[1] for before, after in itertools.pairwise(ends)],
        "peak_bytes": meter.peak_rss_above_baseline_bytes,
        "losses": losses,
    }
    print(json.dumps(found))


def save_as_published(source: Path, folder: Path) -> None:
    """Save a copy of a causal model in bfloat16, as SmolLM2 is published; the mirror's is in float16."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def _harness(task: Any, files: Any, device: Any, method: str, n_train: int) -> list[float]:
    from harness.methods import methods
    from harness.records.record import Budget
    from harness.running.attempt import Job
    from harness.running.worker import Worker
    from tests.toys import plan_one, shorten

    settings: dict[str, Any] = {"learning_rate": RATE[method], "head_learning_rate": RATE[method], "batch_size": BATCH}
    settings |= {"weight_decay": 0.0, "warmup": 0.0, "dropout": 0.0, "precision": "bf16"}
    if method == "lora":
        settings |= {"rank": RANK, "alpha": 16, "adapter_dropout": 0.0}
    configured = methods.get(method)(**settings, **json.loads(os.environ.get("MORE_SETTINGS", "{}")))
    few = shorten(task, n_test=16, n_pool=len(task.train_labels), max_length=task.spec.max_length)
    planned = plan_one(few, files, configured, size=str(n_train), seed=SEED, budget=Budget(epochs=1))
    record = Worker(device, None).run(Job(planned, files, "benchmark"), few)
    if record.status != "ok":
        raise RuntimeError(record.error)
    return [float(point.train_loss or 0.0) for point in record.curve]


def _trainer(files: Any, ids: Any, labels: Any, batches: Batches, method: str, *, autocast: bool) -> list[float]:
    from datasets import Dataset
    from torch.utils.data import Sampler
    from transformers import AutoModel, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments
    from transformers.utils import logging

    from harness.training.forms import answer_form
    from harness.training.model import PooledModel

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    dtype = torch.bfloat16 if method == "lora" else torch.float32
    transformer: Any = AutoModel.from_pretrained(files.folder, dtype=dtype)
    transformer.config.use_cache = False
    torch.manual_seed(_seeded("head"))
    head = answer_form("classes").head(transformer.config.hidden_size, 2, 0.0)
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(_seeded("added parameters"))
        transformer = get_peft_model(transformer, LoraConfig(r=RANK, lora_alpha=16, lora_dropout=0.0))

    class WithLoss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = PooledModel(transformer, head, files.pooling)

        def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> dict[str, Any]:
            logits = self.model(input_ids, attention_mask)
            return {"loss": torch.nn.functional.cross_entropy(logits.float(), labels), "logits": logits}

    class Same(Sampler):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return iter(np.concatenate(batches).tolist())

        def __len__(self) -> int:
            return len(ids)

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return Same()

    with tempfile.TemporaryDirectory() as folder:
        trainer = InOrder(
            model=WithLoss(),
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=BATCH,
                learning_rate=RATE[method],
                num_train_epochs=1,
                seed=SEED,
                bf16=autocast,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                logging_steps=1,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"input_ids": ids, "labels": labels.tolist()}),
            data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(files.folder)),
        )
        trainer.train()
        return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def _seeded(purpose: str) -> int:
    """Return the seed that a bench draws for a purpose (`methods.bench.Bench.seeded`)."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(f"{purpose}/{SEED}".encode(), digest_size=8).digest(), "big") >> 1


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
