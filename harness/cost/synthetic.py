"""Make a task without data: texts of an exact length in tokens, to measure the cost of methods."""

from __future__ import annotations

import hashlib
import random

import numpy as np

from harness.backbones import COMMON_WORDS
from harness.data import DataSource, TaskSpec
from harness.tasks import Source, Task, kinds

NAME = "probe"
N_CLASSES = 2


def synthetic_task(n_train: int, n_test: int, seq_len: int) -> Task:
    """Return a task of two classes; a tokenizer cuts its texts to `seq_len` tokens, special tokens included.

    Args:
        n_train: training rows.
        n_test: test rows.
        seq_len: tokens of every text.
    """
    # The texts come from no data set, but the field must name one.
    spec = TaskSpec(name=NAME, data=DataSource(embedded="docstrings"), max_length=seq_len, label_names=("a", "b"))
    kind = kinds.get("classification")
    data = hashlib.sha256(f"probe {n_train} {n_test} {seq_len}".encode()).hexdigest()
    draw = random.Random(seq_len)
    texts = [" ".join(draw.choices(COMMON_WORDS, k=2 * seq_len)) for _ in range(n_train + n_test)]
    labels = np.arange(n_train + n_test, dtype=np.int64) % N_CLASSES
    digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]

    def source(part: str, rows: slice) -> Source:
        return Source(f"{data}/{part}", texts[rows], {"text": texts[rows]})

    return Task(
        spec=kind.resolve(spec),
        kind=kind,
        data=data,
        label_names=("a", "b"),
        n_outputs=N_CLASSES,
        train=source("train", slice(0, n_train)),
        train_labels=labels[:n_train],
        train_strata=labels[:n_train],
        train_digests=digests[:n_train],
        test=source("test", slice(n_train, None)),
        test_labels=labels[n_train:],
        test_rows=hashlib.sha256(b"".join(digests[n_train:])).hexdigest()[:32],
        n_test_available=n_test,
        provenance={"from": "made up", "n_classes": N_CLASSES},
    )
