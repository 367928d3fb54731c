"""Cells of a grid of tasks, methods, sizes, seeds and budgets; impossible ones are refused before any training."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.backbones import BackboneFiles
from harness.data import Size, class_counts
from harness.methods import Method
from harness.records import Budget, Cell, Draw, configuration_in_full, configuration_label, short_backbones
from harness.support import HarnessError, UsageError, uncollected
from harness.tasks import Task


@dataclass(frozen=True)
class PlannedCell:
    """A cell and the method that runs it.

    Attributes:
        cell: the cell, with its identity.
        method: the configured method.
        unsupported: why the method cannot serve the cell; such a cell is recorded and not run.
        files: the backbone's files; None where the cell uses none.
        backbone_label: short name of the backbone, where the grid has several; None otherwise.
        part: place of the part of the suite that plans the cell first.
    """

    cell: Cell
    method: Method
    unsupported: str | None = None
    files: BackboneFiles | None = None
    backbone_label: str | None = None
    part: int = 0

    @property
    def method_label(self) -> str:
        """Name of the method with the settings that are not defaults, shortened where it is long: `lora[rank=4]`."""
        return label_of(type(self.method), self.cell.config)

    @property
    def method_on_backbone(self) -> str:
        """The method's label, with the backbone where the grid has several: `lora on all-MiniLM-L6-v2`."""
        return self.method_label if self.backbone_label is None else f"{self.method_label} on {self.backbone_label}"

    @property
    def method_in_full(self) -> str:
        """The method with all its settings that are not defaults, as `--methods` takes it: `lora[rank=4]`."""
        return configuration_in_full(self.method.name, self.cell.config, _default_config(type(self.method)))

    def label(self, *, with_budget: bool = False) -> str:
        """Return a short text that tells this cell from others; it names the backbone where the grid has several."""
        cell = self.cell
        size = f"{cell.n_train} (balanced)" if cell.draw == "balanced" else str(cell.n_train)
        named = [self.backbone_label] if self.backbone_label is not None else []
        parts = [cell.task, *named, self.method_label, size, f"seed {cell.seed}"]
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
    backbones: Mapping[str, Sequence[BackboneFiles]],
    methods: Sequence[Method],
    sizes: Sequence[Size],
    seeds: Sequence[int],
    budgets: Sequence[Budget],
    device: str,
    impossible: list[str] | None = None,
) -> list[PlannedCell]:
    """Return every cell of the grid once: one backbone after another, each with small sizes first, then seeds.

    All cells of a backbone follow each other, so that a worker loads it once. Among them every method has a figure
    early. Methods without a backbone run once, with the first.

    Args:
        tasks: prepared tasks.
        backbones: backbones of each task by its name; a task may have none where no method uses one.
        methods: configured methods.
        sizes: training sizes.
        seeds: seeds of the draw, the initialisation and the order of batches.
        budgets: budgets of a fit.
        device: `cpu` or `cuda`.
        impossible: list that takes one message for each size that a task cannot serve; the other sizes of the task are
            planned. None refuses such sizes.

    Raises:
        UsageError: sizes that a task cannot serve, all of which are named, or an empty axis.
    """
    for name, axis in (("task", tasks), ("method", methods), ("size", sizes), ("seed", seeds), ("budget", budgets)):
        if not axis:
            raise UsageError(f"No {name} was named; at least one is needed.")
    resolved = _resolve_sizes(tasks, sizes, impossible)
    found = {task.name: tuple(dict.fromkeys(backbones.get(task.name, ()))) for task in tasks}
    for method in methods:
        if method.serves and not all(found.values()):
            raise UsageError(f"Method '{method.name}' needs a backbone and none was named.")
    groups = _numbered(found[task.name] for task in tasks) if any(method.serves for method in methods) else {}
    labels = short_backbones((files.name, files.fingerprint) for files in groups) if len(groups) > 1 else {}
    planned: dict[str, PlannedCell] = {}
    # Thousands of cells share a method, and hundreds a method and a task: shared values are computed once.
    on_tasks = {task.name: [method.on_task(task) for method in methods] for task in tasks}
    configs = {name: [method.config() for method in several] for name, several in on_tasks.items()}
    served = [
        (
            task,
            [
                (i, method, files)
                for i, method in enumerate(on_tasks[task.name])
                for files in _axis(method, found[task.name])
            ],
        )
        for task in tasks
    ]
    reasons = {
        (task.name, i, files): method.why_not(task, files, device)
        for task, pairs in served
        for i, method, files in pairs
    }
    versions = {
        (task.name, i, files): method.cell_version(_asked(task, files), task.kind.form)
        for task, pairs in served
        for i, method, files in pairs
    }
    for position in _by_size(resolved):
        for seed in seeds:
            for task, pairs in served:
                size = resolved[task.name][position]
                if size is None:
                    continue
                n_train, draw = size
                for budget in budgets:
                    for i, method, files in pairs:
                        cell = Cell(
                            task=task.name,
                            data=task.data,
                            backbone=files.name if files else None,
                            weights=files.fingerprint if files else None,
                            method=method.name,
                            version=versions[task.name, i, files],
                            config=configs[task.name][i],
                            n_train=n_train if method.uses_labels else 0,
                            draw=draw if method.uses_labels else "stratified",
                            budget=budget,
                            seed=seed if method.uses_labels else 0,
                        )
                        label = labels.get((files.name, files.fingerprint)) if files else None
                        why_not = reasons[task.name, i, files]
                        planned.setdefault(cell.id, PlannedCell(cell, method, why_not, files, label))
    return sorted(planned.values(), key=lambda one: 0 if one.files is None else groups[one.files])


def join_parts(parts: Sequence[Sequence[PlannedCell]]) -> list[PlannedCell]:
    """Return the cells of the parts of a grid, each once, in their order; labels tell all backbones apart."""
    found = {(one.files.name, one.files.fingerprint) for cells in parts for one in cells if one.files is not None}
    labels = short_backbones(found) if len(found) > 1 else {}
    joined: dict[str, PlannedCell] = {}
    for part, cells in enumerate(parts):
        for one in cells:
            label = labels.get((one.files.name, one.files.fingerprint)) if one.files is not None else None
            joined.setdefault(one.cell.id, replace(one, backbone_label=label, part=part))
    return list(joined.values())


def _axis(method: Method, backbones: Sequence[BackboneFiles]) -> Sequence[BackboneFiles | None]:
    """Return the backbones that a method runs on; None alone for one that uses none."""
    return backbones if method.serves else (None,)


def _numbered(backbones: Iterable[Sequence[BackboneFiles]]) -> dict[BackboneFiles, int]:
    """Return the place of each backbone in the order of first mention."""
    return {files: i for i, files in enumerate(dict.fromkeys(one for several in backbones for one in several))}


def _asked(task: Task, files: BackboneFiles | None) -> BackboneFiles | None:
    """Return the backbone; the way it wrote in version 0.1 does not matter where a task finds likelihoods."""
    finds_likelihoods = task.reply is not None and task.reply.wants_likelihood
    return replace(files, wrote_otherwise=False) if files is not None and finds_likelihoods else files


def _by_size(resolved: Mapping[str, Sequence[tuple[int, Draw] | None]]) -> list[int]:
    """Return the places of the sizes, small ones first: by the rows of the first task that can serve each."""
    first = [
        next((size[0] for size in column if size is not None), 0) for column in zip(*resolved.values(), strict=True)
    ]
    return sorted(range(len(first)), key=first.__getitem__)


def _resolve_sizes(
    tasks: Sequence[Task], sizes: Sequence[Size], impossible: list[str] | None
) -> dict[str, list[tuple[int, Draw] | None]]:
    """Return (n_train, draw) of every size for every task; None for a size that goes to `impossible`.

    Raises:
        UsageError: sizes that a task cannot serve, where `impossible` is None.
    """
    resolved: dict[str, list[tuple[int, Draw] | None]] = {}
    problems: list[str] = []
    for task in tasks:
        counts = [len(task.train_strata)]
        if task.has_classes:
            counts = class_counts(task.train_strata, task.n_strata)
        resolved[task.name] = []
        for size in sizes:
            try:
                resolved[task.name].append(size.resolve(counts, task.label_names or None, task.unscored))
            except HarnessError as error:
                problems.append(f"Task '{task.name}': {error}")
                resolved[task.name].append(None)
    if problems and impossible is None:
        raise UsageError("\n".join(problems))
    if impossible is not None:
        impossible += problems
    return resolved
