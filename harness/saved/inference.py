"""Measure what using a fitted model costs: latency, throughput, memory, bytes on disk, seconds to load."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.measure import Halvings, MemoryMeter, PhaseClock, measure_inference
from harness.methods import (
    Bench,
    Fitted,
    Ledger,
    Method,
    artifact_size_bytes,
    merged,
    read_artifact,
    rebuild_artifact,
    save_artifact,
    why_not_merged,
)
from harness.records import Inference
from harness.saved.layout import TRANSFORMER
from harness.saved.model import SavedModel, load_model
from harness.support import OutOfMemoryError, UnsupportedError
from harness.tasks import Rows

if TYPE_CHECKING:
    from harness.measure import Answer


@dataclass(frozen=True)
class BothForms:
    """Cost of using a fitted model, as it was fitted and merged.

    Attributes:
        as_fitted: cost of the model as its method fitted it.
        merged: cost of the same model with its addition merged into the weights; None where it cannot be.
        why_not_merged: reason for that.
    """

    as_fitted: Inference
    merged: Inference | None
    why_not_merged: str | None


def measure_fitted(fitted: Fitted, method: Method, rows: Rows, bench: Bench) -> BothForms:
    """Return the cost of using the fitted model of a cell; nothing of it is charged to the cell.

    Args:
        fitted: the fitted model.
        method: the method as it was fitted.
        rows: test rows.
        bench: bench of the cell.

    Raises:
        UnsupportedError: predictions are requests to a server, or other cells share the device.
    """
    if bench.served is not None:
        raise UnsupportedError("Its predictions are requests to a server.")
    if bench.device.cells_at_a_time > 1:
        raise UnsupportedError("Other cells share the device.")
    found = _measured(fitted, rows, bench)
    reason = why_not_merged(fitted)
    other = None if reason is not None else _measured(merged(fitted), rows, bench)
    files = None if bench.backbone is None else bench.backbone.files.parts().values()
    found = dataclasses.replace(
        found,
        adapted_bytes=artifact_size_bytes(fitted, method),
        backbone_bytes=None if files is None else sum(path.stat().st_size for path in files),
        load_seconds=_load_seconds(fitted, method, bench),
    )
    return BothForms(found, other, reason)


def _measured(fitted: Fitted, rows: Rows, bench: Bench) -> Inference:
    own = _aside(bench)
    answer = _answer(fitted, rows, own)
    answer([0])  # which states the weights that it reads, unless the fit has
    noted = own.ledger.weights_bytes or bench.ledger.weights_bytes
    weights = _weights_bytes(fitted, noted, has_backbone=bench.backbone is not None)
    found = measure_inference(answer, len(rows), bench.device, weights_bytes=weights)
    return dataclasses.replace(found, tokens_per_text=_mean_tokens(rows, bench))


def _aside(bench: Bench) -> Bench:
    """Return a bench whose clock, meters and ledger belong to no cell."""
    return dataclasses.replace(
        bench,
        clock=PhaseClock(),
        memory=MemoryMeter(),
        ledger=Ledger(),
        halvings=Halvings(),
        encoded_in={},
        rungs=None,
        report=lambda *_: None,
    )


def _answer(fitted: Fitted, rows: Rows, bench: Bench) -> Answer:
    """Return a function that predicts some of the rows in one batch, with nothing from a cache."""
    from harness.features import DirectFeatures, TokenStore
    from harness.training import predicting_at_once

    def answer(positions: Sequence[int]) -> None:
        own = dataclasses.replace(
            bench, tokens=TokenStore(), features=DirectFeatures(bench.device), halvings=Halvings(), encoded_in={}
        )
        source = rows.source.take(rows.index[np.asarray(positions)])
        with predicting_at_once(len(positions)):
            fitted.predict(Rows(source, np.arange(len(positions), dtype=np.int64)), own)
        if own.halvings.rows:
            raise OutOfMemoryError(f"{len(positions)} texts do not fit in memory at once.")

    return answer


def _mean_tokens(rows: Rows, bench: Bench) -> float | None:
    """Return the mean tokens of the texts that are measured; None without a backbone."""
    from harness.features import TokenStore
    from harness.measure import MOST_TEXTS

    if bench.backbone is None:
        return None
    some = rows.take(np.arange(min(len(rows), MOST_TEXTS)))
    own = dataclasses.replace(_aside(bench), tokens=TokenStore())
    taken = Rows(some.source.take(some.index), np.arange(len(some), dtype=np.int64))
    tokens = own.tokens_of(taken)
    return float(tokens.lengths.sum()) / len(some)


def _weights_bytes(fitted: Fitted, noted: int | None, *, has_backbone: bool) -> int | None:
    """Return the bytes of what a fitted model reads to predict, as it lies in memory; None if they are unknown.

    Args:
        fitted: the fitted model.
        noted: bytes of the backbone's weights that a ledger states.
        has_backbone: whether the cell has a backbone.
    """
    from torch import nn

    from harness.backbones import weights_bytes

    model: Any = getattr(fitted, "model", None)
    if isinstance(model, nn.Module):
        return weights_bytes(model)[0]
    if noted is None and has_backbone:
        return None
    return (noted or 0) + sum(value.nbytes for value in fitted.tensors().values())


def _load_seconds(fitted: Fitted, method: Method, bench: Bench) -> float:
    """Return the seconds to read the backbone, as measured when it was read, and to restore the method on it."""
    with tempfile.TemporaryDirectory() as inside:
        folder = Path(inside)
        save_artifact(fitted, method, folder, bench)
        for _ in range(2):  # the first time, libraries may be imported
            started = time.perf_counter()
            rebuild_artifact(read_artifact(folder), folder, _aside(bench))
            bench.device.synchronise()
            seconds = time.perf_counter() - started
    return seconds + (0.0 if bench.backbone is None else bench.backbone.load_seconds)


def measure_saved(folder: Path, inputs: Sequence[Any], device: str = "auto") -> BothForms:
    """Return the cost of using a saved model.

    The model is loaded twice, and the second time is measured: libraries are imported then, and the files are in the
    system's memory.

    Args:
        folder: folder of the saved model.
        inputs: inputs that have been checked, such as texts.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        UnsupportedError: its predictions are requests to a server.
        UsageError: the model cannot be loaded.
    """
    from harness.backbones import load_backbone

    model = load_model(folder, device)
    if any(one.bench.served is not None for one in model._members):
        model.close()
        raise UnsupportedError(f"Predictions of the model in '{folder}' are requests to a server.")
    del model
    load_backbone.cache_clear()
    started = time.perf_counter()
    model = load_model(folder, device)
    model._members[0].bench.device.synchronise()
    seconds = time.perf_counter() - started
    found = dataclasses.replace(
        _measured_saved(model, inputs),
        adapted_bytes=sum(artifact_size_bytes(one.fitted, one.method) for one in model._members),
        backbone_bytes=_bytes_in(folder, inside=TRANSFORMER) or None,
        saved_bytes=_bytes_in(folder),
        load_seconds=seconds,
    )
    reasons = [why_not_merged(one.fitted) for one in model._members]
    if all(reason is not None for reason in reasons):
        return BothForms(found, None, reasons[0])
    return BothForms(found, _measured_saved(model.merged(), inputs), None)


def _measured_saved(model: SavedModel, inputs: Sequence[Any]) -> Inference:
    from harness.features import DirectFeatures
    from harness.training import predicting_at_once

    bench = model._members[0].bench

    def answer(positions: Sequence[int]) -> None:
        for one in model._members:
            one.bench.halvings.rows.clear()
            one.bench.encoded_in.clear()
        with predicting_at_once(len(positions)):
            model._some([inputs[at] for at in positions], DirectFeatures(bench.device))
        if any(one.bench.halvings.rows for one in model._members):
            raise OutOfMemoryError(f"{len(positions)} texts do not fit in memory at once.")

    answer([0])  # which states the weights that it reads
    each = [
        _weights_bytes(one.fitted, one.bench.ledger.weights_bytes, has_backbone=one.bench.backbone is not None)
        for one in model._members
    ]
    weights = None if None in each else sum(filter(None, each))
    found = measure_inference(answer, len(inputs), bench.device, weights_bytes=weights)
    return dataclasses.replace(found, tokens_per_text=_mean_tokens_of(model, inputs))


def _mean_tokens_of(model: SavedModel, inputs: Sequence[Any]) -> float | None:
    from harness.measure import MOST_TEXTS

    some = list(inputs[:MOST_TEXTS])
    for one in model._members:
        if one.bench.backbone is not None:
            return _mean_tokens(one.rows_of(some), one.bench)
    return None


def _bytes_in(folder: Path, inside: str | None = None) -> int:
    """Return the bytes of the files of a folder, or only of those inside folders of one name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files if inside is None or inside in path.relative_to(folder).parts[:-1])
