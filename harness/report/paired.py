"""Two methods compared on the seeds and test rows that they share, at each training size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from harness import stats
from harness.errors import unknown_name
from harness.report.observations import Observations, Source, matrix, observe

_SETTING = ["task", "data", "device", "budget", "n_train", "draw"]
_OK = ["seed", "id", "score", "backbone", "weights"]
_COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("task", "data", "device", "budget"), "string"),
    "n_train": "Int64",
    **dict.fromkeys(("draw", "backbone", "variant", "baseline"), "string"),
    **dict.fromkeys(("difference", "low", "high", "p_value"), "Float64"),
    **dict.fromkeys(("n_seeds", "n_rows"), "Int64"),
    "basis": "string",
}


def paired_differences(source: Source, variant: str, baseline: str) -> pd.DataFrame:
    """How far `variant` is ahead of `baseline`, one row per setting and training size that both were scored at.

    Columns: the setting (task, data, device, budget, n_train, draw, backbone), variant, baseline, difference (score of
    the first less that of the second), low and high (95 % interval over seeds and test rows, crossed), p_value
    (two-sided, not adjusted for the number of comparisons), n_seeds and n_rows that both share, basis. Empty where
    they share none, or the metric is no mean over rows.

    Args:
        source: records with their predictions.
        variant: a label of the column `variant`, such as `full` or `lora[rank=4]`.
        baseline: another.

    Raises:
        UsageError: if there is no record, or none of such a label.
    """
    observations = observe(source)
    frame = observations.frame
    known = set(frame["variant"])
    for name in (variant, baseline):
        if name not in known:
            raise unknown_name("method", name, known)
    scored = frame[(frame["status"] == "ok") & frame["score"].notna() & frame["variant"].isin([variant, baseline])]
    rows = [
        row for _, cells in scored.groupby(_SETTING, sort=True) for row in _of(observations, cells, variant, baseline)
    ]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in _COLUMNS}
    return pd.DataFrame({name: pd.Series(columns[name], dtype=dtype) for name, dtype in _COLUMNS.items()})


def _of(observations: Observations, cells: pd.DataFrame, variant: str, baseline: str) -> Iterator[dict[str, Any]]:
    first = cells.loc[cells["variant"] == variant, _OK]
    second = cells.loc[cells["variant"] == baseline, _OK]
    both = first.merge(second, on="seed", suffixes=("_a", "_b")).sort_values("seed")
    if both.empty:
        return
    # Methods that use no backbone may be compared with any; two backbones are two settings.
    same = (both["weights_a"] == both["weights_b"]) | both["weights_a"].isna() | both["weights_b"].isna()
    both = both[same.fillna(True).astype(bool)]
    both["backbone"] = both["backbone_a"].fillna(both["backbone_b"])
    both["weights"] = both["weights_a"].fillna(both["weights_b"])
    device = str(cells["device"].iloc[0])
    for (backbone, _), pairs in both.groupby(["backbone", "weights"], sort=True, dropna=False):
        a, b = (
            matrix(
                observations, [(str(id), device) for id in pairs[f"id_{side}"]], pairs[f"score_{side}"].astype(float)
            )
            for side in "ab"
        )
        if a is None or b is None or a.shape != b.shape or not _same_rows(observations, pairs, device):
            continue
        found = stats.paired_difference(a, b)
        yield {
            **{name: cells[name].iloc[0] for name in _SETTING},
            "backbone": backbone,
            "variant": variant,
            "baseline": baseline,
            "difference": found.mean,
            **{name: getattr(found, name) for name in ("low", "high", "p_value", "n_seeds", "n_rows", "basis")},
        }


def _same_rows(observations: Observations, pairs: pd.DataFrame, device: str) -> bool:
    ids = [*pairs["id_a"], *pairs["id_b"]]
    return len({observations.correct[str(id), device].rows for id in ids}) == 1
