"""`harness run`."""

from __future__ import annotations

from typing import Any

from harness.api import RunResult, run
from harness.cli.console import CommandDisplay, make_console, print_tables
from harness.support import mask_store


def run_command(store: str, within: str | None, **asked: Any) -> int:
    """Run, print the table and the path of the report; return the exit code. Arguments are those of `api.run`."""
    console = make_console()

    def say(line: str, style: str | None = None) -> None:
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

    try:
        result = run(store=store, within=within, progress=CommandDisplay(console), **asked)
    except KeyboardInterrupt:
        say(f"Stopped. {_how_to_go_on(mask_store(store))}")
        return 130
    if result.interrupted:
        say(f"Stopped. {_how_to_go_on(result.store)}")
        return 130
    if result.observations is not None:
        print_tables(console, result.observations)
    say(f"{result.n_run} cells run, {result.n_before} were there already. Records: {result.store}")
    if result.n_left:
        say(f"{result.n_left} cells did not fit into {within}. {_how_to_go_on(result.store)}")
    if result.n_elsewhere:
        say(
            f"Another run on this store is running {result.n_elsewhere} cells. Repeat the command later to see them, "
            "and to run those that are left."
        )
    if result.report is not None:
        say(f"Report: {result.report}")
    disturbed = _disturbed(result)
    if disturbed:
        say(
            f"{len(disturbed)} cells are unsteady ({disturbed[0]}): their timings are unreliable. "
            "--remeasure runs them again."
        )
    if result.n_failed:
        say(f"{result.n_failed} cells failed; the report says why. --retry-failed runs them again.", style="red")
        return 1
    return 0


def _disturbed(result: RunResult) -> list[str]:
    """Return what disturbed the machine, for each cell whose seconds are unreliable."""
    return [record.unsteady for record in result.records if record.unsteady is not None]


def _how_to_go_on(store: str) -> str:
    return f"Run the same command again to go on; records are in {store}."
