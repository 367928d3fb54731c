"""Read files of samples of lm-evaluation-harness, which lie beside the results of the same run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.records import Predictions
from harness.store.importing.outside import is_number, read_lines, row_scores, short_hash
from harness.support import UsageError

_NAMES: Final = {"acc": "accuracy", "mcc": "matthews"}
"""Names here of metrics that are defined in the same way."""

_MEANS: Final = frozenset({"acc", "acc_norm", "exact_match", "em", "mc1", "mc2"})
"""Metrics that are the mean over rows."""


@dataclass(frozen=True)
class LmEvalMetric:
    """One figure of a task: the metric's name in the file, the filter of the answers, value and standard error."""

    name: str
    filter: str
    value: float
    error: float | None

    @property
    def label(self) -> str:
        """The name of the metric, with the filter where there is one."""
        name = _NAMES.get(self.name, self.name)
        return name if self.filter in ("", "none") else f"{name} ({self.filter})"


def read_samples(
    path: Path, task: str, main: LmEvalMetric, n_test: int, task_config: Mapping[str, Any]
) -> Predictions | None:
    """Return the scores of single rows from the file of samples beside the results; None without one.

    Args:
        path: the file of results.
        task: the task.
        main: its main metric.
        n_test: number of rows that the results state; 0 where they do not.
        task_config: the task's configuration.

    Raises:
        UsageError: the file is damaged, or of another run: its rows do not have the task's mean or number.
    """
    _, underscore, date = path.stem.rpartition("_")
    file = path.with_name(f"samples_{task}_{date}.jsonl")
    if not underscore or not file.is_file():
        return None
    values: dict[str, tuple[float, str]] = {}
    for number, sample in read_lines(file):
        if str(sample.get("filter", "none")) != (main.filter or "none"):
            continue
        value, row = sample.get(main.name), sample.get("doc_id")
        if row is None:
            raise UsageError(f"{file}, line {number}: doc_id is missing; expected the number of the row.")
        if isinstance(value, bool):
            value = float(value)
        if not is_number(value) or not math.isfinite(value) or str(row) in values:
            return None  # a metric without one number a row, or repeated rows
        values[str(row)] = (float(value), str(sample.get("doc_hash") or row))
    if not values:
        return None
    if n_test and len(values) != n_test:
        raise UsageError(
            f"{file} holds {len(values):,} rows, but {path.name} states {n_test:,}. Is one of them incomplete?"
        )
    mean = sum(value for value, _ in values.values()) / len(values)
    if _is_mean(main, task_config) and not math.isclose(mean, main.value, abs_tol=1e-6):
        raise UsageError(
            f"{file}: the mean of {main.name} is {mean:g}, but {path.name} states {main.value:g}. "
            "These files are of different runs, or one is damaged."
        )
    ordered = sorted(values, key=lambda row: (len(row), row))
    rows = short_hash("lm-eval", task, json.dumps([values[row][1] for row in ordered]))
    return row_scores(main.label, rows, [values[row][0] for row in ordered])


def _is_mean(main: LmEvalMetric, task_config: Mapping[str, Any]) -> bool:
    stated = task_config.get("metric_list")
    for one in stated if isinstance(stated, list) else ():
        if isinstance(one, dict) and one.get("metric") == main.name and isinstance(one.get("aggregation"), str):
            return bool(one["aggregation"] == "mean")
    return main.name in _MEANS
