"""Compare configurations two at a time, on the seeds and test rows that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd

from harness.analysis import MIN_TESTED_SEEDS, Difference, holm
from harness.report.observations import Observations, RecordSource, observe
from harness.report.pairing import Group, contrast
from harness.report.panels import Panel, panels
from harness.report.tables import PANEL, each

GROUP = (*PANEL, "variant", "n_train", "draw", "metric")
"""Columns on which the cells of one configuration at one size agree; their seeds differ."""

LEVEL = 0.05
"""Level below which a corrected p-value counts as a difference."""


def groups(observations: Observations) -> dict[tuple[Any, ...], Group]:
    """Return the scored cells, grouped by the columns of `GROUP`."""
    names = (*GROUP, "id", "seed", "status", "score", "score_low", "score_high")
    found: dict[tuple[Any, ...], Group] = {}
    columns = observations.columns(names)
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(names, values, strict=True))
        if row["status"] != "ok" or row["score"] is None:
            continue
        group = found.setdefault(tuple(row[name] for name in GROUP), Group(row["n_train"]))
        group.add(row["seed"], (row["id"], row["device"]), row["score"], row["score_low"], row["score_high"])
    return found


# ---- the best at each size, and methods tied with it


_STANDING: dict[str, Any] = {
    **dict.fromkeys(("panel", "task", "backbone", "device", "budget"), "string"),
    "n_train": "Int64",
    **dict.fromkeys(("draw", "variant", "family"), "string"),
    "score": "Float64",
    **dict.fromkeys(("is_best", "is_tied"), "boolean"),
    **dict.fromkeys(("behind", "low", "high", "p_value"), "Float64"),
    **dict.fromkeys(("n_seeds", "n_rows"), "Int64"),
    "basis": "string",
}


def standings(source: RecordSource) -> pd.DataFrame:
    """Return the methods in order at each training size of each panel, with their distance to the best.

    Methods that need no labels stand at every size. Columns: panel (its title), task, backbone, device, budget,
    n_train, draw, variant, family, score, is_best (the best mean), is_tied (not shown to be worse: its corrected
    p-value is 0.05 or above, or it is ahead on the seeds that both have; null where unknown), behind (the best's score
    less its own on the seeds that both have, positive where the best is better), low and high (95 % interval of
    behind), p_value (two-sided, Holm's correction over the methods of that size), n_seeds and n_rows (shared with the
    best; 0 rows: not paired) and basis ("test rows only" for one seed).

    Raises:
        UsageError: there is no record.
    """
    observations = observe(source)
    found = groups(observations)
    rows = [row for panel in panels(observations) for row in _standings_of(panel, found, observations)]
    return _framed(rows, _STANDING)


def tied_with_best(at_size: pd.DataFrame) -> list[str]:
    """Return methods that are not shown to be worse than the best, from rows of `standings` at one size."""
    return [str(name) for name in at_size.loc[at_size["is_tied"].fillna(False) & ~at_size["is_best"], "variant"]]


def not_known(at_size: pd.DataFrame) -> list[str]:
    """Return methods that may or may not be worse than the best, from rows of `standings` at one size."""
    return [str(name) for name in at_size.loc[at_size["is_tied"].isna() & ~_has_too_few_seeds(at_size), "variant"]]


def not_tested(at_size: pd.DataFrame) -> list[str]:
    """Return methods that share too few seeds with the best for a test, from rows of `standings` at one size."""
    return [str(name) for name in at_size.loc[_has_too_few_seeds(at_size), "variant"]]


def _has_too_few_seeds(at_size: pd.DataFrame) -> pd.Series[bool]:
    several = (at_size["n_seeds"] > 1) & (at_size["n_seeds"] < MIN_TESTED_SEEDS)
    return at_size["is_tied"].isna() & several & (at_size["n_rows"] > 0).fillna(False)


def rivals_by_size(panel: Panel) -> Iterator[tuple[int, str, list[Any]]]:
    """Return each size and draw of a panel with the rows that compete there, best first."""
    scored = [row for row in each(panel.rows) if not pd.isna(row.score)]
    sizes = sorted({(row.n_train, row.draw) for row in scored})
    free = [row for row in scored if row.n_train == 0]
    for n_train, draw in sizes:
        if n_train == 0 and len(sizes) > 1:
            continue  # these methods stand at every other size
        own = [row for row in scored if (row.n_train, row.draw) == (n_train, draw)]
        rivals = own if n_train == 0 else own + [row for row in free if row.variant not in {r.variant for r in own}]
        sign = -1 if panel.higher_is_better else 1
        yield n_train, draw, sorted(rivals, key=lambda row: (sign * row.score, row.variant))


def _standings_of(
    panel: Panel, found: dict[tuple[Any, ...], Group], observations: Observations
) -> Iterator[dict[str, Any]]:
    for n_train, draw, rivals in rivals_by_size(panel):
        best = rivals[0]
        differences = [contrast(found[key_of(best)], found[key_of(row)], observations) for row in rivals[1:]]
        corrected = holm([difference.p_value for difference in differences])
        shared = _setting(panel, n_train, draw)
        first = {"is_best": True, "is_tied": True, "n_seeds": best.n_seeds, **_backbone(panel, best)}
        yield {**shared, "variant": best.variant, "family": best.family, "score": best.score, **first}
        sign = 1 if panel.higher_is_better else -1
        for row, difference, p_value in zip(rivals[1:], differences, corrected, strict=True):
            yield {
                **shared,
                **{"variant": row.variant, "family": row.family, "score": row.score, "is_best": False},
                **_backbone(panel, row),
                "is_tied": None if p_value is None else p_value >= LEVEL or sign * difference.mean <= 0,
                **_signed(difference, sign, "behind"),
                "p_value": p_value,
                **{name: getattr(difference, name) for name in ("n_seeds", "n_rows", "basis")},
            }


def _signed(difference: Difference, sign: int, name: str) -> dict[str, float | None]:
    ends = (difference.low, difference.high)
    low, high = ends if sign > 0 else (None if end is None else -end for end in reversed(ends))
    return {name: sign * difference.mean, "low": low, "high": high}


def key_of(row: Any) -> tuple[Any, ...]:
    """Return the key in `groups` of a row of `comparison`."""
    return tuple(None if pd.isna(value) else value for value in (getattr(row, name) for name in GROUP))


# ---- every pair


_PAIR: dict[str, Any] = {
    **dict.fromkeys(("panel", "task", "backbone", "device", "budget"), "string"),
    "n_train": "Int64",
    **dict.fromkeys(("draw", "variant", "baseline"), "string"),
    **dict.fromkeys(("difference", "low", "high", "p_value", "p_corrected"), "Float64"),
    **dict.fromkeys(("n_seeds", "n_rows"), "Int64"),
    "basis": "string",
}


def contrasts(source: RecordSource, choose: Callable[[list[Any]], list[list[tuple[Any, Any]]]]) -> pd.DataFrame:
    """Compare the pairs that `choose` selects from the methods of each panel and size.

    Holm's correction applies within each list of pairs.
    """
    observations = observe(source)
    found = groups(observations)
    rows: list[dict[str, Any]] = []
    for panel in panels(observations):
        for n_train, draw, rivals in rivals_by_size(panel):
            for pairs in choose(rivals):
                differences = [contrast(found[key_of(a)], found[key_of(b)], observations) for a, b in pairs]
                corrected = holm([difference.p_value for difference in differences])
                for (a, b), difference, p_corrected in zip(pairs, differences, corrected, strict=True):
                    rows.append(
                        {
                            **_setting(panel, n_train, draw),
                            **_backbone(panel, a),
                            **{"variant": a.variant, "baseline": b.variant, "difference": difference.mean},
                            **{name: getattr(difference, name) for name in _OF_DIFFERENCE},
                            "p_corrected": p_corrected,
                        }
                    )
    return _framed(rows, _PAIR)


_OF_DIFFERENCE = ("low", "high", "p_value", "n_seeds", "n_rows", "basis")


def _setting(panel: Panel, n_train: int, draw: str) -> dict[str, Any]:
    of_panel = {name: getattr(panel, name) for name in ("task", "backbone", "device", "budget")}
    return {"panel": panel.title, **of_panel, "n_train": n_train, "draw": draw}


def _backbone(panel: Panel, row: Any) -> dict[str, Any]:
    """Return the backbone of a row, where its panel holds several."""
    return {"backbone": row.backbone} if panel.backbone is None and panel.backbones else {}


def _framed(rows: Sequence[dict[str, Any]], dtypes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in dtypes.items()}
    )
