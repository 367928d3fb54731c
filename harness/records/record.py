"""What is known about one cell, as frozen types that load without the code that produced them.

The shape is the record of the protocol (docs/protocol.md). Everything here is plain data: the standard library and
numpy only, no torch, no methods, no tasks.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from harness.records.budgets import Budget, parse_budget, shared_budget
from harness.records.canonical import canonical, canonical_of, fields_of, shared_config
from harness.records.facts import Facts
from harness.records.predictions import Predictions
from harness.support import UsageError, shortened

__all__ = [
    "FINAL_STATUSES",
    "MAX_ERROR",
    "MAX_SEED",
    "SCHEMA",
    "STATUSES",
    "Budget",
    "Cell",
    "Cost",
    "CurvePoint",
    "Draw",
    "Facts",
    "Predictions",
    "Provenance",
    "Record",
    "Score",
    "Status",
    "parse_budget",
    "statuses_that_end",
]


SCHEMA = 2
"""Version of the JSON; `harness.records.upgrade` brings older JSON to it."""

Status = Literal["ok", "unsupported", "out_of_memory", "out_of_time", "failed"]
STATUSES: tuple[str, ...] = get_args(Status)
MAX_SEED = 2**32 - 1
"""The largest seed that numpy's and torch's generators both take."""

MAX_ERROR = 10_000
"""Most characters of a record's error; a longer one keeps its beginning and its end."""

FINAL_STATUSES = frozenset({"ok", "unsupported", "out_of_memory", "out_of_time"})
"""What the next run leaves alone; `failed` is tried again on request."""


def statuses_that_end(*, retry_failed: bool) -> frozenset[str]:
    """What the next run leaves alone, which may be asked to run again what has failed."""
    return FINAL_STATUSES if retry_failed else FINAL_STATUSES | {"failed"}


Draw = Literal["stratified", "balanced"]
"""How the training rows are drawn: in the proportions of the pool, or the same number of each class (`8/class`)."""


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
        return {**fields_of(self), "budget": self.budget.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Cell:
        """The inverse of `to_json`."""
        budget, config = value["budget"], value["config"]
        shared = shared_config(config) if type(config) is dict else config
        return cls(**{**value, "budget": shared_budget(tuple(budget.items())), "config": shared})

    @functools.cached_property
    def id(self) -> str:
        """Identity: the first 32 hex digits of the SHA-256 of the cell's canonical JSON."""
        text = (
            f'{{"backbone":{canonical(self.backbone)},"budget":{canonical_of(self.budget, Budget.to_json)},'
            f'"config":{canonical_of(self.config, dict)},"data":{canonical(self.data)},"draw":{canonical(self.draw)},'
            f'"method":{canonical(self.method)},"n_train":{canonical(self.n_train)},"seed":{canonical(self.seed)},'
            f'"task":{canonical(self.task)},"version":{canonical(self.version)},"weights":{canonical(self.weights)}}}'
        )
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
        n_test: test rows scored; 0 where an imported result does not say.
        n_test_available: test rows there were before the cap.
        others: further metrics by name.
        highest: upper end of the metric's range; None where there is none.
    """

    metric: str
    value: float
    low: float | None
    high: float | None
    higher_is_better: bool
    n_test: int
    n_test_available: int | None = None
    others: dict[str, float] = field(default_factory=dict)
    highest: float | None = 1.0


@dataclass(frozen=True)
class Cost:
    """What the cell cost. Seconds are wall-clock seconds of one phase each and never overlap; None is "not known".

    `reused` names what came from a cache; it is charged at what it cost when it was computed, so a warm cell never
    looks cheaper than a cold one.

    Attributes:
        load_seconds: reading the backbone.
        warmup_seconds: what is done once: importing what the method uses, choosing kernels, growing the allocator,
            compiling. 0 where an earlier cell of the process has done it.
        encode_seconds: tokenising and encoding the training rows.
        tune_seconds: choosing settings (regularisation, say) on labels out of n_train.
        fit_seconds: training.
        predict_seconds: tokenising, encoding and predicting the test rows.
        measure_seconds: what measuring itself took: counting operations, scoring, calibrating.
        device_fit_seconds: `fit_seconds` by the accelerator's own clock, to check the host's; None on a CPU.
        train_flops: floating-point operations of encoding training rows, tuning and fitting.
        train_tokens: real (not padding) tokens that went through the backbone for them.
        peak_device_bytes: peak memory of the accelerator above the baseline; None on a CPU.
        peak_reserved_bytes: the same of what torch's allocator held there, in use or not.
        peak_driver_bytes: memory of the accelerator in use as its driver saw it, whoever by; None without nvidia-ml-py.
        peak_rss_bytes: peak resident memory of the process.
        peak_rss_above_baseline_bytes: the same, less what was resident before the cell.
        fit_peak_bytes, predict_peak_bytes: `peak_bytes` of training and of predicting alone.
        n_parameters: all parameters of what predicts (backbone and head).
        n_trainable: those that the method trains.
        artifact_bytes: bytes of what is saved to reuse the result.
        energy_joules: of training, by the device's own counter (NVML, RAPL): of the whole device, and only where the
            cell had it to itself and computed everything itself; else None.
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
    warmup_seconds: float | None = None
    measure_seconds: float | None = None
    device_fit_seconds: float | None = None
    peak_reserved_bytes: int | None = None
    peak_driver_bytes: int | None = None
    fit_peak_bytes: int | None = None
    predict_peak_bytes: int | None = None

    @property
    def train_seconds(self) -> float | None:
        """What a `train_seconds` budget counts: encoding training rows, tuning and fitting."""
        parts = (self.encode_seconds, self.tune_seconds, self.fit_seconds)
        return None if all(part is None for part in parts) else sum(part or 0.0 for part in parts)

    @property
    def peak_bytes(self) -> int | None:
        """What a limit on memory is about: of the accelerator where there is one, else of the host, above baseline."""
        return self.peak_device_bytes if self.peak_device_bytes is not None else self.peak_rss_above_baseline_bytes

    @property
    def train_tokens_per_second(self) -> float | None:
        """Real tokens that went through the backbone in a second of training; None where none did."""
        seconds = self.train_seconds
        return self.train_tokens / seconds if self.train_tokens and seconds else None

    @property
    def total_seconds(self) -> float | None:
        """Loading, training and predicting together: what is paid for each cell. Warming up is paid once a process."""
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
    """Origin of a record: versions, commit, machine settings, and what is known of backbone and data.

    Attributes:
        wall_seconds: from the cell's beginning to its record, with caches as warm as they were: what plans go by, and
            no cost to compare methods by (that is `Cost`).
        cells_at_a_time: how many cells shared the device; above 1 no seconds of the record are its method's.
        matrix_flops_per_second: what the device multiplies matrices at, at best, in the cell's precision, as measured.
        price_per_hour: of the device, as whoever ran the cell stated it; in their currency.
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
    matrix_flops_per_second: float | None = None
    price_per_hour: float | None = None


@dataclass(frozen=True)
class Record:
    """Everything known about a cell that was run, whatever became of it.

    `suite` is a label and no part of the identity. `error` is one or more lines, the first of which is enough for a
    table; it is None for `ok`. An error longer than `MAX_ERROR` loses its middle.
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
    facts: Facts = field(default_factory=Facts)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.error is not None:
            object.__setattr__(self, "error", shortened(self.error, MAX_ERROR))

    @property
    def unsteady(self) -> str | None:
        """What disturbed the machine while the cell was measured, in words; None where nothing is known to have."""
        return self.facts.unsteady

    @property
    def utilisation(self) -> float | None:
        """Share of the device's measured matrix rate that training came to: operations counted, over seconds."""
        rate, seconds, flops = self.provenance.matrix_flops_per_second, self.cost.train_seconds, self.cost.train_flops
        return flops / seconds / rate if rate and seconds and flops and self.provenance.cells_at_a_time == 1 else None

    @property
    def price(self) -> float | None:
        """Of loading, training and predicting, at the stated price of an hour."""
        rate, seconds = self.provenance.price_per_hour, self.cost.total_seconds
        return None if rate is None or seconds is None or self.provenance.cells_at_a_time > 1 else rate * seconds / 3600

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
        value["score"] = None if self.score is None else fields_of(self.score)
        value["train_score"] = self.train_score
        value["cost"] = {**fields_of(self.cost), "reused": list(self.cost.reused)}
        value["curve"] = [fields_of(point) for point in self.curve]
        value["provenance"] = fields_of(self.provenance)
        value["facts"] = self.facts.to_json()
        value["error"] = self.error
        value["predictions"] = None if self.predictions is None else self.predictions.to_json()
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Record:
        """Return what `to_json` was made from, in this schema or an older one.

        Raises:
            UsageError: the schema is a newer one, or the cell has another identity than the record claims.
        """
        from harness.records.upgrade import upgraded  # which makes records itself

        value = upgraded(value)
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
            cost=Cost(**{**value["cost"], "reused": tuple(value["cost"].get("reused", ()))}),
            curve=tuple(CurvePoint(**point) for point in value["curve"]),
            provenance=Provenance(**value["provenance"]),
            facts=Facts.from_json(value["facts"]),
            error=value["error"],
            predictions=None if predictions is None else Predictions.from_json(predictions),
        )
        if value.get("id") not in (None, record.id):
            raise UsageError(f"Record {value['id']} has been edited: its cell's identity is {record.id}.")
        return record
