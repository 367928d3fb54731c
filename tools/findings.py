"""Figures of `docs/findings.md`, computed from the reference records."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harness.analysis import tidy_frame
from harness.planning import load_suite, resolve_parts
from harness.records import Record
from harness.store import stream_source
from harness.support import shipped
from tools.docs.markdown import table

SMALL, MEDIUM, LARGE = "paraphrase-MiniLM-L3-v2", "all-MiniLM-L6-v2", "all-mpnet-base-v2"
PROMPTED = "SmolLM2-135M-Instruct-Q4_1"
SIZES = ("4/class", "16/class", "64/class", "1024")


@functools.cache
def reference() -> pd.DataFrame:
    """Return one row per cell of the reference that was measured here: accuracy or the main metric, and its costs.

    Added columns: `size` as the suite names it, `encoder` without its owner, and `accuracy`, which is null for metrics
    that are none and have none beside them.
    """
    records = [one for one in stream_source(str(shipped("results/reference"))) if _is_own(one)]
    frame = tidy_frame(records)
    frame["accuracy"] = [_accuracy(one) for one in records]
    per_class = [
        f"{n:g}/class" if draw == "balanced" else None
        for n, draw in zip(frame["n_per_class"], frame["draw"], strict=True)
    ]
    frame["size"] = [named or str(n) for named, n in zip(per_class, frame["n_train"], strict=True)]
    frame["encoder"] = frame["backbone"].fillna("").str.split("/").str[-1]
    return frame[frame["status"] == "ok"]


def _is_own(record: Record) -> bool:
    return record.facts.imported_from is None and record.facts.is_evidence


def _accuracy(record: Record) -> float | None:
    if record.score is None:
        return None
    return record.score.value if record.score.metric == "accuracy" else record.score.others.get("accuracy")


@dataclass(frozen=True)
class Gap:
    """Mean difference of two methods over tasks, paired on tasks and seeds.

    Attributes:
        mean: mean over tasks of the mean difference over seeds, in points of accuracy.
        low, high: 95 % interval of it, by Student's t over tasks.
        by_task: difference of each task.
        n_seeds: smallest number of seeds that a task has.
    """

    mean: float
    low: float
    high: float
    by_task: dict[str, float]
    n_seeds: int

    @property
    def n_ahead(self) -> int:
        """Number of tasks on which the first is ahead."""
        return sum(value > 0 for value in self.by_task.values())


def choose(
    method: str, size: str | None = None, encoder: str | None = None, tasks: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the classification cells of a method at its defaults."""
    frame = reference()
    found = frame[(frame["method"] == method) & (frame["kind"] == "classification") & frame["accuracy"].notna()]
    if size is not None:
        found = found[found["size"] == size]
    if encoder is not None:
        found = found[found["encoder"] == encoder]
    return found if tasks is None else found[found["task"].isin(list(tasks))]


def gap(first: pd.DataFrame, second: pd.DataFrame, on: Sequence[str] = ("task", "size", "seed")) -> Gap:
    """Return the difference of two sets of cells, which are paired on the columns `on`; tasks count the same.

    Raises:
        ValueError: fewer than two tasks have a pair.
    """
    pairs = first.merge(second, on=list(on), suffixes=("", "_other"))
    points = 100 * (pairs["accuracy"] - pairs["accuracy_other"]).astype(float)
    by_task = points.groupby(pairs["task"]).mean()
    if len(by_task) < 2:
        raise ValueError(f"{len(by_task)} tasks have both; expected at least 2.")
    half = stats.t.ppf(0.975, len(by_task) - 1) * by_task.std(ddof=1) / math.sqrt(len(by_task))
    n_seeds = int(pairs.groupby("task")["seed"].nunique().min())
    mean = float(by_task.mean())
    return Gap(mean, mean - half, mean + half, {str(k): float(v) for k, v in by_task.items()}, n_seeds)


def ratio(first: pd.DataFrame, second: pd.DataFrame, column: str) -> float:
    """Return the median ratio of a cost over the pairs of two sets of cells."""
    pairs = first.merge(second, on=["task", "size", "seed"], suffixes=("", "_other"))
    return float((pairs[column] / pairs[f"{column}_other"]).astype(float).median())


def means(rows: Sequence[tuple[str, str, str | None]], sizes: Sequence[str], tasks: Sequence[str]) -> str:
    """Return a table of mean accuracies over `tasks`: a row per (label, method, encoder), a column per size.

    A cell without a score on each task is empty: means over different tasks are not comparable.
    """
    lines = []
    for label, method, encoder in rows:
        cells = [label]
        for size in sizes:
            by_task = choose(method, size, encoder, tasks).groupby("task")["accuracy"].mean()
            cells.append(f"{by_task.mean():.3f}" if set(by_task.index) == set(tasks) else "")
        lines.append(cells)
    return table(("method", *sizes), lines, right=range(1, len(sizes) + 1))


def spread(size: str, method: str, encoder: str) -> float:
    """Return the median over tasks of the standard deviation of accuracy over seeds, in points."""
    found = choose(method, size, encoder)
    several = found.groupby("task").filter(lambda rows: rows["seed"].nunique() > 1)
    return float(100 * several.groupby("task")["accuracy"].std().astype(float).median())


def seconds(method: str, size: str, encoder: str | None, tasks: Sequence[str] | None = None) -> float:
    """Return the median seconds of training, encoding included, over tasks and seeds."""
    return float(np.median(choose(method, size, encoder, tasks)["train_seconds"].astype(float)))


def measured_parts() -> str:
    """Return a table of the parts of the suite `reference`: how many of their cells have a record."""
    suite = load_suite("reference")
    found = reference()
    present = set(zip(found["task"], found["encoder"], found["method"], found["size"], found["seed"], strict=True))
    without_labels = {(task, encoder, method) for task, encoder, method, size, _ in present if size == "0"}
    rows = []
    for at, part in enumerate(resolve_parts(suite), start=1):
        encoders = [name.rpartition("/")[2] for name in part.backbones or ()]
        wanted = set(itertools.product(part.tasks, encoders, part.methods, part.sizes, part.seeds))
        n_measured = sum(_has_record(cell, present, without_labels) for cell in wanted)
        methods = ", ".join(f"`{name}`" for name in part.methods[:7]) + (" and others" if len(part.methods) > 7 else "")
        sizes, seeds = ", ".join(part.sizes), ", ".join(map(str, part.seeds))
        rows.append(
            (at, len(part.tasks), ", ".join(encoders), methods, sizes, seeds, f"{n_measured:,} of {len(wanted):,}")
        )
    headings = ("part", "tasks", "backbone", "methods", "labels", "seeds", "measured")
    return table(headings, rows, right=(0, 1, 6))


def _has_record(
    cell: tuple[str, str, str, str, int],
    present: set[tuple[Any, Any, Any, Any, Any]],
    without_labels: set[tuple[Any, Any, Any]],
) -> bool:
    task, encoder, method, size, seed = cell
    numbers = {"16/class": "800"} if task == "trec_fine" else {}
    sizes = (size, numbers.get(size, size))
    without_encoder = any((task, "", method, one, seed) in present for one in sizes)
    with_encoder = any((task, encoder, method, one, seed) in present for one in sizes)
    return with_encoder or without_encoder or (task, encoder, method) in without_labels
