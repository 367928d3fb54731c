"""Split a comparison into panels: rows that may share a table.

Rows are comparable within a panel only: one task and fingerprint, one metric, one device, one budget. A panel holds
all backbones; names of configurations tell them apart. Nothing is pooled across panels, or across backbones.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from harness.report.observations import RecordSource
from harness.report.tables import comparison
from harness.support import text

DAGGER = "†"
CHOSEN_HERE = (
    f"{DAGGER} default settings were chosen on this task's training and validation rows (docs/reference/defaults.md)"
)
"""Footnote of tables whose task helped to choose the defaults, so that not all of its rows are unseen."""

DOUBLE_DAGGER = "‡"
SEEN = "is known to have been trained on this data set"
"""Footnote of tables whose backbone was trained on the data: its scores tell less about other data."""


BEHIND = "§"
"""Mark after the names of methods whose default settings are behind other ones."""


@dataclass(frozen=True)
class Panel:
    """Rows of `comparison` that may be compared with each other.

    Attributes:
        title: `docstrings · all-MiniLM-L6-v2 · AMD EPYC, 2 threads`, with whatever else tells it from other panels.
        rows: its rows, best first (by the score at the largest size that a method has), then by size.
        metric: the metric of all scores; None where nothing was scored.
        higher_is_better: its direction.
        backbone: its backbone; None where no method uses one, or where there are several.
        backbones: (short name, name) of each backbone that names of its rows hold; empty where names hold none.
        data: fingerprint of the task's data.
        weights: fingerprint of `backbone`; None where that is None.
        defaults_chosen_here: whether the methods' default settings were chosen on this task.
        seen_by: backbones that are known to have been trained on the task's data, as the rows name them.
        overlaps: data sets that are known to share texts with the task's, in words; None where none are.
    """

    title: str
    task: str
    device: str
    backbone: str | None
    budget: str
    rows: pd.DataFrame
    metric: str | None
    higher_is_better: bool = True
    data: str = ""
    weights: str | None = None
    defaults_chosen_here: bool = False
    seen_by: tuple[str, ...] = ()
    backbones: tuple[tuple[str, str], ...] = ()
    overlaps: str | None = None

    @property
    def scored_by(self) -> str:
        """Metric in words, with its direction where lower is better."""
        return scored_by(self.metric or "score", higher_is_better=self.higher_is_better)

    @property
    def heading(self) -> str:
        """Title with a mark for each of `footnotes` that has one."""
        marks = (DAGGER if self.defaults_chosen_here else "") + (DOUBLE_DAGGER if self.seen_by else "")
        return f"{self.title} {marks}".strip()

    @functools.cached_property
    def behind(self) -> frozenset[str]:
        """Names of rows whose default settings are behind other ones."""
        return frozenset(self.rows.loc[self.rows["default_points_behind"].notna(), "variant"].astype(str))

    def shown(self, variant: str) -> str:
        """Return the name of a row in plain text, with a mark where its default settings are behind other ones."""
        return f"{text.plain(variant)}{f' {BEHIND}' if variant in self.behind else ''}"

    @property
    def footnotes(self) -> list[str]:
        """Return the footnotes on the task, without full stops."""
        said = [CHOSEN_HERE] * self.defaults_chosen_here
        said += [f"{DOUBLE_DAGGER} {' and '.join(self.seen_by)} {SEEN}"] * bool(self.seen_by)
        said += [f"Known overlap: {text.plain(self.overlaps)}"] if self.overlaps else []
        full = [f"{short} is {text.plain(name)}" for short, name in self.backbones if short != _end(name)]
        return said + [f"Backbones: {', '.join(full)}"] * bool(full)


def scored_by(metric: str, *, higher_is_better: bool) -> str:
    """Return a metric in words, with its direction where lower is better: `rmse (lower is better)`."""
    return text.plain(metric) + ("" if higher_is_better else " (lower is better)")


def panels(source: RecordSource | pd.DataFrame) -> list[Panel]:
    """Return the comparison, cut into panels. No two panels share a title.

    Args:
        source: records, or their comparison.
    """
    frame = source if isinstance(source, pd.DataFrame) else comparison(source)
    found = []
    for _, of_setting in frame.groupby(["task", "data", "device", "budget"], sort=True, dropna=False):
        bare = of_setting["backbone"].isna()
        twice = bare & of_setting["variant"].isin(of_setting.loc[~bare, "variant"])
        if twice.any():  # with and without a backbone: one table cannot hold both under one name
            found += _by_metric(frame, of_setting[twice])
        found += _by_metric(frame, of_setting[~twice])
    return _with_own_titles(found)


def _by_metric(frame: pd.DataFrame, rows: pd.DataFrame) -> list[Panel]:
    """Return one panel for each metric. Rows without a score have no metric, and stand in all of them."""
    metrics = sorted(rows["metric"].dropna().unique())
    if len(metrics) < 2:
        return [_panel(frame, rows)]
    own = [rows[(rows["metric"] == metric).fillna(False) | rows["metric"].isna()] for metric in metrics]
    made = [_panel(frame, of_metric) for of_metric in own]
    return [replace(panel, title=f"{panel.title} · {text.plain(str(panel.metric))}") for panel in made]


def _panel(frame: pd.DataFrame, rows: pd.DataFrame) -> Panel:
    first = rows.iloc[0]
    backbones = rows.loc[rows["backbone"].notna(), ["backbone", "weights"]].drop_duplicates()
    backbone, weights = backbones.iloc[0].tolist() if len(backbones) == 1 else (None, None)
    same_task = frame[frame["task"] == first["task"]]
    parts = [first["task"]]
    if same_task["data"].nunique() > 1:
        parts.append(f"data {_start_of(first['data'], same_task['data'])}")
    if backbone is not None:
        parts.append(_short_name(backbone, set(frame["backbone"].dropna())))
        own_weights = frame.loc[(frame["backbone"] == backbone).fillna(False), "weights"]
        if own_weights.nunique() > 1:
            parts.append(f"weights {_start_of(str(weights), own_weights)}")
    elif len(backbones):
        parts.append(f"{len(backbones)} backbones")
    parts.append(first["device"])
    if first["budget"] != "default" or same_task["budget"].nunique() > 1:
        parts.append(f"budget {first['budget']}")
    metrics = rows["metric"].dropna()
    return Panel(
        title=text.plain(" · ".join(parts)),
        task=first["task"],
        device=first["device"],
        backbone=backbone,
        budget=first["budget"],
        rows=_best_first(rows),
        metric=None if metrics.empty else str(metrics.iloc[0]),
        higher_is_better=bool(rows["higher_is_better"].dropna().all()),
        data=first["data"],
        weights=None if pd.isna(weights) else weights,
        backbones=_named_backbones(rows),
        defaults_chosen_here=bool(rows["defaults_chosen_here"].fillna(False).any()),
        seen_by=_seen_by(rows),
        overlaps=None if rows["overlaps"].dropna().empty else str(rows["overlaps"].dropna().iloc[0]),
    )


def _named_backbones(rows: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    known = rows.loc[rows["backbone_label"].notna(), ["backbone_label", "backbone"]].drop_duplicates()
    return tuple(sorted((str(short), str(name)) for short, name in known.itertuples(index=False, name=None)))


def _seen_by(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the backbones that have seen the data, by the names that rows use; `the backbone` where they use none."""
    seen = rows[rows["backbone_has_seen"].fillna(False)]
    return tuple(sorted({str(name) for name in seen["backbone_label"].fillna("the backbone")}))


def _end(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _start_of(fingerprint: str, among: Iterable[str]) -> str:
    """Return the first 8 letters, or as many as tell it from the others."""
    others = {str(other) for other in among if not pd.isna(other)} - {fingerprint}
    n = next((n for n in range(8, len(fingerprint)) if not any(o.startswith(fingerprint[:n]) for o in others)), None)
    return fingerprint[:n]


def _with_own_titles(found: list[Panel]) -> list[Panel]:
    """Return the same panels; a number tells apart titles that differ in invisible characters only."""
    met: Counter[str] = Counter()
    told = []
    for panel in found:
        met[panel.title] += 1
        n = met[panel.title]
        told.append(panel if n == 1 else replace(panel, title=f"{panel.title} ({n})"))
    return told


def _short_name(backbone: str, known: set[str]) -> str:
    """Return the part after the last slash, where that tells it from the others."""
    short = _end(backbone)
    return short if short and sum(_end(name) == short for name in known) == 1 else backbone


def _best_first(rows: pd.DataFrame) -> pd.DataFrame:
    higher = bool(rows["higher_is_better"].dropna().all())
    largest = int(rows["n_train"].max())
    keys: dict[str, tuple[bool, int, float, str]] = {}
    for variant, own in rows.groupby("variant"):
        scored = own.dropna(subset=["score"]).sort_values("n_train")
        best = float(scored["score"].iloc[-1]) if len(scored) else 0.0
        size = int(scored["n_train"].iloc[-1]) if len(scored) else 0
        size = size or largest  # a method that needs no labels competes at every size
        keys[str(variant)] = (not len(scored), -size, -best if higher else best, str(variant))
    order = {variant: i for i, variant in enumerate(sorted(keys, key=lambda variant: keys[variant]))}
    return (
        rows.assign(_order=rows["variant"].map(order).astype(int))
        .sort_values(["_order", "n_train", "draw"], kind="stable")
        .drop(columns="_order")
        .reset_index(drop=True)
    )


def curves_of(panel: Panel) -> pd.DataFrame:
    """Return score against training size, for the figures: one row per line and size that has a score.

    Columns: panel (its title), line (the configuration, with its draw where that is balanced), method, configuration
    and backbone_label (null where names hold no backbone), n_train, draw, score, low, high (95 % interval; null where
    there is none), n_seeds, metric, higher_is_better.
    """
    rows = panel.rows[panel.rows["score"].notna()]
    balanced = rows["draw"] == "balanced"
    line = rows["variant"].map(text.plain).astype("string")
    return pd.DataFrame(
        {
            "panel": pd.Series(panel.title, index=rows.index, dtype="string"),
            "line": line.mask(balanced, line + ", balanced"),
            "method": rows["method"],
            "configuration": rows["configuration"],
            "backbone_label": rows["backbone_label"],
            "n_train": rows["n_train"],
            "draw": rows["draw"],
            "score": rows["score"],
            "low": rows["score_low"],
            "high": rows["score_high"],
            "n_seeds": rows["n_seeds"],
            "metric": rows["metric"],
            "higher_is_better": rows["higher_is_better"],
        }
    ).reset_index(drop=True)
