"""What imported records have in common."""

from __future__ import annotations

from typing import Any

import harness
from harness.records import Cell, Cost, CurvePoint, Facts, Provenance, Record, Score, Status, fit_length_of, role_of

MARK = " (imported)"
"""After the device's name: figures of another protocol are not pooled with one's own."""


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
    """A record of what somebody else measured.

    Args:
        cell: of a method and task as they were named there; `data` is a name, not a fingerprint made here.
        device: where it ran.
        kind: of the task.
        family: of the method.
        status: what became of it.
        source: the file, for the record's provenance.
        protocol: in words, what the figures mean that mean something else here.
        score: what was reached; None where it is not `ok`.
        train_score: the same on training rows.
        cost: what it cost.
        curve: where it stood as it went on.
        error: why it is not `ok`.
        started_at: when, as the file says it.
        packages: versions.
        commit: of the code that ran.
        precision: of the backbone's arithmetic.
        platform: operating system.
        dataset: what is known of the data.
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
        facts=Facts(
            role=role_of(cell.to_json(), family),
            fit_length=fit_length_of(cell.config),
            defaults={"tune": None},
            imported_from=source,
            protocol=protocol,
        ),
    )
