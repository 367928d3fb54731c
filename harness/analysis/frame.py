"""Turn records into one tidy DataFrame, by a declarative list of columns; `export` writes it to a file.

One row is one record. An absent figure is null in pandas' nullable types, never NaN, -1 or 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pandas as pd

from harness.analysis.learning import learned_nothing
from harness.analysis.naming import FullName, full_names
from harness.analysis.using import INFERENCE, use_is_unsteady
from harness.records import Cell, Record, canonical_text, flagged_default, storable

Dtype = Literal["string", "Int64", "Float64", "boolean"]


@dataclass(frozen=True)
class Column:
    """One column of the frame.

    Attributes:
        name: its name, with the unit where there is one.
        dtype: pandas' nullable type.
        doc: what it holds, in a line.
        get: a record to its value; None is null.
    """

    name: str
    dtype: Dtype
    doc: str
    get: Callable[[Record], Any]


def _score(name: str) -> Callable[[Record], Any]:
    return lambda record: None if record.score is None else getattr(record.score, name)


def _cost(name: str) -> Callable[[Record], Any]:
    return lambda record: getattr(record.cost, name)


def _seconds(name: str) -> Callable[[Record], Any]:
    """Return a getter of seconds; cells that shared their device have none, since others added to them."""
    return lambda record: getattr(record.cost, name) if record.provenance.cells_at_a_time == 1 else None


def _served(name: str) -> Callable[[Record], Any]:
    """Return a getter of a fact about the requests to a served model; other cells have none."""
    return lambda record: None if record.facts.served is None else getattr(record.facts.served, name)


def _forgetting(name: str) -> Callable[[Record], Any]:
    """Return a getter of a figure on forgetting; cells without any have none."""
    return lambda record: None if record.facts.forgetting is None else getattr(record.facts.forgetting, name)


_SERVED: tuple[tuple[str, Dtype, str], ...] = (
    ("n_requests", "Int64", "requests that a served model answered"),
    ("n_reused", "Int64", "requests of these whose answers an earlier run had stored"),
    ("n_retries", "Int64", "requests that failed and were sent again"),
    ("prompt_tokens", "Int64", "tokens of all prompts to a served model"),
    ("cached_prompt_tokens", "Int64", "part of them that the server read from its own cache"),
    ("completion_tokens", "Int64", "tokens that a served model wrote"),
    ("currency", "string", "currency of the price of the requests"),
    ("latency_p50_seconds", "Float64", "median of the seconds from a request to its answer"),
    ("latency_p95_seconds", "Float64", "95th percentile of the same"),
    ("latency_p99_seconds", "Float64", "99th percentile of the same"),
    ("concurrency", "Int64", "largest number of requests at a time"),
)
SERVED_COLUMNS: tuple[str, ...] = (*(name for name, _, _ in _SERVED), "request_price", "unreadable")
"""Columns about the requests to served models."""


EXPORT_COLUMNS: tuple[Column, ...] = (
    Column("id", "string", "identity of the cell", lambda record: record.id),
    Column("suite", "string", "label it was run under", lambda record: record.suite),
    Column("task", "string", "name of the task", lambda record: record.cell.task),
    Column("kind", "string", "kind of task", lambda record: record.kind),
    Column("backbone", "string", "name of the backbone; null where none is used", lambda record: record.cell.backbone),
    Column("method", "string", "name of the method", lambda record: record.cell.method),
    Column("family", "string", "family of the method", lambda record: record.family),
    Column("n_train", "Int64", "labels the method may look at", lambda record: record.cell.n_train),
    Column("budget", "string", "what the fit may spend", lambda record: record.cell.budget.label()),
    Column("seed", "Int64", "seed of draw, initialisation and order", lambda record: record.cell.seed),
    Column("status", "string", "status of the cell", lambda record: record.status),
    Column("metric", "string", "the task's main metric", _score("metric")),
    Column("score", "Float64", "the metric on the test rows", _score("value")),
    Column("score_low", "Float64", "lower end of the 95 % interval over test rows", _score("low")),
    Column("score_high", "Float64", "upper end of the same", _score("high")),
    Column(
        "n_test",
        "Int64",
        "test rows scored; null where an imported table does not say",
        lambda record: (record.score.n_test or None) if record.score is not None else None,
    ),
    Column("train_score", "Float64", "the metric on the training rows", lambda record: record.train_score),
    Column("load_seconds", "Float64", "reading the backbone", _seconds("load_seconds")),
    Column("encode_seconds", "Float64", "encoding the training rows", _seconds("encode_seconds")),
    Column("fit_seconds", "Float64", "training", _seconds("fit_seconds")),
    Column("predict_seconds", "Float64", "encoding and predicting the test rows", _seconds("predict_seconds")),
    Column("total_seconds", "Float64", "all phases together", _seconds("total_seconds")),
    Column("train_flops", "Float64", "operations of encoding training rows, tuning, fitting", _cost("train_flops")),
    Column("train_tokens", "Int64", "real tokens through the backbone for them", _cost("train_tokens")),
    Column("peak_device_bytes", "Int64", "peak memory of the accelerator", _cost("peak_device_bytes")),
    Column("peak_rss_bytes", "Int64", "peak resident memory of the process", _cost("peak_rss_bytes")),
    Column(
        "peak_rss_above_baseline_bytes",
        "Int64",
        "the same, less what was resident before the cell",
        _cost("peak_rss_above_baseline_bytes"),
    ),
    Column("n_parameters", "Int64", "parameters of what predicts", _cost("n_parameters")),
    Column("n_trainable", "Int64", "parameters that are trained", _cost("n_trainable")),
    Column("artifact_bytes", "Int64", "bytes of what is saved", _cost("artifact_bytes")),
    Column("stopped_by", "string", "the cap that ended training", _cost("stopped_by")),
    Column("precision", "string", "arithmetic of the backbone", lambda record: record.provenance.precision),
    Column("device", "string", "where it ran", lambda record: record.device),
    Column("error", "string", "why it is not `ok`", lambda record: record.error),
)
"""Columns of `harness export`, in this order."""

EXTRA_COLUMNS: tuple[Column, ...] = (
    Column("attempt", "Int64", "number of the attempt, from 1", lambda record: record.attempt),
    Column("data", "string", "fingerprint of the task's rows", lambda record: record.cell.data),
    Column("weights", "string", "fingerprint of the backbone's files", lambda record: record.cell.weights),
    Column("version", "Int64", "version of the method", lambda record: record.cell.version),
    Column(
        "config", "string", "the method's configuration, as JSON", lambda record: canonical_text(record.cell.config)
    ),
    Column("draw", "string", "how training rows are drawn", lambda record: record.cell.draw),
    Column(
        "n_per_class",
        "Int64",
        "labels of each class, if the draw is balanced",
        lambda record: labels_per_class(record),
    ),
    Column("tune_seconds", "Float64", "choosing settings on labels out of n_train", _seconds("tune_seconds")),
    Column("train_seconds", "Float64", "encoding training rows, tuning, fitting", _seconds("train_seconds")),
    Column("warmup_seconds", "Float64", "what a process does once, apart", _seconds("warmup_seconds")),
    Column("measure_seconds", "Float64", "what measuring itself took", _seconds("measure_seconds")),
    Column(
        "train_tokens_per_second",
        "Float64",
        "real tokens through the backbone in a second of training",
        _seconds("train_tokens_per_second"),
    ),
    Column(
        "utilisation",
        "Float64",
        "share of the device's measured matrix rate that training reached",
        lambda record: record.utilisation,
    ),
    Column("energy_joules", "Float64", "energy of training", _cost("energy_joules")),
    Column("price", "Float64", "price of the cell, at the stated price of an hour", lambda record: record.price),
    Column("fit_peak_bytes", "Int64", "peak memory of training", _cost("fit_peak_bytes")),
    Column("predict_peak_bytes", "Int64", "peak memory of predicting", _cost("predict_peak_bytes")),
    Column(
        "memory_bytes",
        "Int64",
        "memory that the cell needs: its peak, and the weights that were in memory before it",
        lambda record: record.memory_bytes,
    ),
    Column("weights_bytes", "Int64", "all weights of the cell's model, as stored", _cost("weights_bytes")),
    Column(
        "shared_weights_bytes",
        "Int64",
        "the part of them that cells share, which no peak contains",
        _cost("shared_weights_bytes"),
    ),
    Column("peak_reserved_bytes", "Int64", "peak that the accelerator's allocator held", _cost("peak_reserved_bytes")),
    Column("peak_driver_bytes", "Int64", "peak that the accelerator's driver saw", _cost("peak_driver_bytes")),
    Column(
        "reused",
        "string",
        "what came from a cache, comma-separated",
        lambda record: ",".join(record.cost.reused) or None,
    ),
    Column("higher_is_better", "boolean", "direction of the metric", _score("higher_is_better")),
    Column("n_test_available", "Int64", "test rows before the cap", _score("n_test_available")),
    Column(
        "defaults_chosen_here",
        "boolean",
        "whether default settings were chosen on the task's training and validation rows; null if unknown",
        lambda record: _defaults_chosen_here(record),
    ),
    Column(
        "backbone_has_seen",
        "boolean",
        "whether the backbone is known to have been trained on the task's data",
        lambda record: _backbone_has_seen(record),
    ),
    Column(
        "overlaps",
        "string",
        "data sets that are known to share texts with the task's, separated by semicolons",
        lambda record: "; ".join(map(str, record.provenance.dataset.get("overlaps") or ())) or None,
    ),
    Column("train_rows_cut", "Float64", "share of the training texts that were cut", lambda record: cut(record).train),
    Column("test_rows_cut", "Float64", "share of the test texts that were cut", lambda record: cut(record).test),
    Column("cut_at_tokens", "Int64", "tokens that were kept of them", lambda record: cut(record).tokens),
    Column("cut_side", "string", "end of the text that was cut off: left or right", lambda record: cut(record).side),
    Column(
        "imported",
        "boolean",
        "whether others measured it",
        lambda record: record.facts.imported_from is not None,
    ),
    Column(
        "default_points_behind",
        "Float64",
        "points by which other settings beat these defaults in an audit; null where none flags them",
        lambda record: _of_flag(record, "points"),
    ),
    Column(
        "default_better",
        "string",
        "settings that do better than these defaults in an audit; null where none flags them",
        lambda record: _of_flag(record, "does_better"),
    ),
    Column(
        "learned_nothing",
        "boolean",
        "whether one class was predicted, at the training loss of guessing",
        learned_nothing,
    ),
    Column(
        "forgetting",
        "Float64",
        "how far the fit has moved the transformer on outside text, in the unit of the next column",
        _forgetting("amount"),
    ),
    Column(
        "forgetting_unit",
        "string",
        "nats per token (rise of the loss of a causal backbone) or 1 - CKA (change of the features of others)",
        _forgetting("unit"),
    ),
    Column("feature_change", "Float64", "1 - CKA of the features of outside texts", _forgetting("feature_change")),
    Column("probe_before", "Float64", "accuracy of a probe on the pretrained features", _forgetting("probe_before")),
    Column("probe_after", "Float64", "the same on the adapted features", _forgetting("probe_after")),
    Column("outside_text", "string", "name and hash of the outside texts", _forgetting("outside_text")),
    Column("unsteady", "string", "what disturbed the machine meanwhile", lambda record: record.unsteady),
    *(Column(name, dtype, doc, get) for name, dtype, doc, get in INFERENCE),
    Column("use_unsteady", "string", "what disturbed the machine while the use was measured", use_is_unsteady),
    *(Column(name, dtype, doc, _served(name)) for name, dtype, doc in _SERVED),
    Column("request_price", "Float64", "price of all requests to a served model", _served("price")),
    Column(
        "unreadable",
        "Float64",
        "share of a served model's answers from which nothing could be read",
        lambda record: _share_unreadable(record),
    ),
)
"""Columns that reports need beyond the export; `variant` and `settings` (see `tidy_frame`) follow them."""


def _of_flag(record: Record, name: str) -> Any:
    """Return an attribute of the shipped audit that flags a cell's settings; None where none does."""
    cell = record.cell
    found = flagged_default(cell.method, cell.config, cell.backbone, cell.version)
    return None if found is None else getattr(found, name)


def _share_unreadable(record: Record) -> float | None:
    served = record.facts.served
    if served is None or served.n_unreadable is None or record.score is None or not record.score.n_test:
        return None
    return served.n_unreadable / record.score.n_test


def export_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return one row per record, with exactly the columns of `EXPORT_COLUMNS`, in the order given."""
    return _build(EXPORT_COLUMNS, [[column.get(record) for column in EXPORT_COLUMNS] for record in records])


def tidy_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return one row per record: the columns of `export_frame`, `EXTRA_COLUMNS`, `variant` and `settings`.

    `variant` is the name of the configuration, with its backbone where a table holds several; `settings` is what
    distinguishes it in full (see `full_names`).
    """
    columns = EXPORT_COLUMNS + EXTRA_COLUMNS
    rows: list[list[Any]] = []
    kept: list[_Named] = []
    for record in records:  # a stream: each record's predictions are dropped as soon as its row is made
        rows.append([column.get(record) for column in columns])
        kept.append(_Named.of(record))
    frame = _build(columns, rows)
    names = _names(kept)
    for name in ("variant", "settings"):
        frame[name] = pd.array([getattr(found, name) for found in names], dtype="string")
    return frame


def tidy_columns(records: Sequence[Record], names: Iterable[str]) -> dict[str, list[Any]]:
    """Return some columns of `tidy_frame`, or parts of `FullName`, as plain values; fast enough for 100,000 records."""
    by_name = {column.name: column for column in EXPORT_COLUMNS + EXTRA_COLUMNS}
    found: dict[str, list[Any]] = {}
    named: list[FullName] | None = None
    for name in names:
        if name in _OF_NAMES:
            named = _names(map(_Named.of, records)) if named is None else named
            found[name] = [getattr(one, name) for one in named]
        else:
            found[name] = _values(by_name[name], map(by_name[name].get, records))
    return found


_OF_NAMES = FullName._fields
"""Columns of the parts of a `FullName`."""


class _Named(NamedTuple):
    """The parts of a record that name its configuration."""

    cell: Cell
    defaults: dict[str, Any]
    device: str
    is_evidence: bool

    @classmethod
    def of(cls, record: Record) -> _Named:
        """Return the parts of one record."""
        return cls(record.cell, record.facts.defaults, record.device, record.facts.is_evidence)


def _names(kept: Iterable[_Named]) -> list[FullName]:
    kept = list(kept)
    return full_names(
        [one.cell for one in kept],
        [one.defaults for one in kept],
        tables=[(one.cell.task, one.cell.data, one.device, one.cell.budget.label()) for one in kept],
        devices=[one.device for one in kept],
        is_evidence=[one.is_evidence for one in kept],
    )


@dataclass(frozen=True)
class Cut:
    """Cut texts of one cell: those longer than the method could read.

    Attributes:
        train, test: shares of the texts that were cut, between 0 and 1; None where none was.
        tokens: tokens that were kept of a cut text; None where it is not known.
        side: end that was cut off, "right" or "left"; None where nothing was cut.
    """

    train: float | None = None
    test: float | None = None
    tokens: int | None = None
    side: str | None = None


_WHOLE = Cut()


def cut(record: Record) -> Cut:
    """Return the shares of cut texts.

    All test texts are read, so a cut one shows the limit; the training texts that a cell draws may all be shorter than
    the limit.
    """
    train, test = record.facts.train_texts, record.facts.test_texts
    cut_texts = [texts for texts in (train, test) if texts is not None and texts.share_cut is not None]
    if not cut_texts:
        return _WHOLE
    return Cut(
        train=train.share_cut if train is not None else None,
        test=test.share_cut if test is not None else None,
        tokens=test.longest if test is not None and test.share_cut is not None else None,
        side="left" if any(texts.cut_side == "left" for texts in cut_texts) else "right",
    )


def labels_per_class(record: Record) -> int | None:
    """Return the labels per class in a balanced draw (the 8 of `8/class`); None for other draws or if unknown."""
    if record.cell.draw != "balanced":
        return None
    if record.provenance.dataset.get("n_classes_not_scored"):  # a rare class may have fewer rows
        return None
    n_classes = record.provenance.dataset.get("n_classes")
    target = record.predictions.target if record.predictions is not None else None
    if n_classes is None and target is not None and target.size:
        n_classes = int(target.max()) + 1
    if not isinstance(n_classes, int) or n_classes < 1 or record.cell.n_train % n_classes:
        return None
    return record.cell.n_train // n_classes


def _defaults_chosen_here(record: Record) -> bool | None:
    said = record.provenance.dataset.get("defaults_chosen_here")
    return said if isinstance(said, bool) else None


def _backbone_has_seen(record: Record) -> bool | None:
    seen_by = record.provenance.dataset.get("seen_by")
    return record.cell.backbone in seen_by if isinstance(seen_by, list) and record.cell.backbone else None


def _build(columns: tuple[Column, ...], rows: list[list[Any]]) -> pd.DataFrame:
    by_column: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(columns)
    pairs = zip(columns, by_column, strict=True)
    return pd.DataFrame({column.name: pd.array(_values(column, found), dtype=column.dtype) for column, found in pairs})


def _values(column: Column, found: Iterable[Any]) -> list[Any]:
    if column.dtype == "string":
        return [value if value is None or value.isascii() else storable(value) for value in found]
    if column.dtype == "Float64":
        return [None if value is None else float(value) for value in found]
    return list(found)
