"""The forecast of a run: its cells, and their sums by method, task and backbone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PlanRow:
    """One cell of a plan; figures are None where the cell needs no run or cannot run.

    Attributes:
        task, method, backbone, n_train, budget, seed: the cell.
        status: of its record; None where it has none.
        unsupported: why the method cannot serve the task or the backbone; None where it can.
        seconds: predicted time of the whole cell.
        train_seconds: predicted time of its training.
        peak_bytes: predicted memory, with the weights that cells share.
        basis: source of the prediction: `records`, `probe` or `formula`.
        memory: bytes by part at the peak, by arithmetic alone: weights, gradients, kept activations and so on.
        during: work at the peak: `training`, `encoding`, `predicting` or `nothing`.
        runs_as: the method in the form that a run chooses because the cell is not expected to fit; None where it runs
            as asked.
        weights: fingerprint of the backbone's files.
        requests: estimated number of requests to a served model; None where the cell asks none.
        prompt_tokens, completion_tokens: estimated tokens of these.
        request_price: estimated price of these tokens in `currency`; None where the model has no price.
        currency: currency of the price.
    """

    task: str
    method: str
    backbone: str | None
    n_train: int
    budget: str
    seed: int
    status: str | None
    unsupported: str | None
    seconds: float | None = None
    train_seconds: float | None = None
    peak_bytes: float | None = None
    basis: str | None = None
    memory: dict[str, float] | None = None
    during: str | None = None
    runs_as: str | None = None
    weights: str | None = None
    requests: int | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    request_price: float | None = None
    currency: str | None = None

    @property
    def runs(self) -> bool:
        """Whether a run executes this cell."""
        return self.basis is not None


@dataclass(frozen=True)
class PlanGroup:
    """Cells of one method, of one task, or of one backbone.

    Attributes:
        name: the method, the task or the backbone.
        rows: its cells.
        total_seconds: predicted time of the cells to run, one after another; shared work counts once.
        backbone: short name of the backbone of a method's cells, where the grid has several backbones; None otherwise.
    """

    name: str
    rows: tuple[PlanRow, ...]
    total_seconds: float
    backbone: str | None = None

    @property
    def running(self) -> list[PlanRow]:
        """Cells that would run."""
        return [row for row in self.rows if row.runs]

    def to_dict(self) -> dict[str, Any]:
        """Return the group as plain values; `peak_bytes` is the largest of its cells, None where none runs."""
        return {
            "name": self.name,
            "backbone": self.backbone,
            "n_cells": len(self.rows),
            "n_to_run": len(self.running),
            "total_seconds": self.total_seconds,
            "peak_bytes": max((row.peak_bytes or 0.0 for row in self.running), default=None),
            "bases": list(dict.fromkeys(row.basis for row in self.running)),
        }


@dataclass(frozen=True)
class Plan:
    """Forecast of a run.

    Attributes:
        device: name of the device.
        rows: the cells, in the order of the run.
        methods, tasks: the same by method, each on each backbone, and by task.
        backbones: the same by backbone; cells without a backbone are in none.
        total_seconds: predicted time of everything that is left to run, one cell at a time.
        memory_bytes: memory that a cell may take.
        too_large: methods that are expected to need more (`lora on BACKBONE` where the grid has several); each with the
            form that a run chooses instead and its bytes, None where no form is expected to fit.
        notes: methods that could not be probed, and why.
        left_out: one message for each backbone that was asked for and cannot be used.
    """

    device: str
    rows: tuple[PlanRow, ...] = field(repr=False)
    methods: tuple[PlanGroup, ...] = field(repr=False)
    tasks: tuple[PlanGroup, ...] = field(repr=False)
    total_seconds: float
    memory_bytes: float
    too_large: tuple[tuple[str, str | None, float | None], ...] = ()
    notes: tuple[str, ...] = ()
    backbones: tuple[PlanGroup, ...] = field(default=(), repr=False)
    left_out: tuple[str, ...] = ()

    @property
    def n_done(self) -> int:
        """Cells that have a record."""
        return sum(row.status is not None for row in self.rows)

    @property
    def n_unsupported(self) -> int:
        """Cells that cannot run: the method does not serve the task or the backbone."""
        return sum(row.status is None and row.unsupported is not None for row in self.rows)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per cell: the fields of `PlanRow`."""
        import pandas as pd

        columns = [field.name for field in dataclasses.fields(PlanRow)]
        return pd.DataFrame([dataclasses.astuple(row) for row in self.rows], columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as plain values: totals, groups by method, task and backbone, and every cell."""
        return {
            "device": self.device,
            "n_cells": len(self.rows),
            "n_done": self.n_done,
            "n_unsupported": self.n_unsupported,
            "total_seconds": self.total_seconds,
            "memory_bytes": self.memory_bytes,
            "methods": [group.to_dict() for group in self.methods],
            "tasks": [group.to_dict() for group in self.tasks],
            "backbones": [group.to_dict() for group in self.backbones],
            "too_large": [
                {"method": method, "fits": instead, "fits_peak_bytes": peak_bytes}
                for method, instead, peak_bytes in self.too_large
            ],
            "notes": list(self.notes),
            "left_out": list(self.left_out),
            "cells": [dataclasses.asdict(row) for row in self.rows],
        }

    def _repr_html_(self) -> str:
        import pandas as pd

        groups = [
            {
                **({"backbone": group.backbone or ""} if len(self.backbones) > 1 else {}),
                **{"method": group.name, "cells": len(group.rows), "to run": len(group.running)},
                "s": group.total_seconds,
            }
            for group in self.methods
        ]
        return str(pd.DataFrame(groups).to_html(index=False, float_format="{:.1f}".format))
