"""The parts of a report that are no result: what was compared, how it was measured, how to read the numbers."""

from __future__ import annotations

from collections.abc import Iterable

from harness.records import Record
from harness.report.observations import Observations
from harness.support import text

HOW_TO_READ = """\
- **labels** (n_train) counts every label that a method may look at, those that it sets aside for validation, tuning or
  early stopping included. Sizes are nested (32 within 128) and drawn anew for each seed; `8/class` draws as many of
  each class.
- **score** is the task's main metric on test rows that nothing has seen before the last prediction, as the mean over
  seeds. Test rows are capped by a fixed hash; the cap is stated above.
- **interval** is a 95 % interval for that mean. With several seeds it treats seeds and test rows as crossed random
  effects: it covers another draw of training rows and another initialisation as well as other test rows. Metrics that
  are no mean over rows (BLEU, Matthews' correlation) enter by their jackknife pseudo-values. With a single seed it
  knows of test rows only and is too short; where no predictions are stored it knows of seeds only: the column `basis`
  of comparison.csv says which. Two intervals that overlap do not show that two methods are alike.
- **tied with the best** are methods that are not shown to be worse than the best on the same seeds and test rows: the
  p-value of the paired difference is 0.05 or above after Holm's correction. That is no proof that they are as good.
- **train score** is the same metric on the first 500 training rows; its distance to the score is the overfitting gap.
- **train** is seconds of training, and what a `train_seconds` budget counts: encoding the training rows, tuning,
  fitting and validation. cells.csv has the parts. **predict** is tokenising, encoding and predicting the test rows.
  Loading the backbone counts in neither of them, nor does scoring. All are medians over seeds. Seconds of a cell that
  was disturbed count only where all seeds were disturbed. What came from a cache is charged at the seconds measured
  when it was computed.
- **peak memory** is the accelerator's peak where there is one, else the resident memory of the process above what it
  held before the cell: what a budget of memory limits. Seconds and memory of different devices are never pooled.
- **energy** is of training, by the device's own counter, and **price** of loading, training and predicting, at what was
  stated an hour of the device to cost; columns that nobody has figures for are left out. comparison.csv has tokens a
  second and `utilisation` besides: operations counted, over seconds, over the rate at which this very device was
  measured to multiply matrices.
- **trainable** counts the parameters that a method trains, its output layer included.
- **missing** counts seeds without a score: `failed` (an exception, tried again on request), `out of memory`,
  `out of time`, `unsupported` (final on that device), and `missing` for what was not run or was interrupted.
- The **Pareto front** holds what no other choice beats: none at least as good in no more seconds. It follows the mean
  scores, and knows nothing of their intervals.
"""


def compared(observations: Observations) -> list[tuple[str, list[str]]]:
    """What was compared, by heading: tasks, backbones, methods, sizes, budgets, seeds, devices, cells; plain texts."""
    frame = observations.frame
    sizes = frame[["n_train", "draw", "n_per_class"]].drop_duplicates().sort_values(["n_train", "draw"])
    statuses = frame["status"].value_counts().sort_index()
    other = [f"{n} {str(status).replace('_', ' ')}" for status, n in statuses.items() if status != "ok"]
    ok = int(statuses.get("ok", 0))
    return [
        ("suites", _once(frame["suite"])),
        ("tasks", _once(frame["task"])),
        ("backbones", _once(frame["backbone"].dropna())),
        ("methods", _once(frame["variant"])),
        ("training sizes", [text.size(*row) for row in sizes.itertuples(index=False, name=None)]),
        ("budgets", _once(frame["budget"])),
        ("seeds", [str(seed) for seed in sorted(set(frame["seed"]))]),
        ("devices", _once(frame["device"])),
        ("cells", [f"{len(frame)} in all", f"{ok} ok", *other]),
        *([("remarks on the data", remarks)] if (remarks := _remarks(observations)) else []),
    ]


def _remarks(observations: Observations) -> list[str]:
    """Return what a reader of the scores should know of the data: rows left out, classes not scored, warnings."""
    found: dict[str, None] = {}
    for record in observations.records:
        data, task = record.provenance.dataset, record.cell.task
        left_out = data.get("left_out") or {}
        said = [f"{count:,} rows left out ({reason})" for reason, count in sorted(left_out.items())]
        if unscored := data.get("n_classes_not_scored"):
            said.append(f"{unscored:,} of {data.get('n_classes')} classes are trained on and not scored")
        said += [str(warning).rstrip(".") for warning in data.get("warnings") or ()]
        found.update(dict.fromkeys(f"{task}: {one}" for one in said))
    return list(found)


def what_was_compared(observations: Observations) -> str:
    """`compared` as a list in Markdown."""
    items = compared(observations)
    return "\n".join(f"- {name}: {', '.join(map(text.markdown, values)) or 'none'}" for name, values in items)


def measured(observations: Observations) -> list[tuple[str, str]]:
    """How it was measured, as (heading, plain text): devices, versions, commits, fingerprints, test cap, notes."""
    records = observations.records
    made = [record.provenance for record in records]
    items = [("device", device) for device in _once(record.device for record in records)]
    settings = _once(f"threads {p.threads}, precision {p.precision}, Python {p.python}, {p.platform}" for p in made)
    items += [("machine", setting) for setting in settings]
    items += [("code", source) for source in _once(f"harness {p.harness}, {_commit(p.commit, p.dirty)}" for p in made)]
    packages = _once(", ".join(f"{name} {version}" for name, version in sorted(p.packages.items())) for p in made)
    items += [("packages", versions or "not recorded") for versions in packages]
    items += [("data", data) for data in _once(_data(record) for record in records)]
    items += [("test rows", rows) for rows in _once(_test_rows(record) for record in records) if rows]
    weights = _once(f"{r.cell.backbone}, weights {r.cell.weights}" for r in records if r.cell.backbone is not None)
    items += [("backbone", one) for one in weights]
    n_reused = sum(bool(record.cost.reused) for record in records)
    n_unsteady = sum(record.unsteady is not None for record in records)
    n_tuned = sum(record.facts.tuned_settings is not None for record in records)
    if n_reused:
        said = f"{n_reused} of {len(records)} cells took something from a cache, charged at its measured cost"
        items.append(("", said))
    if n_tuned:
        said = f"{n_tuned} of {len(records)} cells chose settings on rows set aside from n_train; the records say which"
        items.append(("", said))
    if n_unsteady:
        said = f"{n_unsteady} of {len(records)} cells were disturbed by other processes: their seconds are unreliable"
        items.append(("", said))
    notes = _once(f"{name}: {note}" for record in records for name, note in record.facts.in_words().items())
    return items + [("note", note) for note in notes]


def how_it_was_measured(observations: Observations) -> str:
    """`measured` as a list in Markdown."""
    items = measured(observations)
    return "\n".join(f"- {name}: {text.markdown(said)}" if name else f"- {said}" for name, said in items)


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
    if record.score is None or not record.score.n_test:
        return ""
    available = record.score.n_test_available
    of = "" if available is None else f" of {available:,}"
    capped = " (capped)" if available is not None and available > record.score.n_test else ""
    return f"{record.cell.task}, {record.score.n_test:,}{of}{capped}"
