"""Compare releases: collections of records, or the versions of the harness that made them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from harness.api.results import Records, Results, records_of
from harness.records import Record
from harness.support import UsageError, mask_store, real_number, spelt_for_caller, uncollected

if TYPE_CHECKING:
    from harness.report import Compared, RecordSource

By = Literal["version", "commit"]
"""How to split records into releases: by the version of the harness that made them, or by its commit."""


@uncollected()
@spelt_for_caller
def compare(
    a: Records,
    b: Records | None = None,
    *later: Records,
    by: By | None = None,
    cost_tolerance: float = 0.1,
) -> Compared:
    """Return what got better or worse from each collection of records to the next, beyond noise.

    Args:
        a: records of one state, such as those before a change.
        b: records of the next state; None with `by`.
        later: records of further states, each compared with the one before.
        by: split all given records into releases instead: by `version` or `commit` of the harness.
        cost_tolerance: relative change of seconds or memory that does not count.

    Returns:
        One row per configuration and size that two releases have (`rows`, a data frame), cells that are new, missing or
        changed (`cells`), and costs over all configurations of a device (`devices`).

    Raises:
        UsageError: there is nothing to compare.
        StoreError: the records cannot be read.
    """
    from harness.report import compare_releases

    sources = {"a": a, "b": b, **{f"later[{i}]": one for i, one in enumerate(later)}}
    tolerance = real_number("cost_tolerance", cost_tolerance)
    if not 0 <= tolerance < math.inf:
        raise UsageError(f"--cost-tolerance {tolerance} was given; expected 0 or more, such as 0.1 for 10 %.")
    if by is None:
        named = _named(sources)
        return compare_releases(named, tolerance=tolerance)
    if by not in get_args(By):
        raise UsageError(f"--by {by} was given; expected {' or '.join(get_args(By))}.")
    given = {name: source for name, source in sources.items() if source is not None}
    releases = _by_release(given, by)
    if len(releases) < 2:
        only = releases[0][0] if releases else "none"
        raise UsageError(
            f"All records were made by one {by} of the harness, {only}; expected two. Name further records."
        )
    return compare_releases(releases, tolerance=tolerance)


def _named(sources: dict[str, Records | None]) -> list[tuple[str, RecordSource]]:
    """Return the records of each release by its name: that of the file where it is unique, or of the argument."""
    in_full = {
        argument: mask_store(str(source)) if isinstance(source, str | Path) else argument
        for argument, source in sources.items()
    }
    ends = Counter(Path(name).stem for name in in_full.values())
    return [
        (stem if ends[stem := Path(in_full[argument]).stem] == 1 else in_full[argument], _observed(argument, source))  # type: ignore[arg-type]
        for argument, source in sources.items()
    ]


def _observed(argument: str, source: Records) -> RecordSource:
    if isinstance(source, Results) and source.observations is not None:
        return source.observations
    return records_of(argument, source)


def _by_release(sources: dict[str, Records], by: By) -> list[tuple[str, RecordSource]]:
    """Return the records of each release, the earliest first; each is read when it is needed."""
    kept = {
        name: source if isinstance(source, str | Path) else list(records_of(name, source))
        for name, source in sources.items()
    }
    started: dict[str, str] = {}
    for name, source in kept.items():
        for record in records_of(name, source):
            release, date = _release(record, by), record.provenance.started_at
            started[release] = min(date, started.get(release, date))
    order = sorted(
        started, key=lambda release: (_numbers(release) if by == "version" else [], started[release], release)
    )

    def of_release(release: str) -> Iterable[Record]:
        for name, source in kept.items():
            yield from (record for record in records_of(name, source) if _release(record, by) == release)

    return [(release, of_release(release)) for release in order]


def _release(record: Record, by: By) -> str:
    found = record.provenance.harness if by == "version" else record.provenance.commit
    return found or "unknown"


def _numbers(version: str) -> list[int]:
    """Return the numbers of a version, so that 0.10 follows 0.9."""
    return [int(part) for part in re.findall(r"\d+", version)]
