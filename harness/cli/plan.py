"""`harness plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.api import Plan, PlanGroup, plan
from harness.cli.as_json import print_json
from harness.cli.console import CommandDisplay, make_console
from harness.cost import BASES, BYTES_PER_TOKEN
from harness.records import short_backbones
from harness.support import describe_duration, text

_SAID = {
    "records": "records of this device",
    "probe": "a probe of a few steps",
    "formula": "arithmetic alone: only the order of magnitude is reliable",
}


_MOST_REASONS = 5

_PART = {
    "weights": "weights of its own",
    "shared_weights": "shared weights",
    "gradients": "gradients",
    "optimiser": "optimiser's state",
    "rounded_weights": "rounded weights",
    "kept": "kept activations",
    "logits": "logits",
    "keys_and_values": "keys and values",
    "temporaries": "activations of a block",
    "other": "buffers of libraries",
}
"""Names of the parts of memory in the table."""

_MEANS = {
    "weights": "weights that train, and frozen ones that no other method can use",
    "shared_weights": "frozen weights that cells of one backbone share; they are loaded once",
    "rounded_weights": "copies of weights in the type of matrix products",
    "kept": "kept from the forward pass for the backward pass",
    "keys_and_values": "those of the tokens that a language model has read",
    "temporaries": "those of the block that is computed just then",
}
"""Explanations of the parts whose names say too little."""


def plan_command(*, shows_parts: bool = False, as_json: bool = False, **asked: Any) -> int:
    """Print the cells, the predicted seconds and memory of each method, task and backbone, and the total.

    The exit code that it returns is 1 if a backbone was left out.
    """
    console = Console(stderr=True) if as_json else make_console()
    found = plan(progress=CommandDisplay(console), **asked)
    if as_json:
        print_json(found.to_dict())
        return 1 if found.left_out else 0

    def say(line: str, style: str | None = None) -> None:
        console.print(line, style=style, highlight=False, markup=False)

    say(f"{text.counted(len(found.rows), 'cell')}, {found.n_done} done already; on {found.device}.")
    for backbone, methods in _by_backbone(found.methods):
        _print_table(console, f"Predicted cost by method{backbone}", "method", methods)
    if shows_parts:
        parts = [_print_parts(console, methods, backbone) for backbone, methods in _by_backbone(found.methods)]
        for part in dict.fromkeys(one for some in parts for one in some):
            if part in _MEANS:
                console.print(f"{_PART[part]}: {_MEANS[part]}.", style="dim", highlight=False)
    if len(found.backbones) > 1:
        _print_table(console, "Predicted cost by backbone", "backbone", found.backbones)
    if len(found.tasks) > 1:
        _print_table(console, "Predicted cost by task", "task", found.tasks)
    _print_requests(console, found.methods)
    if found.n_unsupported:
        say(
            f"{text.counted(found.n_unsupported, 'cell')} cannot run here (the method does not serve the task or the "
            f"backbone). A run records {'it' if found.n_unsupported == 1 else 'them'} as unsupported."
        )
        reasons = _reasons(found)
        for reason in reasons[:_MOST_REASONS]:
            say(f"- {reason}")
        if len(reasons) > _MOST_REASONS:
            say(f"- and {text.counted(len(reasons) - _MOST_REASONS, 'other reason')} (--json lists them)")
    say(f"In total about {describe_duration(found.total_seconds)}, one cell at a time.")
    bases = Counter(row.basis for row in found.rows)
    for basis in BASES:
        if bases[basis]:
            is_predicted = "is predicted" if bases[basis] == 1 else "are predicted"
            say(f"{basis}: {text.counted(bases[basis], 'cell')} {is_predicted} from {_SAID[basis]}.")
    if found.too_large:
        listed = ", ".join(_too_large(*one) for one in found.too_large)
        say(
            f"Not expected to fit as asked into the {found.memory_bytes / 1e9:.1f} GB that a cell may take, or into "
            f"its budget: {listed}.",
            style="yellow",
        )
    for note in found.notes:
        say(f"Note: {note}")
    return 1 if found.left_out else 0


def _reasons(found: Plan) -> list[str]:
    """Return why cells cannot run, each reason once; it names the backbone where the grid has several."""
    short = short_backbones((row.backbone, row.weights) for row in found.rows if row.backbone is not None)
    is_named = len(found.backbones) > 1
    reasons: dict[str, None] = {}
    for row in found.rows:
        if row.status is None and row.unsupported is not None:
            named = f"{short[row.backbone, row.weights]}: " if is_named and row.backbone is not None else ""
            reasons[named + row.unsupported] = None
    return list(reasons)


def _too_large(method: str, instead: str | None, peak_bytes: float | None) -> str:
    if peak_bytes is None:
        return f"{method} (no form of it fits)"
    return f"{method} (runs as `{instead}`, about {peak_bytes / 1e9:.1f} GB)"


def _by_backbone(groups: Sequence[PlanGroup]) -> list[tuple[str, list[PlanGroup]]]:
    """Return the methods of each backbone, with words for a title; all methods together where there is one backbone."""
    found: dict[str | None, list[PlanGroup]] = {}
    for group in groups:
        found.setdefault(group.backbone, []).append(group)
    if len(found) < 2:
        return [("", list(groups))]
    return [(" without a backbone" if name is None else f" on {name}", some) for name, some in found.items()]


def _print_parts(console: Console, groups: Sequence[PlanGroup], backbone: str) -> list[str]:
    """Print the parts of the memory of each method's largest cell, in GB; return the parts that a method has."""
    largest = {
        group.name: max(group.running, key=lambda row: row.peak_bytes or 0.0) for group in groups if group.running
    }
    parts = {name: row.memory or {} for name, row in largest.items()}
    shown = [part for part in _PART if any(found.get(part) for found in parts.values())]
    for names in _columns(list(largest), console.width - _HEADINGS):
        table = Table(
            title=f"Memory as asked{backbone}, by arithmetic, in GB",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("part", no_wrap=True)
        for name in names:
            table.add_column(Text(text.plain(name)), justify="right", overflow="fold")
        for part in shown:
            table.add_row(_PART[part], *(f"{parts[name].get(part, 0.0) / 1e9:.2f}" for name in names))
        table.add_section()
        table.add_row("all", *(f"{sum(parts[name].values()) / 1e9:.2f}" for name in names))
        table.add_row("highest while", *(largest[name].during or "" for name in names))
        console.print(table)
    return shown


_HEADINGS = max(map(len, _PART.values()))
"""Width of the first column."""


def _columns(names: Sequence[str], width: int) -> list[list[str]]:
    """Return the names in groups whose columns, each two wider than its name, fit into a width."""
    groups: list[list[str]] = []
    room = 0
    for name in names:
        wide = max(len(name), len("predicting")) + 2
        if not groups or wide > room:
            groups.append([])
            room = width
        groups[-1].append(name)
        room -= wide
    return groups


def _print_table(console: Console, title: str, heading: str, groups: Sequence[PlanGroup]) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(heading, no_wrap=True)
    for column in ("cells", "to run", "a cell", "train", "all"):
        table.add_column(column, justify="right")
    table.add_column("peak memory", justify="right", min_width=6)
    table.add_column("from", justify="right", no_wrap=True)
    for group in groups:
        running = group.running
        row = [group.name, str(len(group.rows)), str(len(running))]
        if running:
            row += [
                _span([one.seconds or 0.0 for one in running]),
                _span([one.train_seconds or 0.0 for one in running]),
                describe_duration(group.total_seconds),
                f"{max(one.peak_bytes or 0.0 for one in running) / 1e9:.2f} GB",
                ", ".join(dict.fromkeys(one.basis or "" for one in running)),
            ]
        table.add_row(*(Text(text.plain(field)) for field in row))
    console.print(table)


def _print_requests(console: Console, groups: Sequence[PlanGroup]) -> None:
    """Print the estimated requests of each method to served models; nothing where none is asked."""
    asking = [group for group in groups if any(one.requests for one in group.running)]
    if not asking:
        return
    table = Table(title="Requests to served models", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for column in ("requests", "prompt tokens", "written tokens", "price", "time"):
        table.add_column(column, justify="right")
    names = [group.name if group.backbone is None else f"{group.name} on {group.backbone}" for group in asking]
    rows = [[row for row in group.running if row.requests] for group in asking]
    if len(asking) > 1:
        names, rows = [*names, "all"], [*rows, [row for some in rows for row in some]]
    for name, some in zip(names, rows, strict=True):
        prices = [row.request_price for row in some]
        known = [price for price in prices if price is not None]
        price = f"{text.price(sum(known))} {some[0].currency}" if len(known) == len(prices) else text.ABSENT
        table.add_row(
            Text(text.plain(name)),
            f"{sum(row.requests or 0 for row in some):,}",
            f"{sum(row.prompt_tokens or 0.0 for row in some):,.0f}",
            f"{sum(row.completion_tokens or 0.0 for row in some):,.0f}",
            text.plain(price),
            describe_duration(sum(row.seconds or 0.0 for row in some)),
        )
    console.print(table)
    console.print(
        f"Tokens are an estimate: mean UTF-8 bytes of texts, demonstrations and wordings, over {BYTES_PER_TOKEN:g}; "
        "written texts count with their maximum. Retries and stored answers are left out. Only the small requests of "
        "the contact have been sent.",
        style="dim",
        highlight=False,
        markup=False,
    )


def _span(seconds: Sequence[float]) -> str:
    low, high = f"{min(seconds):.1f}", f"{max(seconds):.1f}"
    return f"{low} s" if low == high else f"{low} to {high} s"
