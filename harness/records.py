"""What is known about one cell, as frozen types that load without the code that produced them.

The shape is the record of the protocol (docs/protocol.md). Everything here is plain data: the standard library and
numpy only, no torch, no methods, no tasks.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import math
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from harness.errors import UsageError

SCHEMA = 1

Status = Literal["ok", "unsupported", "out_of_memory", "out_of_time", "failed"]
STATUSES: tuple[str, ...] = get_args(Status)
MAX_SEED = 2**32 - 1
"""The largest seed that numpy's and torch's generators both take."""

FINAL_STATUSES = frozenset({"ok", "unsupported", "out_of_memory", "out_of_time"})
"""What the next run leaves alone; `failed` is tried again on request."""

Draw = Literal["stratified", "balanced"]
"""How the training rows are drawn: in the proportions of the pool, or the same number of each class (`8/class`)."""


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass's fields by name, as they are: `dataclasses.asdict` would copy whatever is inside them."""
    return {name: getattr(value, name) for name in _names(type(value))}  # type: ignore[arg-type]


@functools.cache
def _names(of: Any) -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(of))


@dataclass(frozen=True)
class Budget:
    """What a fit may spend. Progress is the largest fraction spent of the first four; training stops at 1.

    Attributes:
        train_seconds: seconds of encoding training rows, tuning, fitting and validation.
        train_flops: floating-point operations of the same.
        epochs: passes over the training rows.
        steps: optimiser steps.
        peak_memory_bytes: a limit, not progress: exceeding it is `out_of_memory`.
    """

    train_seconds: float | None = None
    train_flops: float | None = None
    epochs: float | None = None
    steps: int | None = None
    peak_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in _fields(self).items():
            if value is None:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 < value <= sys.float_info.max:  # neither infinite nor more than a float holds
                raise UsageError(f"Budget '{name}' was {value!r}; expected a number above 0, or leave it out.")
            if name in ("steps", "peak_memory_bytes"):
                if value != int(value):
                    raise UsageError(f"Budget '{name}' was {value!r}; expected a whole number.")
                object.__setattr__(self, name, int(value))
            else:
                object.__setattr__(self, name, float(value))  # 3 and 3.0 are one budget, so one identity

    def to_json(self) -> dict[str, float | int]:
        """Only what is set, so that a new kind of budget does not change old identities."""
        return {name: value for name, value in _fields(self).items() if value is not None}

    def label(self) -> str:
        """A short text for tables: `train_seconds=60, epochs=3`; `default` where nothing is set."""
        return ", ".join(f"{name}={value:.15g}" for name, value in self.to_json().items()) or "default"


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


@functools.lru_cache(maxsize=4096, typed=True)
def _canonical(value: str | int | None) -> str:
    return _encode(value)


_texts: dict[int, tuple[Any, str]] = {}


def _canonical_of(value: Any, to_json: Callable[[Any], Any]) -> str:
    """Canonical JSON of a budget or configuration, once an object: a grid's thousands of cells share a few of them."""
    known = _texts.get(id(value))
    if known is None or known[0] is not value:
        if len(_texts) >= _MOST_TEXTS:
            _texts.clear()
        known = _texts[id(value)] = (value, _encode(to_json(value)))  # the object is kept, so its number stays its own
    return known[1]


_MOST_TEXTS = 1024


@functools.lru_cache(maxsize=1024, typed=True)
def _shared_budget(items: tuple[tuple[str, float], ...]) -> Budget:
    return Budget(**dict(items))  # type: ignore[arg-type]


@functools.lru_cache(maxsize=1024)
def _shared_config(text: str) -> Any:
    """One object for all cells with equal configurations: a hundred thousand records have a few."""
    return json.loads(text)


@dataclass(frozen=True)
class Cell:
    """One point of the grid; its `id` is the identity that the protocol defines.

    Attributes:
        task: name of the task.
        data: fingerprint of the task's rows, labels and metric.
        backbone: name of the backbone; None for methods that use none.
        weights: fingerprint of the backbone's files; None with `backbone`.
        method: name of the method.
        version: the method's version; raised when a bug is mended.
        config: the method's fully resolved configuration (JSON values only).
        n_train: labels the method may look at.
        draw: how they are drawn.
        budget: what the fit may spend.
        seed: of the draw, the initialisation and the order of batches.
    """

    task: str
    data: str
    backbone: str | None
    weights: str | None
    method: str
    version: int
    config: dict[str, Any]
    n_train: int
    budget: Budget
    seed: int
    draw: Draw = "stratified"

    def to_json(self) -> dict[str, Any]:
        """JSON values, in the order of the protocol's example."""
        return {**_fields(self), "budget": self.budget.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Cell:
        """The inverse of `to_json`."""
        budget, config = value["budget"], value["config"]
        shared = _shared_config(_encode(config)) if type(config) is dict else config
        return cls(**{**value, "budget": _shared_budget(tuple(budget.items())), "config": shared})

    @functools.cached_property
    def id(self) -> str:
        """Identity: the first 32 hex digits of the SHA-256 of the cell's canonical JSON."""
        parts = {
            "backbone": _canonical(self.backbone),
            "budget": _canonical_of(self.budget, Budget.to_json),
            "config": _canonical_of(self.config, dict),
            "data": _canonical(self.data),
            "draw": _canonical(self.draw),
            "method": _canonical(self.method),
            "n_train": _canonical(self.n_train),
            "seed": _canonical(self.seed),
            "task": _canonical(self.task),
            "version": _canonical(self.version),
            "weights": _canonical(self.weights),
        }
        text = "{" + ",".join([f'"{name}":{part}' for name, part in parts.items()]) + "}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def label(self) -> str:
        """A short text for progress lines: `sst2 · lora · 256 · seed 0`."""
        return f"{self.task} · {self.method} · {self.n_train} · seed {self.seed}"


@dataclass(frozen=True)
class Score:
    """The main metric on the test rows, with its interval over test rows (95 %), and any further metrics.

    Attributes:
        value: in the metric's own range (accuracy: 0 to 1).
        low, high: ends of the interval; None where the metric has none yet.
        n_test: test rows scored.
        n_test_available: test rows there were before the cap.
        others: further metrics by name.
    """

    metric: str
    value: float
    low: float | None
    high: float | None
    higher_is_better: bool
    n_test: int
    n_test_available: int | None = None
    others: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What the cell cost. Seconds are wall-clock seconds of one phase each and never overlap; None is "not known".

    `reused` names what came from a cache; it is charged at what it cost when it was computed, so a warm cell never
    looks cheaper than a cold one.

    Attributes:
        load_seconds: reading the backbone.
        encode_seconds: tokenising and encoding the training rows.
        tune_seconds: choosing settings (regularisation, say) on labels out of n_train.
        fit_seconds: training.
        predict_seconds: tokenising, encoding and predicting the test rows.
        train_flops: floating-point operations of encoding training rows, tuning and fitting.
        train_tokens: real (not padding) tokens that went through the backbone for them.
        peak_device_bytes: peak memory of the accelerator above the baseline; None on a CPU.
        peak_rss_bytes: peak resident memory of the process.
        peak_rss_above_baseline_bytes: the same, less what was resident before the cell.
        n_parameters: all parameters of what predicts (backbone and head).
        n_trainable: those that the method trains.
        artifact_bytes: bytes of what is saved to reuse the result.
        stopped_by: the cap that ended training (`epochs`, `steps`, `train_seconds`, ...), None where nothing iterates.
    """

    load_seconds: float | None = None
    encode_seconds: float | None = None
    tune_seconds: float | None = None
    fit_seconds: float | None = None
    predict_seconds: float | None = None
    train_flops: float | None = None
    train_tokens: int | None = None
    peak_device_bytes: int | None = None
    peak_rss_bytes: int | None = None
    peak_rss_above_baseline_bytes: int | None = None
    n_parameters: int | None = None
    n_trainable: int | None = None
    artifact_bytes: int | None = None
    energy_joules: float | None = None
    stopped_by: str | None = None
    reused: tuple[str, ...] = ()

    @property
    def train_seconds(self) -> float | None:
        """What a `train_seconds` budget counts: encoding training rows, tuning and fitting."""
        parts = (self.encode_seconds, self.tune_seconds, self.fit_seconds)
        return None if all(part is None for part in parts) else sum(part or 0.0 for part in parts)

    @property
    def total_seconds(self) -> float | None:
        """All phases together."""
        trained = self.train_seconds
        if trained is None:
            return None
        return trained + (self.load_seconds or 0.0) + (self.predict_seconds or 0.0)


@dataclass(frozen=True)
class CurvePoint:
    """Where a fit stood after `step` optimiser steps and `seconds` of counted training."""

    step: int
    seconds: float
    flops: float | None = None
    train_loss: float | None = None
    validation: float | None = None


@dataclass(frozen=True)
class Provenance:
    """What produced the record: versions, commit, machine settings, and notes on backbone, data and measuring.

    Attributes:
        wall_seconds: from the cell's beginning to its record, with caches as warm as they were: what plans go by, and
            no cost to compare methods by (that is `Cost`).
        cells_at_a_time: how many cells shared the device; above 1 no seconds of the record are its method's.
    """

    harness: str
    commit: str | None
    dirty: bool | None
    packages: dict[str, str]
    threads: int
    precision: str
    python: str
    platform: str
    started_at: str
    wall_seconds: float | None = None
    cells_at_a_time: int = 1
    backbone: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Predictions:
    """Per test row: what was predicted and what was right. All later statistics rest on these.

    Where answers are indices (of classes, of choices), both are here. Where they are texts, or likelihoods, the
    sufficient statistics of the task's metrics are, and the texts themselves.

    Attributes:
        rows: fingerprint of the test rows and their order; equal fingerprints may be compared row by row.
        predicted: index per row, shape (n_test,); None where answers are none.
        target: right index per row, shape (n_test,); None with `predicted`.
        confidence: probability of what is predicted, shape (n_test,), float16; None where there is none.
        statistics: arrays by name, first axis rows (`metrics.base.MetricSpec.row_statistics`).
        texts: answers that are texts, one a row; None otherwise.
    """

    rows: str
    predicted: npt.NDArray[np.int64] | None = None
    target: npt.NDArray[np.int64] | None = None
    confidence: npt.NDArray[np.float16] | None = None
    statistics: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    texts: tuple[str, ...] | None = None

    @property
    def classes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """What was predicted and what was right, where answers are indices."""
        if self.predicted is None or self.target is None:
            raise ValueError("These predictions are no indices of classes or choices.")
        return self.predicted, self.target

    def row_scores(self, metric: str) -> npt.NDArray[Any] | None:
        """The metric of each row alone, shape (n_test,), where it is the mean of them; None where it is not."""
        if metric == "accuracy" and self.predicted is not None and self.target is not None:
            return np.asarray(self.predicted == self.target)
        found = self.statistics.get(metric)
        return found if found is not None and found.ndim == 1 else None

    def to_json(self) -> dict[str, Any]:
        """Compact JSON: each array as base64 of its deflated bytes in the smallest integer type that holds it.

        `statistics` and `texts` are left out where there are none, as they were before they existed.
        """
        packed: dict[str, Any] = {
            "rows": self.rows,
            "predicted": None if self.predicted is None else _pack(_narrow(self.predicted)),
            "target": None if self.target is None else _pack(_narrow(self.target)),
            "confidence": None if self.confidence is None else _pack(self.confidence.astype("<f2")),
        }
        if self.statistics:
            packed["statistics"] = {name: _pack_any(values) for name, values in self.statistics.items()}
        if self.texts is not None:
            packed["texts"] = _pack_texts(self.texts)
        return packed

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Predictions:
        """The inverse of `to_json`."""
        confidence, texts = value.get("confidence"), value.get("texts")
        indices = {
            name: None if value.get(name) is None else _unpack(value[name]).astype(np.int64)
            for name in ("predicted", "target")
        }
        return cls(
            rows=value["rows"],
            confidence=None if confidence is None else _unpack(confidence).astype(np.float16),
            statistics={name: _unpack_any(packed) for name, packed in value.get("statistics", {}).items()},
            texts=None if texts is None else _unpack_texts(texts),
            **indices,
        )


@dataclass(frozen=True)
class Record:
    """Everything known about a cell that was run, whatever became of it.

    `suite` is a label and no part of the identity. `error` is one or more lines, the first of which is enough for a
    table; it is None for `ok`.
    """

    suite: str
    device: str
    kind: str
    family: str
    cell: Cell
    status: Status
    provenance: Provenance
    score: Score | None = None
    train_score: float | None = None
    cost: Cost = field(default_factory=Cost)
    curve: tuple[CurvePoint, ...] = ()
    error: str | None = None
    attempt: int = 1
    predictions: Predictions | None = None
    schema: int = SCHEMA

    @property
    def id(self) -> str:
        """The cell's identity; the store's key is (id, device, attempt)."""
        return self.cell.id

    def to_json(self) -> dict[str, Any]:
        """JSON values (dict, list, str, int, float, bool, None); never NaN."""
        value: dict[str, Any] = {"schema": self.schema, "id": self.id}
        for name in ("suite", "device", "kind", "family", "attempt"):
            value[name] = getattr(self, name)
        value["cell"] = self.cell.to_json()
        value["status"] = self.status
        value["score"] = None if self.score is None else _fields(self.score)
        value["train_score"] = self.train_score
        value["cost"] = {**_fields(self.cost), "reused": list(self.cost.reused)}
        value["curve"] = [_fields(point) for point in self.curve]
        value["provenance"] = _fields(self.provenance)
        value["error"] = self.error
        value["predictions"] = None if self.predictions is None else self.predictions.to_json()
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Record:
        """The inverse of `to_json`; refuses a record of a newer schema or of another identity than it claims."""
        if value.get("schema") != SCHEMA:
            raise UsageError(f"A record of schema {value.get('schema')!r} was given; this version reads {SCHEMA}.")
        predictions = value.get("predictions")
        record = cls(
            suite=value["suite"],
            device=value["device"],
            kind=value["kind"],
            family=value["family"],
            attempt=value["attempt"],
            cell=Cell.from_json(value["cell"]),
            status=value["status"],
            score=None if value["score"] is None else Score(**value["score"]),
            train_score=value["train_score"],
            cost=Cost(**{**value["cost"], "reused": tuple(value["cost"]["reused"])}),
            curve=tuple(CurvePoint(**point) for point in value["curve"]),
            provenance=Provenance(**value["provenance"]),
            error=value["error"],
            predictions=None if predictions is None else Predictions.from_json(predictions),
        )
        if value.get("id") not in (None, record.id):
            raise UsageError(f"Record {value['id']} has been edited: its cell's identity is {record.id}.")
        return record


_SUFFIX = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_budget(text: str) -> Budget:
    """Read `train_seconds=60,epochs=3`. Bytes take kB, MB, GB (powers of ten) or KiB, MiB, GiB (powers of two)."""
    known = [item.name for item in dataclasses.fields(Budget)]
    values: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, raw = (piece.strip() for piece in part.partition("="))
        if name not in known or not equals:
            raise UsageError(f"Budget '{part}' was given; expected NAME=NUMBER with NAME one of {', '.join(known)}.")
        if name in values:
            raise UsageError(f"Budget '{name}' was given twice in '{text}'.")
        matched = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Z]*)", raw)
        unit = matched.group(2).lower() if matched else ""
        allowed = _SUFFIX if name == "peak_memory_bytes" else {"": 1}
        try:
            if matched is None or unit not in allowed:
                raise ValueError
            number = float(matched.group(1)) * allowed[unit]
        except ValueError:
            units = ", a plain number or one in MB, GB, MiB, GiB" if name == "peak_memory_bytes" else ""
            raise UsageError(f"Budget '{name}' was '{raw}'; expected a number above 0{units}.") from None
        # 0.1 GiB is no whole number of bytes; what is infinite is refused below.
        values[name] = round(number) if unit and math.isfinite(number) else number
    return Budget(**values)


def _narrow(values: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for dtype in ("<u1", "<u2", "<i4"):
        info = np.iinfo(dtype)
        if info.min <= low and high <= info.max:
            return values.astype(dtype)
    return values.astype("<i8")


def _pack(values: npt.NDArray[Any]) -> dict[str, Any]:
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 6)).decode("ascii")
    return {"dtype": values.dtype.str, "n": int(values.size), "data": data}


def _unpack(value: dict[str, Any]) -> npt.NDArray[Any]:
    raw = zlib.decompress(base64.b64decode(value["data"]))
    values = np.frombuffer(raw, dtype=np.dtype(value["dtype"]))
    if values.size != value["n"]:
        raise UsageError(f"Packed predictions hold {values.size} values; expected {value['n']}.")
    return values


def _pack_any(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Numbers of any shape; whole ones in the smallest type that holds them."""
    whole = np.issubdtype(values.dtype, np.integer) or values.dtype == np.bool_
    flat = values.reshape(-1)
    packed = _pack(_narrow(flat.astype(np.int64)) if whole else flat.astype(flat.dtype.newbyteorder("<")))
    return {**packed, "shape": list(values.shape)}


def _unpack_any(value: dict[str, Any]) -> npt.NDArray[Any]:
    values = _unpack(value).reshape(value["shape"])
    return values.astype(np.int64) if np.issubdtype(values.dtype, np.integer) else values


def _pack_texts(texts: tuple[str, ...]) -> dict[str, Any]:
    raw = json.dumps(list(texts), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return {"n": len(texts), "data": base64.b64encode(zlib.compress(raw, 6)).decode("ascii")}


def _unpack_texts(value: dict[str, Any]) -> tuple[str, ...]:
    texts = json.loads(zlib.decompress(base64.b64decode(value["data"])).decode("utf-8", "surrogatepass"))
    if len(texts) != value["n"]:
        raise UsageError(f"Packed texts hold {len(texts)} answers; expected {value['n']}.")
    return tuple(texts)
