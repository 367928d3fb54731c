"""`harness run`."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

from rich.console import Console

from harness.api import RunResult, run
from harness.cli.as_json import print_json
from harness.cli.console import CommandDisplay, make_console, open_page, print_tables
from harness.support import mask_store, text

_STOPPED = 130
"""Exit code after Ctrl-C."""


def run_command(store: str, within: str | None, *, show: bool = False, as_json: bool = False, **asked: Any) -> int:
    """Run, print the table, the answer and the path of the report; return the exit code.

    Args:
        store: path or URL of the records.
        within: time for everything, as typed.
        show: whether to open the page in the browser.
        as_json: whether to print a summary as JSON on standard output; progress and notes go to standard error.
        asked: other arguments of `api.run`.
    """
    console = Console(stderr=True) if as_json else make_console()

    def say(line: str, style: str | None = None) -> None:
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

    try:
        result = run(store=store, within=within, progress=CommandDisplay(console), **asked)
    except KeyboardInterrupt:
        say(f"Stopped. The same command resumes where this one stopped. Records: {mask_store(store)}")
        return _STOPPED
    next_command = _next_command(result, asked)
    if as_json:
        print_json(_summary(result, next_command))
    if result.interrupted:
        done = result.n_run + result.n_before
        say(
            f"Stopped after {done:,} of {text.counted(result.n_cells, 'cell')}. The same command resumes with the "
            f"rest. Records: {result.store}"
        )
        return _STOPPED
    if not as_json:
        _show(result, within, next_command, console)
    if show and result.report is not None:
        open_page(result.report, console)
    if result.n_failed:
        why = f"{text.counted(result.n_failed, 'cell')} failed; the report says why. --retry-failed runs "
        say(f"{why}{'it' if result.n_failed == 1 else 'them'} again.", style="red")
    if result.left_out:
        were = "was" if len(result.left_out) == 1 else "were"
        say(
            f"{text.counted(len(result.left_out), 'backbone')} {were} left out; the messages above say why.",
            style="red",
        )
    return 1 if result.n_failed or result.left_out else 0


def _show(result: RunResult, within: str | None, next_command: str | None, console: Console) -> None:
    def say(line: str, style: str | None = None) -> None:
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

    if result.busy is not None:
        say(result.busy, style="yellow")
    if result.observations is not None:
        print_tables(console, result.observations)
    before = f", {result.n_before:,} {'was' if result.n_before == 1 else 'were'} there already" * bool(result.n_before)
    say(f"{text.counted(result.n_run, 'cell')} run{before}. Records: {result.store}")
    if result.n_left:
        none_of = f", among them all on {', '.join(result.unreached)}" if result.unreached else ""
        say(
            f"{text.counted(result.n_left, 'cell')} did not fit into {within}{none_of}. The same command resumes with "
            "the rest."
        )
    if result.n_elsewhere:
        elsewhere = text.counted(result.n_elsewhere, "cell")
        say(f"Another run on this store is running {elsewhere}. Repeat the command later to see the results.")
    if result.report is not None:
        say(f"Report: {result.report}")
    if result.answer is not None:
        say(result.answer, style="bold")
        if next_command is not None:
            say(f"Next: {next_command}")


def _next_command(result: RunResult, asked: dict[str, Any]) -> str | None:
    """Return the command that uses the answer: a choice for the user's own texts; None where no command can."""
    kinds = {record.kind for record in result.records}
    if len(kinds) != 1 or not kinds <= _CHOSEN:
        return None
    if asked.get("data") is None:
        if kinds != {"classification"}:
            return None
        return "harness choose --data YOUR.csv --text COLUMN --label COLUMN --within 10m --save model"
    options: list[tuple[str, str | None]] = [("data", None), ("text", None), ("label", None)]
    options += [
        ("kind", None),
        ("label_separator", None),
        ("test", None),
        ("metric", None),
        ("max_length", None),
        ("backbone", None),
        ("backbones", None),
        ("device", "auto"),
    ]
    words = ["harness", "choose"]
    for name, default in options:
        value = asked.get(name)
        if value != default:
            words += [f"--{name.replace('_', '-')}", str(value)]
    if asked.get("strict"):
        words.append("--strict")
    return shlex.join([*words, "--within", "10m", "--save", "model"])


_CHOSEN = frozenset({"classification", "text-pair", "regression", "similarity", "multi-label", "token-classification"})
"""Kinds of task that `harness choose` serves."""

_COLUMNS = (
    *("task", "backbone", "device", "budget", "method", "variant", "n_train", "draw", "n_per_class", "metric"),
    *("score", "score_low", "score_high", "basis", "n_seeds", "n_test", "n_failed", "n_missing", "n_unsteady"),
    *("train_seconds", "predict_seconds", "peak_bytes", "n_trainable", "energy_joules", "price"),
)
"""Columns of the comparison that a summary holds."""


def _summary(result: RunResult, next_command: str | None) -> dict[str, Any]:
    return {
        "store": result.store,
        "report": result.report,
        "interrupted": result.interrupted,
        "cells": {
            **{"total": result.n_cells, "run": result.n_run, "before": result.n_before, "failed": result.n_failed},
            **{"left": result.n_left, "elsewhere": result.n_elsewhere, "disturbed": len(result.disturbed)},
        },
        "left_out": result.left_out,
        "unreached": result.unreached,
        "answer": result.answer,
        "tracked": [asdict(one) for one in result.tracked],
        "busy": result.busy,
        "next": next_command,
        "rows": _rows(result),
    }


def _rows(result: RunResult) -> list[dict[str, Any]]:
    """Return one row per task, configuration and size: score, interval, costs; null for what is not known."""
    if result.observations is None:
        return []
    from harness.report import comparison

    frame = comparison(result.observations)
    return [
        {name: value if text.present(value) else None for name, value in zip(_COLUMNS, row, strict=True)}
        for row in frame[list(_COLUMNS)].itertuples(index=False, name=None)
    ]
