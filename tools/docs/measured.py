"""Measured results of each method, from the reference results, by the report's own functions."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from harness.methods import methods
from harness.planning import load_suite, suite_names, suite_origin
from harness.records import Record
from harness.report import observe
from harness.report.tables import comparison
from harness.store import stream_source
from harness.support import shipped, text
from tools.docs.markdown import table

EARLIER_TIMED = "amd-epyc-family-26-2-threads"
"""Folder of earlier results whose seconds may be compared: nothing else ran beside them (results/README.md)."""

_PANEL = ["device", "backbone", "task", "n_train", "draw"]


def is_default(record: Record) -> bool:
    """Return whether a record has the method's current version, default settings and default length of a fit."""
    cell = record.cell
    if cell.method not in methods or cell.budget.to_json() or cell.version < methods.get(cell.method).version:
        return False
    defaults = methods.get(cell.method)().model_dump(mode="json")
    return all(name in defaults and defaults[name] == value for name, value in cell.config.items())


@functools.cache
def known_tasks() -> dict[str, bool]:
    """Return the tasks of the shipped suites, and whether default settings were chosen on each."""
    suites = [load_suite(name) for name in suite_names() if suite_origin(name) is None]
    return {name: task.chosen_on for suite in suites for name, task in suite.tasks.items()}


@functools.cache
def results() -> pd.DataFrame:
    """Return the comparison of the reference results: one row per method, backbone, device, task and size.

    Earlier results follow for kinds of task that the reference lacks.

    `timed_seconds` are the median seconds of training, null where they may not be compared.
    """
    new = _defaults(Path(str(shipped("results/reference"))))
    kinds = {record.kind for record in new}
    earlier = Path(str(shipped("results/earlier")))
    old = {file: [one for one in _defaults(file) if one.kind not in kinds] for file in sorted(earlier.rglob("*.jsonl"))}
    frame = comparison(observe([*new, *itertools.chain.from_iterable(old.values())]))
    frame = frame[frame["score"].notna()]
    quiet = [record for file, several in old.items() if file.parent.name == EARLIER_TIMED for record in several]
    timed = comparison(observe(replace(record, predictions=None) for record in (*new, *quiet)))
    seconds = timed[["method", *_PANEL, "train_seconds"]].rename(columns={"train_seconds": "timed_seconds"})
    # Older records have fewer settings: one configuration may have two labels. The one with more seeds counts.
    frame = frame.sort_values("n_seeds", ascending=False, kind="stable").drop_duplicates(["method", *_PANEL])
    seconds = seconds.dropna().drop_duplicates(["method", *_PANEL])
    frame = frame.merge(seconds, on=["method", *_PANEL], how="left").sort_values(_PANEL, kind="stable")
    # Older records do not say that default settings were chosen on their task.
    return frame.assign(defaults_chosen_here=[known_tasks()[task] for task in frame["task"]])


def _defaults(source: Path) -> list[Record]:
    return [
        record
        for record in stream_source(str(source))
        if record.cell.task in known_tasks() and record.facts.is_evidence and is_default(record)
    ]


def measured(name: str) -> Iterator[str]:
    """Yield the paragraphs and tables of a method's measured results."""
    frame = results()
    found = frame[frame["method"] == name]
    if found.empty:
        yield "The reference results hold no score of this method with its default settings."
        return
    found = _with_several_seeds(found)
    panels = [panel for _, panel in found.groupby(["device", "backbone"], dropna=False, observed=True)]
    for panel in sorted(panels, key=_order):
        tasks = sorted(set(panel["task"]), key=lambda task: _order(panel[panel["task"] == task]))
        rows = [_row(panel[panel["task"] == task]) for task in tasks]
        backbone = panel["backbone"].iloc[0]
        on = f" ({str(backbone).rpartition('/')[2]})" if text.present(backbone) else ""
        yield f"On {panel['device'].iloc[0]}{on}:"
        headings = ("task", "metric", "labels", "score", "labels", "score", "seeds", "training", "memory")
        yield table((*headings, "trained"), rows, right=range(2, 10))


def _with_several_seeds(found: pd.DataFrame) -> pd.DataFrame:
    """Return the rows without devices that ran one seed of a task, where another device ran several."""
    place = ["task", "backbone"]
    seeds = found.groupby([*place, "device"], dropna=False)["n_seeds"].transform("max")
    best = found.groupby(place, dropna=False)["n_seeds"].transform("max")
    return found[(seeds > 1) | (best == 1)]


def _order(rows: pd.DataFrame) -> tuple[Any, ...]:
    """Return a key that puts tasks that defaults were not chosen on first, and then those with more seeds and sizes."""
    fresh = ~rows["defaults_chosen_here"]
    several = fresh & (rows["n_seeds"] > 1)
    return (-int(several.sum()), -int(fresh.sum()), -len(rows), rows["device"].iloc[0], rows["task"].iloc[0])


def _row(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return a row of the table: the smallest and the largest size, and the costs at the largest."""
    rows = rows.sort_values(["n_train", "n_seeds"], kind="stable")
    few, many = rows.iloc[0], rows.iloc[-1]
    mark = "†" if many["defaults_chosen_here"] else ""
    seen = "‡" if text.present(many["backbone_has_seen"]) and many["backbone_has_seen"] else ""
    several = len(rows) > 1
    seeds = dict.fromkeys((int(few["n_seeds"]), int(many["n_seeds"])))  # one number where both are the same
    return (
        f"[{many['task']}](../suites.md#{many['task']}){mark}{seen}",
        many["metric"].replace("_", " "),
        _size(few) if several else text.ABSENT,
        _score(few) if several else text.ABSENT,
        _size(many),
        _score(many),
        ", ".join(map(str, seeds)),
        text.seconds(many["timed_seconds"]),
        text.memory(many["memory_bytes"]),
        text.number(many["n_trainable"]),
    )


def _size(row: Any) -> str:
    return text.size(int(row["n_train"]), row["draw"], row["n_per_class"])


def _score(row: Any) -> str:
    interval = text.interval(row["score_low"], row["score_high"])
    return text.score(row["score"]) + (f" ({interval})" if interval else "")
