"""Classification of one text into one of several classes.

The protocol's one head: every method sees the backbone's own pooling over real tokens, dropout, one linear layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.backbones.model import Backbone
from harness.data.classes import ClassRows, read_classes
from harness.data.rows import cap_test_rows, drop_overlap, order_fingerprint
from harness.data.source import load_splits
from harness.data.spec import TaskSpec
from harness.errors import DataError
from harness.metrics import metrics
from harness.records import Predictions, Score
from harness.tasks.base import Floats, Ints, Kind, Source, Task, kinds

if TYPE_CHECKING:
    import torch
    from torch import nn


def _check_classes_left(rows: ClassRows, pool: Ints, n_dropped: int, spec: TaskSpec) -> None:
    """Refuse a class of which nothing is left once copies of test rows are gone."""
    left = np.bincount(rows.train_labels[pool], minlength=len(rows.label_names))
    gone = [name for name, count in zip(rows.label_names, left, strict=True) if count == 0]
    if gone:
        raise DataError(
            f"{spec.data.label()}: all training rows of the class '{gone[0]}' are copies of test rows, which are never "
            f"trained on ({n_dropped} rows were dropped in all). Name a test file with other texts."
        )


class Classification(Kind):
    """One text, one of several classes."""

    name = "classification"

    def prepare(self, spec: TaskSpec, mirror: Path | None) -> Task:
        """Load, check, drop copies of test rows from training, cap the test rows."""
        metrics.get(spec.metric)  # an unknown metric is refused before any data are read
        splits = load_splits(spec, mirror)
        rows = read_classes(spec, splits)
        data = content = rows.fingerprint(spec)
        if spec.label_words:  # what a method reads of the task is part of its identity
            data = hashlib.sha256("\n".join([content, *spec.label_words]).encode()).hexdigest()
        keep, n_dropped = drop_overlap(rows.train_texts, rows.test_texts)
        kept = np.flatnonzero(keep)
        # By content and not by position, so that a re-ordered file gives the same draws, batches and caches.
        pool = np.array(sorted(kept, key=lambda row: rows.train_digests[row]), dtype=np.int64)
        _check_classes_left(rows, pool, n_dropped, spec)
        test = cap_test_rows(rows.test_digests, spec.test_cap)
        return Task(
            spec=spec,
            kind=self,
            data=data,
            label_names=rows.label_names,
            train=Source(f"{data}/train", [rows.train_texts[row] for row in pool]),
            train_labels=rows.train_labels[pool],
            train_digests=[rows.train_digests[row] for row in pool],
            test=Source(f"{data}/test", [rows.test_texts[row] for row in test]),
            test_labels=rows.test_labels[test],
            test_rows=order_fingerprint(rows.test_digests[row] for row in test),
            n_test_available=len(rows.test_texts),
            provenance={
                **splits.provenance,
                "n_pool": len(pool),
                "n_dropped_from_training": n_dropped,
                "n_classes": len(rows.label_names),
                "content_as_pinned": None if spec.content is None else spec.content == content,
                "defaults_chosen_here": spec.chosen_on,
            },
        )

    def tokenize(self, texts: Sequence[str], backbone: Backbone, max_length: int) -> tuple[list[list[int]], int]:
        """Cut on the right, special tokens kept."""
        if not texts:
            return [], 0
        encoded = backbone.tokenizer(list(texts), truncation=True, max_length=max_length, padding=False)
        n_truncated = sum(bool(encoding.overflowing) for encoding in encoded.encodings)
        return encoded["input_ids"], n_truncated

    def build_head(self, width: int, n_classes: int, dropout: float) -> nn.Module:
        """Dropout and one linear layer, started like BERT's (normal with deviation 0.02, bias 0)."""
        from torch import nn

        linear = nn.Linear(width, n_classes)
        nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        return nn.Sequential(nn.Dropout(dropout), linear)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Cross-entropy."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def decode(self, task: Task, probabilities: Floats) -> Predictions:
        """The most probable class of each row, and its probability."""
        predicted = probabilities.argmax(axis=1).astype(np.int64)
        return Predictions(
            rows=task.test_rows,
            predicted=predicted,
            target=task.test_labels,
            confidence=probabilities[np.arange(len(predicted)), predicted].astype(np.float16),
        )

    def score(self, task: Task, predictions: Predictions) -> Score:
        """The main metric with its interval over test rows (Wilson's, where it is a mean over rows), and macro F1."""
        spec = metrics.get(task.spec.metric)
        n_test = len(predictions.target)
        low = high = None
        if spec.mean_over_rows:
            from scipy.stats import binomtest

            n_right = int((predictions.predicted == predictions.target).sum())
            interval = binomtest(n_right, n_test).proportion_ci(0.95, method="wilson")
            low, high = float(interval.low), float(interval.high)
        others: dict[str, Any] = {
            name: metrics.get(name).compute(predictions.predicted, predictions.target)
            for name in ("accuracy", "macro_f1")
            if name != spec.name
        }
        return Score(
            metric=spec.name,
            value=spec.compute(predictions.predicted, predictions.target),
            low=low,
            high=high,
            higher_is_better=spec.higher_is_better,
            n_test=n_test,
            n_test_available=task.n_test_available,
            others=others,
        )

    def main_metric(self, task: Task, predicted: Ints, target: Ints) -> float:
        """The task's main metric of any rows."""
        return metrics.get(task.spec.metric).compute(predicted, target)


kinds.add(Classification.name, Classification())
