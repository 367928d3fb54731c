"""Compare the costs of methods with those that others published: memory, and seconds of a training step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis import MIN_COMPARED, Agreement, rank_agreement
from harness.records import Record
from harness.report.observations import RecordSource, observe

COSTS: Mapping[str, str] = {"memory_bytes": "peak memory", "step_seconds": "seconds of a step"}
"""Compared costs, and their names for readers."""

_DTYPES: dict[str, Any] = {
    **dict.fromkeys(("their_task", "their_backbone", "their_device", "task", "backbone", "device", "budget"), "string"),
    "n_train": "Int64",
    **dict.fromkeys(("cost", "method"), "string"),
    **dict.fromkeys(("ours", "theirs", "our_rank", "their_rank"), "Float64"),
    "n_methods": "Int64",
    **dict.fromkeys(("correlation", "low", "high", "p_value"), "Float64"),
}

_Place = tuple[Any, ...]
_Costs = dict[_Place, dict[str, dict[str, float]]]
"""Cost of each method, by place and name of the cost."""


def against_published(source: RecordSource) -> pd.DataFrame:
    """Return the costs of methods beside those that others published, with Spearman's rank correlation.

    Each setting of imported results (task, backbone, device) is compared with each place of one's own (task, backbone,
    device, budget, size), for each cost that both have of at least `MIN_COMPARED` methods. Of several configurations of
    a method, the default one counts; else, and of several imported ones, the median. Ranks are compared, not figures:
    backbones and devices differ.

    Columns: their_task, their_backbone, their_device, task, backbone, device, budget, n_train, cost (memory_bytes or
    step_seconds), method, ours, theirs, our_rank and their_rank (1 is the least), n_methods, correlation (Spearman's,
    over the methods of the place), low and high (its 95 % interval) and p_value. Rows of a place begin with the largest
    disagreement.

    Raises:
        UsageError: there is no record.
    """
    records = observe(source).records
    theirs = _costs(
        (record for record in records if record.facts.imported_from is not None), _their_place, imported=True
    )
    ours = _costs((record for record in records if record.facts.imported_from is None), _our_place, imported=False)
    rows = [
        row
        for their_place, their_costs in sorted(theirs.items(), key=str)
        for place, costs in sorted(ours.items(), key=str)
        for cost in COSTS
        if len(their_costs[cost].keys() & costs[cost].keys()) >= MIN_COMPARED
        for row in _rows(their_place, place, cost, rank_agreement(costs[cost], their_costs[cost]))
    ]
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=dtype) for name, dtype in _DTYPES.items()})


def _rows(their_place: _Place, place: _Place, cost: str, found: Agreement) -> Iterable[dict[str, Any]]:
    names = ("their_task", "their_backbone", "their_device", "task", "backbone", "device", "budget", "n_train")
    shared = {
        **dict(zip(names, (*their_place, *place), strict=True)),
        **{"cost": cost, "n_methods": len(found.names)},
        **{"correlation": found.correlation, "low": found.low, "high": found.high, "p_value": found.p_value},
    }
    figures = zip(found.names, found.ours, found.theirs, found.our_ranks, found.their_ranks, strict=True)
    columns = ("method", "ours", "theirs", "our_rank", "their_rank")
    return [{**shared, **dict(zip(columns, values, strict=True))} for values in figures]


def _their_place(record: Record) -> _Place:
    return record.cell.task, record.cell.backbone, record.device


def _our_place(record: Record) -> _Place:
    cell = record.cell
    return cell.task, cell.backbone, record.device, cell.budget.label(), cell.n_train


def _costs(records: Iterable[Record], place_of: Any, *, imported: bool) -> _Costs:
    """Return the median cost of each method at each place."""
    found: defaultdict[_Place, defaultdict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        method = record.facts.method_here if imported else record.cell.method
        if record.status == "ok" and method is not None and record.cell.backbone is not None:
            found[place_of(record)][method].append(record)
    return {
        place: {
            cost: {
                method: float(np.median(values))
                for method, own in by_method.items()
                if (values := [value for record in _of_defaults(own) if (value := _cost(record, cost)) is not None])
            }
            for cost in COSTS
        }
        for place, by_method in found.items()
    }


def _of_defaults(records: list[Record]) -> list[Record]:
    return [record for record in records if record.facts.at_defaults] or records


def _cost(record: Record, cost: str) -> float | None:
    """Return a cost of a record; None where it is unknown, or where others shared the device."""
    if cost == "memory_bytes":
        return None if record.memory_bytes is None else float(record.memory_bytes)
    n_steps = record.curve[-1].step if record.curve else 0
    if not n_steps or record.cost.fit_seconds is None or record.provenance.cells_at_a_time > 1:
        return None
    return record.cost.fit_seconds / n_steps
