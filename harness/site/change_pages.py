"""Write the page that says what changed from one published state of a report to the next."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.report import TableBlock, table_html
from harness.site.changes import MOST_KEPT
from harness.site.facts import Facts
from harness.site.pages import bar, changes_said, frame
from harness.support import text

_LEAD = (
    "Each time the report was published with other records, they were compared with those before. Scores are compared "
    "on the same seeds and test rows (paired; Holm's correction over all configurations, 5 % level). Seconds and "
    "memory are compared on the same device only, and count where they changed by more than 10 %. Two measurements on "
    "different days may differ by the state of the machine, which no interval over seeds covers."
)
_MEASURES = {"train": "seconds of training", "predict": "seconds of predicting", "memory": "memory"}


def changes_page(facts: Facts, styles: str) -> str:
    """Return the page of changes of a report, the latest first."""
    entries = "\n".join(_entry(entry) for entry in reversed(facts.history))
    content = f'<h1>What changed</h1>\n<p class="lead">{html.escape(_LEAD)}</p>\n{entries}'
    return frame(f"What changed: {facts.title}", styles, bar(facts, here="changes.html"), content)


def _entry(entry: Mapping[str, Any]) -> str:
    versions = ", ".join(entry["versions"])
    heading = f"Records up to {entry['date'] or 'an unknown date'}"
    about = f"{text.counted(entry['n_records'], 'record')}; harness: {versions}; state {entry['digest']}"
    changes = entry.get("changes")
    shown = "<p>This state was published first.</p>" if changes is None else _changes(changes)
    lines = f'<h2>{html.escape(heading)}</h2>\n<p class="notes">{html.escape(about)}</p>'
    return f'<section id="state-{entry["digest"]}">{lines}\n{shown}</section>'


def _changes(changes: Mapping[str, Any]) -> str:
    parts = [f"<p>{html.escape(changes_said(changes))}</p>"]
    if changes["n_not_known"]:
        said = f"{changes['n_not_known']} differences could not be tested: a test needs predictions or three seeds."
        parts.append(f'<p class="notes">{html.escape(said)}</p>')
    for title, (name, row_of, header, n_names) in _TABLES.items():
        parts.append(_table(title, changes[name], row_of, header, n_names))
    return "\n".join(part for part in parts if part)


def _table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    row_of: Callable[[Mapping[str, Any]], list[str]],
    header: Sequence[str],
    n_names: int,
) -> str:
    if not rows:
        return ""
    limit = f'<p class="notes">The first {MOST_KEPT} rows.</p>' if len(rows) == MOST_KEPT else ""
    fields = [row_of(row) for row in rows]
    filled = [i for i in range(len(header)) if any(row[i] for row in fields)]
    shown = [[row[i] for i in filled] for row in fields]
    block = TableBlock(title, [header[i] for i in filled], shown, n_names=sum(i < n_names for i in filled))
    return f"<h3>{title}</h3>\n{limit}{table_html(block)}"


def _score(row: Mapping[str, Any]) -> list[str]:
    sign = "+" if row["difference"] > 0 else ""
    ends = "" if row["low"] is None else f" [{text.score(row['low'])}, {text.score(row['high'])}]"
    difference = f"{sign}{text.score(row['difference'])}{ends}"
    scores = [text.score(row["score_a"]), text.score(row["score_b"])]
    return [row["verdict"], row["task"], row["variant"], row["note"] or "", f"{row['n_train']:,}", *scores, difference]


def _cost(row: Mapping[str, Any]) -> list[str]:
    return [row["task"], row["variant"], _MEASURES[row["measure"]], f"{row['n_train']:,}", _ratio(row)]


def _device(row: Mapping[str, Any]) -> list[str]:
    return [row["device"], _MEASURES[row["measure"]], _ratio(row), f"{row['n_configurations']:,}"]


def _cell(row: Mapping[str, Any]) -> list[str]:
    return [row["change"], row["task"], row["variant"], row["why"] or "", f"{row['n_train']:,}", f"{row['n_cells']:,}"]


def _ratio(row: Mapping[str, Any]) -> str:
    ends = "" if row["low"] is None else f" [{row['low']:.2f}–{row['high']:.2f}]"
    return f"{row['ratio']:.2f}{ends}"


_TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any]], list[str]], tuple[str, ...], int]] = {
    "Scores": ("scores", _score, ("change", "task", "method", "note", "labels", "before", "now", "difference"), 4),
    "Seconds and memory by device": ("devices", _device, ("device", "what", "now / before", "configurations"), 2),
    "Seconds and memory": ("costs", _cost, ("task", "method", "what", "labels", "now / before"), 3),
    "Cells": ("cells", _cell, ("change", "task", "method", "why", "labels", "cells"), 4),
}
"""Tables of an entry: name in `changes_of`, the function that makes a row, the columns, and the number of names."""
