"""`harness audit-defaults`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.api import Audit, audit_defaults, audit_grid
from harness.cli.as_json import print_json
from harness.cli.console import CommandDisplay, make_console
from harness.support import text


def audit_command(*, write: Path | None, shows_plan: bool, within: str | None, as_json: bool, **asked: Any) -> int:
    """Audit, or plan an audit; print the verdicts and return the exit code. Arguments are those of `audit_defaults`."""
    places = {name: asked.pop(name) for name in ("device", "store", "mirror")}
    if shows_plan:
        from harness.cli.plan import plan_command

        plan_command(**audit_grid(**asked), **places, as_json=as_json)
        return 0
    console = Console(stderr=True) if as_json else make_console()
    found = audit_defaults(**asked, **places, within=within, progress=CommandDisplay(console))
    if as_json:
        print_json(found.to_dict())
    else:
        _show(console, found)
    if write is not None:
        found.write(write)
        console.print(f"Facts: {write}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _show(console: Console, found: Audit) -> None:
    table = Table(title="Default settings against tuned ones, in points", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("method", "backbone", "default", "tuned", "difference", "95 % interval", "tasks", "seeds", ""):
        right = name not in ("method", "backbone", "")
        table.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    for one in found.defaults:
        ends = text.ABSENT if one.low is None or one.high is None else f"{one.low:+.1f} to {one.high:+.1f}"
        table.add_row(
            Text(one.method),
            Text(one.backbone.rsplit("/", 1)[-1]),
            f"{one.default:.1f}",
            f"{one.tuned:.1f}",
            f"{one.points:+.1f}",
            ends,
            str(len(one.tasks)),
            str(one.n_seeds),
            Text("behind" if one.is_behind else "", style="yellow"),
        )
    console.print(table)
    if found.rates:
        console.print(_rates_table(found))
    n = len(found.behind)
    lines = [f"{text.counted(n, 'default')} {'is' if n == 1 else 'are'} more than two points behind, beyond noise."]
    lines += [f"{text.counted(found.n_left, 'cell')} left: the same command runs them."] * bool(found.n_left)
    lines += [f"Note: {note}." for note in found.notes]
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _rates_table(found: Audit) -> Table:
    """Return the best learning rates and their ratios to that of `full`."""
    table = Table(title="Best learning rates", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("method", "backbone", "best rate", "not shown worse", "times that of full", "least to most", "tried"):
        table.add_column(Text(name), justify="left" if name in ("method", "backbone") else "right", overflow="fold")
    for one in found.rates:
        ratio = text.ABSENT if one.ratio is None else f"{one.ratio:.2g}"
        ends = text.ABSENT
        if one.ratio_low is not None and one.ratio_high is not None:
            ends = f"{one.ratio_low:.2g} to {one.ratio_high:.2g}"
        table.add_row(
            Text(one.method),
            Text(one.backbone.rsplit("/", 1)[-1]),
            f"{one.rate:g}{' (at an end)' if one.is_at_end else ''}",
            f"{one.low:g} to {one.high:g}",
            ratio,
            ends,
            f"{one.rates[0]:g} to {one.rates[-1]:g}, {len(one.rates)}",
        )
    return table
