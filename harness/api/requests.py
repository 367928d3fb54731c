"""Read the arguments of a caller: texts, lists and data frames become a `Request`."""

from __future__ import annotations

import contextlib
import numbers
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from harness.api.own_data import own_task
from harness.data import TextColumns, UserData, is_data_file
from harness.methods import split_top_level
from harness.planning import BUDGET_SETS, Suite, load_suite
from harness.records import Budget, fields_of, parse_budget, parse_bytes
from harness.serving import EndpointOptions, answers_beside, read_endpoint
from harness.support import (
    UsageError,
    checked_path,
    find_store,
    given,
    parse_duration,
    real_number,
    several,
    whole_number,
    wrong_argument,
)

if TYPE_CHECKING:
    from harness.schedule import Request
    from harness.tasks import LabelColumns

_Item = TypeVar("_Item")

Several: TypeAlias = "str | Sequence[_Item]"
"""Several values: a list of them, or one text with commas between them."""


def read_request(
    suite: str | Path | None = None,
    data: UserData | None = None,
    text: TextColumns | None = None,
    label: LabelColumns | None = None,
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
    backbones: Several[str | Path] | Path | None = None,
    tune: int | None = None,
    device: str = "auto",
    mirror: str | Path | None = None,
    *,
    kind: str | None = None,
    label_separator: str | None = None,
    prompt: str | None = None,
    endpoint: EndpointOptions | Mapping[str, Any] | None = None,
    store: str | Path | None = None,
) -> Request:
    """Return the request that the arguments describe; `harness.run` documents them.

    Raises:
        UsageError: a suite that does not exist, or a value that cannot be read.
        DataError: data that cannot be used.
    """
    from harness.measure import check_device_name
    from harness.schedule import Request

    check_device_name(device)
    if suite is not None:
        checked_path("suite", suite, "the name of a suite, or the path of its file; your own data are data=DATA")
    own = (text, label, name, metric, max_length, kind, label_separator, prompt)
    if suite is not None and data is not None:
        raise UsageError(f"Suite '{suite}' and --data were both given; expected one of them.")
    if suite is None and data is None:
        raise UsageError("Name either a suite (`harness run quickstart`) or your own file (`harness run --data FILE`).")
    if data is None:
        if test is not None or strict or any(value is not None for value in own):
            raise UsageError(
                "--kind, --text, --label, --label-separator, --prompt, --test, --metric, --max-length and --strict go "
                "with --data; a suite names its own kind, columns, prompt, test rows, metric and length."
            )
        if is_data_file(str(suite)):
            raise UsageError(
                f"'{suite}' is a file of data: give it as --data, and name its columns "
                f"(`harness run --data {suite} --text COLUMN --label COLUMN`)."
            )
        found = load_suite(suite)  # type: ignore[arg-type]
    else:
        spec = own_task(
            data,
            text,
            label,
            test,
            name,
            kind=kind,
            label_separator=label_separator,
            metric=metric,
            max_length=max_length,
            strict=strict,
            prompt=prompt,
        )
        found = Suite(name=spec.name, description=f"Your own data: {spec.description}", tasks={spec.name: spec})
    return Request(
        suite=found,
        tasks=several("tasks", tasks, (str,), "names of tasks", split=split_commas),
        methods=read_methods(methods),
        sizes=_sizes(sizes),
        seeds=_seeds(seeds),
        budgets=_budgets(budgets, found),
        backbones=read_backbones(backbone, backbones),
        mirror=find_mirror(mirror),
        device=device,
        only_sizes_that_fit=data is not None,
        tune=given(whole_number, "tune", tune),
        endpoint=read_endpoint(endpoint),
        answers=answers_beside(find_store(store)),
    )


def find_mirror(mirror: str | Path | None) -> Path | None:
    """Return the mirror's folder: the given one, else HARNESS_MIRROR; None for none."""
    folder = os.environ.get("HARNESS_MIRROR") if mirror is None else checked_path("mirror", mirror, "a folder")
    return Path(folder) if folder else None


def read_seconds(value: str | float | None, option: str) -> float | None:
    """Return the seconds of a duration such as `10m`, or of a number of seconds.

    Raises:
        UsageError: anything else, or a number that is not above 0.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return parse_duration(value, option)
    expected = "a duration such as '90s', '30m', '1.5h' or '1h30m', or a number of seconds above 0"
    name = option.removeprefix("--").replace("-", "_")
    seconds = real_number(name, value, expected)
    if not 0 < seconds < float("inf"):
        raise wrong_argument(name, value, expected)
    return seconds


def read_methods(methods: Several[str] | None) -> list[str] | None:
    """Return the texts of methods, such as `lora[rank=4]`; None stays None.

    Raises:
        UsageError: anything but texts.
    """
    return several("methods", methods, (str,), "texts such as 'lora[rank=4]'", split=split_top_level)


def read_backbones(backbone: str | Path | None, backbones: Several[str | Path] | Path | None) -> list[str] | None:
    """Return the names of the backbones that a caller asks for, by either argument; None where none is named.

    Raises:
        UsageError: both arguments, or anything but names and paths.
    """
    if backbone is not None and backbones is not None:
        raise UsageError("--backbone and --backbones were both given; expected one of them. --backbones takes several.")
    if backbone is not None:
        return [str(checked_path("backbone", backbone, "a hub id, or a path"))]
    names = several("backbones", backbones, (str, Path), "hub ids or paths", split=split_commas)
    if names is None:
        return None
    if not names:
        raise UsageError("--backbones names none; expected hub ids or folders, separated by commas.")
    return list(dict.fromkeys(str(name) for name in names))


def split_commas(text: str) -> list[str]:
    """Return the names in a text, without the spaces around them and without empty ones."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _sizes(sizes: Several[str | int] | int | None) -> list[str] | None:
    expected = "training sizes, such as 32, '8/class' or 'all'"
    items = several("sizes", sizes, (str, numbers.Integral), expected, split=split_commas)
    return None if items is None else [str(size) for size in items]


def _seeds(seeds: Several[int] | int | None) -> list[int] | None:
    expected = "whole numbers such as 0, 1 and 2"
    names = several("seeds", seeds, (str, numbers.Integral), expected, split=split_commas)
    try:
        return None if names is None else [int(name) for name in names]
    except ValueError:
        raise UsageError(
            f"--seeds '{seeds}' was given; expected whole numbers separated by commas, such as 0,1,2."
        ) from None


def _budgets(budgets: Several[str | Budget] | Budget | None, suite: Suite) -> list[Budget] | None:
    expected = "budgets such as 'epochs=3', or the name of a set of them"
    items = several("budgets", budgets, (str, Budget), expected, split=lambda text: [text] if text else [])
    return [one for item in items for one in _budgets_of(item, suite)] if items else None


def _budgets_of(budget: str | Budget, suite: Suite) -> list[Budget]:
    """Return the budgets of one value: limits, or the name of a set of budgets."""
    if isinstance(budget, Budget):
        return [budget]
    name = budget.strip()
    if "=" in budget or name in fields_of(Budget()):
        return [parse_budget(budget)]
    if not name[:1].isalpha():  # no name: a duration, a size or nothing
        sets = ", ".join({**BUDGET_SETS, **suite.budgets})
        raise UsageError(
            f"--budget '{budget}' was given; expected NAME=NUMBER, or a set of budgets ({sets}). Try --budget "
            f"{_meant(name)}."
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
