"""Facts about a published report, which the index and its own pages show."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records import Record
from harness.report import Observations, conclude
from harness.support import StoreError, text

REPORT_FILE = "report.json"
"""Name of the file that keeps the facts of a published report."""

FORMAT = 1
"""Version of `report.json`."""


@dataclass(frozen=True)
class Listed:
    """A figure or table that has an address, as the list of a report keeps it.

    Attributes:
        address: its permanent address.
        title: what it shows.
        part: heading under which it stands.
        is_figure: whether it is a figure.
        is_current: whether the latest report still has it.
    """

    address: str
    title: str
    part: str
    is_figure: bool
    is_current: bool = True


@dataclass(frozen=True)
class Facts:
    """Facts of a report that the site needs.

    Attributes:
        title: its title.
        first, last: dates of its first and last record.
        tasks, backbones, methods, devices: names, sorted.
        versions: versions of the harness that made the records.
        n_records: number of records.
        conclusion: its outcome in a sentence; None where nothing was scored.
        listed: figures and tables, with those that are no longer part of it.
        history: one entry for each state that was published, the earliest first; see `changes.entry_of`.
    """

    title: str
    first: str
    last: str
    tasks: tuple[str, ...]
    backbones: tuple[str, ...]
    methods: tuple[str, ...]
    devices: tuple[str, ...]
    versions: tuple[str, ...]
    n_records: int
    conclusion: str | None
    listed: tuple[Listed, ...] = ()
    history: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"format": FORMAT, **dataclasses.asdict(self)}


def facts_of(title: str, observations: Observations) -> Facts:
    """Return the facts about records."""
    records = observations.records
    dates = sorted(date for record in records if (date := record.provenance.started_at[:10]))
    return Facts(
        title=title,
        first=dates[0] if dates else "",
        last=dates[-1] if dates else "",
        tasks=_names(records, lambda record: record.cell.task),
        backbones=_names(records, lambda record: record.cell.backbone),
        methods=_names(records, lambda record: record.cell.method),
        devices=_names(records, lambda record: record.device),
        versions=_names(records, lambda record: record.provenance.harness),
        n_records=len(records),
        conclusion=conclude(observations),
    )


def _names(records: tuple[Record, ...], name: Callable[[Record], str | None]) -> tuple[str, ...]:
    found = {name(record) for record in records}
    return tuple(sorted(text.plain(one) for one in found if one is not None))


def write_facts(facts: Facts, folder: Path) -> None:
    """Write the facts of a report into its folder."""
    content = json.dumps(facts.to_json(), indent=1, sort_keys=True, allow_nan=False)
    (folder / REPORT_FILE).write_text(f"{content}\n", encoding="utf-8", newline="\n")


def read_facts(folder: Path) -> Facts:
    """Return the facts that `write_facts` wrote.

    Raises:
        StoreError: the file is missing, damaged or of a later version.
    """
    path = folder / REPORT_FILE
    try:
        value = json.loads(path.read_text("utf-8"))
        if value.pop("format") != FORMAT:
            raise ValueError("it is of another version of the harness")
        lists = ("tasks", "backbones", "methods", "devices", "versions", "history")
        return Facts(
            **{
                **value,
                **{name: tuple(value[name]) for name in lists},
                "listed": tuple(Listed(**one) for one in value["listed"]),
            }
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} does not describe a published report: {error}. Restore it, or publish to a new folder."
        ) from error
