"""The parts of a report that are no result: what was compared, how it was measured, how to read the numbers."""

from __future__ import annotations

from collections.abc import Iterable

from harness.records import Record
from harness.report import text
from harness.report.observations import Observations

_SETTINGS = "tuned_settings"
_OF_ONE_CELL = (_SETTINGS, "tuned_trials")
"""Notes that differ from cell to cell: hundreds of them would bury the others."""

HOW_TO_READ = """\
- **labels** (n_train) counts every label that a method may look at, those that it sets aside for validation, tuning or
  early stopping included. Sizes are nested (32 within 128) and drawn anew for each seed; `8/class` draws as many of
  each class.
- **score** is the task's main metric on test rows that nothing has seen before the last prediction, as the mean over
  seeds. Test rows are capped by a fixed hash; the cap is stated above.
- **interval** is a 95 % interval for that mean. With several seeds it treats seeds and test rows as crossed random
  effects: it covers another draw of training rows and another initialisation as well as other test rows. With a single
  seed it knows of test rows only, and with a metric that is no mean over rows it knows of seeds only: the column
  `basis` of comparison.csv says which. Two intervals that overlap do not show that two methods are alike: methods are
  compared by paired differences on the same seeds and rows.
- **train score** is the same metric on the first 500 training rows; its distance to the score is the overfitting gap.
- **fit** is seconds of training alone. **train** is what a `train_seconds` budget counts: encoding the training rows,
  tuning, fitting and validation. **predict** is tokenising, encoding and predicting the test rows. Loading the
  backbone counts in none of them, nor does scoring. All are medians over seeds. What came from a cache is charged at
  the seconds measured when it was computed.
- **peak memory** is the accelerator's peak where there is one, else the resident memory of the process above what it
  held before the cell: what a budget of memory limits. Seconds and memory of different devices are never pooled.
- **trainable** counts the parameters that a method trains, its output layer included.
- **missing** counts seeds without a score: `failed` (an exception, tried again on request), `out of memory`,
  `out of time`, `unsupported` (final on that device), and `missing` for what was not run or was interrupted.
- The **Pareto front** holds what no other choice beats: none at least as good in no more seconds. It follows the mean
  scores, and knows nothing of their intervals.
"""


def what_was_compared(observations: Observations) -> str:
    """A short list in Markdown: tasks, backbones, methods, sizes, budgets, seeds, devices, cells."""
    frame = observations.frame
    sizes = frame[["n_train", "draw", "n_per_class"]].drop_duplicates().sort_values(["n_train", "draw"])
    statuses = frame["status"].value_counts().sort_index()
    other = [f"{n} {str(status).replace('_', ' ')}" for status, n in statuses.items() if status != "ok"]
    ok = int(statuses.get("ok", 0))
    rows = {
        "suites": _names(frame["suite"]),
        "tasks": _names(frame["task"]),
        "backbones": _names(frame["backbone"].dropna()),
        "methods": _names(frame["variant"]),
        "training sizes": ", ".join(text.size(*row) for row in sizes.itertuples(index=False, name=None)),
        "budgets": _names(frame["budget"]),
        "seeds": ", ".join(str(seed) for seed in sorted(set(frame["seed"]))),
        "devices": _names(frame["device"]),
        "cells": ", ".join([f"{len(frame)} in all", f"{ok} ok", *other]),
    }
    return "\n".join(f"- {name}: {value or 'none'}" for name, value in rows.items())


def how_it_was_measured(observations: Observations) -> str:
    """A list in Markdown of devices, precision, versions, commits, data fingerprints, the test cap and notes."""
    records = observations.records
    made = [record.provenance for record in records]
    lines = [f"- device: {text.markdown(device)}" for device in _once(record.device for record in records)]
    settings = _once(f"threads {p.threads}, precision {p.precision}, Python {p.python}, {p.platform}" for p in made)
    lines += [f"- machine: {text.markdown(setting)}" for setting in settings]
    sources = _once(f"harness {p.harness}, {_commit(p.commit, p.dirty)}" for p in made)
    lines += [f"- code: {text.markdown(source)}" for source in sources]
    packages = _once(", ".join(f"{name} {version}" for name, version in sorted(p.packages.items())) for p in made)
    lines += [f"- packages: {text.markdown(versions) or 'not recorded'}" for versions in packages]
    lines += [f"- data: {text.markdown(data)}" for data in _once(_data(record) for record in records)]
    lines += [f"- test rows: {text.markdown(rows)}" for rows in _once(_test_rows(record) for record in records) if rows]
    weights = _once(f"{r.cell.backbone}, weights {r.cell.weights}" for r in records if r.cell.backbone is not None)
    lines += [f"- backbone: {text.markdown(one)}" for one in weights]
    n_reused = sum(bool(record.cost.reused) for record in records)
    if n_reused:
        lines.append(f"- {n_reused} of {len(records)} cells took something from a cache, charged at its measured cost")
    n_tuned = sum(_SETTINGS in p.measured for p in made)
    if n_tuned:
        lines.append(
            f"- {n_tuned} of {len(records)} cells chose settings on rows set aside from n_train; the records say which"
        )
    notes = _once(
        f"{name}: {note}" for p in made for name, note in sorted(p.measured.items()) if name not in _OF_ONE_CELL
    )
    lines += [f"- note: {text.markdown(note)}" for note in notes]
    return "\n".join(lines)


def _names(values: Iterable[str]) -> str:
    return ", ".join(text.markdown(value) for value in _once(values))


def _once(values: Iterable[str]) -> list[str]:
    return sorted(set(values))


def _commit(commit: str | None, dirty: bool | None) -> str:
    if commit is None:
        return "commit unknown"
    return f"commit {commit[:12]}{' with changes that are not committed' if dirty else ''}"


def _data(record: Record) -> str:
    revision = record.provenance.dataset.get("revision")
    pinned = f", revision {revision}" if revision else ""
    return f"{record.cell.task}, fingerprint {record.cell.data}{pinned}"


def _test_rows(record: Record) -> str:
    if record.score is None:
        return ""
    available = record.score.n_test_available
    of = "" if available is None else f" of {available:,}"
    capped = " (capped)" if available is not None and available > record.score.n_test else ""
    return f"{record.cell.task}, {record.score.n_test:,}{of}{capped}"
