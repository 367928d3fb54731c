"""Compare configurations by their number of trainable parameters: where more parameters stop to help."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.analysis import Difference, holm
from harness.report.contrasts import LEVEL, groups, key_of, rivals_by_size
from harness.report.observations import Observations, RecordSource, observe
from harness.report.pairing import Group, contrast
from harness.report.panels import Panel, panels
from harness.report.tables import bounds_of
from harness.support import text

MARGIN = 0.01
"""Distance to the best mean score, one point, within which a configuration counts as good enough."""

MIN_NUMBERS = 4
"""Fewest different numbers of trainable parameters above 0 that make a learning ladder."""

_NOT_ADAPTING = frozenset({"floor", "baseline", "from scratch"})
"""Roles of methods that adapt no pretrained backbone."""

_DTYPES: dict[str, Any] = {
    **dict.fromkeys(("panel", "task", "backbone", "device", "budget"), "string"),
    "n_train": "Int64",
    **dict.fromkeys(("draw", "metric"), "string"),
    "higher_is_better": "boolean",
    **dict.fromkeys(("line", "method", "variant"), "string"),
    "n_trainable": "Int64",
    **dict.fromkeys(("score", "low", "high"), "Float64"),
    "n_seeds": "Int64",
    **dict.fromkeys(("is_best", "is_tied"), "boolean"),
    **dict.fromkeys(("behind", "behind_low", "behind_high", "p_value"), "Float64"),
    "margin": "Float64",
    **dict.fromkeys(("is_within", "saturates"), "boolean"),
    "basis": "string",
}


def ladders(source: RecordSource) -> pd.DataFrame:
    """Return the learning ladders: the configurations of each panel, backbone and size by trainable parameters.

    A ladder has at least `MIN_NUMBERS` different numbers of parameters above 0. Methods that adapt no pretrained
    backbone, and those whose parameters are unknown, are left out.

    Columns: panel (its title), task, backbone, device, budget, n_train, draw, metric, higher_is_better, line
    (configurations of one method that differ in size only share one), method, variant, n_trainable (median over seeds),
    score, low and high (its 95 % interval), n_seeds, is_best (the best mean), is_tied (not shown to be worse than the
    best: its corrected p-value is 0.05 or above, or it is ahead on the seeds that both have; null where unknown),
    behind (the best's score less its own on the seeds that both have, positive where the best is better), behind_low
    and behind_high (95 % interval of behind), p_value (two-sided, Holm's correction over the ladder), margin (in the
    metric's unit; null for a metric without an upper end), is_within (whether the mean is at most `margin` behind),
    saturates (whether it has the fewest parameters of those that are both tied and within) and basis.

    Raises:
        UsageError: there is no record.
    """
    observations = observe(source)
    found = groups(observations)
    adapting = _adapting(observations)
    rows = [row for panel in panels(observations) for row in _of_panel(panel, found, observations, adapting)]
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in _DTYPES.items()}
    )


def _adapting(observations: Observations) -> set[str]:
    """Return the variants that adapt a pretrained backbone, or whose role is unknown."""
    names = observations.columns(("variant", "backbone"))
    return {
        str(variant)
        for variant, backbone, record in zip(*names.values(), observations.records, strict=True)
        if backbone is not None and record.facts.role not in _NOT_ADAPTING
    }


def _of_panel(
    panel: Panel, found: Mapping[tuple[Any, ...], Group], observations: Observations, adapting: set[str]
) -> Iterator[dict[str, Any]]:
    for n_train, draw, rivals in rivals_by_size(panel):
        by_backbone: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
        for row in rivals:
            if str(row.variant) in adapting and text.present(row.n_trainable):
                by_backbone[str(row.backbone), str(row.weights)].append(row)
        for _, own in sorted(by_backbone.items()):
            if len({row.n_trainable for row in own if row.n_trainable > 0}) >= MIN_NUMBERS:
                yield from _of_place(panel, n_train, draw, own, found, observations)


def _of_place(
    panel: Panel,
    n_train: int,
    draw: str,
    rivals: Sequence[Any],
    found: Mapping[tuple[Any, ...], Group],
    observations: Observations,
) -> Iterator[dict[str, Any]]:
    """Return the rows of one ladder by parameters, given its configurations with the best first."""
    best, others = rivals[0], rivals[1:]
    differences = [contrast(found[key_of(best)], found[key_of(row)], observations) for row in others]
    corrected = holm([difference.p_value for difference in differences])
    margin = MARGIN if bounds_of(str(panel.metric))[1] < float("inf") else None
    lines = _lines(rivals, found, observations)
    made = [_row(best, None, None, margin, panel)]
    made += [_row(*one, margin, panel) for one in zip(others, differences, corrected, strict=True)]
    made.sort(key=lambda row: (row["n_trainable"], not row["is_best"], row["behind"], row["variant"]))
    first = next(row for row in made if row["is_tied"] and row["is_within"])
    for row in made:
        yield {
            **{"panel": panel.title, "task": panel.task, "device": panel.device, "budget": panel.budget},
            **{"n_train": n_train, "draw": draw, "metric": panel.metric, "higher_is_better": panel.higher_is_better},
            **row,
            "line": lines[row["variant"]],
            "saturates": row is first,
        }


def _row(row: Any, difference: Difference | None, p_value: float | None, margin: float | None, panel: Panel) -> Any:
    """Return the row of one configuration; without a difference, it is the best."""
    told = {name: getattr(row, name) for name in ("backbone", "method", "variant", "n_trainable", "score", "n_seeds")}
    told |= {"low": row.score_low, "high": row.score_high, "margin": margin, "n_trainable": int(row.n_trainable)}
    if difference is None:
        return {**told, "is_best": True, "is_tied": True, "is_within": True, "behind": 0.0}
    sign = 1 if panel.higher_is_better else -1
    ends = (difference.low, difference.high) if sign > 0 else (difference.high, difference.low)
    low, high = (None if end is None else sign * end for end in ends)
    behind = sign * difference.mean
    return {
        **told,
        "is_best": False,
        "is_tied": None if p_value is None else p_value >= LEVEL or behind <= 0,
        "is_within": margin is None or behind <= margin,
        **{"behind": behind, "behind_low": low, "behind_high": high, "p_value": p_value, "basis": difference.basis},
    }


def _lines(rivals: Sequence[Any], found: Mapping[tuple[Any, ...], Group], observations: Observations) -> dict[str, str]:
    """Return the line of each configuration: one for all of a method that differ in size only.

    A setting tells lines apart if two configurations with the same number of trainable parameters differ in it.
    """
    by_id = {(record.id, record.device): record.cell for record in observations.records}
    by_method: defaultdict[str, list[tuple[Any, Mapping[str, Any]]]] = defaultdict(list)
    for row in rivals:
        cell = by_id[next(iter(found[key_of(row)].keys.values()))]
        by_method[str(row.method)].append((row, {**cell.config, "version": cell.version}))
    lines: dict[str, str] = {}
    for method, own in by_method.items():
        apart = sorted(_telling_apart((int(row.n_trainable), config) for row, config in own))
        values = {str(row.variant): tuple(str(config.get(name)) for name in apart) for row, config in own}
        several = len(set(values.values())) > 1
        for row, config in own:
            told = ", ".join(f"{name}={config[name]}" for name in apart if config.get(name) is not None)
            lines[str(row.variant)] = f"{method}[{told}]" if several and told else method
    return lines


def _telling_apart(configurations: Iterable[tuple[int, Mapping[str, Any]]]) -> set[str]:
    by_number: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for number, config in configurations:
        by_number[number].append(config)
    return {
        name
        for alike in by_number.values()
        for config in alike[1:]
        for name in config.keys() | alike[0].keys()
        if config.get(name) != alike[0].get(name)
    }


def places(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Return the rows of each ladder, in the order of `ladders`."""
    for _, own in frame.groupby(["panel", "backbone", "n_train", "draw"], sort=False, dropna=False):
        yield own


def said_of(place: pd.DataFrame) -> str:
    """Return in a few sentences how many parameters one ladder needs, or why that cannot be told."""
    best, first = place[place["is_best"]].iloc[0], place[place["saturates"]].iloc[0]
    others = place[~place["is_best"]]
    if others["p_value"].isna().all():
        n_seeds = int(best["n_seeds"])
        why = f"{n_seeds} seeds are too few for a test" if n_seeds == 2 else "no difference can be tested"
        return f"It cannot be told: {why}."
    if others["is_tied"].fillna(True).all():
        said = f"It cannot be told: no configuration is shown to be worse than the best, {_named(best)}."
        if first["variant"] != best["variant"]:
            return f"{said} The fewest within reach: {_named(first)}." + _of_seeds(others)
        is_smallest = best["n_trainable"] == place["n_trainable"].min()
        near = (
            "No configuration has fewer parameters."
            if is_smallest
            else f"None with fewer is within {_points(best['margin'])} of it."
        )
        return f"{said} {near}" + _of_seeds(others)
    if first["variant"] != best["variant"]:
        is_sure = text.present(first["margin"]) and text.present(first["behind_high"])
        is_sure = is_sure and first["behind_high"] <= first["margin"]
        said = f"{_named(first)} {'is' if is_sure else 'may be'} enough: {_behind(first)} the best, {_named(best)}"
        said += "." if is_sure else ". The difference is not shown to be above 0."
    else:
        fewer = place[place["n_trainable"] < best["n_trainable"]]
        tied = fewer[fewer["is_tied"].fillna(True)]
        if fewer.empty:
            return f"{_named(best)} is the best, and no configuration has fewer parameters." + _of_seeds(others)
        said = f"{_named(best)} is the best, and {_margin(best)}."
        if len(tied):
            fewest = tied.iloc[0]
            said = f"It cannot be told whether fewer are enough: {said} The fewest that are not shown to be worse: "
            said += f"{_named(fewest)}{_at_level(fewest)}."
        elif best["n_trainable"] == place["n_trainable"].max():
            said = f"No saturation: {said} It trains the most parameters."
    return f"{said} {_of_fewer(place[place['n_trainable'] < first['n_trainable']])}".strip() + _of_seeds(others)


def _named(row: Any) -> str:
    counted = text.counted(int(row["n_trainable"]), "trainable parameter")
    return f"{text.plain(str(row['variant']))} with {counted} ({text.score(row['score'])})"


def _margin(best: Any) -> str:
    """Return that no configuration with fewer parameters is as good as the best."""
    if not text.present(best["margin"]):
        return "none with fewer parameters is tied with it"
    return f"none with fewer parameters is within {_points(best['margin'])} of it without being shown to be worse"


def _points(value: float) -> str:
    n = f"{100 * value:.1f}".removesuffix(".0").removeprefix("-0").replace("-", "−") or "0"
    return f"{n} point" if n == "1" else f"{n} points"


def _behind(row: Any) -> str:
    """Return how far a configuration is behind the best, with its interval."""
    in_points = text.present(row["margin"])
    if row["behind"] <= 0:
        said = "not behind"
    else:
        said = f"{_points(row['behind']) if in_points else text.score(row['behind'])} behind"
    if not text.present(row["behind_low"]):
        return said
    ends = [float(row[name]) for name in ("behind_low", "behind_high")]
    shown = [f"{100 * end:.1f}" if in_points else text.score(end) for end in ends]
    return f"{said} (95 % interval {' to '.join(shown)}".replace("-", "−") + ")"


def _at_level(row: Any) -> str:
    """Return the corrected p-value, by which a configuration counts as not shown to be worse; nothing without one."""
    return f", corrected p = {row['p_value']:.2g}" if text.present(row["p_value"]) else ""


def _of_fewer(fewer: pd.DataFrame) -> str:
    """Return a sentence on the configurations with fewer parameters."""
    if fewer.empty:
        return "No configuration has fewer."
    n, n_worse = len(fewer), int((~fewer["is_tied"].fillna(True)).sum())
    if n_worse == n:
        return "The one with fewer is shown to be worse." if n == 1 else f"All {n} with fewer are shown to be worse."
    shown = "none is" if n_worse == 0 else f"{n_worse} {'is' if n_worse == 1 else 'are'}"
    return f"Of {n} with fewer, {shown} shown to be worse."


def _of_seeds(others: pd.DataFrame) -> str:
    if (others["basis"] == "test rows only").any() and (others["n_seeds"] == 1).all():
        return " These tests cover test rows only: there is one seed."
    return ""
