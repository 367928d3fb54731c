"""Facts about the use of a fitted model: seconds for a text, memory, disk."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Inference:
    """Measured cost of using a fitted model, without any training; None is unknown.

    Seconds count from a text to its answer: tokenising, encoding and all else that predicting does. The texts are test
    texts of the task, each read anew, with nothing from a cache. None of these seconds are part of a cell's cost.

    Attributes:
        latency_p50_seconds, latency_p95_seconds, latency_p99_seconds: percentiles of the seconds for one text alone.
            The 95th needs 20 measured texts, and the 99th needs 100.
        n_latencies: number of texts that were measured one by one, after warming up.
        tokens_per_text: mean tokens of the texts; None for methods that read no tokens.
        texts_per_second: texts answered in a second, in the batches that gave most.
        batch_texts: texts in each of these batches; powers of two were tried.
        memory_bytes: memory while such a batch is answered: the weights, and the peak above them.
        adapted_bytes: bytes on disk of what the fit trained, with its settings; all weights where it trained all.
        backbone_bytes: bytes on disk of the backbone's files; None for methods without one.
        saved_bytes: bytes on disk of a whole saved model; None where none was saved.
        load_seconds: seconds to load the backbone and the fitted model, from files that the system has in memory.
        unsteady: what disturbed the machine meanwhile, in words; None for nothing.
    """

    latency_p50_seconds: float | None = None
    latency_p95_seconds: float | None = None
    latency_p99_seconds: float | None = None
    n_latencies: int | None = None
    tokens_per_text: float | None = None
    texts_per_second: float | None = None
    batch_texts: int | None = None
    memory_bytes: int | None = None
    adapted_bytes: int | None = None
    backbone_bytes: int | None = None
    saved_bytes: int | None = None
    load_seconds: float | None = None
    unsteady: str | None = None
