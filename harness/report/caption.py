"""Write the captions that all renderings of a table share: seeds, intervals, missing cells, cut texts.

Each sentence is plain text without a full stop at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.analysis import MIN_TESTED_SEEDS
from harness.report.panels import BEHIND, Panel
from harness.report.tables import each
from harness.support import text

COVERAGE: dict[int, str] = {
    2: "With two seeds, intervals labelled 95 % cover 88 to 97 %: less where seeds differ more",
    3: "With three seeds, intervals labelled 95 % cover 93 to 97 %: less where seeds differ more",
}
"""Coverage of intervals by the number of seeds (docs/explanation/statistics.md, tests/test_coverage.py)."""

COSTS = (
    "Training seconds (train: encoding, tuning and fitting), peak memory and trainable parameters are those at each "
    "method's largest size"
)
"""Meaning of the cost columns beside several sizes."""

TOO_FEW_SEEDS = "With two seeds no difference is tested: a test needs at least three seeds"
"""Caution about rows with two seeds (docs/explanation/statistics.md, tests/test_coverage.py)."""

_MOST_NAMED = 6
_LONGEST_NAME = 60


def scores_said(panel: Panel) -> str:
    """Return metric, direction, number of seeds and interval of a panel's scores."""
    return f"{panel.scored_by}: mean over {_seeds(panel)} with its 95 % interval"


def cautions(panel: Panel) -> list[str]:
    """Return the cautions that a reader of a panel needs."""
    return [
        *_of_intervals(panel),
        *_of_missing(panel),
        *_of_seconds(panel),
        *_of_cut_texts(panel),
        *_of_learning(panel),
        *_of_defaults(panel),
        *panel.footnotes,
    ]


def coverage(panel: Panel) -> list[str]:
    """Return the coverage of intervals over two or three seeds, where a panel has any."""
    rows = panel.rows[panel.rows["basis"] == "seeds and test rows"]
    return [COVERAGE[n] for n in sorted(set(rows["n_seeds"]) & COVERAGE.keys())]


def _seeds(panel: Panel) -> str:
    scored = panel.rows[panel.rows["score"].notna()]
    labelled = scored[scored["n_train"] > 0]  # methods that need no labels have one cell for all seeds
    counts = sorted({int(n) for n in (labelled if len(labelled) else scored)["n_seeds"]})
    if not counts:
        return "no seed"
    if len(counts) > 1:
        return f"{counts[0]} to {counts[-1]} seeds"
    return "1 seed" if counts == [1] else f"{counts[0]} seeds"


def _of_intervals(panel: Panel) -> list[str]:
    bases = set(panel.rows["basis"].dropna())
    said = []
    if "test rows only" in bases:
        said.append("With one seed an interval covers test rows only: another seed may differ by more")
    if ((panel.rows["basis"] == "seeds and test rows") & (panel.rows["n_seeds"] < MIN_TESTED_SEEDS)).any():
        said.append(TOO_FEW_SEEDS)
    if "seeds only" in bases:
        said.append("Some intervals cover seeds only: no predictions by test row are stored (`basis`)")
    if "none" in bases:
        said.append("Some scores have no interval: their variation is unknown")
    return said


def _of_missing(panel: Panel) -> list[str]:
    counts = {
        status.replace("_", " "): int(panel.rows[f"n_{status}"].fillna(0).sum())
        for status in ("failed", "out_of_memory", "out_of_time", "unsupported", "missing")
    }
    found = ", ".join(f"{n:,} {name}" for name, n in counts.items() if n)
    if not found:
        return []
    partial = panel.rows[panel.rows["score"].notna() & panel.rows["note"].notna()]
    fewer = "; means of the methods concerned are over fewer seeds than others" if len(partial) else ""
    return [f"Not all cells have a score ({found}){fewer}"]


def _of_seconds(panel: Panel) -> list[str]:
    said = []
    rows = panel.rows[panel.rows["score"].notna()]
    disturbed = rows[(rows["n_unsteady"] > 0) & (rows["n_unsteady"] == rows["n_seeds"])]
    if len(disturbed):
        named = _named(
            f"{row.variant} at {text.size(row.n_train, row.draw, row.n_per_class)}" for row in each(disturbed)
        )
        said.append(f"Seconds are unreliable where the machine was disturbed in all cells: {named}")
    if rows["imported"].fillna(False).any():
        said.append("Imported results: train is the sum of the published parts")
    return said


def _of_defaults(panel: Panel) -> list[str]:
    """Return a sentence on default settings that are behind other ones."""
    behind = panel.rows[panel.rows["default_points_behind"].notna()].drop_duplicates("variant")
    if behind.empty:
        return []
    named = _named(
        f"{row.variant} by {row.default_points_behind:.1f} points ({row.default_better} does better)"
        for row in each(behind)
    )
    return [
        f"{BEHIND} Default settings that are behind others of the method in an audit (harness audit-defaults): {named}"
    ]


def _of_learning(panel: Panel) -> list[str]:
    """Return a sentence on fits that learned nothing; their scores say nothing of a method."""
    rows = panel.rows[panel.rows["n_learned_nothing"].fillna(0) > 0]
    if rows.empty:
        return []
    named = _named(
        f"{row.variant} at {text.size(row.n_train, row.draw, row.n_per_class)} ({row.n_learned_nothing:.0f} of "
        f"{text.counted(int(row.n_seeds), 'seed')})"
        for row in each(rows)
    )
    return [
        "Fits that learned nothing: they predict one class, at the training loss of guessing. A lower "
        f"learning rate may help: {named}"
    ]


def _of_cut_texts(panel: Panel) -> list[str]:
    """Return a sentence for each set of methods whose texts were cut alike."""
    shares: dict[str, dict[str, Any]] = {}
    for row in each(panel.rows):
        if not text.present(row.cut_side):
            continue
        own = shares.setdefault(text.plain(row.variant), {"tokens": set(), "side": set()})
        for part, share in (("test", row.test_rows_cut), ("training", row.train_rows_cut)):
            if text.present(share):
                own[part] = max(share, own.get(part, 0.0))
        own["tokens"].add(int(row.cut_at_tokens) if text.present(row.cut_at_tokens) else None)
        own["side"].add(row.cut_side)
    alike: dict[_How, list[str]] = {}
    # Methods without training texts come last and join those whose test texts were cut alike.
    for variant, own in sorted(shares.items(), key=lambda item: "training" not in item[1]):
        key = (own.get("test"), own.get("training"), frozenset(own["tokens"]), frozenset(own["side"]))
        if "training" not in own:
            key = next((other for other in alike if (other[0], *other[2:]) == (key[0], *key[2:])), key)
        alike.setdefault(key, []).append(variant)
    return [_cut(panel, key, methods) for key, methods in alike.items()]


_How = tuple[float | None, float | None, frozenset[int | None], frozenset[str]]
"""Shares of test and training texts that were cut, the limits in tokens, and the sides."""


def _cut(panel: Panel, how: _How, methods: list[str]) -> str:
    test, train, limits, sides = how
    parts = [f"{_share(share)} of the {part} texts" for part, share in (("test", test), ("training", train)) if share]
    known = sorted(limit for limit in limits if limit is not None)
    at = f"at {known[0]:,} tokens" if len(limits) == len(known) == 1 else "to the longest allowed length"
    side = ", on the left" if sides == {"left"} else ""
    scored = panel.rows[panel.rows["score"].notna() & panel.rows["backbone"].notna()]
    readers = {text.plain(variant) for variant in scored["variant"]}
    who = "all methods that read the backbone" if readers == set(methods) and len(methods) > 1 else _named(methods)
    said = f"{' and '.join(parts)} were cut {at}{side} for {who}; max_length of the task (--max-length) sets the limit"
    return said[0].upper() + said[1:]


def _share(share: float) -> str:
    if share >= 1:
        return "all"
    return (
        "less than 0.1 %" if share < 0.0005 else f"{min(100 * share, 99.9):.{0 if 0.0995 <= share < 0.995 else 1}f} %"
    )


def _named(names: Iterable[str]) -> str:
    told = [
        plain if len(plain) <= _LONGEST_NAME else f"{plain[: _LONGEST_NAME - 1]}…" for plain in map(text.plain, names)
    ]
    more = f" and {len(told) - _MOST_NAMED} more" if len(told) > _MOST_NAMED else ""
    return ", ".join(told[:_MOST_NAMED]) + more
