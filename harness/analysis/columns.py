"""Columns of the table of records, by a declarative list."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from harness.analysis.learning import learned_nothing
from harness.analysis.using import INFERENCE, use_is_unsteady
from harness.records import (
    AuditedDefault,
    Budget,
    Cost,
    Forgetting,
    Record,
    Score,
    ServedFacts,
    canonical_text,
    flagged_default,
    once_for_each,
    storable,
)

Dtype = Literal["string", "Int64", "Float64", "boolean"]


@dataclass(frozen=True)
class Column:
    """One column of the frame.

    Attributes:
        name: its name, with the unit where there is one.
        dtype: pandas' nullable type.
        doc: what it holds, in a line.
        get: attribute of a record, or of its part, that is the column's value; or a function of it. None is null.
        part: a record to the part that `get` reads; a missing part is null. None is the record. Columns that name one
            part share the work of finding it.
    """

    name: str
    dtype: Dtype
    doc: str
    get: str | Callable[[Any], Any]
    part: Callable[[Record], Any] | None = None


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
    if train is None and test is None:
        return _WHOLE
    cut_texts = [texts for texts in (train, test) if texts is not None and texts.share_cut is not None]
    if not cut_texts:
        return _WHOLE
    return Cut(
        train=train.share_cut if train is not None else None,
        test=test.share_cut if test is not None else None,
        tokens=test.longest if test is not None and test.share_cut is not None else None,
        side="left" if any(texts.cut_side == "left" for texts in cut_texts) else "right",
    )


def _share_unreadable(record: Record) -> float | None:
    served = record.facts.served
    if served is None or served.n_unreadable is None or record.score is None or not record.score.n_test:
        return None
    return served.n_unreadable / record.score.n_test


def labels_per_class(record: Record) -> int | None:
    """Return the labels per class in a balanced draw (the 8 of `8/class`); None for other draws or if unknown."""
    if (kept := rows_of([record])) is not None:
        table, rows = kept
        known: int | None = table.take("n_per_class", rows)[0]
        return known
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


def _score(record: Record) -> Score | None:
    return record.score


def _served(record: Record) -> ServedFacts | None:
    return record.facts.served


def _forgetting(record: Record) -> Forgetting | None:
    return record.facts.forgetting


def _timed(record: Record) -> Cost | None:
    """Return a cost with seconds; cells that shared their device have none, since others added to them."""
    return record.cost if record.provenance.cells_at_a_time == 1 else None


def _flag(record: Record) -> AuditedDefault | None:
    """Return the shipped audit that flags a cell's settings; None where none does."""
    cell = record.cell
    return flagged_default(cell.method, cell.config, cell.backbone, cell.version)


label_of = once_for_each(Budget.label)
"""A budget's label, which thousands of records share."""

_text_of = once_for_each(canonical_text)


def _budget(record: Record) -> str:
    return label_of(record.cell.budget)


def _config(record: Record) -> str:
    return _text_of(record.cell.config)


_OF_SERVED: tuple[tuple[str, Dtype, str], ...] = (
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
SERVED_COLUMNS: tuple[str, ...] = (*(name for name, _, _ in _OF_SERVED), "request_price", "unreadable")
"""Columns about the requests to served models."""


EXPORT_COLUMNS: tuple[Column, ...] = (
    Column("id", "string", "identity of the cell", "id"),
    Column("suite", "string", "label it was run under", "suite"),
    Column("task", "string", "name of the task", "cell.task"),
    Column("kind", "string", "kind of task", "kind"),
    Column("backbone", "string", "name of the backbone; null where none is used", "cell.backbone"),
    Column("method", "string", "name of the method", "cell.method"),
    Column("family", "string", "family of the method", "family"),
    Column("n_train", "Int64", "labels the method may look at", "cell.n_train"),
    Column("budget", "string", "what the fit may spend", _budget),
    Column("seed", "Int64", "seed of draw, initialisation and order", "cell.seed"),
    Column("status", "string", "status of the cell", "status"),
    Column("metric", "string", "the task's main metric", "metric", _score),
    Column("score", "Float64", "the metric on the test rows", "value", _score),
    Column("score_low", "Float64", "lower end of the 95 % interval over test rows", "low", _score),
    Column("score_high", "Float64", "upper end of the same", "high", _score),
    Column(
        "n_test",
        "Int64",
        "test rows scored; null where an imported table does not say",
        lambda score: score.n_test or None,
        _score,
    ),
    Column("train_score", "Float64", "the metric on the training rows", "train_score"),
    Column("load_seconds", "Float64", "reading the backbone", "load_seconds", _timed),
    Column("encode_seconds", "Float64", "encoding the training rows", "encode_seconds", _timed),
    Column("fit_seconds", "Float64", "training", "fit_seconds", _timed),
    Column("predict_seconds", "Float64", "encoding and predicting the test rows", "predict_seconds", _timed),
    Column("total_seconds", "Float64", "all phases together", "total_seconds", _timed),
    Column(
        "train_flops",
        "Float64",
        "operations of encoding training rows, tuning, fitting",
        "cost.train_flops",
    ),
    Column("train_tokens", "Int64", "real tokens through the backbone for them", "cost.train_tokens"),
    Column("peak_device_bytes", "Int64", "peak memory of the accelerator", "cost.peak_device_bytes"),
    Column("peak_rss_bytes", "Int64", "peak resident memory of the process", "cost.peak_rss_bytes"),
    Column(
        "peak_rss_above_baseline_bytes",
        "Int64",
        "the same, less what was resident before the cell",
        "cost.peak_rss_above_baseline_bytes",
    ),
    Column("n_parameters", "Int64", "parameters of what predicts", "cost.n_parameters"),
    Column("n_trainable", "Int64", "parameters that are trained", "cost.n_trainable"),
    Column("artifact_bytes", "Int64", "bytes of what is saved", "cost.artifact_bytes"),
    Column("stopped_by", "string", "the cap that ended training", "cost.stopped_by"),
    Column("precision", "string", "arithmetic of the backbone", "provenance.precision"),
    Column("device", "string", "where it ran", "device"),
    Column("error", "string", "why it is not `ok`", "error"),
)
"""Columns of `harness export`, in this order."""

EXTRA_COLUMNS: tuple[Column, ...] = (
    Column("attempt", "Int64", "number of the attempt, from 1", "attempt"),
    Column("data", "string", "fingerprint of the task's rows", "cell.data"),
    Column("weights", "string", "fingerprint of the backbone's files", "cell.weights"),
    Column("version", "Int64", "version of the method", "cell.version"),
    Column("config", "string", "the method's configuration, as JSON", _config),
    Column("draw", "string", "how training rows are drawn", "cell.draw"),
    Column(
        "n_per_class",
        "Int64",
        "labels of each class, if the draw is balanced",
        labels_per_class,
    ),
    Column("tune_seconds", "Float64", "choosing settings on labels out of n_train", "tune_seconds", _timed),
    Column("train_seconds", "Float64", "encoding training rows, tuning, fitting", "train_seconds", _timed),
    Column("warmup_seconds", "Float64", "what a process does once, apart", "warmup_seconds", _timed),
    Column("measure_seconds", "Float64", "what measuring itself took", "measure_seconds", _timed),
    Column(
        "train_tokens_per_second",
        "Float64",
        "real tokens through the backbone in a second of training",
        "train_tokens_per_second",
        _timed,
    ),
    Column(
        "utilisation",
        "Float64",
        "share of the device's measured matrix rate that training reached",
        "utilisation",
    ),
    Column("energy_joules", "Float64", "energy of training", "cost.energy_joules"),
    Column("price", "Float64", "price of the cell, at the stated price of an hour", "price"),
    Column("fit_peak_bytes", "Int64", "peak memory of training", "cost.fit_peak_bytes"),
    Column("predict_peak_bytes", "Int64", "peak memory of predicting", "cost.predict_peak_bytes"),
    Column(
        "memory_bytes",
        "Int64",
        "memory that the cell needs: its peak, and the weights that were in memory before it",
        "memory_bytes",
    ),
    Column("weights_bytes", "Int64", "all weights of the cell's model, as stored", "cost.weights_bytes"),
    Column(
        "shared_weights_bytes",
        "Int64",
        "the part of them that cells share, which no peak contains",
        "cost.shared_weights_bytes",
    ),
    Column(
        "peak_reserved_bytes",
        "Int64",
        "peak that the accelerator's allocator held",
        "cost.peak_reserved_bytes",
    ),
    Column("peak_driver_bytes", "Int64", "peak that the accelerator's driver saw", "cost.peak_driver_bytes"),
    Column(
        "reused",
        "string",
        "what came from a cache, comma-separated",
        lambda record: ",".join(record.cost.reused) or None,
    ),
    Column("higher_is_better", "boolean", "direction of the metric", "higher_is_better", _score),
    Column("n_test_available", "Int64", "test rows before the cap", "n_test_available", _score),
    Column(
        "defaults_chosen_here",
        "boolean",
        "whether default settings were chosen on the task's training and validation rows; null if unknown",
        _defaults_chosen_here,
    ),
    Column(
        "backbone_has_seen",
        "boolean",
        "whether the backbone is known to have been trained on the task's data",
        _backbone_has_seen,
    ),
    Column(
        "overlaps",
        "string",
        "data sets that are known to share texts with the task's, separated by semicolons",
        lambda record: "; ".join(map(str, record.provenance.dataset.get("overlaps") or ())) or None,
    ),
    Column("train_rows_cut", "Float64", "share of the training texts that were cut", "train", cut),
    Column("test_rows_cut", "Float64", "share of the test texts that were cut", "test", cut),
    Column("cut_at_tokens", "Int64", "tokens that were kept of them", "tokens", cut),
    Column("cut_side", "string", "end of the text that was cut off: left or right", "side", cut),
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
        "points",
        _flag,
    ),
    Column(
        "default_better",
        "string",
        "settings that do better than these defaults in an audit; null where none flags them",
        "does_better",
        _flag,
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
        "amount",
        _forgetting,
    ),
    Column(
        "forgetting_unit",
        "string",
        "nats per token (rise of the loss of a causal backbone) or 1 - CKA (change of the features of others)",
        "unit",
        _forgetting,
    ),
    Column(
        "feature_change",
        "Float64",
        "1 - CKA of the features of outside texts",
        "feature_change",
        _forgetting,
    ),
    Column(
        "probe_before",
        "Float64",
        "accuracy of a probe on the pretrained features",
        "probe_before",
        _forgetting,
    ),
    Column("probe_after", "Float64", "the same on the adapted features", "probe_after", _forgetting),
    Column("outside_text", "string", "name and hash of the outside texts", "outside_text", _forgetting),
    Column("unsteady", "string", "what disturbed the machine meanwhile", "unsteady"),
    Column("cells_at_a_time", "Int64", "cells that shared the device", "provenance.cells_at_a_time"),
    *(Column(name, dtype, doc, get, part) for name, dtype, doc, get, part in INFERENCE),
    Column("use_unsteady", "string", "what disturbed the machine while the use was measured", use_is_unsteady),
    *(Column(name, dtype, doc, name, _served) for name, dtype, doc in _OF_SERVED),
    Column("request_price", "Float64", "price of all requests to a served model", "price", _served),
    Column(
        "unreadable",
        "Float64",
        "share of a served model's answers from which nothing could be read",
        _share_unreadable,
    ),
)
"""Columns that reports need beyond the export; `variant` and `settings` (see `tidy_frame`) follow them."""


def read_values(columns: Sequence[Column], batches: Iterable[Sequence[Record]], found: Sequence[list[Any]]) -> None:
    """Append the values of records to the list of each column; all attributes of one part are read in one call."""
    attributes: defaultdict[_Part, list[tuple[str, int]]] = defaultdict(list)
    functions: defaultdict[_Part, list[tuple[Callable[[Any], Any], int]]] = defaultdict(list)
    for i, column in enumerate(columns):
        if isinstance(column.get, str):
            attributes[column.part].append((column.get, i))
        else:
            functions[column.part].append((column.get, i))
    for batch in batches:
        if (kept := rows_of(batch)) is not None:
            table, rows = kept
            for column, values in zip(columns, found, strict=True):
                values.extend(table.take(column.name, rows))
            continue
        for part in {**attributes, **functions}:
            objects = batch if part is None else list(map(part, batch))
            if named := attributes[part]:
                read, absent = _reader(*(name for name, _ in named)), (None,) * len(named)
                by_record = (absent if one is None else read(one) for one in objects)
                for (_, i), column_values in zip(named, zip(*by_record, strict=True), strict=True):
                    found[i].extend(column_values)
            for get, i in functions[part]:
                found[i].extend(None if one is None else get(one) for one in objects)


_Part = Callable[[Record], Any] | None


@functools.cache
def _reader(*names: str) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function of an object to some of its attributes."""
    read = attrgetter(*names)
    return read if len(names) > 1 else lambda value: (read(value),)


def plain_values(dtype: Dtype, values: Sequence[Any]) -> list[Any]:
    """Return values as pandas keeps them: texts without lone surrogates, numbers as fractions where it has these."""
    if dtype == "string":
        return [value if value is None or value.isascii() else storable(value) for value in values]
    if dtype == "Float64":
        return [None if value is None else float(value) for value in values]
    return list(values)


def rows_of(records: Sequence[Record]) -> tuple[Any, list[int]] | None:
    """Return the table that keeps the columns of these records, and their rows; None where not all have one.

    Columns of records with predictions may depend on these, and are not kept.
    """
    found = [None if record.predictions is not None else record.row for record in records]
    if not found or None in found or len({id(row[0]) for row in found if row is not None}) > 1:
        return None
    return found[0][0], [row[1] for row in found if row is not None]  # type: ignore[index]
