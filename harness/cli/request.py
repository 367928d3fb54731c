"""From the texts of a command line to a request: what `harness run` and `harness plan` have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.budgets import parse_bytes
from harness.canonical import fields_of
from harness.durations import parse_duration
from harness.errors import UsageError
from harness.methods.configure import split_top_level
from harness.records import Budget, parse_budget
from harness.suites import BUDGET_SETS, Suite, load_suite

if TYPE_CHECKING:
    from harness.schedule.prepare import Request


@dataclass(frozen=True)
class Asked:
    """What the command line says of a grid, as it says it; None where it says nothing. `Request` explains each."""

    suite: str | None
    data: Path | None
    text: str
    label: str
    test: Path | None
    tasks: str | None
    methods: str | None
    sizes: str | None
    seeds: str | None
    budgets: Sequence[str] | None
    backbone: str | None
    device: str
    mirror: Path | None
    tune: int | None


def read_request(asked: Asked) -> Request:
    """The request that was meant.

    Raises:
        UsageError: a suite that does not exist, a text that cannot be read.
    """
    from harness.measure.device import check_name
    from harness.schedule.prepare import Request

    check_name(asked.device)
    suite = _suite(asked)
    return Request(
        suite=suite,
        tasks=_names(asked.tasks),
        methods=None if asked.methods is None else split_top_level(asked.methods),
        sizes=_names(asked.sizes),
        seeds=_seeds(asked.seeds),
        budgets=None if not asked.budgets else [found for text in asked.budgets for found in _budgets(text, suite)],
        backbone=asked.backbone,
        mirror=asked.mirror,
        device=asked.device,
        only_sizes_that_fit=asked.data is not None,
        tune=asked.tune,
    )


def _suite(asked: Asked) -> Suite:
    suite, data = asked.suite, asked.data
    if (suite is None) == (data is None):
        raise UsageError("Name either a suite (`harness run quickstart`) or your own file (`harness run --data FILE`).")
    if data is None:
        if asked.test is not None or (asked.text, asked.label) != ("text", "label"):
            raise UsageError("--text, --label and --test go with --data; a suite names its own columns and test rows.")
        if str(suite).lower().endswith((".csv", ".tsv", ".jsonl", ".parquet")):
            raise UsageError(f"'{suite}' is a file of data: harness run --data {suite} --text COLUMN --label COLUMN.")
        return load_suite(str(suite))
    from harness.data.table import table_task

    spec = table_task(data, asked.text, asked.label, asked.test)
    return Suite(name=spec.name, description=f"Your own data: {data.name}", tasks={spec.name: spec})


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _budgets(text: str, suite: Suite) -> list[Budget]:
    """What one `--budget` asks for: caps, or the name of a set of budgets."""
    if "=" in text or text.strip() in fields_of(Budget()):
        return [parse_budget(text)]
    name = text.strip()
    if not name[:1].isalpha():  # no name: a duration, a size or nothing
        sets = ", ".join({**BUDGET_SETS, **suite.budgets})
        raise UsageError(
            f"--budget was '{text}'; expected NAME=NUMBER or a set of budgets ({sets}): --budget {_meant(name)}."
        )
    return suite.budget_set(name)


def _meant(text: str) -> str:
    """The budget that a duration or a size without a name stands for; an example for anything else."""
    with contextlib.suppress(UsageError):
        return f"train_seconds={parse_duration(text, '--budget', bare=True):g}"
    with contextlib.suppress(UsageError):
        parse_bytes(text, "--budget")
        return f"peak_memory_bytes={text}"
    return "train_seconds=60"


def _seeds(text: str | None) -> list[int] | None:
    names = _names(text)
    if names is None:
        return None
    try:
        return [int(name) for name in names]
    except ValueError:
        raise UsageError(f"--seeds was '{text}'; expected whole numbers separated by commas, such as 0,1,2.") from None
