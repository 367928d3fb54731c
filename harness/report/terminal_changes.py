"""Print what a comparison of collections says beside the scores: seconds, memory, and cells that changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from harness.report.compare import Compared
from harness.report.cost_changes import MEASURES
from harness.report.tables import each
from harness.support import text

_MOST_ROWS = 20
_SAID = {"train": "seconds of training", "predict": "seconds of predicting", "memory": "memory"}


def terminal_costs(found: Compared) -> Table | None:
    """Return the costs that changed beyond the tolerance, higher ones first; None where none did."""
    rows = [
        (row, name)
        for verdict in ("more", "less")
        for name in MEASURES
        for row in each(found.rows[found.rows[f"{name}_verdict"] == verdict])
    ]
    if not rows:
        return None
    table = Table(title=Text("costs that changed", style="bold"), title_justify="left", box=box.SIMPLE_HEAD)
    several = found.devices[["release_a", "release_b"]].drop_duplicates().shape[0] > 1
    for heading in ("task", "method", *(["a → b"] if several else [])):
        table.add_column(heading, overflow="fold", max_width=22)
    table.add_column("labels", justify="right")
    table.add_column("what")
    table.add_column("b / a", justify="right")
    for row, name in rows[:_MOST_ROWS]:
        ratio = _ratio(getattr(row, f"{name}_ratio"), getattr(row, f"{name}_low"), getattr(row, f"{name}_high"))
        is_more = getattr(row, f"{name}_verdict") == "more"
        labels = text.size(row.n_train, row.draw)
        step = [f"{row.release_a} → {row.release_b}"] if several else []
        names = [Text(text.plain(name)) for name in (row.task, row.variant, *step)]
        table.add_row(*names, labels, _SAID[name], Text(ratio, style="red" if is_more else "green"))
    if len(rows) > _MOST_ROWS:
        table.caption = Text(f"{len(rows) - _MOST_ROWS} more; --out FILE.csv has all of them.")
    return table


def costs_said(found: Compared) -> Iterator[str]:
    """Return a line for each device and cost: the ratio over all configurations."""
    several = found.devices[["release_a", "release_b"]].drop_duplicates().shape[0] > 1
    for row in each(found.devices):
        step = f" ({text.plain(row.release_a)} → {text.plain(row.release_b)})" if several else ""
        over = text.counted(int(row.n_configurations), "configuration")
        ratio = _ratio(row.ratio, row.low, row.high)
        yield f"{text.plain(row.device)}{step}: {_SAID[row.measure]} {ratio} times as before, over {over}."


def cells_said(found: Compared) -> Iterator[str]:
    """Return a line for each kind of change of cells, with the most frequent reasons."""
    for change, own in found.cells.groupby("change", sort=True):
        n = int(own["n_cells"].sum())
        how = _HOW[str(change)]
        if n == 1:
            how = how.replace("are ", "is ", 1).replace("have ", "has ", 1)
        yield f"{text.counted(n, 'cell')} {how}{_reasons(own)}."


_HOW = {
    "new": "are new",
    "missing": "are missing",
    "changed identity": "have another identity",
    "another device": "ran on another device",
    "failed": "have no score any more",
    "succeeded": "have a score now",
}
_MOST_REASONS = 5


def _reasons(own: pd.DataFrame) -> str:
    """Return the methods of the cells with their reasons, where there are any: the most frequent ones."""
    counted: Counter[tuple[str, str]] = Counter()
    for row in each(own):
        counted[row.method, row.why] += row.n_cells
    said = [
        f"{text.plain(method)}{f': {why}' if why else ''} ({n})"
        for (method, why), n in counted.most_common(_MOST_REASONS)
    ]
    more = [f"{len(counted) - _MOST_REASONS} more"] if len(counted) > _MOST_REASONS else []
    return f": {'; '.join([*said, *more])}"


def _ratio(ratio: float, low: object, high: object) -> str:
    ends = f" [{low:.2f}–{high:.2f}]" if text.present(low) and text.present(high) else ""
    return f"{ratio:.2f}{ends}"
