"""Turn a request into cells that are ready to run: load and check the data, find and verify the backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.backbones import BackboneFiles, ServedModel
from harness.data import Size, TaskSpec, parse_size
from harness.measure import Device, check_device_name, find_device
from harness.methods import Method, parse_methods, with_trials
from harness.planning import Axes, PlannedCell, Suite, join_parts, plan_cells, resolve_parts
from harness.records import MAX_SEED, Budget
from harness.schedule.finding import Found, find_backbones
from harness.serving import EndpointOptions, contact
from harness.support import MissingResourceError, UsageError
from harness.tasks import Kind, Task, kinds


@dataclass(frozen=True)
class Request:
    """A suite, and the values that replace its defaults; None keeps a default.

    Attributes:
        suite: the suite.
        tasks: names of its tasks.
        methods: texts such as `lora[rank=4]`.
        sizes: `32`, `8/class` or `all`.
        seeds: whole numbers from 0.
        budgets: limits of each fit; several are an axis of the grid.
        backbones: hub ids, `ID@REVISION` or local folders, for all tasks; several are an axis of the grid.
        mirror: folder that is searched first for hub ids.
        device: `auto`, `cpu` or `cuda`.
        only_sizes_that_fit: whether default sizes that the data cannot hold are replaced by all rows; sizes that were
            asked for always stay.
        tune: number of settings that each tunable method tries inside each cell; None tries only those of a method's
            own text (`lora[tune=8]`).
        endpoint: an endpoint whose models are backbones, in place of the suite's; without `backbones`, the only ones.
        answers: file of the served models' answers; None keeps them in memory.
    """

    suite: Suite
    tasks: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    sizes: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    budgets: Sequence[Budget] | None = None
    backbones: Sequence[str] | None = None
    mirror: Path | None = None
    device: str = "auto"
    only_sizes_that_fit: bool = False
    tune: int | None = None
    endpoint: EndpointOptions | None = None
    answers: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """A grid that is ready to run.

    Attributes:
        suite: the suite's name, a label.
        cells: cells in the order of the run.
        tasks: tasks by name.
        backbones: backbones of each task, by the task's name; empty where no method uses one.
        device: device of the cells.
        notes: parts of the request that were not followed, for the user.
        left_out: one message for each backbone that was asked for and cannot be used; the others are in the grid.
    """

    suite: str
    cells: tuple[PlannedCell, ...]
    tasks: dict[str, Task]
    backbones: dict[str, tuple[BackboneFiles, ...]]
    device: Device
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def prepare_plan(
    request: Request,
    find: Callable[[str], Device] = find_device,
    *,
    weights: bool = True,
    on_backbone: Callable[[BackboneFiles], None] | None = None,
) -> Prepared:
    """Resolve every name, load every task, verify the backbones, plan the cells. Nothing is trained.

    Cheap checks come first, so that a misspelt method is refused before a minute of loading.

    Args:
        request: the request.
        find: returns the device called `auto`, `cpu` or `cuda`; called last, because the worker may still be starting.
        weights: whether a backbone without weights is refused; a plan needs its configuration and tokenizer only.
        on_backbone: called with each backbone once all are verified, before any data are read; the first one last.

    Raises:
        HarnessError: the request, the data or the backbone cannot be used.
    """
    suite = request.suite
    if request.mirror is not None and not request.mirror.is_dir():
        raise UsageError(f"Mirror '{request.mirror}' is no folder; expected one with datasets/ and models/ in it.")
    check_device_name(request.device)
    parts = resolve_parts(
        suite,
        tasks=request.tasks,
        backbones=request.backbones,
        methods=request.methods,
        sizes=request.sizes,
        seeds=request.seeds,
    )
    methods, places = _methods(parts)
    notes = []
    if request.tune is not None:
        methods, untunable = with_trials(methods, request.tune)
        if untunable:
            notes.append(f"nothing to tune in {', '.join(untunable)}: run with their own settings.")
    notes += [
        f"{name} is experimental: {why[0].lower()}{why[1:]}"
        for name, why in {method.name: method.experimental for method in methods if method.experimental}.items()
    ]
    for size in dict.fromkeys(size for part in parts for size in part.sizes):
        parse_size(size)
    wrong = [seed for part in parts for seed in part.seeds if not 0 <= seed <= MAX_SEED]
    if wrong:
        raise UsageError(f"Seed {wrong[0]} was given; expected whole numbers from 0 to {MAX_SEED}.")
    budgets = list(dict.fromkeys(request.budgets if request.budgets is not None else [suite.budget or Budget()]))
    specs: list[TaskSpec] = [suite.task(name) for name in dict.fromkeys(name for part in parts for name in part.tasks)]
    if not specs:
        raise UsageError("No task was named; `harness suites NAME` lists those of a suite.")
    found_kinds = [kinds.get(spec.kind) for spec in specs]
    _check_importable(methods, found_kinds)
    found = Found({})
    if any(method.serves for method in methods):
        asked = request.backbones
        endpoint = request.endpoint or (suite.endpoint if asked is None else None)
        served = () if endpoint is None else tuple(contact(endpoint, request.answers))
        is_alone = bool(served) and asked is None and (request.endpoint is not None or not suite.names_backbones)
        names = {spec.name: _backbone_names(suite, parts, spec.name) for spec in specs}
        found = find_backbones({} if is_alone else names, request.mirror, weights=weights)
        if served:
            found.backbones.update({name: (*found.backbones.get(name, ()), *served) for name in names})
        without = [spec.name for spec in specs if not found.backbones.get(spec.name)]
        if without and (request.tasks is not None or asked is not None or len(without) == len(specs)):
            raise found.error()
        notes += found.notes
        if without:  # tasks that were not named do not stop the others
            notes.append(f"left out, for want of a backbone: {', '.join(without)}.")
            specs = [spec for spec in specs if spec.name not in without]
            found_kinds = [kinds.get(spec.kind) for spec in specs]
        if asked is None:
            notes += found.missing
    backbones = {spec.name: found.backbones[spec.name] for spec in specs if spec.name in found.backbones}
    if on_backbone is not None:
        for files in reversed(list(dict.fromkeys(one for several in backbones.values() for one in several))):
            if not isinstance(files, ServedModel):
                on_backbone(files)
    tasks, not_found = _load(specs, found_kinds, request.mirror, some=request.tasks is None)
    notes += not_found
    device = find(request.device)
    planned: list[list[PlannedCell]] = []
    impossible: list[str] | None = [] if request.sizes is None or suite.parts else None  # options select from parts
    for part in parts:
        of_part = [methods[place] for text in part.methods for place in places.get(text, ())]
        present = [tasks[name] for name in part.tasks if name in tasks]
        if suite.parts and any(method.serves for method in of_part):
            present = [task for task in present if _of_part(part, backbones.get(task.name, ()), found)]
        if not present:
            continue
        sizes = [parse_size(size) for size in part.sizes]
        if request.only_sizes_that_fit and request.sizes is None:
            sizes = _fitting(sizes, present)
        found_of = {task.name: _of_part(part, backbones.get(task.name, ()), found) for task in present}
        cells = plan_cells(
            tasks=present,
            backbones=found_of,
            methods=of_part,
            sizes=sizes,
            seeds=part.seeds,
            budgets=budgets,
            device=device.kind,
            impossible=impossible,
        )
        planned.append(cells)
    joined = join_parts(planned)
    if impossible and not joined:
        raise UsageError("\n".join(dict.fromkeys(impossible)))
    notes += [f"left out: {one}" for one in dict.fromkeys(impossible or ())]
    left_out = tuple(found.missing) if request.backbones is not None else ()
    return Prepared(suite.name, tuple(joined), tasks, backbones, device, tuple(notes), left_out)


def _load(
    specs: Sequence[TaskSpec], found_kinds: Sequence[Kind], mirror: Path | None, *, some: bool
) -> tuple[dict[str, Task], list[str]]:
    """Return the prepared tasks by name, and notes on those whose data are not available.

    Args:
        specs: the tasks.
        found_kinds: kind of each.
        mirror: folder that is searched first for hub ids.
        some: whether tasks may be left out for want of data while others are available.
    """
    tasks: dict[str, Task] = {}
    missing: dict[str, MissingResourceError] = {}
    for spec, kind in zip(specs, found_kinds, strict=True):
        try:
            tasks[spec.name] = kind.prepare(spec, mirror)
        except MissingResourceError as error:
            missing[spec.name] = error
            if not some:
                raise
    if missing and not tasks:
        raise next(iter(missing.values()))
    notes = [f"left out, for want of data: {', '.join(missing)}."] if missing else []
    return tasks, notes + [str(error) for error in missing.values()]


def _methods(parts: Sequence[Axes]) -> tuple[list[Method], dict[str, list[int]]]:
    """Return the methods of all parts, each once, and the places of those that each text names."""
    texts = list(dict.fromkeys(text for part in parts for text in part.methods))
    methods = parse_methods(texts)
    return methods, {text: [methods.index(one) for one in parse_methods([text])] for text in texts if text.strip(", ")}


def _backbone_names(suite: Suite, parts: Sequence[Axes], task: str) -> tuple[str, ...]:
    """Return the names of the backbones that a task has in any part."""
    names: dict[str, None] = {}
    for part in parts:
        if task in part.tasks:
            names |= dict.fromkeys(suite.backbones_of(task) if part.backbones is None else part.backbones)
    return tuple(names)


def _of_part(part: Axes, backbones: Sequence[BackboneFiles], found: Found) -> tuple[BackboneFiles, ...]:
    """Return the backbones of a task that a part names, and served models; all where it names none."""
    if part.backbones is None:
        return tuple(backbones)
    named = [found.by_name[name] for name in part.backbones if name in found.by_name]
    return tuple(files for files in backbones if files in named or isinstance(files, ServedModel))


def _check_importable(methods: Sequence[Method], found_kinds: Sequence[Kind]) -> None:
    """Refuse what a script or notebook defines itself: worker processes do not run it, so they cannot import it."""
    named: list[tuple[str, object]] = [(one.name, one) for one in methods]
    for name, member in [*named, *((kind.name, kind) for kind in found_kinds)]:
        if type(member).__module__ == "__main__":
            raise UsageError(
                f"'{name}' is defined in the script that runs, which worker processes cannot import. Move the "
                f"class {type(member).__name__} to a module of its own, and import that."
            )


_ALL_UP_TO = 8192
"""Largest number of rows of which all are a default training size; more would take hours."""


def _fitting(sizes: Sequence[Size], tasks: Sequence[Task]) -> list[Size]:
    """Return the sizes that every task can hold, and `all` where there are few rows."""
    pool = min(len(task.train_labels) for task in tasks)
    n_classes = max(task.n_strata if task.has_classes else 1 for task in tasks)
    fitting = [size for size in sizes if size.n is not None and n_classes <= size.n < pool]
    return [*fitting, Size(None)] if pool <= _ALL_UP_TO else fitting
