"""`harness plan`: what a run would have to do, and what that would take."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.request import Asked, read_request
from harness.records import canonical_of
from harness.support import describe_duration, quiet_libraries, text

if TYPE_CHECKING:
    from harness.cost import Estimator
    from harness.measure import Device
    from harness.planning import PlannedCell
    from harness.records import Cell, Record
    from harness.schedule import Prepared

_SAID = {
    "records": "records of this device",
    "probe": "a probe of a few steps",
    "formula": "arithmetic alone: take it as an order of magnitude",
}
PROBE_SECONDS = 120.0


def plan_command(asked: Asked, store: str, *, probe: bool) -> None:
    """Print the cells, the predicted seconds and memory of each method and task, and the total."""
    quiet_libraries()
    from harness.cli.run import make_console, print_notes
    from harness.cost import Estimator
    from harness.measure import host_limit_bytes
    from harness.schedule import Limits, LocalWorkers, prepare_plan, run_probes

    request = read_request(asked)
    console = make_console()
    host_bytes = host_limit_bytes()
    with LocalWorkers(request.device, None, limits=Limits(PROBE_SECONDS, host_bytes)) as workers:
        workers.warm_up()
        with console.status("Loading data and checking the backbone"):
            prepared = prepare_plan(request, lambda _: workers.device, weights=False)
        print_notes(console, prepared)
        estimator = Estimator(prepared.tasks, prepared.backbones, prepared.device)
        statuses = _learn(store, prepared, estimator)
        to_run = [planned for planned in prepared.cells if planned.cell.id not in statuses]
        notes: list[str] = []
        memory_bytes = memory_bytes_of(prepared.device, host_bytes)
        if probe and to_run:
            with console.status("Probing") as shown:
                notes = run_probes(
                    to_run,
                    prepared,
                    estimator,
                    workers,
                    memory_bytes=memory_bytes,
                    report=lambda name: shown.update(Text(f"Probing {name}")),
                )
    n_done = len(prepared.cells) - len(to_run)
    console.print(
        f"{len(prepared.cells)} cells, {n_done} done already; on {prepared.device.name}.", highlight=False, markup=False
    )
    _print(console, prepared, to_run, estimator, memory_bytes)
    for note in notes:
        console.print(f"Note: {note}", highlight=False, markup=False)


def _learn(store: str, prepared: Prepared, estimator: Estimator) -> dict[str, str]:
    """Have the estimator learn from what the store holds of these tasks and this device; statuses of the cells.

    Records of the same methods at other sizes and seeds than the plan's teach it too: they only have to be of its
    tasks, as they are now, and of methods as they are configured here.
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
            # Seconds of cells that shared their device say nothing of one cell at a time.
            if configured in by_configuration and record.provenance.cells_at_a_time == 1:
                kept[(*configured, record.cell.n_train, record.cell.budget)].append(record)
        for records in kept.values():
            for record in [record for record in records if record.unsteady is None] or records:
                estimator.add(record, _with_cell(by_configuration[_configured(record.cell)], record))
    return statuses


def _configured(cell: Cell) -> tuple[object, ...]:
    """All that tells a cell from others but its size, draw, budget and seed."""
    return cell.task, cell.data, cell.method, cell.version, canonical_of(cell.config, dict), cell.weights


def _with_cell(planned: PlannedCell, record: Record) -> PlannedCell:
    """What was planned when a record was made, of the same method as configured."""
    # The configuration is the plan's own object, so that it is the same to the estimator too.
    return dataclasses.replace(planned, cell=dataclasses.replace(record.cell, config=planned.cell.config))


def memory_bytes_of(device: Device, host_bytes: int) -> float:
    """What a cell may take of the memory that plans speak of."""
    if device.kind == "cpu":
        return float(host_bytes)
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory)


def _print(
    console: Console,
    prepared: Prepared,
    to_run: Sequence[PlannedCell],
    estimator: Estimator,
    memory_bytes: float,
) -> None:
    from harness.cost import BASES, total_seconds

    runnable = [planned for planned in to_run if planned.unsupported is None]
    title = "What it would take"
    _print_table(console, title, "method", lambda p: p.method_label, prepared, to_run, estimator)
    if len(prepared.tasks) > 1:
        _print_table(console, "The same by task", "task", lambda p: p.cell.task, prepared, to_run, estimator)
    n_unsupported = len(to_run) - len(runnable)
    if n_unsupported:
        console.print(
            f"{n_unsupported} cells cannot run here (the method does not serve the task or the backbone); they are "
            "recorded as such.",
            highlight=False,
        )
    total = total_seconds(runnable, estimator, prepared.backbones)
    bases = Counter(estimator.estimate(planned).basis for planned in runnable)
    console.print(f"In total about {describe_duration(total)}, one cell at a time.", highlight=False)
    for basis in BASES:
        if bases[basis]:
            console.print(f"{basis}: {bases[basis]} cells are predicted from {_SAID[basis]}.", highlight=False)
    too_large = _too_large(runnable, estimator, memory_bytes)
    if too_large:
        console.print(
            f"Expected to need more than the {memory_bytes / 1e9:.1f} GB of memory there are: {', '.join(too_large)}.",
            style="yellow",
            highlight=False,
            markup=False,
        )


def _too_large(cells: Sequence[PlannedCell], estimator: Estimator, memory_bytes: float) -> list[str]:
    """Methods whose largest cell is expected not to fit, and as what it would."""
    from harness.cost import first_that_fits

    largest: dict[str, PlannedCell] = {}
    for planned in cells:
        known = largest.setdefault(planned.method_label, planned)
        if estimator.estimate(planned).peak_bytes > estimator.estimate(known).peak_bytes:
            largest[planned.method_label] = planned
    said = []
    for label, planned in sorted(largest.items()):
        if estimator.estimate(planned).peak_bytes > memory_bytes:
            fits = first_that_fits(planned, estimator, memory_bytes)
            instead = "" if fits is None else f" (`{fits.planned.method_label}` about {fits.peak_bytes / 1e9:.1f} GB)"
            said.append(f"{label}{instead}")
    return said


def _print_table(
    console: Console,
    title: str,
    heading: str,
    name: Callable[[PlannedCell], str],
    prepared: Prepared,
    to_run: Sequence[PlannedCell],
    estimator: Estimator,
) -> None:
    from harness.cost import total_seconds

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(heading)
    for column in ("cells", "to run", "a cell", "train", "all", "peak memory", "from"):
        table.add_column(column, justify="right")
    n_cells = Counter(name(planned) for planned in prepared.cells)
    runnable = defaultdict(list)
    for planned in to_run:
        if planned.unsupported is None:
            runnable[name(planned)].append(planned)
    for group, n in n_cells.items():
        left = runnable[group]
        found = [estimator.estimate(planned) for planned in left]
        row = [group, str(n), str(len(left))]
        if found:
            row += [
                _span([estimate.seconds for estimate in found]),
                _span([estimate.train_seconds for estimate in found]),
                describe_duration(total_seconds(left, estimator, prepared.backbones)),
                f"{max(estimate.peak_bytes for estimate in found) / 1e9:.2f} GB",
                ", ".join(dict.fromkeys(estimate.basis for estimate in found)),
            ]
        table.add_row(*(Text(text.plain(field)) for field in row))
    console.print(table)


def _span(seconds: Sequence[float]) -> str:
    low, high = f"{min(seconds):.1f}", f"{max(seconds):.1f}"
    return f"{low} s" if low == high else f"{low} to {high} s"
