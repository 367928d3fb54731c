"""`harness advise`: which method fits a budget, from what was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.advice import Advice, Choice, Question, advise
from harness.bulk import uncollected
from harness.jsonl import read_jsonl
from harness.records import Record
from harness.report import text
from harness.resources import shipped

MOST_SHOWN = 12

SHARED = "-1-thread"
"""Folders of reference results that were run by two processes of one thread side by side: not for timing."""


@uncollected()
def advise_command(question: Question, store: str, *, reference: bool, as_json: bool) -> int:
    """Print the answer; 1 where nothing fits."""
    own = list(_own(store))
    records = [*own, *(_shipped() if reference else ())]
    answer = advise(question, records)
    if as_json:
        typer.echo(answer.to_json())
    else:
        _show(answer, len(own), store)
    return 0 if answer.best is not None else 1


def _own(store: str) -> Iterator[Record]:
    if "://" in store or Path(store).exists():
        from harness.cli.inspect import read_source  # which imports the database's library

        yield from read_source(store, with_predictions=False)


def _shipped() -> Iterator[Record]:
    """The reference results that come with the package; the seconds of those that shared a machine are no method's."""
    for name, records in _files(shipped("results/reference")):
        for record in records:
            if name.endswith(SHARED):
                shared = dataclasses.replace(record.provenance, cells_at_a_time=2)
                yield dataclasses.replace(record, provenance=shared)
            else:
                yield record


def _files(folder: Traversable) -> Iterator[tuple[str, Iterator[Record]]]:
    """Name of the folder and records of each file of records."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(entry)
        elif entry.name.endswith(".jsonl") and entry.name != "defaults.jsonl":
            yield folder.name, read_jsonl(entry, with_predictions=False)


def _show(answer: Advice, n_own: int, store: str) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 110
    question = answer.question
    fitting = [choice for choice in answer.choices if choice.fits]
    if answer.best is None:
        console.print("Nothing that was measured fits.", style="red")
    else:
        best = answer.best
        reach = f"{answer.metric} {text.score(best.score)} (80 %: {text.interval(best.low, best.high)})"
        takes = f"{text.seconds(best.train_seconds)} of training, {text.memory(best.peak_memory_bytes)} of memory"
        console.print(Text.assemble((best.method, "bold green"), f" is expected to reach {reach}, with {takes}."))
        if answer.tied:
            names = ", ".join(choice.method for choice in answer.tied[:8])
            more = f" and {len(answer.tied) - 8} more" if len(answer.tied) > 8 else ""
            console.print(f"Cannot be told from it: {names}{more}.", markup=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("method", overflow="fold", max_width=30)
    for name in (f"{answer.metric} (80 %)", "train", "memory", "trainable", "stored"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("rests on", no_wrap=True)
    for choice in fitting[:MOST_SHOWN]:
        _add(table, choice)
    console.print(table)
    if len(fitting) > MOST_SHOWN:
        console.print(f"{len(fitting) - MOST_SHOWN} more fit; --json has all of them.", markup=False)
    outside = [choice for choice in answer.choices if not choice.fits]
    if outside:
        listed = "; ".join(f"{choice.method} {', '.join(choice.why_not)}" for choice in outside[:6])
        more = f"; and {len(outside) - 6} more" if len(outside) > 6 else ""
        console.print(f"Does not fit: {listed}{more}.", markup=False, highlight=False)
    for line in answer.more:
        console.print(line, markup=False, highlight=False)
    source = (
        f"{n_own:,} of your own records ({store}) and the reference results"
        if n_own
        else ("the reference results that come with the package; your own records will count as soon as there are some")
    )
    console.print(f"\n{' '.join(answer.notes)} They are {source}.", markup=False, highlight=False, style="dim")
    if answer.device is not None:
        console.print(f"Seconds and memory are those of {answer.device}.", markup=False, highlight=False, style="dim")
    if question.min_score is not None and fitting:
        console.print("The cheapest that are expected to reach it come first.", style="dim")


def _add(table: Table, choice: Choice) -> None:
    records = f"{choice.n_records} {'record' if choice.n_records == 1 else 'records'}"
    table.add_row(
        Text(text.plain(choice.method), style="" if choice.is_tied else "dim"),
        f"{text.score(choice.score)} ({text.interval(choice.low, choice.high)})",
        text.seconds(choice.train_seconds),
        text.memory(choice.peak_memory_bytes),
        text.number(choice.trainable_parameters),
        text.memory(choice.stored_bytes),
        Text(f"{records}, {choice.n_tasks} {'task' if choice.n_tasks == 1 else 'tasks'}, {choice.basis}", style="dim"),
    )
