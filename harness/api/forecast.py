"""Forecast the time and memory of a run, from records, short probes and arithmetic."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from harness.api.display import Display, make_display
from harness.api.plans import Plan, PlanGroup, PlanRow
from harness.api.requests import Several, read_request
from harness.backbones import BACKBONE_SHAPES, write_shape
from harness.measure import assumed_device
from harness.records import canonical_of, short_backbones
from harness.support import find_store, quiet_libraries, real_number, spelt_for_caller

if TYPE_CHECKING:
    from harness.cost import Estimator, Requests
    from harness.data import TextColumns, UserData
    from harness.planning import PlannedCell
    from harness.records import Budget, Cell, Record
    from harness.schedule import Prepared, Request
    from harness.serving import EndpointOptions
    from harness.tasks import LabelColumns

PROBE_SECONDS = 120.0
"""Longest time of one probe."""


@spelt_for_caller
def plan(
    suite: str | Path | None = None,
    *,
    data: UserData | None = None,
    text: TextColumns | None = None,
    label: LabelColumns | None = None,
    kind: str | None = None,
    label_separator: str | None = None,
    prompt: str | None = None,
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
    endpoint: EndpointOptions | Mapping[str, Any] | None = None,
    tune: int | None = None,
    device: str = "auto",
    store: str | Path | None = None,
    mirror: str | Path | None = None,
    probe: bool = True,
    device_memory: str | int | None = None,
    progress: bool | Display = True,
) -> Plan:
    """Predict the seconds and memory of each cell of a run. Only short probes are run.

    Arguments, errors and warnings are those of `run`. `probe` says whether to measure a few steps of each method
    without a record; otherwise arithmetic is used. The store may be missing. A backbone may also be a shape, such as
    `llama-3.1-8b-like`. With `device_memory` (`24GB`, or bytes) the plan is for a device that this machine need not
    have, such as `device="cuda"` before renting it; it rests on arithmetic alone.
    """
    quiet_libraries()
    request = read_request(
        suite, data, text, label, test, name, metric, max_length, strict, tasks, methods, sizes, seeds, budgets,
        backbone, backbones, tune, device, mirror, kind=kind, label_separator=label_separator, prompt=prompt,
        endpoint=endpoint, store=store,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        if request.backbones is not None:
            request = dataclasses.replace(request, backbones=[_with_shape(one, folder) for one in request.backbones])
        return _plan(request, store=store, probe=probe, device_memory=device_memory, progress=progress)


def _with_shape(name: str, folder: str) -> str:
    """Return a backbone's name; write a shape to a folder, whose path is its name."""
    return str(write_shape(name, Path(folder) / name).folder) if name in BACKBONE_SHAPES else name


def _plan(
    request: Request,
    *,
    store: str | Path | None,
    probe: bool,
    device_memory: str | int | None,
    progress: bool | Display,
) -> Plan:
    from harness.cost import Estimator, usable_bytes
    from harness.measure import host_limit_bytes, memory_bytes_of
    from harness.methods import planning_for_another_machine
    from harness.schedule import Limits, LocalWorkers, prepare_plan, run_probes

    display = make_display(progress)
    host_bytes = host_limit_bytes()
    if device_memory is not None:
        there = assumed_device(request.device, _bytes_of(device_memory))
        with display.working("Loading data and checking the backbone"), planning_for_another_machine() as missing:
            prepared = prepare_plan(request, lambda _: there, weights=False)
        display.notes(prepared)
        estimator = Estimator(prepared.tasks, there)
        notes = [f"Not installed here, and needed there: {reason}" for reason in missing]
        return _plan_of(prepared, {}, estimator, usable_bytes(there, memory_bytes_of(there, host_bytes)), notes)
    with LocalWorkers(request.device, None, limits=Limits(PROBE_SECONDS, host_bytes)) as workers:
        workers.warm_up()
        with display.working("Loading data and checking the backbone"):
            prepared = prepare_plan(request, lambda _: workers.device, weights=False)
        display.notes(prepared)
        estimator = Estimator(prepared.tasks, prepared.device)
        statuses = _learn(find_store(store), prepared, estimator)
        to_run = [planned for planned in prepared.cells if planned.cell.id not in statuses]
        memory_bytes = usable_bytes(prepared.device, memory_bytes_of(prepared.device, host_bytes))
        notes = []
        if probe and to_run:
            with display.working("Probing") as show:
                notes = run_probes(
                    to_run,
                    prepared,
                    estimator,
                    workers,
                    memory_bytes=memory_bytes,
                    report=lambda method: show(f"Probing {method}"),
                )
    return _plan_of(prepared, statuses, estimator, memory_bytes, notes)


def _plan_of(
    prepared: Prepared, statuses: dict[str, str], estimator: Estimator, memory_bytes: float, notes: Sequence[str]
) -> Plan:
    from harness.cost import first_that_fits, total_seconds
    from harness.schedule import memory_for

    def total(cells: Sequence[PlannedCell]) -> float:
        running = [planned for planned in cells if runs(planned)]
        return total_seconds(running, estimator)

    def runs(planned: PlannedCell) -> bool:
        return planned.unsupported is None and planned.cell.id not in statuses

    def row_of(planned: PlannedCell) -> PlanRow:
        cell = planned.cell
        row = PlanRow(
            task=cell.task,
            method=planned.method_label,
            backbone=cell.backbone,
            weights=cell.weights,
            n_train=cell.n_train,
            budget=cell.budget.label(),
            seed=cell.seed,
            status=statuses.get(cell.id),
            unsupported=planned.unsupported,
        )
        if not runs(planned):
            return row
        found, parts = estimator.estimate(planned), estimator.amount(planned).memory
        smaller = first_that_fits(planned, estimator, memory_for(planned, prepared.device, memory_bytes))
        return dataclasses.replace(
            row,
            memory=parts.parts,
            during=parts.during,
            runs_as=None if smaller is None else smaller.planned.method_in_full,
            seconds=found.seconds,
            train_seconds=found.train_seconds,
            peak_bytes=found.peak_bytes,
            basis=found.basis,
            **_requests(estimator.requests(planned)),
        )

    rows = {planned.cell.id: row_of(planned) for planned in prepared.cells}

    def groups(name: Callable[[PlannedCell], tuple[str | None, str | None]]) -> tuple[PlanGroup, ...]:
        members: defaultdict[tuple[str, str | None], list[PlannedCell]] = defaultdict(list)
        for planned in prepared.cells:
            group, backbone = name(planned)
            if group is not None:
                members[group, backbone].append(planned)
        return tuple(
            PlanGroup(group, tuple(rows[planned.cell.id] for planned in cells), total(cells), backbone)
            for (group, backbone), cells in members.items()
        )

    short = short_backbones(
        (planned.cell.backbone, planned.cell.weights) for planned in prepared.cells if planned.cell.backbone is not None
    )
    running = [planned for planned in prepared.cells if runs(planned)]
    return Plan(
        device=prepared.device.name,
        rows=tuple(rows.values()),
        methods=groups(lambda planned: (planned.method_label, planned.backbone_label)),
        backbones=groups(lambda planned: (short.get((planned.cell.backbone or "", planned.cell.weights)), None)),
        tasks=groups(lambda planned: (planned.cell.task, None)),
        total_seconds=total(prepared.cells),
        memory_bytes=memory_bytes,
        too_large=tuple(_too_large(running, estimator, memory_bytes)),
        notes=tuple(notes),
        left_out=prepared.left_out,
    )


def _requests(found: Requests | None) -> dict[str, Any]:
    """Return the fields of a row about requests to a served model."""
    if found is None:
        return {}
    return {
        "requests": found.n,
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        "request_price": found.price,
        "currency": found.currency,
    }


def _learn(store: str, prepared: Prepared, estimator: Estimator) -> dict[str, str]:
    """Add a store's records of these tasks on this device to the estimator; return the statuses of the cells.

    Records of other sizes and seeds count too if the task and the configured method are the same.
    """
    from harness.store import Store

    if "://" not in store and not Path(store).exists():
        return {}
    device = prepared.device.name
    by_configuration = {_configured(planned.cell): planned for planned in prepared.cells}
    with Store.open(store, read_only=True) as opened:
        statuses = opened.statuses([planned.cell.id for planned in prepared.cells], device)
        kept: defaultdict[tuple[object, ...], list[Record]] = defaultdict(list)
        for record in opened.records(device=device):
            configured = _configured(record.cell)
            # Seconds of cells that shared their device do not predict one cell at a time.
            if configured in by_configuration and record.provenance.cells_at_a_time == 1:
                kept[(*configured, record.cell.n_train, record.cell.budget)].append(record)
        for records in kept.values():
            for record in [record for record in records if record.unsteady is None] or records:
                estimator.add(record, _with_cell(by_configuration[_configured(record.cell)], record))
    return statuses


def _bytes_of(device_memory: str | int) -> int:
    from harness.records import parse_bytes

    if isinstance(device_memory, str):
        return parse_bytes(device_memory, "--device-memory")
    return round(real_number("device_memory", device_memory, "a size such as '24GB', or a number of bytes"))


def _configured(cell: Cell) -> tuple[object, ...]:
    """Return a key of a cell without its size, draw, budget and seed."""
    return cell.task, cell.data, cell.method, cell.version, canonical_of(cell.config, dict), cell.weights


def _with_cell(planned: PlannedCell, record: Record) -> PlannedCell:
    """Return the planned cell of a record, with the method of a cell of the plan."""
    # The plan's own configuration object, so that the estimator sees the same one.
    return dataclasses.replace(planned, cell=dataclasses.replace(record.cell, config=planned.cell.config))


def _too_large(
    cells: Sequence[PlannedCell], estimator: Estimator, memory_bytes: float
) -> list[tuple[str, str | None, float | None]]:
    """Return the methods whose largest cell is not expected to fit, each with the form that does and its bytes."""
    from harness.cost import first_that_fits
    from harness.schedule import memory_for

    largest: dict[str, PlannedCell] = {}
    for planned in cells:
        name = planned.method_on_backbone
        known = largest.setdefault(name, planned)
        if estimator.estimate(planned).least_bytes > estimator.estimate(known).least_bytes:
            largest[name] = planned
    found: list[tuple[str, str | None, float | None]] = []
    for label, planned in sorted(largest.items()):
        limit = memory_for(planned, estimator.device, memory_bytes)
        if estimator.estimate(planned).least_bytes > limit:
            fits = first_that_fits(planned, estimator, limit)
            found.append((label, None, None) if fits is None else (label, fits.planned.method_in_full, fits.peak_bytes))
    return found
