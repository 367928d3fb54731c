"""Write the parts of a report beside its results: what was compared, how it was measured, how to read it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from harness.records import Record
from harness.report.observations import Observations
from harness.support import text

HOW_TO_READ = """\
- **labels** (n_train) counts every label that a method may look at, including rows held out for validation, tuning or
  early stopping. Sizes are nested (32 within 128) and drawn anew for each seed; `8/class` draws the same number of each
  class.
- **score** is the mean over seeds of the task's main metric on test rows. Lower is better for errors (MAE and RMSE, in
  the unit of the numbers to predict) and for perplexity; tables and figures say so. Nothing sees these rows before the
  final prediction. Test rows are capped by a fixed hash; the cap is stated above.
- **interval** is a 95 % interval for that mean. With several seeds it treats seeds and test rows as crossed random
  effects: it covers other draws of training rows, other initialisations and other test rows. Metrics that are not a
  mean over rows (BLEU, correlations, RMSE, F1) use their jackknife pseudo-values. With a single seed the interval
  covers test rows only and is too short. Without stored predictions it covers seeds only. The column `basis` of
  comparison.csv tells them apart. Two overlapping intervals do not show that two methods are alike.
- **tied with the best** are methods that are not shown to be worse than the best on the same seeds and test rows: the
  p-value of the paired difference is 0.05 or above after Holm's correction. That is no proof that they are as good.
- **train score** is the same metric on the first 500 training rows. Its distance to the score is the overfitting gap.
- **train** is the training time that a `train_seconds` budget counts: encoding the training rows, tuning, fitting and
  validation. cells.csv has the parts. **predict** is tokenising, encoding and predicting the test rows. Loading the
  backbone and scoring count in neither. Both are medians over seeds. Timings of disturbed cells count only where all
  seeds were disturbed. Cached work is charged at the seconds measured when it was computed.
- **peak memory** is the accelerator's peak where there is one, else the resident memory of the process above what it
  held before the cell. It includes the weights that cells share. A memory budget limits this figure. Seconds and memory
  of different devices are never pooled.
- **energy** is the energy of training, by the device's own counter. **price** covers loading, training and predicting,
  at the stated price of an hour of the device. Columns without any figure are left out. comparison.csv also has tokens
  per second and `utilisation`: operations per second of training, as a share of this device's measured matrix rate.
- **forgetting** is how far the fit has moved the transformer on outside text, which belongs to no task: the rise of the
  mean loss of a causal model in nats per token, or 1 - CKA of the features before and after. It is 0 for methods on a
  frozen transformer, and unknown without a pretrained one.
- **trainable** counts the parameters that a method trains, including its output layer.
- **missing** counts seeds without a score: `failed` (an exception, tried again on request), `out of memory`,
  `out of time`, `unsupported` (final on that device), and `missing` for cells that were not run or were interrupted.
- The **Pareto front** holds the choices that no other choice beats, that is, none is at least as good in no more
  seconds, or with no more forgetting. It follows the mean scores and ignores their intervals.
"""


def compared(observations: Observations) -> list[tuple[str, list[str]]]:
    """Return what was compared as plain texts by heading: tasks, backbones, methods, sizes, seeds, devices, cells."""
    frame = observations.frame
    sizes = frame[["n_train", "draw", "n_per_class"]].drop_duplicates().sort_values(["n_train", "draw"])
    statuses = frame["status"].value_counts().sort_index()
    other = [f"{n} {str(status).replace('_', ' ')}" for status, n in statuses.items() if status != "ok"]
    ok = int(statuses.get("ok", 0))
    return [
        ("suites", _once(frame["suite"])),
        ("tasks", _once(frame["task"])),
        ("backbones", _once(frame["backbone"].dropna())),
        ("methods", _once(observations.columns(("configuration",))["configuration"])),
        ("training sizes", [text.size(*row) for row in sizes.itertuples(index=False, name=None)]),
        ("budgets", _once(frame["budget"])),
        ("seeds", [str(seed) for seed in sorted(set(frame["seed"]))]),
        ("devices", _once(frame["device"])),
        ("cells", [f"{len(frame)} in all", f"{ok} ok", *other]),
        *([("remarks on the data", remarks)] if (remarks := _remarks(observations)) else []),
    ]


def _remarks(observations: Observations) -> list[str]:
    """Return remarks on the data of each task: rows left out, classes not scored, warnings."""
    found: dict[str, None] = {}
    for record in observations.records:
        data, task = record.provenance.dataset, record.cell.task
        left_out = data.get("left_out") or {}
        said = [f"{text.counted(count, 'row')} left out ({reason})" for reason, count in sorted(left_out.items())]
        if unscored := data.get("n_classes_not_scored"):
            said.append(f"{unscored:,} of {data.get('n_classes')} classes are trained on and not scored")
        said += _of_labels_and_tags(record)
        said += [str(warning).rstrip(".") for warning in data.get("warnings") or ()]
        found.update(dict.fromkeys(f"{task}: {one}" for one in said))
    return [*found, *_unseen_labels(observations.records)]


def _of_labels_and_tags(record: Record) -> Iterable[str]:
    """Return remarks on labels without positive rows and on tags of one record."""
    data = record.provenance.dataset
    if absent := data.get("n_labels_not_in_test"):
        yield f"{text.counted(absent, 'label')} of {data.get('n_labels')} on no test row: nothing tests them"
    if repaired := data.get("n_repaired_tags"):
        yield f"{text.counted(repaired, 'tag')} outside any span (an I- without its B-) read as O"
    if empty := data.get("n_empty_sentences"):
        yield f"{text.counted(empty, 'sentence')} without words left out"
    if strange := data.get("types_not_in_training"):
        yield f"types of spans in test rows alone: {', '.join(map(str, strange))}"


def _unseen_labels(records: Sequence[Record]) -> Iterator[str]:
    """Return for each task and size the labels that no drawn row has, over seeds and methods."""
    found: defaultdict[tuple[str, int], dict[int, str]] = defaultdict(dict)
    for record in records:
        n_unseen = record.provenance.dataset.get("n_labels_unseen")
        if said := record.facts.remarks.get("unseen_labels") or (str(n_unseen) if n_unseen else None):
            found[record.cell.task, record.cell.n_train].setdefault(record.cell.seed, said)
    for (task, n_train), by_seed in sorted(found.items()):
        told = "; ".join(f"seed {seed}: {said}" for seed, said in sorted(by_seed.items()))
        yield f"{task}: labels that no drawn row has, which a method cannot learn, at {n_train:,} labels ({told})"


def what_was_compared(observations: Observations) -> str:
    """Return `compared` as a list in Markdown."""
    items = compared(observations)
    return "\n".join(f"- {name}: {', '.join(map(text.markdown, values)) or 'none'}" for name, values in items)


def measured(observations: Observations) -> list[tuple[str, str]]:
    """Return how it was measured as (heading, plain text): devices, versions, commits, fingerprints, notes."""
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
        said = f"{n_reused} of {len(records)} cells used cached work, charged at its measured cost"
        items.append(("", said))
    if n_tuned:
        said = f"{n_tuned} of {len(records)} cells chose settings on rows held out from n_train; the records list them"
        items.append(("", said))
    if n_unsteady:
        said = f"{n_unsteady} of {len(records)} cells were disturbed by other processes: their seconds are unreliable"
        items.append(("", said))
    notes = _once(
        f"{name}: {note}"
        for record in records
        for name, note in record.facts.in_words().items()
        if name != "unseen_labels"  # among the remarks on the data
    )
    return items + [("note", note) for note in notes]


def how_it_was_measured(observations: Observations) -> str:
    """Return `measured` as a list in Markdown."""
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
