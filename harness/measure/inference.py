"""Measure how fast a fitted model answers: one text alone, and texts in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from harness.measure.device import Device
from harness.measure.failures import is_out_of_memory
from harness.measure.halving import free
from harness.measure.memory import MemoryMeter
from harness.measure.signs import show_progress
from harness.measure.steadiness import Steadiness
from harness.records import Inference

Answer = Callable[[Sequence[int]], object]
"""A function that predicts the texts at some positions, in one batch."""

LATENCY_SECONDS: Final = 2.0
"""Longest time for measuring one text after another."""

_SHORTEST_SECONDS: Final = 0.5
_LEAST_TEXTS: Final = 100
"""Texts that are measured one by one at least, if time allows: a 99th percentile needs them."""

THROUGHPUT_SECONDS: Final = 2.0
"""Longest time for trying batches, apart from the last one that was begun."""

_BATCH_SECONDS: Final = 0.15
"""Shortest time for which one size of batch is repeated."""

MOST_TEXTS: Final = 512
"""Largest batch that is tried, and number of texts that are used."""

_WARM_UP: Final = 3
_WORSE: Final = 0.8
"""Share of the best rate below which larger batches are no longer tried, once two in a row are below it."""

PERCENTILES: Final = {50: 1, 95: 20, 99: 100}
"""Percentiles of the latencies, with the fewest texts that each needs."""


def measure_inference(
    answer: Answer, n_texts: int, device: Device, *, weights_bytes: int | None, clock: Callable[[], float] | None = None
) -> Inference:
    """Return the latency, the throughput and the memory of a fitted model; the call takes about five seconds.

    Args:
        answer: predicts some texts, in one batch.
        n_texts: number of texts that there are, at least one.
        device: where it predicts.
        weights_bytes: bytes of its weights as they lie in memory; None leaves the memory unknown.
        clock: function that returns the present in seconds; None takes the system's.

    Raises:
        OutOfMemoryError: one text alone does not fit in memory.
    """
    read = clock or time.perf_counter
    n_texts = min(n_texts, MOST_TEXTS)
    steadiness = Steadiness()
    latencies = _latencies(answer, n_texts, read)
    n_rows, rate = _best_batch(answer, n_texts, read)
    disturbed = steadiness.disturbance() if device.cells_at_a_time == 1 else "other cells shared the device"
    return Inference(
        latency_p50_seconds=percentile(latencies, 50),
        latency_p95_seconds=percentile(latencies, 95),
        latency_p99_seconds=percentile(latencies, 99),
        n_latencies=len(latencies),
        texts_per_second=rate,
        batch_texts=n_rows,
        memory_bytes=_memory(answer, n_rows, device, weights_bytes),
        unsteady=disturbed,
    )


def percentile(latencies: Sequence[float], percent: int) -> float | None:
    """Return a percentile of some seconds, one of `PERCENTILES`; None where there are too few."""
    return float(np.percentile(latencies, percent)) if len(latencies) >= PERCENTILES[percent] else None


def _latencies(answer: Answer, n_texts: int, read: Callable[[], float]) -> list[float]:
    """Return the seconds of one text after another, in turn."""
    for at in range(_WARM_UP):
        answer([at % n_texts])
    found: list[float] = []
    began = read()
    while True:
        started = read()
        answer([len(found) % n_texts])
        ended = read()
        found.append(ended - started)
        show_progress()
        is_enough = len(found) >= _LEAST_TEXTS and ended - began >= _SHORTEST_SECONDS
        if is_enough or ended - began >= LATENCY_SECONDS:
            return found


def _best_batch(answer: Answer, n_texts: int, read: Callable[[], float]) -> tuple[int, float]:
    """Return the size of the batches that answer most texts in a second, and that number."""
    began = read()
    tried: list[tuple[float, int]] = []
    size = 1
    while size <= n_texts:
        rate = _rate(answer, n_texts, size, read)
        if rate is None:
            break
        tried.append((rate, size))
        best = max(tried)[0]
        falls = len(tried) > 1 and all(one < _WORSE * best for one, _ in tried[-2:])
        spent = read() - began
        if falls or spent + 3 * size / rate > THROUGHPUT_SECONDS:  # the next one runs twice at least, at twice the size
            break
        size *= 2
    best, n_rows = max(tried)
    return n_rows, best


def _rate(answer: Answer, n_texts: int, size: int, read: Callable[[], float]) -> float | None:
    """Return the texts answered in a second in batches of one size; None where such a batch does not fit in memory.

    Batches go through the texts in turn, so that each size reads short and long ones.
    """

    def batch(number: int) -> list[int]:
        return [(number * size + at) % n_texts for at in range(size)]

    try:
        answer(batch(0))
        n_batches, began = 0, read()
        while n_batches == 0 or read() - began < _BATCH_SECONDS:
            answer(batch(n_batches))
            n_batches += 1
            show_progress()
        return n_batches * size / (read() - began)
    except Exception as error:
        if size == 1 or not is_out_of_memory(error):
            raise
    free()
    return None


def _memory(answer: Answer, n_rows: int, device: Device, weights_bytes: int | None) -> int | None:
    """Return the bytes of the weights and the peak above them while a batch is answered; None if unknown."""
    with MemoryMeter(device.torch_device()) as meter:
        answer(range(n_rows))
    peak = meter.peak_rss_above_baseline_bytes if device.kind == "cpu" else meter.peak_device_bytes
    return None if peak is None or weights_bytes is None else weights_bytes + peak
