"""Measure what a frozen backbone's features say about a task."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from harness.backbones import Backbone
from harness.data import training_order
from harness.features import LayerFeatures, TokenStore, encode_every_layer
from harness.measure import Device
from harness.ranking.probing import probe
from harness.ranking.transferability import h_score, log_me
from harness.tasks import Ints, Source, Task

SEED = 0
"""Seed of the draw of rows: they are the first that a run with this seed trains on."""


@dataclass(frozen=True)
class Signals:
    """Figures of frozen features of some labelled rows. Those of layer means have `mean` in their name.

    Attributes:
        n_rows: number of labelled rows.
        n_classes: number of classes among them.
        probe: cross-validated accuracy of a linear probe on the backbone's own features.
        mean_probe: the same on layer means.
        log_me: LogME of layer means, in nats per row.
        explained: share of the labels' variance that would give this LogME: 1 - exp(-2 gain), where the gain is over
            the evidence of the class frequencies alone; 0 or less where the features explain nothing.
        h_score: shrunk H-score of layer means.
    """

    n_rows: int
    n_classes: int
    probe: float
    mean_probe: float
    log_me: float
    explained: float
    h_score: float


@dataclass(frozen=True)
class Measured:
    """Signals of one backbone, and the cost of measuring them.

    Attributes:
        signals: the figures.
        encode_seconds: seconds of the forward passes.
        score_seconds: seconds of probes, LogME and H-score.
        peak_bytes: memory that encoding needed, with the backbone's weights.
        n_encoded: number of distinct texts.
    """

    signals: Signals
    encode_seconds: float
    score_seconds: float
    peak_bytes: int
    n_encoded: int


def rows_to_encode(task: Task, n_rows: int) -> Ints:
    """Return the positions in the task's pool of the first rows of the seed's stratified order, shape (rows,)."""
    order = training_order(task.train_strata, task.train_digests, SEED, "stratified")
    return order[:n_rows].astype(np.int64)


def measure(backbone: Backbone, task: Task, rows: Ints, device: Device) -> Measured:
    """Encode rows of a task's training pool with a frozen backbone, and score the features.

    Args:
        backbone: the backbone.
        task: a task whose labels are classes.
        rows: positions in the pool, shape (rows,).
        device: where it runs.

    Raises:
        OutOfMemoryError: a single row does not fit in memory.
        ValueError: the rows hold one class only.
    """
    source = _only(task.train, task.pool_index[rows])
    length = min(task.spec.max_length, backbone.max_length)
    tokens = TokenStore().tokens(source, task.kind, backbone, length)
    precision, everything = device.precision("auto"), np.arange(len(rows))
    encode_every_layer(backbone, tokens, np.argsort(tokens.lengths)[:1], device, precision)  # starts the kernels
    features = encode_every_layer(backbone, tokens, everything, device, precision)
    began = time.perf_counter()
    signals = signals_of(features, task.train_labels[rows])
    weights = sum(one.numel() * one.element_size() for one in backbone.pristine.parameters())
    return Measured(
        signals=signals,
        encode_seconds=features.seconds,
        score_seconds=time.perf_counter() - began,
        peak_bytes=features.peak_bytes + weights,
        n_encoded=features.n_encoded,
    )


def signals_of(features: LayerFeatures, labels: Ints) -> Signals:
    """Return the figures of features and their labels, shape (rows,).

    Raises:
        ValueError: there is a single class, or no class has two rows.
    """
    mean = features.mean
    evidence = log_me(mean, labels)
    return Signals(
        n_rows=len(labels),
        n_classes=len(np.unique(labels)),
        probe=probe(features.last, labels).accuracy,
        mean_probe=probe(mean, labels).accuracy,
        log_me=evidence,
        explained=1.0 - math.exp(-2.0 * (evidence - _frequency_evidence(labels))),
        h_score=h_score(mean, labels),
    )


def _frequency_evidence(labels: Ints) -> float:
    """Return the mean log density per row of the classes' indicators around their means."""
    counts = np.bincount(labels)
    shares = counts[counts > 0] / len(labels)
    return float(np.mean(-0.5 * (np.log(2.0 * np.pi * shares * (1.0 - shares)) + 1.0)))


def _only(source: Source, index: Ints) -> Source:
    """Return a split of some rows, so that nothing else is tokenised."""
    return Source(
        f"{source.key}/{len(index)} rows",
        [source.texts[row] for row in index],
        {role: [values[row] for row in index] for role, values in source.fields.items()},
        cut=source.cut,
        characters=source.characters,
    )
