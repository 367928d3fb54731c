"""Planned cost of full fine-tuning, and the sizes of a backbone, from its files alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness.backbones import BackboneFiles
from harness.cost import Estimator, read_shape
from harness.data import Size
from harness.measure import Device
from harness.methods import parse_methods
from harness.planning import PlannedCell, plan_cells
from harness.records import Budget
from harness.tasks import Task


@dataclass(frozen=True)
class Planned:
    """Planned cost of full fine-tuning with the method's defaults.

    Attributes:
        seconds: training time.
        peak_bytes: memory that it needs, with the weights.
        flops: operations of training.
        encode_flops: operations of encoding the rows of the ranking, by the same arithmetic.
        unsupported: why the method cannot serve the task or the backbone; None if it can.
    """

    seconds: float
    peak_bytes: float
    flops: float
    encode_flops: float
    unsupported: str | None = None


def plan_full(
    task: Task, files: BackboneFiles, device: Device, n_train: int, n_rows: int, encode_seconds: float | None
) -> Planned:
    """Return the planned cost of fine-tuning on `n_train` labels.

    Args:
        task: the task.
        files: the backbone; its weights are not read.
        device: where it would run.
        n_train: labels; there may be more than the task has rows.
        n_rows: rows that the ranking encodes.
        encode_seconds: seconds in which they were encoded, from which the device's speed follows; None assumes a
            typical speed.
    """
    estimator = Estimator({task.name: task}, {task.name: files}, device)
    full, probe = (
        _cell(task, files, device, method, labels) for method, labels in (("full", n_train), ("linear-probe", n_rows))
    )
    work, encoding = estimator.amount(full), estimator.amount(probe)
    seconds = estimator.estimate(full).train_seconds
    if encode_seconds and encoding.train_flops:
        seconds = encode_seconds * work.train_flops / encoding.train_flops
    return Planned(seconds, work.peak_bytes, work.train_flops, encoding.train_flops, full.unsupported)


def _cell(task: Task, files: BackboneFiles, device: Device, method: str, n_train: int) -> PlannedCell:
    """Return a cell of a method; its size may be larger than the pool, since nothing runs it."""
    within = max(task.n_strata, min(n_train, len(task.train_labels)))
    planned = plan_cells(
        tasks=[task],
        backbones={task.name: files},
        methods=parse_methods([method]),
        sizes=[Size(within)],
        seeds=[0],
        budgets=[Budget()],
        device=device.kind,
    )[0]
    return dataclasses.replace(planned, cell=dataclasses.replace(planned.cell, n_train=n_train))


def block_parameters(files: BackboneFiles) -> float | None:
    """Return the parameters of all blocks, without embeddings; None where config.json does not state the sizes."""
    shape = read_shape(files.folder)
    return None if shape is None else float(shape.n_blocks * (shape.block_parameters + shape.vector_parameters))


def all_parameters(files: BackboneFiles) -> float | None:
    """Return all parameters by arithmetic, embeddings included; None where config.json does not state the sizes."""
    shape, blocks = read_shape(files.folder), block_parameters(files)
    return None if shape is None or blocks is None else blocks + shape.embedding_parameters
