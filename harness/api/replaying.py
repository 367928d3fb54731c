"""Compare searchers on recorded grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.support import parse_duration, several, spelt_for_caller, whole_number, wrong_argument

if TYPE_CHECKING:
    from harness.api.display import Display
    from harness.replay import Allowance, Replayed


@spelt_for_caller
def replay(
    *,
    grids: str | Sequence[str] | None = None,
    within: str | Sequence[str] = "5%,10%",
    seeds: int = 20,
    searchers: str | Sequence[str] | None = None,
    records: str | Path | None = None,
    progress: bool | Display = True,
) -> Replayed:
    """Compare ways to search for the best configuration on recorded grids, in simulated time.

    A grid is everything that one machine fitted to one task at one size. Its test rows are split by a seed: searches
    validate on some, and their models are scored on the others. Fits take their recorded seconds on a simulated clock.

    Args:
        grids: grids as `TASK:LABELS`, such as `sst2:256`, or `all`; None takes eight of the reference results, or
            all of `records`.
        within: times of a search: durations such as `30s`, or shares of the time of all fits together, such as `5%`.
        seeds: number of splits of each grid.
        searchers: `choose` and baselines; None takes all.
        records: a store, a file of records or a folder of such files; None takes the reference results.
        progress: whether to show the grids as they are replayed; or a display of your own.

    Returns:
        The regret of each searcher, over grids and seeds.

    Raises:
        UsageError: unknown names or times, or records without a grid that can be replayed.
    """
    from harness.api.display import make_display
    from harness.replay import DEFAULT_GRIDS, replay_searches
    from harness.store import read_source, reference_grids, reference_records

    allowances = [_allowance(one) for one in _names("within", within, "times such as '5%' or '30s'")]
    n_seeds = whole_number("seeds", seeds, "a number of splits")
    if n_seeds < 1:
        raise wrong_argument("seeds", seeds, "at least one split")
    asked = None if grids is None else _names("grids", grids, "grids such as 'sst2:256'")
    if asked is None and records is None:
        asked = list(DEFAULT_GRIDS)
    elif asked == ["all"]:
        asked = None
    names = None if searchers is None else _names("searchers", searchers, "names such as 'choose' or 'asha'")
    display = make_display(progress)
    return replay_searches(
        reference_grids() if records is None else read_source(str(records)),
        list(reference_records()),
        allowances=allowances,
        n_seeds=n_seeds,
        grids=asked,
        searchers=names,
        say=display.say,
    )


def _names(name: str, values: str | Sequence[str], expected: str) -> list[str]:
    found = several(name, values, (str,), expected, split=lambda one: [part.strip() for part in one.split(",")])
    if not found or not all(found):
        raise wrong_argument(name, values, expected)
    return found


def _allowance(text: str) -> Allowance:
    from harness.replay import Allowance

    if not text.endswith("%"):
        return Allowance(seconds=parse_duration(text, "--within"))
    try:
        share = float(text[:-1]) / 100
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise wrong_argument("within", text, "a duration such as '30s', or a share of the grid's time such as '5%'")
    return Allowance(share=share)
