"""Seconds of many cells together: what one has encoded, the others need not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from harness.backbones import BackboneFiles
from harness.cost.estimate import FIXED_SECONDS, Estimator
from harness.cost.shape import read_shape
from harness.planning import PlannedCell


def total_seconds(cells: Iterable[PlannedCell], estimator: Estimator, backbones: Mapping[str, BackboneFiles]) -> float:
    """Seconds that the cells take, run one after another.

    Cells on frozen features of one task share them: where an estimate is of a single cell's, the dearest stands for the
    encoding of all. Records tell what cells took with features as warm as they were, and are taken as they are.
    """
    total = 0.0
    shared: defaultdict[tuple[str, str | None], list[float]] = defaultdict(list)
    for planned in cells:
        cell = planned.cell
        found = estimator.estimate(planned)
        shape = read_shape(backbones[cell.task].folder) if cell.backbone is not None else None
        reads = (
            shape is not None
            and planned.method.workload(max(1, cell.n_train), cell.budget, shape.n_blocks).reads_features
        )
        if reads and found.basis != "records":
            shared[cell.task, cell.weights].append(max(0.0, found.seconds - FIXED_SECONDS))
            total += FIXED_SECONDS
        else:
            total += found.seconds
    return total + sum(max(seconds) for seconds in shared.values())
