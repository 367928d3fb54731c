"""Tables of the report, as data first: seeds summarised, then methods x training sizes, then Markdown.

Cells are comparable within a panel only: one task and fingerprint, one device, one budget, one backbone (with the
methods that use none). Nothing is pooled across panels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from harness import stats
from harness.frame import Dtype
from harness.report import text
from harness.report.observations import Observations, Source, matrix, observe

Row = dict[str, Any]

DAGGER = "†"
CHOSEN_HERE = f"{DAGGER} default settings were chosen on this task's training and validation rows (docs/defaults.md)"
"""The footnote of tables whose task helped to choose the defaults: what is compared there is not all unseen."""

DOUBLE_DAGGER = "‡"
SEEN = f"{DOUBLE_DAGGER} the backbone is known to have been trained on this data set"
"""The footnote of tables whose backbone knows the data: its scores say less of data that it does not know."""

_GROUP = ("task", "data", "backbone", "weights", "device", "budget", "method", "family", "variant", "n_train", "draw")
PANEL = ("task", "data", "device", "budget", "backbone", "weights")
_NOT_OK = {
    "failed": "failed",
    "out_of_memory": "out of memory",
    "out_of_time": "out of time",
    "unsupported": "unsupported",
}

_DTYPES: dict[str, Dtype] = {
    **dict.fromkeys(_GROUP, "string"),
    "n_train": "Int64",
    "n_per_class": "Int64",
    "metric": "string",
    "higher_is_better": "boolean",
    **dict.fromkeys(("score", "score_low", "score_high"), "Float64"),
    "basis": "string",
    **dict.fromkeys(("n_seeds", "n_test", "n_test_available"), "Int64"),
    "train_score": "Float64",
    **dict.fromkeys(("load_seconds", "encode_seconds", "tune_seconds"), "Float64"),
    **dict.fromkeys(("fit_seconds", "train_seconds", "predict_seconds"), "Float64"),
    "peak_bytes": "Int64",
    "memory": "string",
    **dict.fromkeys(("n_trainable", "n_parameters", "artifact_bytes"), "Int64"),
    **dict.fromkeys(("train_tokens_per_second", "utilisation", "energy_joules", "price"), "Float64"),
    "defaults_chosen_here": "boolean",
    "backbone_has_seen": "boolean",
    "overlaps": "string",
    **dict.fromkeys(("n_ok", "n_failed", "n_out_of_memory", "n_out_of_time", "n_unsupported", "n_missing"), "Int64"),
    "note": "string",
}

_SECONDS = ("load_seconds", "encode_seconds", "tune_seconds", "fit_seconds", "train_seconds", "predict_seconds")

_RATES = ("train_tokens_per_second", "utilisation", "energy_joules", "price")

_READ = (
    *_GROUP,
    *("id", "seed", "status", "metric", "score", "score_low", "score_high", "train_score", "higher_is_better"),
    *("n_test", "n_test_available", "n_per_class", *_SECONDS, *_RATES),
    *("peak_device_bytes", "peak_rss_above_baseline_bytes", "n_trainable", "n_parameters", "artifact_bytes"),
    *("defaults_chosen_here", "backbone_has_seen", "overlaps"),
)
"""The columns of records that a comparison is made of."""


def comparison(source: Source) -> pd.DataFrame:
    """One row per task, backbone, device, budget, configuration of a method, training size and draw.

    Scores are means over seeds (`n_seeds` of them) with 95 % intervals and their `basis`; seconds and `peak_bytes` are
    medians over the same seeds, `peak_bytes` on the accelerator where there is one (`memory` is "device"), else of the
    process above its baseline ("host"). `n_missing` counts the seeds that some other method has at that size.

    Raises:
        UsageError: if there is no record.
    """
    observations = observe(source)
    known = _MADE.get(observations)
    if known is None:
        known = _MADE[observations] = _compare(observations)
    return known.copy()


_MADE: WeakKeyDictionary[Observations, pd.DataFrame] = WeakKeyDictionary()
"""Comparisons by what they were made of: a report asks for the same one many times."""


def _compare(observations: Observations) -> pd.DataFrame:
    groups: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    columns = observations.columns(_READ)
    for values in zip(*columns.values(), strict=True):
        row: Row = dict(zip(_READ, values, strict=True))
        groups[tuple(row[name] for name in _GROUP)].append(row)
    seeds: defaultdict[tuple[Any, ...], set[int]] = defaultdict(set)
    for rows in groups.values():
        seeds[_setting(rows[0])].update(row["seed"] for row in rows)
    summarised = [_summarise(observations, rows, seeds[_setting(rows[0])]) for rows in groups.values()]
    summarised.sort(key=lambda row: tuple((row[name] is not None, row[name]) for name in (*PANEL, "variant", *_SIZE)))
    return pd.DataFrame(
        {name: pd.array([row[name] for row in summarised], dtype=dtype) for name, dtype in _DTYPES.items()}
    )


_SIZE = ("n_train", "draw")


def _setting(row: Row) -> tuple[Any, ...]:
    """Where all methods are expected to have run the same seeds."""
    return tuple(row[name] for name in (*PANEL, *_SIZE))


def _summarise(observations: Observations, rows: list[Row], expected: set[int]) -> Row:
    rows = sorted(rows, key=lambda row: row["seed"])
    ok = [row for row in rows if row["status"] == "ok" and row["score"] is not None]
    counts = Counter(row["status"] for row in rows)
    first = ok[0] if ok else rows[0]
    summary: Row = dict.fromkeys(_DTYPES)
    summary.update({name: first[name] for name in (*_GROUP, "n_per_class", "metric", "higher_is_better")})
    summary["defaults_chosen_here"] = _any(row["defaults_chosen_here"] for row in rows)
    summary["backbone_has_seen"] = _any(row["backbone_has_seen"] for row in rows)
    summary["overlaps"] = first["overlaps"]
    summary.update({f"n_{status}": counts[status] for status in ("ok", *_NOT_OK)})
    summary["n_missing"] = len(expected - {row["seed"] for row in rows})
    summary["n_seeds"] = len(ok)
    summary["note"] = _note(summary)
    if not ok:
        return summary
    scores = [row["score"] for row in ok]
    rows_of = matrix(observations, [(row["id"], row["device"]) for row in ok], scores)
    if rows_of is None:
        found = stats.summarise(scores)
    else:
        found = stats.summarise(scores, rows_of.values, bounds=(0.0, 1.0) if rows_of.is_mean else None)
    low, high, basis = found.low, found.high, found.basis
    if basis == "none" and first["score_low"] is not None:  # the record's own, where rows tell nothing of the metric
        low, high, basis = first["score_low"], first["score_high"], "test rows only"
    summary.update(score=found.mean, score_low=low, score_high=high, basis=basis)
    for name in (*_SECONDS, *_RATES):
        summary[name] = _over(np.median, ok, name)
    summary["train_score"] = _over(np.mean, ok, "train_score")
    for name in ("n_trainable", "n_parameters", "artifact_bytes", "n_test", "n_test_available"):
        summary[name] = _whole(_over(np.median, ok, name))
    on_device = any(row["peak_device_bytes"] is not None for row in ok)
    peak = "peak_device_bytes" if on_device else "peak_rss_above_baseline_bytes"
    summary["peak_bytes"] = _whole(_over(np.median, ok, peak))
    summary["memory"] = None if summary["peak_bytes"] is None else "device" if on_device else "host"
    return summary


def _note(summary: Row) -> str | None:
    parts = [f"{summary[f'n_{status}']} {label}" for status, label in _NOT_OK.items() if summary[f"n_{status}"]]
    if summary["n_missing"]:
        parts.append(f"{summary['n_missing']} missing")
    return ", ".join(parts) or None


def _over(reduce: Callable[[Any], Any], rows: list[Row], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return float(reduce(values)) if values else None


def _any(values: Iterable[bool | None]) -> bool | None:
    known = [value for value in values if value is not None]
    return any(known) if known else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def each(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of a frame as named tuples, untyped: the columns are what `comparison` declares."""
    return iter(frame.itertuples(index=False))


# ---- panels: what may stand in one table


@dataclass(frozen=True)
class Panel:
    """Rows of `comparison` that may be compared with each other.

    Attributes:
        title: `docstrings · all-MiniLM-L6-v2 · AMD EPYC, 2 threads`, with what else tells it from other panels.
        rows: its rows, best first (by the score at the largest size that a method has), then by size.
        metric: the task's main metric; None where nothing was scored.
        higher_is_better: its direction.
        defaults_chosen_here: whether the methods' default settings were chosen on this task.
        backbone_has_seen: whether the backbone is known to have been trained on the task's data.
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
    defaults_chosen_here: bool = False
    backbone_has_seen: bool = False
    overlaps: str | None = None

    @property
    def heading(self) -> str:
        """The title as a table bears it: with a mark for each of `footnotes` that has one."""
        marks = (DAGGER if self.defaults_chosen_here else "") + (DOUBLE_DAGGER if self.backbone_has_seen else "")
        return f"{self.title} {marks}".strip()

    @property
    def footnotes(self) -> list[str]:
        """What has to be said of the task beneath its table, in sentences without a full stop."""
        said = [CHOSEN_HERE] * self.defaults_chosen_here + [SEEN] * self.backbone_has_seen
        return said + ([f"Known overlap: {text.plain(self.overlaps)}"] if self.overlaps else [])


def panels(source: Source | pd.DataFrame) -> list[Panel]:
    """The comparison cut into panels; methods without a backbone stand in the panel of each backbone.

    Args:
        source: records, or what `comparison` made of them.
    """
    frame = source if isinstance(source, pd.DataFrame) else comparison(source)
    found = []
    for _, of_setting in frame.groupby(["task", "data", "device", "budget"], sort=True, dropna=False):
        bare = of_setting["backbone"].isna()
        backbones = of_setting.loc[~bare, ["backbone", "weights"]].drop_duplicates()
        if backbones.empty:
            found.append(_panel(frame, of_setting, None, None))
        for backbone, weights in backbones.itertuples(index=False, name=None):
            mine = (of_setting["backbone"] == backbone).fillna(False) & (of_setting["weights"] == weights).fillna(False)
            found.append(_panel(frame, of_setting[bare | mine], backbone, weights))
    return found


def _panel(frame: pd.DataFrame, rows: pd.DataFrame, backbone: str | None, weights: str | None) -> Panel:
    first = rows.iloc[0]
    same_task = frame[frame["task"] == first["task"]]
    parts = [first["task"]]
    if same_task["data"].nunique() > 1:
        parts.append(f"data {first['data'][:8]}")
    if backbone is not None:
        parts.append(_short_name(backbone, set(frame["backbone"].dropna())))
        if frame.loc[(frame["backbone"] == backbone).fillna(False), "weights"].nunique() > 1:
            parts.append(f"weights {str(weights)[:8]}")
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
        defaults_chosen_here=bool(rows["defaults_chosen_here"].fillna(False).any()),
        backbone_has_seen=bool(rows["backbone_has_seen"].fillna(False).any()),
        overlaps=None if rows["overlaps"].dropna().empty else str(rows["overlaps"].dropna().iloc[0]),
    )


def _short_name(backbone: str, known: set[str]) -> str:
    """What follows the last slash, where that tells it from the others."""
    short = backbone.rsplit("/", 1)[-1]
    return short if short and sum(name.rsplit("/", 1)[-1] == short for name in known) == 1 else backbone


def _best_first(rows: pd.DataFrame) -> pd.DataFrame:
    higher = bool(rows["higher_is_better"].dropna().all())
    keys: dict[str, tuple[bool, int, float, str]] = {}
    for variant, own in rows.groupby("variant"):
        scored = own.dropna(subset=["score"]).sort_values("n_train")
        best = float(scored["score"].iloc[-1]) if len(scored) else 0.0
        size = int(scored["n_train"].iloc[-1]) if len(scored) else 0
        keys[str(variant)] = (not len(scored), -size, -best if higher else best, str(variant))
    order = {variant: i for i, variant in enumerate(sorted(keys, key=lambda variant: keys[variant]))}
    return (
        rows.assign(_order=rows["variant"].map(order).astype(int))
        .sort_values(["_order", "n_train", "draw"], kind="stable")
        .drop(columns="_order")
        .reset_index(drop=True)
    )


# ---- methods x training sizes


@dataclass(frozen=True)
class Entry:
    """One field of the pivot: the score of a method at a size, or why there is none."""

    score: str
    interval: str
    note: str
    is_best: bool


@dataclass(frozen=True)
class Line:
    """One method of the pivot: its entries by size, and its cost at the largest size where it has one."""

    variant: str
    entries: tuple[Entry, ...]
    fit: str
    memory: str
    trainable: str


def pivot(panel: Panel) -> tuple[list[str], list[Line]]:
    """Labels of the training sizes, and one line per configuration with its score at each of them."""
    rows = panel.rows
    sizes = (
        rows[["n_train", "draw", "n_per_class"]].drop_duplicates(["n_train", "draw"]).sort_values(["n_train", "draw"])
    )
    labels = [text.size(*row) for row in sizes.itertuples(index=False, name=None)]
    keys = [(n_train, draw) for n_train, draw, _ in sizes.itertuples(index=False, name=None)]
    found = {(row.variant, row.n_train, row.draw): row for row in each(rows)}
    best: dict[tuple[Any, Any], float] = {}
    for key in keys:
        at_size = rows[(rows["n_train"] == key[0]) & (rows["draw"] == key[1])]
        scores = at_size["score"].dropna()
        if len(scores) > 1:
            best[key] = scores.max() if at_size["higher_is_better"].dropna().all() else scores.min()
    lines = []
    for variant in rows["variant"].drop_duplicates():
        own = [found.get((variant, *key)) for key in keys]
        costed = [row for row in own if row is not None and text.present(row.score)]
        last: Any = costed[-1] if costed else None
        lines.append(
            Line(
                variant=text.plain(variant),
                entries=tuple(_entry(row, best.get(key)) for row, key in zip(own, keys, strict=True)),
                fit=text.seconds(last.fit_seconds if last else None),
                memory=text.memory(last.peak_bytes if last else None),
                trainable=text.number(last.n_trainable if last else None),
            )
        )
    return labels, lines


def _entry(row: Any, best: float | None) -> Entry:
    if row is None:
        return Entry(text.ABSENT, "", "", False)
    note = row.note if text.present(row.note) else ""
    if not text.present(row.score):
        return Entry(text.ABSENT, "", note or "not run", False)
    return Entry(text.score(row.score), text.interval(row.score_low, row.score_high), note, row.score == best)


def markdown_pivot(panel: Panel) -> str:
    """Method x training size: score [interval]; seconds to fit, peak memory and trainable parameters at the largest."""
    labels, lines = pivot(panel)
    rows = []
    for line in lines:
        cells = []
        for entry in line.entries:
            score = f"**{entry.score}**" if entry.is_best else entry.score
            shown = f"{score} [{entry.interval.replace('–', ', ')}]" if entry.interval else score
            cells.append(f"{shown} ({entry.note})" if entry.note else shown)
        rows.append([text.markdown(line.variant), *cells, line.fit, line.memory, line.trainable])
    return markdown_table(["method", *labels, "fit", "peak memory", "trainable"], rows, n_left=1)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], n_left: int) -> str:
    """A Markdown table of fields that are escaped already; the first `n_left` columns are set left, the rest right."""
    rule = [":--" if i < n_left else "--:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def markdown_comparison(panel: Panel) -> str:
    """Every row of a panel: score, seeds, seconds of fitting and of training, memory, parameters, what is missing."""
    header = ["method", "labels", "score", "95 % interval", "train score", "seeds", "fit", "train", "predict"]
    asked = [
        (title, name, say)
        for title, name, say in (("energy", "energy_joules", text.energy), ("price", "price", text.price))
        if panel.rows[name].notna().any()
    ]
    header += ["peak memory", "trainable", *(title for title, _, _ in asked), "missing"]
    rows = [
        [
            text.markdown(row.variant),
            text.size(row.n_train, row.draw, row.n_per_class),
            text.score(row.score),
            text.interval(row.score_low, row.score_high) or text.ABSENT,
            text.score(row.train_score),
            str(row.n_seeds),
            text.seconds(row.fit_seconds),
            text.seconds(row.train_seconds),
            text.seconds(row.predict_seconds),
            text.memory(row.peak_bytes),
            text.number(row.n_trainable),
            *(say(getattr(row, name)) for _, name, say in asked),
            row.note if text.present(row.note) else "",
        ]
        for row in each(panel.rows)
    ]
    return markdown_table(header, rows, n_left=1)


def failures(source: Source) -> pd.DataFrame:
    """What is not `ok`, one row per configuration, size, status and reason, with the seeds that it struck."""
    frame = observe(source).frame
    frame = frame[frame["status"] != "ok"].copy()
    frame["reason"] = frame["error"].fillna("").map(lambda error: text.plain((error.strip().splitlines() or [""])[0]))
    keys = ["task", "backbone", "device", "budget", "variant", "n_train", "draw", "status", "reason"]
    rows = [
        {**cells[keys].iloc[0].to_dict(), "seeds": ", ".join(map(str, sorted(cells["seed"])))}
        for _, cells in frame.groupby(keys, dropna=False, sort=True)
    ]
    return pd.DataFrame(rows, columns=[*keys, "seeds"])
