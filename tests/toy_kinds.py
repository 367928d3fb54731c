"""A toy task of every kind, of its own examples, and one that is scored by the likelihood of texts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from harness.data.spec import TaskSpec
from harness.tasks import Task, kinds
from harness.tasks.toys import TOPIC_WORDS, Toys
from harness.testing.laboratory import made_up_rows, task_spec

TOYS: dict[str, dict[str, Any]] = {
    "text-pair": {},
    "multiple-choice": {},
    "regression": {},
    "similarity": {},
    "multi-label": {},
    "question-answering": {"max_length": 24},  # contexts are read in windows
    "token-classification": {"max_length": 9},  # some sentences are read in windows
    "translation": {},
    "generation": {},
    "perplexity": {"metric": "perplexity"},
}
"""The spec of each toy beside its data; `perplexity` is the other way to generate."""

WRITTEN = ("translation", "generation", "perplexity")
"""Toys that only a language model answers."""


def architectures_of(name: str) -> list[str]:
    """The architectures that some method can answer a toy on; the likelihood of a text is a causal model's."""
    if name == "perplexity":
        return ["causal"]
    return [*([] if name in WRITTEN else ["encoder"]), "causal", "sequence-to-sequence"]


def toy_rows(name: str, n_rows: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a toy."""
    if name != "perplexity":
        return made_up_rows(kinds.get(name), n_rows, seed)
    toys = Toys(random.Random(seed))
    return [{"target": " ".join(toys.draw.choices(TOPIC_WORDS[toys.topic()], k=12))} for _ in range(n_rows)]


def toy_spec(name: str, folder: Path, rows: list[dict[str, Any]] | None = None, **more: Any) -> TaskSpec:
    """The spec of a toy in files of its own: 160 training rows, or those given, and 24 of test."""
    kind = kinds.get("generation" if name == "perplexity" else name)
    (folder / name).mkdir(exist_ok=True)
    train = toy_rows(name, 160) if rows is None else rows
    return task_spec(
        kind, folder / name, train, toy_rows(name, 24, seed=1), **{"name": f"toy-{name}", **TOYS[name], **more}
    )


def toy_task(name: str, folder: Path, **more: Any) -> Task:
    """A toy, ready to run."""
    spec = toy_spec(name, folder, **more)
    return kinds.get(spec.kind).prepare(spec, None)
