"""Probe the methods without a record, so that a plan rests on this device's own seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.backbones import ServedModel
from harness.cost import Estimator, Probe, make_probe
from harness.planning import PlannedCell
from harness.records import Record
from harness.running import Job
from harness.schedule.messages import Done, Lost, Stopped, Workers
from harness.schedule.prepare import Prepared


def run_probes(
    cells: Sequence[PlannedCell],
    prepared: Prepared,
    estimator: Estimator,
    workers: Workers,
    *,
    memory_bytes: float,
    report: Callable[[str], None],
) -> list[str]:
    """Probe each method of `cells` that the estimator has no measurement of, once, and give it the result.

    Args:
        cells: cells of the plan; those that cannot run are skipped.
        prepared: their tasks.
        estimator: learns the cost of the probes.
        workers: where probes run.
        memory_bytes: memory of the device.
        report: called with the name of each method before its probe.

    Returns:
        A note for each method that could not be probed, with the reason.
    """
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for planned in cells:
            if planned.unsupported is not None or estimator.measured(planned):
                continue
            if isinstance(planned.files, ServedModel):  # its requests would cost money
                continue
            report(_named(planned))
            name = planned.cell.task
            probe = make_probe(
                planned,
                prepared.tasks[name],
                planned.files,
                memory_bytes=memory_bytes,
                flops_per_second=estimator.flops_per_second(),
                folder=Path(folder),
                device=estimator.device,
            )
            records, why = _run(probe, workers)
            if why is None:
                estimator.add_figure(planned, probe.figure(records))
                if probe.n_blocks is not None:
                    notes.append(f"{_named(planned)}: probed on {probe.n_blocks} blocks of its backbone.")
            else:
                estimator.give_up(planned)
                notes.append(f"{_named(planned)}: no probe of it, so by arithmetic: {why}")
    return notes


def _named(planned: PlannedCell) -> str:
    """Return the method's name, with the backbone where the grid has several."""
    of = planned.backbone_label
    return planned.cell.method if of is None else f"{planned.cell.method} on {of}"


def _run(probe: Probe, workers: Workers) -> tuple[list[Record], str | None]:
    """Return the records of a probe's cells, and why some are missing; None where none is."""
    records: list[Record] = []
    for planned in probe.cells:
        workers.start(Job(planned, probe.files, "probe"), probe.task)
        record: Record | None = None
        while record is None:
            for _, event in workers.events(1.0):
                if isinstance(event, Done):
                    record = event.record
                elif isinstance(event, Lost):
                    return records, f"the worker {event.how}."
                elif isinstance(event, Stopped):
                    return records, event.why
        if record.status != "ok":
            return records, f"{record.status.replace('_', ' ')}: {(record.error or '').splitlines()[0]}"
        records.append(record)
    return records, None
