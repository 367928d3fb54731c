"""Convert scores from percentages to the fractions that the harness keeps."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from harness.records import highest_of
from harness.store.importing.fields import SCORE_FIELDS, ResultRow, listed
from harness.support import UsageError

_SCALES: Final = ("percent", "fraction")

_OWN_SCALE: Final = frozenset(
    {"perplexity", "ppl", "loss", "nll", "mae", "mse", "rmse", "bleu", "sacrebleu", "chrf", "ter", "wer", "cer"}
)
"""Metrics without a range of 0 to 1, which keep their own scale."""


_TO_HUNDRED: Final = frozenset({"bleu", "sacrebleu", "chrf", "ter"})
"""Those of them that go to 100."""


def usual_highest(metric: str, value: float) -> float | None:
    """Return the upper end of a metric in a table, by its name; None where it has none."""
    words = set(re.split(r"[^a-z]+", metric.lower()))
    if words & _TO_HUNDRED:
        return 100.0 if value <= 100 else None
    return None if words & _OWN_SCALE else highest_of(metric)


def to_fractions(rows: Sequence[ResultRow], scale: str | None, path: Path) -> list[ResultRow]:
    """Return the rows with the scores of metrics with a fixed range as fractions.

    Args:
        rows: rows of one table.
        scale: `percent`, `fraction` or None. None accepts figures within -1 to 1 as fractions and refuses others.
        path: path of the table, for messages.

    Raises:
        UsageError: the scale is unknown, one column mixes both scales, or the scores need a scale.
    """
    if scale is not None and scale not in _SCALES:
        raise UsageError(f"--scale '{scale}' was given; expected {' or '.join(_SCALES)}.")
    found = [_scores(row) for row in rows]
    for metric, positions in _by_metric(rows).items():
        for name in SCORE_FIELDS:
            values = [(k + 1, found[k][name]) for k in positions if name in found[k]]
            _check(path, f"{name} of {metric}", values, scale)
    if scale != "percent":
        return list(rows)
    return [
        dataclasses.replace(row, values={**row.values, **{name: value / 100 for name, value in scores.items()}})
        for row, scores in zip(rows, found, strict=True)
    ]


def problem_of_columns(frame: pd.DataFrame, columns: Mapping[str, str]) -> list[str]:
    """Return problems with the scale of the scores, for a table whose columns are not all mapped yet."""
    column = columns.get("score")
    if column is None or column.startswith("=") or column not in frame.columns:
        return []
    values = pd.to_numeric(frame[column], errors="coerce")
    large = [k + 1 for k, value in enumerate(values) if abs(value) > 1]
    small = [k + 1 for k, value in enumerate(values) if 0 < abs(value) < 1]
    return [_mixed(column, large, small)] if large and small else []


def _check(path: Path, what: str, values: list[tuple[int, float]], scale: str | None) -> None:
    large = [number for number, value in values if abs(value) > 1]
    small = [number for number, value in values if 0 < abs(value) < 1]
    beyond = [number for number, value in values if abs(value) > 100]
    if large and small:
        raise UsageError(f"{path}: {_mixed(what, large, small)}")
    if scale == "percent" and beyond:
        raise UsageError(f"{path}: {what} is beyond 100 in rows {listed(beyond)}; expected percentages.")
    if scale == "percent" and small:
        raise UsageError(
            f"{path}: {what} is below 1 in rows {listed(small)} and nowhere above, so these look like fractions; "
            "--scale percent was given. Try --scale fraction."
        )
    if scale == "fraction" and large:
        raise UsageError(
            f"{path}: {what} is beyond 1 in rows {listed(large)}; expected fractions. Try --scale percent."
        )
    if scale is None and large:
        raise UsageError(
            f"{path}: {what} is beyond 1 in rows {listed(large)}. Are these percentages? Give --scale percent to "
            "divide them by 100, or --map metric==NAME with a metric that has another range, such as rmse or bleu."
        )


def _mixed(what: str, large: list[int], small: list[int]) -> str:
    return (
        f"{what} mixes percentages (rows {listed(large)}) with fractions (rows {listed(small)}). Write all of them on "
        "one scale."
    )


def _scores(row: ResultRow) -> dict[str, float]:
    """Return the scores of a row by field, if its metric has a fixed range."""
    if _has_own_scale(row.text("metric") or "score"):
        return {}
    return {name: value for name in SCORE_FIELDS if (value := row.number(name)) is not None}


def _has_own_scale(metric: str) -> bool:
    return bool(_OWN_SCALE & set(re.split(r"[^a-z]+", metric.lower())))


def _by_metric(rows: Sequence[ResultRow]) -> dict[str, list[int]]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        found[row.text("metric") or "score"].append(position)
    return dict(found)
