"""Show comparisons in the terminal, in a form that fits its width."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.report.caption import cautions, scores_said
from harness.report.compare import Compared
from harness.report.observations import RecordSource
from harness.report.panels import Panel, panels
from harness.report.pivot import PivotField, pivot
from harness.report.tables import each
from harness.support import text

_MOST_COMPARED = 60

_NAME_WIDTH = 24  # longer names take a second line

_WIDTH = 100


def terminal_table(source: RecordSource, width: int = _WIDTH) -> Table:
    """Return methods by training size: score with interval, training seconds, peak memory, trainable parameters.

    Tables of several panels stand one below the other.

    Args:
        source: the records.
        width: number of columns that the table may take.

    Raises:
        UsageError: if there is no record.
    """
    tables = terminal_tables(source, width)
    if len(tables) == 1:
        return tables[0]
    grid = Table.grid(padding=(0, 0, 1, 0))
    for table in tables:
        grid.add_row(table)
    return grid


def terminal_tables(source: RecordSource, width: int = _WIDTH) -> list[Table]:
    """Return one table for each task, backbone, device and budget: sizes side by side where that fits the width."""
    measured = Console(width=1_000_000)
    tables = []
    for panel in panels(source):
        table = _wide(panel)
        tables.append(table if measured.measure(table).maximum <= width else _long(panel))
    return tables


def _table(panel: Panel, costs: str = "") -> Table:
    # Text, not str: a method's name may hold square brackets, which rich would take for its markup.
    caption = ". ".join([f"{scores_said(panel)}; the best at each size is bold{costs}", *cautions(panel)])
    return Table(
        title=Text(text.plain(panel.heading), style="bold"),
        caption=Text(text.plain(caption + ".")),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=0,
    )


def _wide(panel: Panel) -> Table:
    """Return sizes side by side, with the costs at each method's largest size."""
    labels, lines = pivot(panel)
    table = _table(panel, "" if len(labels) == 1 else "; train, memory and trainable parameters at the largest size")
    table.add_column(Text("method"), overflow="fold", max_width=_NAME_WIDTH)
    for label in labels:
        table.add_column(Text(label), justify="right", min_width=6, max_width=13, overflow="fold")
    for name in ("train", "peak\nmemory", "trainable"):
        table.add_column(Text(name), justify="right", no_wrap=True, min_width=7)
    for line in lines:
        costs = [Text(line.train), Text(line.memory), Text(line.trainable)]
        table.add_row(Text(line.shown), *(_shown(entry) for entry in line.entries), *costs)
    return table


def _shown(entry: PivotField) -> Text:
    shown = Text(entry.score, style="bold" if entry.is_best else "")
    if entry.interval:
        shown.append(f"\n{entry.interval}", style="dim not bold")
    if entry.note:
        shown.append(f"\n{entry.note}", style="yellow not bold")
    return shown


def _long(panel: Panel) -> Table:
    """Return one row per method and size, for any number of sizes."""
    _, lines = pivot(panel)
    best = {(line.variant, i) for line in lines for i, entry in enumerate(line.entries) if entry.is_best}
    sizes = panel.rows[["n_train", "draw"]].drop_duplicates().sort_values(["n_train", "draw"])
    position = {row: i for i, row in enumerate(sizes.itertuples(index=False, name=None))}
    table = _table(panel)
    table.add_column(Text("method"), overflow="fold", max_width=_NAME_WIDTH)
    for name in ("labels", "score", "interval", "train", "peak\nmemory", "trainable"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    with_notes = bool(panel.rows["note"].notna().any())
    if with_notes:
        table.add_column(Text("missing"), style="yellow", overflow="fold", max_width=18)
    previous = None
    for row in each(panel.rows):
        name = text.plain(row.variant)
        if previous not in (None, name):
            table.add_section()
        is_best = (name, position[row.n_train, row.draw]) in best
        table.add_row(
            Text(panel.shown(row.variant) if name != previous else ""),
            Text(text.size(row.n_train, row.draw, row.n_per_class)),
            Text(text.score(row.score), style="bold" if is_best else ""),
            Text(text.interval(row.score_low, row.score_high), style="dim"),
            Text(text.seconds(row.train_seconds)),
            Text(text.memory(row.memory_bytes)),
            Text(text.number(row.n_trainable)),
            *([Text(row.note if text.present(row.note) else "")] if with_notes else []),
        )
        previous = name
    return table


def _difference(row: Any) -> Text:
    if not text.present(row.difference):
        return Text(text.ABSENT)
    sign = "+" if row.difference >= 0 else ""
    return Text(f"{sign}{text.score(row.difference)}\n").append(text.interval(row.low, row.high), style="dim")


def terminal_compared(found: Compared) -> Table:
    """Return the rows of a comparison of collections, worse first; at most `_MOST_COMPARED` of them.

    Of more than two collections, only the rows with a difference are shown.
    """
    order = {"worse": 0, "better": 1, "not known": 2, "no difference shown": 3}
    styled = {"worse": "red", "better": "green"}
    releases = found.rows[["release_a", "release_b"]].drop_duplicates()
    several = len(releases) > 1
    title = "each release against the one before it" if several else "b against a"
    names = [text.plain(str(name)) for name in releases.iloc[0]] if len(releases) == 1 else []
    if names and names != ["a", "b"]:
        title = f"b ({names[1]}) against a ({names[0]})"
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("task", "method", *(["a → b"] if several else [])):
        table.add_column(name, overflow="fold", max_width=22)
    for name in ("labels", "a", "b", "b - a", "train b/a"):
        table.add_column(name, justify="right")
    table.add_column("verdict", overflow="fold", max_width=20)
    shown = found.rows[found.rows["verdict"] != "no difference shown"] if several else found.rows
    rows = sorted(each(shown), key=lambda row: (order[row.verdict], row.task, row.variant, row.n_train))
    for row in rows[:_MOST_COMPARED]:
        verdict = Text(row.verdict, style=styled.get(row.verdict, ""))
        if text.present(row.note):
            verdict.append(f"\n{row.note}", style="dim")
        table.add_row(
            Text(text.plain(row.task)),
            Text(text.plain(row.variant)),
            *([Text(text.plain(f"{row.release_a} → {row.release_b}"))] if several else []),
            text.size(row.n_train, row.draw),
            text.score(row.score_a),
            text.score(row.score_b),
            _difference(row),
            f"{row.train_ratio:.2f}" if text.present(row.train_ratio) else text.ABSENT,
            verdict,
        )
    if len(rows) > _MOST_COMPARED:
        table.caption = Text(f"{len(rows) - _MOST_COMPARED} more; --out FILE.csv has all of them.")
    return table
