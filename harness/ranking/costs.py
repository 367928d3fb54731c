"""Planned cost of full fine-tuning, and the sizes of a backbone, from its files alone."""

from __future__ import annotations

from dataclasses import dataclass

from harness.backbones import BackboneFiles
from harness.cost import Estimator, amount, read_shape
from harness.measure import Device
from harness.methods import parse_methods
from harness.planning import PlannedCell
from harness.records import Budget, Cell
from harness.tasks import Task


@dataclass(frozen=True)
class Planned:
    """Planned cost of full fine-tuning with the method's defaults.

    Attributes:
        flops: operations of training.
        encode_flops: operations of encoding the rows of the ranking, by the same arithmetic.
        peak_bytes: memory of training, with the weights.
        unsupported: why the method cannot serve the task or the backbone; None if it can.
    """

    flops: float
    encode_flops: float
    peak_bytes: float
    unsupported: str | None = None


def plan_full(task: Task, files: BackboneFiles, device: Device, n_train: int, n_rows: int) -> Planned:
    """Return the planned cost of fine-tuning on `n_train` labels, by arithmetic.

    Args:
        task: the task.
        files: the backbone; its weights are not read.
        device: where it would run.
        n_train: labels; there may be more than the task has rows.
        n_rows: rows that the ranking encodes.
    """
    full, probe = _cell(task, files, device, "full", n_train), _cell(task, files, device, "linear-probe", n_rows)
    work = amount(full, task, files, device)
    return Planned(work.train_flops, amount(probe, task, files, device).train_flops, work.peak_bytes, full.unsupported)


def usual_flops_per_second(device: Device) -> float:
    """Return the typical speed of such a device, for where nothing was measured."""
    return Estimator({}, device).flops_per_second()


def _cell(task: Task, files: BackboneFiles, device: Device, method: str, n_train: int) -> PlannedCell:
    """Return a cell of a method, for its arithmetic alone; its size may be larger than the pool."""
    made = parse_methods([method])[0]
    cell = Cell(
        task=task.name,
        data=task.data,
        backbone=files.name,
        weights=files.fingerprint,
        method=made.name,
        version=made.cell_version(files, task.kind.form),
        config=made.config(),
        n_train=n_train,
        draw="stratified",
        budget=Budget(),
        seed=0,
    )
    return PlannedCell(cell, made, made.why_not(task, files, device.kind))


def block_parameters(files: BackboneFiles) -> float | None:
    """Return the parameters of all blocks, without embeddings; None where config.json does not state the sizes."""
    shape = read_shape(files.folder)
    return None if shape is None else float(shape.n_blocks * (shape.block_parameters + shape.vector_parameters))


def all_parameters(files: BackboneFiles) -> float | None:
    """Return all parameters by arithmetic, embeddings included; None where config.json does not state the sizes."""
    shape, blocks = read_shape(files.folder), block_parameters(files)
    return None if shape is None or blocks is None else blocks + shape.embedding_parameters
