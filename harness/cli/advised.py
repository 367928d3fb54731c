"""Print an answer of `harness advise`: tiers on one screen, or all methods."""

from __future__ import annotations

from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.advice import Advice, AdvisedMethod, answer_in_words
from harness.analysis import said_break_even
from harness.cost import probes
from harness.support import mask_store, text

_N_SHOWN: Final = 12
"""Largest number of backbones whose basis is printed."""

_WIDTH: Final = 100
"""Width of the answer where the output is no terminal."""

_SAID: Final[dict[str, Any]] = {"markup": False, "highlight": False, "emoji": False}


def show(answer: Advice, n_own: int, store: str, *, reference: bool, every: bool = False) -> None:
    """Print the tiers and what stands beside them; with `every`, all methods that fit too."""
    console = make_console()
    words = answer_in_words(answer, every=every)

    def say(lines: list[str], style: str | None = None) -> None:
        for line in lines:
            console.print(text.plain(line), style=style, **_SAID)

    if answer.tiers:
        say([f"{words.heading}:"])
        console.print(_tier_table(words.rows))
        console.print()
    else:
        say([f"{words.heading}."], "red")
    say(words.lines)
    if every:
        console.print(_all(answer))
    say(words.flags, "dim")
    if answer.spending:
        console.print(_spending_table(answer, every=every))
    say(words.after)
    console.print()
    source = _source(n_own, store, reference=reference)
    if reference and not n_own and answer.question.device is None and not _is_probed(answer.device):
        source += " `harness probe` makes the seconds those of this machine."
    say([" ".join([*words.notes, source])], "dim")
    if answer.bases and (every or answer.question.backbones is not None):
        say(["What the answer for each backbone rests on:"], "dim")
        say([f"- {basis.sentence('MTEB')}" for basis in answer.bases[:_N_SHOWN]], "dim")
        if len(answer.bases) > _N_SHOWN:
            say([f"- and {len(answer.bases) - _N_SHOWN} more; --json lists all of them."], "dim")


def make_console(width: int = _WIDTH) -> Console:
    """Return a console for answers, of a width that counts where the output is no terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = width
    return console


def _tier_table(shown: list[list[str]]) -> Table:
    names, *rows = shown
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    for name in names:
        if name == "method":
            table.add_column(name, overflow="fold", min_width=14, max_width=32)
        else:
            table.add_column(Text(text.plain(name)), justify="right" if name else "left", no_wrap=True)
    for row in rows:
        style = "bold green" if row[0] == "best" else ""
        table.add_row(*(Text(text.plain(cell), style=style if i < 2 else "") for i, cell in enumerate(row)))
    return table


def _all(answer: Advice) -> Table:
    """Return all methods that fit."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold", min_width=14, max_width=26)
    for name in (f"{answer.metric} (80 %)", "train", "memory", "trained", "stored"):
        table.add_column(Text(text.plain(name)), justify="right", no_wrap=True)
    table.add_column("rests on", overflow="fold")
    for choice in answer.choices:
        if choice.fits:
            _add(table, choice)
    return table


def _add(table: Table, choice: AdvisedMethod) -> None:
    rests_on = f"{text.counted(choice.n_records, 'record')}, {text.counted(choice.n_tasks, 'task')}, {choice.basis}"
    mark = "" if choice.default_better is None else " §"
    table.add_row(
        Text(text.plain(choice.method) + mark, style="" if choice.is_tied else "dim"),
        f"{text.score(choice.score)} ({text.interval(choice.low, choice.high)})",
        text.seconds(choice.train_seconds),
        text.memory(choice.peak_memory_bytes),
        text.number(choice.trainable_parameters),
        text.memory(choice.stored_bytes),
        Text(rests_on, style="dim"),
    )


def _spending_table(answer: Advice, *, every: bool) -> Table:
    """Return what tiers and all prompted methods cost in use; with `every`, all that fit."""
    title = "Cost in use: seconds of 1,000 predictions; prices of training, of labels and of 1,000 predictions"
    has_prices = any(one.price_per_1000 is not None for one in answer.spending)
    title = title if has_prices else title.partition(";")[0]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold", min_width=14, max_width=26)
    has_total = any(one.total is not None for one in answer.spending)
    names = ["1,000", *["training", "labels", "1,000"] * has_prices]
    for name in (*names, *["total"] * has_total, "training pays", "beside"):
        table.add_column(name, justify="left" if name == "beside" else "right", no_wrap=name != "beside")
    tiers = {tier.method for tier in answer.tiers}
    fitting = [i for i, one in enumerate(answer.choices) if one.fits and (every or one.method in tiers)]
    prompted = [i for i, one in enumerate(answer.spending) if one.is_prompted and i not in fitting]
    for one in (answer.spending[i] for i in (*fitting, *prompted)):
        prices = [text.price(value) for value in (one.train_price, one.label_price, one.price_per_1000)]
        total = text.price(one.total) if one.total_unit == "money" else text.seconds(one.total)
        table.add_row(
            Text(text.plain(one.method)),
            text.seconds(one.seconds_per_1000),
            *(prices if has_prices else []),
            *([total] if has_total else []),
            said_break_even(one.break_even, one.break_even_predictions),
            Text("prompted" if one.is_prompted else text.plain(one.against or text.ABSENT), style="dim"),
        )
    return table


def _is_probed(device: str | None) -> bool:
    """Return whether the user has probed a device; True where no device has costs."""
    return device is None or any(probe.device == device for probe in probes())


def _source(n_own: int, store: str, *, reference: bool) -> str:
    """Return a sentence on the origin of the records."""
    there = f"{n_own:,} in {mask_store(store)}"
    if not reference:
        return f"Only your own records count ({there})."
    if n_own:
        return f"Your own records ({there}) and the reference results count."
    return "Only the reference results of the package count; your own records will as soon as there are some."
