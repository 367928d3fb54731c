"""Read the arguments of a caller: texts, lists and data frames become a `Request`."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from harness.data import TaskSpec, UserData, is_data_file
from harness.methods import split_top_level
from harness.planning import BUDGET_SETS, Suite, load_suite
from harness.records import Budget, fields_of, parse_budget, parse_bytes
from harness.support import DEFAULT_STORE, DataWarning, UsageError, parse_duration

if TYPE_CHECKING:
    from harness.schedule import Request

Item = TypeVar("Item")

Several: TypeAlias = "str | Sequence[Item]"
"""Several values: a list of them, or one text with commas between them."""


def read_request(
    suite: str | Path | None = None,
    data: UserData | None = None,
    text: str = "text",
    label: str = "label",
    test: UserData | None = None,
    name: str | None = None,
    metric: str | None = None,
    max_length: int | None = None,
    strict: bool = False,
    tasks: Several[str] | None = None,
    methods: Several[str] | None = None,
    sizes: Several[str | int] | int | None = None,
    seeds: Several[int] | int | None = None,
    budgets: Several[str | Budget] | Budget | None = None,
    backbone: str | Path | None = None,
    tune: int | None = None,
    device: str = "auto",
    mirror: str | Path | None = None,
) -> Request:
    """Return the request that the arguments describe; `harness.run` documents them.

    Raises:
        UsageError: a suite that does not exist, or a value that cannot be read.
        DataError: data that cannot be used.
    """
    from harness.measure import check_device_name
    from harness.schedule import Request

    check_device_name(device)
    own = (text, label, test, name, metric, max_length, strict)
    if (suite is None) == (data is None):
        raise UsageError("Name either a suite (`harness run quickstart`) or your own file (`harness run --data FILE`).")
    if data is None:
        if own != ("text", "label", None, None, None, None, False):
            raise UsageError(
                "--text, --label, --test, --metric, --max-length and --strict go with --data; a suite names its own "
                "columns, test rows, metric and length."
            )
        if is_data_file(str(suite)):
            raise UsageError(f"'{suite}' is a file of data: harness run --data {suite} --text COLUMN --label COLUMN.")
        found = load_suite(suite)  # type: ignore[arg-type]
    else:
        spec = own_task(data, text, label, test, name, metric=metric, max_length=max_length, strict=strict)
        found = Suite(name=spec.name, description=f"Your own data: {spec.description}", tasks={spec.name: spec})
    return Request(
        suite=found,
        tasks=_several(tasks),
        methods=split_top_level(methods) if isinstance(methods, str) else methods,
        sizes=None if sizes is None else [str(size) for size in _several(sizes) or ()],
        seeds=_seeds(seeds),
        budgets=None if not budgets else [one for given in _listed(budgets) for one in _budgets(given, found)],
        backbone=None if backbone is None else str(backbone),
        mirror=find_mirror(mirror),
        device=device,
        only_sizes_that_fit=data is not None,
        tune=tune,
    )


def own_task(
    data: UserData,
    text: str,
    label: str,
    test: UserData | None = None,
    name: str | None = None,
    *,
    metric: str | None = None,
    max_length: int | None = None,
    strict: bool = False,
) -> TaskSpec:
    """Return the task of a user's own data; None takes the default of the task.

    Raises:
        UsageError: an unknown metric, or one of other kinds of task; a length that is too small.
        DataError: the data cannot be used.
    """
    from harness.data import table_task
    from harness.tasks import kinds

    kind = kinds.get(TaskSpec.model_fields["kind"].default)
    if metric is not None and metric not in kind.metrics:
        raise UsageError(
            f"--metric {metric} was given; expected one of {', '.join(kind.metrics)}, which score a {kind.name} task."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the display warns, with the summary of the data
        spec = table_task(
            data,
            text,
            label,
            test,
            name,
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


def find_store(store: str | Path | None) -> str:
    """Return the store's path or URL: the given one, else HARNESS_STORE, else `DEFAULT_STORE`."""
    return str(store) if store is not None else os.environ.get("HARNESS_STORE") or DEFAULT_STORE


def find_mirror(mirror: str | Path | None) -> Path | None:
    """Return the mirror's folder: the given one, else HARNESS_MIRROR; None for none."""
    given = mirror if mirror is not None else os.environ.get("HARNESS_MIRROR")
    return Path(given) if given else None


def read_seconds(value: str | float | None, option: str) -> float | None:
    """Return the seconds of a duration such as `10m`, or of a number of seconds.

    Raises:
        UsageError: anything else, or a number that is not above 0.
    """
    if value is None or (not isinstance(value, str) and 0 < value < float("inf")):
        return value
    return parse_duration(str(value), option)


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | int | Budget) else list(value)


def _several(values: Any) -> list[Any] | None:
    if isinstance(values, str):
        return [name.strip() for name in values.split(",") if name.strip()]
    return None if values is None else _listed(values)


def _seeds(seeds: Several[int] | int | None) -> list[int] | None:
    names = _several(seeds)
    try:
        return None if names is None else [int(name) for name in names]
    except ValueError:
        raise UsageError(f"--seeds was '{seeds}'; expected whole numbers separated by commas, such as 0,1,2.") from None


def _budgets(given: str | Budget, suite: Suite) -> list[Budget]:
    """Return the budgets of one value: limits, or the name of a set of budgets."""
    if isinstance(given, Budget):
        return [given]
    name = given.strip()
    if "=" in given or name in fields_of(Budget()):
        return [parse_budget(given)]
    if not name[:1].isalpha():  # no name: a duration, a size or nothing
        sets = ", ".join({**BUDGET_SETS, **suite.budgets})
        raise UsageError(
            f"--budget was '{given}'; expected NAME=NUMBER or a set of budgets ({sets}): --budget {_meant(name)}."
        )
    return suite.budget_set(name)


def _meant(text: str) -> str:
    """Return the budget for a duration or a size without a name, or an example for anything else."""
    with contextlib.suppress(UsageError):
        return f"train_seconds={parse_duration(text, '--budget', bare=True):g}"
    with contextlib.suppress(UsageError):
        parse_bytes(text, "--budget")
        return f"peak_memory_bytes={text}"
    return "train_seconds=60"
