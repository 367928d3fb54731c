"""Small things to test with: a tiny backbone, a toy task, a bench, a worker."""

from __future__ import annotations

import csv
import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np

from harness.backbones.locate import BackboneFiles
from harness.data.spec import TaskSpec
from harness.data.table import table_task
from harness.measure.device import Device
from harness.methods.base import Method
from harness.methods.configure import parse_methods
from harness.records.record import Budget, Record
from harness.running.worker import Worker
from harness.tasks import Rows, Task
from harness.tasks.toys import FILLER, TOPIC_WORDS
from harness.testing.backbones import save_tiny_bert
from harness.testing.laboratory import make_bench, run_cell
from harness.testing.laboratory import plan_cell as plan_one

__all__ = ["CLASS_WORDS", "FILLER", "make_bench", "plan_one", "save_tiny_bert"]

CLASS_WORDS = TOPIC_WORDS


def write_toy_table(path: Path, n_rows: int = 400) -> TaskSpec:
    """Rows of 4 to 12 words, two of which tell the class."""
    generator = random.Random(0)
    names = list(CLASS_WORDS)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label"])
        for row in range(n_rows):
            label = names[row % len(names)]
            words = generator.choices(FILLER, k=generator.randint(2, 10)) + generator.choices(CLASS_WORDS[label], k=2)
            generator.shuffle(words)
            writer.writerow([" ".join(words), label])
    return table_task(path, "text", "label", name="toy")


def shorten(task: Task, *, n_test: int = 20, n_pool: int = 1500, max_length: int = 48, max_new_tokens: int = 4) -> Task:
    """A task with its first test rows, the first rows of its training pool, and short texts and answers."""

    reply = task.reply
    return dataclasses.replace(
        task,
        spec=task.spec.model_copy(update={"max_length": min(max_length, task.spec.max_length)}),
        data=f"{task.data}-short",
        train=task.train.first(n_pool),
        train_labels=task.train_labels[:n_pool],
        train_strata=task.train_strata[:n_pool],
        train_digests=task.train_digests[:n_pool],
        test=task.test.first(n_test),
        test_labels=task.test_labels[:n_test],
        test_rows=f"{task.test_rows}-{n_test}",
        reply=reply and dataclasses.replace(reply, max_new_tokens=min(max_new_tokens, reply.max_new_tokens)),
    )


def test_rows(task: Task) -> Rows:
    """All test rows, without labels."""
    return Rows(task.test, np.arange(len(task.test), dtype=np.int64))


test_rows.__test__ = False  # type: ignore[attr-defined]


def run_one(
    task: Task, files: BackboneFiles | None, method: Method, device: Device, *, worker: Worker | None = None, **how: Any
) -> Record:
    """The record of one cell; `how` is its size, seed and budget."""
    return run_cell(task, files, method, worker or Worker(device, None), **how)


def save_one(text: str, task: Task, files: BackboneFiles, device: Device, folder: Path, steps: int = 4) -> Record:
    """Fit a method, given as on the command line, to a few rows and save it; return its record."""
    planned = plan_one(task, files, parse_methods([text])[0], size="12", seed=3, budget=Budget(steps=steps))
    record = Worker(device, None).run(planned, task, files, "tests", lambda *_: None, save_to=folder, hurried=True)
    assert record.status == "ok", record.error
    return record


class FakeTime:
    """Stand-in for the module `time`: its clock moves when it sleeps, and not otherwise."""

    def __init__(self) -> None:
        self._now = 1000.0

    def perf_counter(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
