"""`harness compare`: print what changed from one release to the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.as_json import print_json
from harness.cli.console import make_console, say
from harness.support import UsageError, check_output, csv_starts_with, mask_store, text

if TYPE_CHECKING:
    import pandas as pd

    from harness.report import Compared

_VERDICTS = ("worse", "better", "no difference shown", "not known")
_COST_VERDICTS = ("more", "less", "no change shown", "not known")

COMPARED = ("task", "backbone", "method", "variant", "draw", "budget", "n_train", "metric", "score_a", "score_b")
"""First columns of the file that `harness compare --out` writes; they identify an earlier output."""


def compare_command(
    releases: list[str],
    out: Path | None,
    *,
    by: Any = None,
    tolerance: float = 0.1,
    fails: bool | None = None,
    overwrite: bool = False,
    as_json: bool = False,
) -> int:
    """Print what is better or worse in each release than in the one before, and return the exit code.

    Args:
        releases: stores, files or folders.
        out: file for all rows.
        by: how to split the records into releases; None takes `releases` as they are.
        tolerance: relative change of a cost that does not count.
        fails: whether anything that got worse gives the exit code 1; None: worse scores alone.
        overwrite: whether to replace another file at `out`.
        as_json: whether to print JSON.
    """
    from harness.analysis import write_csv
    from harness.api import compare

    if by is None and len(releases) < 2:
        raise UsageError("One collection of records was given; expected two or more, or --by version.")
    if out is not None:
        check_output(out, inputs=releases, ours=csv_starts_with(*COMPARED), overwrite=overwrite)
    first, second, *later = (*releases, None) if len(releases) == 1 else releases
    found = compare(str(first), second, *map(str, later), by=by, cost_tolerance=tolerance)
    if out is not None:
        write_csv(found.rows, out)
    regressions = found.regressions()
    failed = any(regressions.values()) if fails else fails is None and regressions["scores"] > 0
    if as_json:
        print_json({**_as_dict(found), "regressions": regressions, "out": out})
    else:
        _print(found, releases if by is None else [], out)
    return 1 if failed else 0


def _as_dict(found: Compared) -> dict[str, Any]:
    costs = {
        name: {verdict: int((found.rows[f"{name}_verdict"] == verdict).sum()) for verdict in _COST_VERDICTS}
        for name in ("train", "predict", "memory")
    }
    return {
        "verdicts": _counts(found),
        "cost_verdicts": costs,
        "only_a": found.only_a,
        "only_b": found.only_b,
        "rows": _values(found.rows),
        "cells": _values(found.cells),
        "devices": _values(found.devices),
    }


def _values(frame: pd.DataFrame) -> Any:
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _counts(found: Compared) -> dict[str, int]:
    return {name: int((found.rows["verdict"] == name).sum()) for name in _VERDICTS}


def _print(found: Compared, releases: list[str], out: Path | None) -> None:
    from harness.report import cells_said, costs_said, terminal_compared, terminal_costs

    console = make_console()
    console.print(terminal_compared(found))
    if (costs := terminal_costs(found)) is not None:
        console.print(costs)
    for line in costs_said(found):
        say(line, console)
    for line in cells_said(found):
        say(line, console)
    said = ", ".join(f"{n} {name}" for name, n in _counts(found).items())
    say(f"{text.counted(len(found.rows), 'configuration')} in common: {said}.")
    if found.only_a or found.only_b:
        names = [mask_store(one) for one in releases] if len(releases) == 2 else ["the earlier", "the later"]
        say(f"Not compared: {found.only_a} that only {names[0]} has, {found.only_b} that only {names[1]} has.")
    if out is not None:
        say(f"Written to {out}.")
