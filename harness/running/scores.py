"""The scores of a cell that are not its main score on the test rows, and what a score has to be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from harness.measure import MemoryMeter, PhaseClock, show_progress
from harness.methods import Bench, Fitted, Ledger
from harness.metrics import metrics
from harness.records import Score
from harness.tasks import Answers, Labels, Rows, Task

Report = Callable[[str, float | None, float | None], None]
"""A function that is called with the stage, the fraction of the budget that is spent, and the loss."""

_TRAIN_SCORE_ROWS = 500
"""Most training rows in the training score: it shows overfitting and need not cost an epoch."""

_TRAIN_SCORE_TEXTS = 50
"""The same where answers are texts, which take long to write."""


def check_score(score: Score) -> None:
    """Refuse a score that is not a finite number.

    Raises:
        FloatingPointError: the main metric is not finite.
    """
    if not math.isfinite(score.value):
        raise FloatingPointError(f"The metric {score.metric} of the predictions is {score.value}; expected a number.")


def measure_upwards(task: Task, answers: Answers, labels: Labels) -> float:
    """Return the task's main metric of any rows, with its sign such that higher is better.

    Methods choose settings by it.
    """
    value = task.kind.measure(task, answers, labels)
    return value if metrics.get(task.metric).higher_is_better else -value


def train_score(task: Task, fitted: Fitted, rows: Rows, bench: Bench) -> float | None:
    """Return the main metric on the first training rows; its cost goes to a clock of its own."""
    if len(rows) == 0:
        return None
    most = _TRAIN_SCORE_ROWS if task.kind.form != "text" else _TRAIN_SCORE_TEXTS
    some = rows.take(np.arange(min(len(rows), most)))
    aside = dataclasses.replace(
        bench, clock=PhaseClock(), ledger=Ledger(), memory=MemoryMeter(), report=showing_progress(lambda *_: None)
    )
    answers = fitted.predict(some.without_labels(), aside)
    task.kind.check(task, answers, task.kind.n_answers(some))
    return task.kind.measure(task, answers, some.known_labels)


def showing_progress(report: Report) -> Report:
    """Return a report whose calls count as signs of progress."""

    def reporting(doing: str, fraction: float | None, loss: float | None) -> None:
        show_progress()
        report(doing, fraction, loss)

    return reporting
