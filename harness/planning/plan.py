"""Cells of a grid of tasks, methods, sizes, seeds and budgets; impossible ones are refused before any training."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.backbones import BackboneFiles
from harness.data import Size, class_counts
from harness.methods import Method
from harness.records import Budget, Cell, Draw, configuration_in_full, configuration_label
from harness.support import HarnessError, UsageError, uncollected
from harness.tasks import Task


@dataclass(frozen=True)
class PlannedCell:
    """A cell and the method that runs it.

    Attributes:
        cell: the cell, with its identity.
        method: the configured method.
        unsupported: why the method cannot serve the cell; such a cell is recorded and not run.
    """

    cell: Cell
    method: Method
    unsupported: str | None = None

    @property
    def method_label(self) -> str:
        """Name of the method with the settings that are not defaults, shortened where it is long: `lora[rank=4]`."""
        return label_of(type(self.method), self.cell.config)

    @property
    def method_in_full(self) -> str:
        """The method with all its settings that are not defaults, as `--methods` takes it: `lora[rank=4]`."""
        return configuration_in_full(self.method.name, self.cell.config, _default_config(type(self.method)))

    def label(self, *, with_budget: bool = False) -> str:
        """Return a short text that tells this cell from others."""
        cell = self.cell
        size = f"{cell.n_train} (balanced)" if cell.draw == "balanced" else str(cell.n_train)
        parts = [cell.task, self.method_label, size, f"seed {cell.seed}"]
        return " · ".join([*parts, cell.budget.label()] if with_budget else parts)


def label_of(method: type[Method], config: Mapping[str, Any]) -> str:
    """Return a method's name with the settings that are not defaults: `lora[rank=4]`."""
    return configuration_label(method.name, config, _default_config(method))


@functools.cache
def _default_config(method: type[Method]) -> dict[str, Any]:
    return method().config()


@uncollected()
def plan_cells(
    *,
    tasks: Sequence[Task],
    backbones: Mapping[str, BackboneFiles],
    methods: Sequence[Method],
    sizes: Sequence[Size],
    seeds: Sequence[int],
    budgets: Sequence[Budget],
    device: str,
) -> list[PlannedCell]:
    """Return every cell of the grid once, small sizes first, then seeds, so that every method has a figure early.

    Args:
        tasks: prepared tasks.
        backbones: backbone of each task by its name; a task may have none where no method uses one.
        methods: configured methods.
        sizes: training sizes.
        seeds: seeds of the draw, the initialisation and the order of batches.
        budgets: budgets of a fit.
        device: `cpu` or `cuda`.

    Raises:
        UsageError: sizes that a task cannot serve, all of which are named, or an empty axis.
    """
    for name, axis in (("task", tasks), ("method", methods), ("size", sizes), ("seed", seeds), ("budget", budgets)):
        if not axis:
            raise UsageError(f"No {name} was named; at least one is needed.")
    resolved = _resolve_sizes(tasks, sizes)
    planned: dict[str, PlannedCell] = {}
    # Thousands of cells share a method, and hundreds a method and a task: shared values are computed once.
    configs = [method.config() for method in methods]
    reasons = {
        (task.name, i): method.why_not(task, backbones.get(task.name) if method.serves else None, device)
        for task in tasks
        for i, method in enumerate(methods)
        if not method.serves or task.name in backbones
    }
    versions = {
        (task.name, i): method.version_on(_asked(task, backbones) if method.serves else None, task.kind.form)
        for task in tasks
        for i, method in enumerate(methods)
    }
    by_size = sorted(range(len(sizes)), key=lambda position: resolved[tasks[0].name][position][0])
    for position in by_size:
        for seed in seeds:
            for task in tasks:
                n_train, draw = resolved[task.name][position]
                for budget in budgets:
                    for i, method in enumerate(methods):
                        uses_backbone = bool(method.serves)
                        files = backbones.get(task.name) if uses_backbone else None
                        if uses_backbone and files is None:
                            raise UsageError(f"Method '{method.name}' needs a backbone and none was named.")
                        cell = Cell(
                            task=task.name,
                            data=task.data,
                            backbone=files.name if files else None,
                            weights=files.fingerprint if files else None,
                            method=method.name,
                            version=versions[task.name, i],
                            config=configs[i],
                            n_train=n_train if method.uses_labels else 0,
                            draw=draw if method.uses_labels else "stratified",
                            budget=budget,
                            seed=seed if method.uses_labels else 0,
                        )
                        planned.setdefault(cell.id, PlannedCell(cell, method, reasons[task.name, i]))
    return list(planned.values())


def _asked(task: Task, backbones: Mapping[str, BackboneFiles]) -> BackboneFiles | None:
    """Return a task's backbone; the way it wrote in version 0.1 does not matter where it finds likelihoods."""
    files = backbones.get(task.name)
    finds_likelihoods = task.reply is not None and task.reply.wants_likelihood
    return replace(files, wrote_otherwise=False) if files is not None and finds_likelihoods else files


def _resolve_sizes(tasks: Sequence[Task], sizes: Sequence[Size]) -> dict[str, list[tuple[int, Draw]]]:
    """Return (n_train, draw) of every size for every task; refuse all impossible sizes at once."""
    resolved: dict[str, list[tuple[int, Draw]]] = {}
    problems: list[str] = []
    for task in tasks:
        counts = class_counts(task.train_strata, task.n_strata)
        resolved[task.name] = []
        for size in sizes:
            try:
                resolved[task.name].append(size.resolve(counts, task.label_names or None, task.unscored))
            except HarnessError as error:
                problems.append(f"Task '{task.name}': {error}")
    if problems:
        raise UsageError("\n".join(problems))
    return resolved
