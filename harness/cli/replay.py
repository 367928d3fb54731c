"""`harness replay`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.api import replay
from harness.cli.as_json import print_json
from harness.cli.console import CommandDisplay
from harness.support import text, uncollected

if TYPE_CHECKING:
    from harness.replay import Replayed


@uncollected()
def replay_command(*, as_json: bool = False, **asked: Any) -> None:
    """Replay, and print the regret of each searcher. Arguments are those of `api.replay`."""
    found = replay(progress=CommandDisplay(Console(highlight=False, stderr=True)), **asked)
    if as_json:
        print_json(found.to_dict())
    else:
        _show(Console(highlight=False), found)


def _show(console: Console, found: Replayed) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("searcher")
    for allowance in found.allowances:
        table.add_column(f"regret within {allowance} (95 %)", justify="right")
    for searcher in found.searchers:
        cells = []
        for allowance in found.allowances:
            mean, low, high = found.regret(searcher, allowance)
            cells.append(f"{mean:.2f} ({low:.2f} to {high:.2f})" if low == low else f"{mean:.2f}")
        table.add_row(Text(text.plain(searcher), style="bold" if searcher == "choose" else ""), *cells)
    console.print(table)
    for allowance in found.allowances:
        best = found.best_baseline(allowance)
        if best is None or "choose" not in found.searchers:
            continue
        own, other = (found.regret(name, allowance)[0] for name in ("choose", best))
        console.print(
            f"Within {allowance}: choose {own:.2f} points behind the best configuration, {best} {other:.2f}"
            + (f" (ratio {own / other:.2f})." if other > 0 else "."),
            markup=False,
            soft_wrap=True,
        )
    n_seeds = len({one.seed for one in found.outcomes})
    console.print(
        f"{text.counted(len(found.grids), 'grid')}, {text.counted(n_seeds, 'seed')} each. Regret is in points behind "
        "the best configuration, whose luck is taken out; intervals are over grids.",
        style="dim",
        markup=False,
        soft_wrap=True,
    )
