"""Columns about the use of fitted models: one text, batches, memory, disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from harness.records import Inference, Record

_MEASURED: Final[tuple[tuple[str, str, Literal["Int64", "Float64"], str], ...]] = (
    ("text_p50_seconds", "latency_p50_seconds", "Float64", "median of the seconds to answer one text alone"),
    ("text_p95_seconds", "latency_p95_seconds", "Float64", "95th percentile of the same"),
    ("text_p99_seconds", "latency_p99_seconds", "Float64", "99th percentile of the same; null under 100 texts"),
    ("texts_per_second", "texts_per_second", "Float64", "texts answered in a second in the best batches"),
    ("batch_texts", "batch_texts", "Int64", "texts in each of these batches"),
    ("use_memory_bytes", "memory_bytes", "Int64", "memory while such a batch is answered, weights included"),
)
_ON_DISK: Final[tuple[tuple[str, str, Literal["Int64", "Float64"], str], ...]] = (
    ("tokens_per_text", "tokens_per_text", "Float64", "mean tokens of the texts that were answered"),
    ("adapted_bytes", "adapted_bytes", "Int64", "bytes on disk of what the fit trained"),
    ("backbone_bytes", "backbone_bytes", "Int64", "bytes on disk of the backbone"),
    ("open_seconds", "load_seconds", "Float64", "seconds to load the backbone and the fitted model"),
)
_MERGED: Final = "with the method's addition merged into the weights"

Part = Callable[[Record], Inference | None]


def _used(record: Record) -> Inference | None:
    return record.facts.inference


def _used_merged(record: Record) -> Inference | None:
    return record.facts.merged_inference


INFERENCE: Final[tuple[tuple[str, Literal["Int64", "Float64"], str, str, Part], ...]] = (
    *((name, dtype, doc, of, _used) for name, of, dtype, doc in (*_MEASURED, *_ON_DISK)),
    *((f"merged_{name}", dtype, f"{doc}, {_MERGED}", of, _used_merged) for name, of, dtype, doc in _MEASURED),
)
"""Name, type, meaning, attribute and part of the record of each column."""

INFERENCE_COLUMNS: Final[tuple[str, ...]] = tuple(name for name, *_ in INFERENCE)
"""Columns about the use of fitted models; null where a run did not measure it."""


def use_is_unsteady(record: Record) -> str | None:
    """Return what disturbed the machine while the use of the fitted model was measured; None for nothing."""
    found = (record.facts.inference, record.facts.merged_inference)
    return next((one.unsteady for one in found if one is not None and one.unsteady is not None), None)
