"""Searches for a method without workers: every fit is expected to take the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np

from harness.choose.candidates import Belief, Candidate
from harness.choose.runner import Runner
from harness.choose.search import Search
from harness.tasks.base import Task


def search_of(
    entrants: list[Candidate],
    belief: Belief,
    left: float,
    *,
    folds: Sequence[object],
    n_rows: int = 5000,
    seconds: float = 400.0,
    say: Callable[[str], None] = lambda _: None,
) -> Search:
    """Return a search whose runner expects every fit to take `seconds`, with stand-ins for its tasks."""
    estimate = SimpleNamespace(seconds=seconds, train_seconds=seconds, basis="records")
    runner = SimpleNamespace(plan=lambda _, method, *__, **___: method, estimate=lambda _: estimate, now=time.monotonic)
    task = SimpleNamespace(train_labels=np.zeros(n_rows))
    end = time.monotonic() + left
    return Search(cast(Runner, runner), cast(Task, task), cast(list[Task], folds), entrants, belief, end, None, say)
