"""Make records of imported results."""

from __future__ import annotations

from typing import Any

import harness
from harness.records import Cell, Cost, CurvePoint, Provenance, Record, Score, Status

MARK = " (imported)"
"""Mark after the device's name, which keeps figures of another protocol apart from one's own."""


def imported(
    *,
    cell: Cell,
    device: str,
    kind: str,
    family: str,
    status: Status,
    source: str,
    protocol: str,
    score: Score | None = None,
    train_score: float | None = None,
    cost: Cost | None = None,
    curve: tuple[CurvePoint, ...] = (),
    error: str | None = None,
    started_at: str = "",
    packages: dict[str, str] | None = None,
    commit: str | None = None,
    precision: str = "unknown",
    platform: str = "unknown",
    dataset: dict[str, Any] | None = None,
) -> Record:
    """Return the record of an imported result.

    Args:
        cell: method and task under their original names; `data` is a name, not a fingerprint.
        device: device of the run.
        kind: kind of the task.
        family: family of the method.
        status: status of the run.
        source: the file, for the record's provenance.
        protocol: explanation of figures that have a different meaning here.
        score: score on the test rows; None unless the status is `ok`.
        train_score: score on the training rows.
        cost: cost of the run.
        curve: progress of the run.
        error: reason for a status other than `ok`.
        started_at: start of the run as stated in the file.
        packages: versions of packages.
        commit: commit of the code that ran.
        precision: precision of the backbone's arithmetic.
        platform: operating system.
        dataset: known facts about the data.
    """
    provenance = Provenance(
        harness=f"imported by {harness.__version__}",
        commit=commit,
        dirty=None,
        packages=packages or {},
        threads=0,
        precision=precision,
        python="unknown",
        platform=platform,
        started_at=started_at,
        dataset=dataset or {},
        measured={"imported_from": source, "protocol": protocol},
    )
    return Record(
        suite="imported",
        device=device if device.endswith(MARK) else device + MARK,
        kind=kind,
        family=family,
        cell=cell,
        status=status,
        provenance=provenance,
        score=score,
        train_score=train_score,
        cost=cost or Cost(),
        curve=curve,
        error=error,
    )
