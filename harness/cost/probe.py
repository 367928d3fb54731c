"""Probe methods: measure a few steps on a few rows, and carry them over to whole cells by the closed form.

A probe is a small cell that a worker runs like any other; it is never stored. A backbone without weights gets random
ones, which does not affect the cost. A backbone that is too large for the device is cut to its first blocks.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.backbones import BLOCK_COUNTS, BackboneFiles
from harness.cost.closed_form import Amount, amount
from harness.cost.estimate import Figure
from harness.cost.shape import read_shape
from harness.measure import Device
from harness.planning import PlannedCell
from harness.records import Budget, Record
from harness.tasks import Task

_STEPS = (2, 6)
_FEWEST_STEPS = (1, 2)
_PATIENCE_SECONDS = 40.0
"""Expected time above which a probe takes the fewest steps."""

_ROWS = 64
_TEST_ROWS = 32
_TEST_TEXTS = 4
_KEPT_BLOCKS = 2


@dataclass(frozen=True)
class Probe:
    """Small cells that represent all cells of a configured method.

    Attributes:
        planned: one of the cells that the probe represents.
        cells: cells to run one after another; the difference of last and first is the cost of more steps.
        task: their task, with few test rows.
        files: their backbone.
        n_blocks: number of the backbone's blocks to use; None is all.
        device: device that they run on.
    """

    planned: PlannedCell
    cells: tuple[PlannedCell, ...]
    task: Task
    files: BackboneFiles | None
    n_blocks: int | None = None
    device: Device | None = None

    def figure(self, records: list[Record]) -> Figure:
        """Return the measured cost, from the records of the cells; all must be `ok`."""
        amounts = [amount(cell, self.task, self.files, self.device) for cell in self.cells]
        last = records[-1].cost
        train, work, flops = last.train_seconds or 0.0, amounts[-1], last.train_flops or 0.0
        if len(records) > 1:
            more = train - (records[0].cost.train_seconds or 0.0)
            if more > 0:  # leave out the time before the first step, if the difference is large enough
                train, work = more, _difference(amounts[-1], amounts[0])
                flops -= records[0].cost.train_flops or 0.0
        rate = records[-1].provenance.matrix_flops_per_second
        return Figure(
            seconds=last.total_seconds or 0.0,
            load_seconds=last.load_seconds or 0.0,
            train_seconds=train,
            predict_seconds=last.predict_seconds or 0.0,
            peak_bytes=records[-1].memory_bytes,
            amount=work,
            n_train=self.cells[-1].cell.n_train,
            basis="probe",
            utilisation=flops / train / rate if rate and train > 0 and flops > 0 else None,
        )


def make_probe(
    planned: PlannedCell,
    task: Task,
    files: BackboneFiles | None,
    *,
    memory_bytes: float,
    flops_per_second: float,
    folder: Path,
    device: Device | None = None,
) -> Probe:
    """Return the probe of a planned cell's method.

    Args:
        planned: the cell.
        task: its task.
        files: its backbone.
        memory_bytes: memory of the device; a backbone that may not fit is probed on its first blocks.
        flops_per_second: assumed speed of the device.
        folder: folder for the configuration of such a backbone.
        device: device that the probe will run on.
    """
    method = planned.method.model_copy(update={"tune": None})
    n_blocks = None
    shape = read_shape(files.folder) if files is not None and planned.cell.backbone is not None else None
    may_fit = amount(planned, task, files, device).peak_bytes <= memory_bytes / 2
    if files is not None and shape is not None and shape.n_blocks > _KEPT_BLOCKS and not may_fit:
        files, n_blocks = _shallower(files, folder), _KEPT_BLOCKS
    batch = int(getattr(method, "batch_size", 0))
    n_train = min(planned.cell.n_train, max(_ROWS, 4 * batch))
    steps = method.workload(n_train, Budget(), 1 if shape is None else shape.n_blocks).steps

    def small(budget: Budget) -> PlannedCell:
        cell = dataclasses.replace(planned.cell, n_train=n_train, budget=budget, config=method.config())
        return dataclasses.replace(planned, cell=cell, method=method)

    if not steps:
        cells: tuple[PlannedCell, ...] = (small(Budget()),)
    else:
        flops = sum(amount(small(Budget(steps=n)), task, files).train_flops for n in _STEPS)
        chosen = _STEPS if flops / flops_per_second <= _PATIENCE_SECONDS else _FEWEST_STEPS
        cells = tuple(small(Budget(steps=n)) for n in chosen)
    return Probe(planned, cells, _with_few_test_rows(task), files, n_blocks, device)


def _with_few_test_rows(task: Task) -> Task:
    n = _TEST_TEXTS if task.kind.form == "text" else _TEST_ROWS
    if task.test_index is not None:
        return dataclasses.replace(task, test_index=task.test_index[:n], test_labels=task.test_labels[:n])
    return dataclasses.replace(task, test=task.test.first(n), test_labels=task.test_labels[:n])


def _shallower(files: BackboneFiles, folder: Path) -> BackboneFiles:
    """Write the backbone's configuration, cut to its first blocks, and its tokenizer, without weights."""
    target = folder / f"{files.fingerprint[:16]}-{_KEPT_BLOCKS}"
    if not target.exists():
        files.copy_without_weights(target)
        config = json.loads((target / "config.json").read_text(encoding="utf-8"))
        (target / "config.json").write_text(json.dumps(_cut(config)), encoding="utf-8")
    return dataclasses.replace(files, folder=target, fingerprint=f"{files.fingerprint}/{_KEPT_BLOCKS}")


def _cut(config: dict[str, Any]) -> dict[str, Any]:
    cut = dict(config)
    for name, value in config.items():
        if name in BLOCK_COUNTS:
            cut[name] = min(int(value), _KEPT_BLOCKS)
        elif name == "layer_types" and isinstance(value, list):
            cut[name] = value[:_KEPT_BLOCKS]
        elif name == "text_config" and isinstance(value, dict):
            cut[name] = _cut(value)
    return cut


def _difference(more: Amount, less: Amount) -> Amount:
    flops = more.train_flops - less.train_flops
    launches = more.train_launches - less.train_launches
    return dataclasses.replace(more, train_flops=flops, train_launches=launches) if flops > 0 else more
