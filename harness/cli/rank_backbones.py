"""`harness rank-backbones`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.api import rank_backbones
from harness.cli.as_json import print_json
from harness.cli.console import CommandDisplay, make_console
from harness.support import plain
from harness.support import text as wording

if TYPE_CHECKING:
    from harness.ranking import RankedBackbone, Ranking

_NAME = 23
"""Columns of a backbone's name in a table."""


def rank_backbones_command(
    *, data: Path | None, text: str | None, label: str | None, task: str | None, as_json: bool = False, **asked: Any
) -> int:
    """Rank, print the table and the next command; return 1 if no backbone was ranked."""
    console = Console(stderr=True) if as_json else make_console()
    found = rank_backbones(data=data, text=text, label=label, task=task, progress=CommandDisplay(console), **asked)
    if as_json:
        print_json(found.to_dict())
    else:
        _show(console, found, _next(found, data, text, label))
    return 0 if found.best is not None else 1


def _show(console: Console, found: Ranking, following: str | None) -> None:
    def say(line: str, style: str | None = None) -> None:
        console.print(plain(line), style=style, highlight=False, markup=False, soft_wrap=True)

    shown = [entry for entry in found.backbones if entry.status != "failed"]
    names = _short_names([entry.backbone for entry in shown])
    rows = wording.counted(found.n_rows, "labelled row")
    if found.ranked:
        say(
            f"Frozen features of {rows} of {found.task}, and a forecast of full fine-tuning on "
            f"{found.n_train:,} labels:"
        )
        console.print(_forecasts(found, names))
    if shown:
        say(f"Costs of encoding {rows}, and of full fine-tuning (planned), on {found.device}:")
        console.print(_costs(shown, names))
    for entry in shown:
        if names[entry.backbone] != entry.backbone:
            say(f"{names[entry.backbone]}: {entry.backbone}")
    for entry in found.backbones:
        if entry.seen is not None:
            say(
                f"Warning: {entry.backbone} has probably seen this task: {entry.seen}. Its figures are too good.",
                "yellow",
            )
        if entry.status == "costs only":
            say(f"Costs only for {entry.backbone}: {entry.why}.")
        elif entry.status == "failed":
            say(f"Left out {entry.backbone}: {entry.why}", "yellow")
    say(_conclusion(found))
    if following is not None:
        say(f"Next: {following}")


def _forecasts(found: Ranking, names: dict[str, str]) -> Table:
    table = _table()
    for name in ("probe", "LogME", "H-score", "forecast", "80 %", "best"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in found.ranked:
        signals, expected = entry.signals, entry.forecast
        if signals is None or expected is None:
            continue
        table.add_row(
            Text(
                names[entry.backbone] + ("*" if entry.seen else ""), style="bold green" if entry is found.best else ""
            ),
            f"{max(signals.probe, signals.mean_probe):.3f}",
            f"{signals.log_me:.3f}",
            f"{signals.h_score:.2f}",
            f"{expected.score:.3f}",
            f"{expected.low:.2f}–{expected.high:.2f}",
            wording.percent(expected.best),
        )
    return table


def _costs(entries: list[RankedBackbone], names: dict[str, str]) -> Table:
    table = _table()
    for name in ("size", "licence", "encode", "memory", "fine-tune", "memory"):
        table.add_column(name, justify="right", no_wrap=True, max_width=10 if name == "licence" else None)
    for entry in entries:
        table.add_row(
            Text(names[entry.backbone]),
            wording.number(entry.n_parameters),
            Text(plain(entry.licence or "unknown"), overflow="ellipsis"),
            wording.seconds(entry.encode_seconds),
            wording.memory(entry.encode_peak_bytes),
            wording.seconds(entry.full_seconds),
            wording.memory(entry.full_peak_bytes),
        )
    return table


def _table() -> Table:
    """Return a table whose first column names backbones; it fits 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("backbone", no_wrap=True, min_width=_NAME, max_width=_NAME)
    return table


def _short_names(names: list[str]) -> dict[str, str]:
    """Return the names as the table shows them: without their owner, cut to fit, and distinct."""
    short: dict[str, str] = {}
    for name in names:
        kept = plain(name).rsplit("/", 1)[-1].removeprefix("local:")
        kept = kept if len(kept) <= _NAME else kept[: _NAME - 1] + "…"
        taken = list(short.values())
        at = 2
        while kept in taken:
            kept = f"{kept[: _NAME - 4]}~{at}"
            at += 1
        short[name] = kept
    return short


def _conclusion(found: Ranking) -> str:
    best = found.best
    if best is None or best.forecast is None:
        return "No backbone could be ranked."
    expected, share = best.forecast, found.cost_share
    cost = "" if share is None else f" This ranking took {wording.percent(share)} of the time to fine-tune all."
    return (
        f"{best.backbone} comes first: full fine-tuning on {found.n_train:,} labels would reach an accuracy of about "
        f"{expected.score:.3f} (80 %: {expected.low:.3f} to {expected.high:.3f}).{cost}"
    )


def _next(found: Ranking, data: Path | None, text: str | None, label: str | None) -> str | None:
    """Return the command that uses the best backbone."""
    if found.best is None:
        return None
    backbone = shlex.quote(found.best.asked)
    if data is None:
        return (
            f"harness run everything --tasks {found.task} --sizes {found.n_train} --methods full --backbone {backbone}"
        )
    named = (("--text", text), ("--label", label))
    columns = "".join(f" {option} {shlex.quote(name)}" for option, name in named if name is not None)
    return f"harness choose --data {shlex.quote(str(data))}{columns} --backbone {backbone} --within 10m --save model"
