"""From the texts of a command line to a request: what `harness run` and `harness plan` have in common."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data import TaskSpec, is_data_file
from harness.methods import split_top_level
from harness.planning import BUDGET_SETS, Suite, load_suite
from harness.records import Budget, fields_of, parse_budget, parse_bytes
from harness.support import DataWarning, UsageError, parse_duration

if TYPE_CHECKING:
    from harness.schedule import Request


@dataclass(frozen=True)
class Asked:
    """What the command line says of a grid, as it says it; None where it says nothing. `Request` explains each."""

    suite: str | None = None
    data: Path | None = None
    text: str = "text"
    label: str = "label"
    test: Path | None = None
    tasks: str | None = None
    methods: str | None = None
    sizes: str | None = None
    seeds: str | None = None
    budgets: Sequence[str] | None = None
    backbone: str | None = None
    device: str = "auto"
    mirror: Path | None = None
    tune: int | None = None
    metric: str | None = None
    max_length: int | None = None
    strict: bool = False

    @property
    def names_a_run(self) -> bool:
        """Whether anything is asked for but the device and the mirror."""
        return self != Asked(device=self.device, mirror=self.mirror)


def read_request(asked: Asked) -> Request:
    """The request that was meant.

    Raises:
        UsageError: a suite that does not exist, a text that cannot be read.
    """
    from harness.measure import check_name
    from harness.schedule import Request

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
        own = (asked.test, asked.metric, asked.max_length) != (None, None, None) or asked.strict
        if own or (asked.text, asked.label) != ("text", "label"):
            raise UsageError(
                "--text, --label, --test, --metric, --max-length and --strict go with --data; a suite names its own "
                "columns, test rows, metric and length."
            )
        if is_data_file(str(suite)):
            raise UsageError(f"'{suite}' is a file of data: harness run --data {suite} --text COLUMN --label COLUMN.")
        return load_suite(str(suite))
    spec = own_task(
        data,
        asked.text,
        asked.label,
        asked.test,
        metric=asked.metric,
        max_length=asked.max_length,
        strict=asked.strict,
    )
    return Suite(name=spec.name, description=f"Your own data: {data.name}", tasks={spec.name: spec})


def own_task(
    data: Path,
    text: str,
    label: str,
    test: Path | None,
    *,
    metric: str | None,
    max_length: int | None,
    strict: bool,
) -> TaskSpec:
    """Return the task of a user's own file; None takes the default of the task.

    Raises:
        UsageError: an unknown metric, or one of other kinds of task; a length that is too small.
        DataError: the file cannot be used.
    """
    from harness.data import table_task
    from harness.tasks import kinds

    kind = kinds.get(TaskSpec.model_fields["kind"].default)
    if metric is not None and metric not in kind.metrics:
        raise UsageError(
            f"--metric {metric} was given; expected one of {', '.join(kind.metrics)}, which score a {kind.name} task."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the summary of the data prints them
        spec = table_task(
            data,
            text,
            label,
            test,
            metric=kind.metrics[0] if metric is None else metric,
            max_length=TaskSpec.model_fields["max_length"].default if max_length is None else max_length,
            strict=strict,
        )
    if spec.metric == "f1" and len(spec.label_names) != 2:
        raise UsageError(
            f"--metric f1 is of two classes, and column '{label}' has {len(spec.label_names)}. Take macro_f1 or "
            "accuracy."
        )
    return spec


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
