"""One cell as people run it without a harness: a process of its own, the libraries at their defaults.

`python -m tests.benchmarks.rival_cell METHOD N_TRAIN SEED [EPOCHS]` prints the accuracy on the test rows. The rows are
those that the harness draws, so that only the way differs. Without EPOCHS, the Trainer runs its default of 3.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def main(method: str, n_train: int, seed: int, epochs: float = 3.0) -> None:
    """Load, train, score, print."""
    from harness.backbones.locate import DEFAULT_BACKBONE, locate_backbone
    from harness.measure.device import find_device
    from harness.planning.suites import load_suite
    from harness.running.worker import Worker
    from harness.tasks import kinds

    task = kinds.get("classification").prepare(load_suite("sentiment").task("sst2"), Path(os.environ["HARNESS_MIRROR"]))
    rows = Worker(find_device("cpu"), None).training_rows(task, n_train, seed, "stratified")
    train = (rows.texts, rows.known_labels)
    test = (list(task.test.texts), task.test_labels)
    folder = str(locate_backbone(DEFAULT_BACKBONE).folder)
    if method == "linear-probe":
        accuracy = _sentence_transformers(folder, train, test, seed)
    else:
        accuracy = _trainer(folder, method, train, test, seed, epochs)
    print(f"accuracy {accuracy:.6f}")


def _sentence_transformers(folder: str, train: Any, test: Any, seed: int) -> float:
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    encoder = SentenceTransformer(folder, device="cpu")
    model = LogisticRegression(max_iter=1000, random_state=seed).fit(encoder.encode(train[0]), train[1])
    return float((model.predict(encoder.encode(test[0])) == test[1]).mean())


def _trainer(folder: str, method: str, train: Any, test: Any, seed: int, epochs: float) -> float:
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    if method == "head":
        model.base_model.requires_grad_(False)
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS"))

    def encoded(texts: list[str], labels: np.ndarray) -> Dataset:
        found = tokenizer(texts, truncation=True, max_length=128)
        return Dataset.from_dict({**found, "labels": labels.tolist()})

    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=output,
                num_train_epochs=epochs,
                seed=seed,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
            ),
            train_dataset=encoded(*train),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.train()
        answers = trainer.predict(encoded(*test))
    return float((answers.predictions.argmax(1) == test[1]).mean())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *map(float, sys.argv[4:]))
