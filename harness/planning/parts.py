"""Resolve the parts of a suite's grid: what is left of each once a request has chosen among their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.planning.suites import Suite
from harness.support import UsageError

_Value = TypeVar("_Value", str, int)


@dataclass(frozen=True)
class Axes:
    """The axes of one part of a grid, as texts.

    Attributes:
        tasks: names of its tasks.
        backbones: names of its backbones; None takes those of each task.
        methods, sizes, seeds: as those of a suite.
    """

    tasks: tuple[str, ...]
    backbones: tuple[str, ...] | None
    methods: tuple[str, ...]
    sizes: tuple[str, ...]
    seeds: tuple[int, ...]


def resolve_parts(
    suite: Suite,
    *,
    tasks: Sequence[str] | None = None,
    backbones: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    sizes: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Axes]:
    """Return the axes of each part of the grid, in the order of the suite.

    A suite without parts is one part, whose values are replaced by those that are given. Where a suite has parts, the
    given values select from each part instead: a part that has none of them is left out.

    Raises:
        UsageError: a value that no part has, a task that the suite lacks, or nothing left.
    """
    for name in tasks or ():
        suite.task(name)
    if not suite.parts:
        return [
            Axes(
                _once(tuple(suite.tasks) if tasks is None else tasks),
                suite.backbones if backbones is None else _once(backbones),
                _once(suite.methods if methods is None else methods),
                _once(suite.sizes if sizes is None else sizes),
                _once(suite.seeds if seeds is None else seeds),
            )
        ]
    whole = [
        Axes(
            part.tasks or tuple(suite.tasks),
            part.backbones or suite.backbones,
            part.methods or suite.methods,
            part.sizes or suite.sizes,
            part.seeds or suite.seeds,
        )
        for part in suite.parts
    ]
    _check_known(suite, "tasks", tasks, [one for part in whole for one in part.tasks])
    _check_known(suite, "backbones", backbones, [one for part in whole for one in part.backbones or ()])
    _check_known(suite, "methods", methods, [one for part in whole for one in part.methods])
    _check_known(suite, "sizes", sizes, [one for part in whole for one in part.sizes])
    _check_known(suite, "seeds", seeds, [one for part in whole for one in part.seeds])
    chosen = [
        Axes(
            _selected(part.tasks, tasks),
            None if part.backbones is None else _selected(part.backbones, backbones),
            _selected(part.methods, methods),
            _selected(part.sizes, sizes),
            _selected(part.seeds, seeds),
        )
        for part in whole
    ]
    left = [
        part for part in chosen if part.tasks and part.methods and part.sizes and part.seeds and part.backbones != ()
    ]
    if not left:
        raise UsageError(
            f"No part of suite '{suite.name}' has all of the values that were asked for together; name fewer of them."
        )
    return left


def whole_grid(suite: Suite) -> Axes:
    """Return the values of each axis over all parts of a suite; tasks give their backbones where a part names none."""
    parts = resolve_parts(suite)
    names = ((part.backbones or suite.backbones_of(task)) for part in parts for task in part.tasks)
    return Axes(
        _once([name for part in parts for name in part.tasks]),
        _once([name for several in names for name in several]),
        _once([name for part in parts for name in part.methods]),
        _once([size for part in parts for size in part.sizes]),
        _once([seed for part in parts for seed in part.seeds]),
    )


def _once(values: Sequence[_Value]) -> tuple[_Value, ...]:
    return tuple(dict.fromkeys(values))


def _selected(values: tuple[_Value, ...], asked: Sequence[_Value] | None) -> tuple[_Value, ...]:
    return values if asked is None else tuple(value for value in values if value in asked)


def _check_known(suite: Suite, axis: str, asked: Sequence[_Value] | None, known: Sequence[_Value]) -> None:
    """Refuse a value that no part of the suite has."""
    for value in asked or ():
        if value not in known:
            listed = ", ".join(map(str, dict.fromkeys(known)))
            raise UsageError(
                f"--{axis} {value} was asked for, but no part of suite '{suite.name}' has it; its {axis}: {listed}. "
                "For a grid of other values, write a suite that includes this one's tasks."
            )
