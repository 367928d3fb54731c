"""Everything known about one cell, as frozen types that load without the code that produced them.

The shape is the record of the protocol (docs/explanation/protocol.md). Everything here is plain data: the standard
library and numpy only, no torch, no methods, no tasks.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from harness.records.budgets import Budget, parse_budget, shared_budget
from harness.records.canonical import canonical, canonical_of, fields_of, made, shared
from harness.records.facts import Facts
from harness.records.parsing import CurveText, parse_json, parse_record
from harness.records.predictions import Predictions
from harness.support import StoreError, UsageError, shortened

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
"""Largest seed that the generators of both numpy and torch accept."""

_FLOAT32_BYTES = 4

MAX_ERROR = 10_000
"""Maximum length of a record's error; a longer one keeps its beginning and its end."""

FINAL_STATUSES = frozenset({"ok", "unsupported", "out_of_memory", "out_of_time"})
"""Statuses that the next run does not repeat; `failed` is repeated on request."""


def statuses_that_end(*, retry_failed: bool) -> frozenset[str]:
    """Return the statuses that the next run does not repeat; with a retry, `failed` is not one of them."""
    return FINAL_STATUSES if retry_failed else FINAL_STATUSES | {"failed"}


Draw = Literal["stratified", "balanced"]
"""Kind of draw of the training rows: in the pool's proportions, or the same number per class (`8/class`)."""


@dataclass(frozen=True)
class Cell:
    """One point of the grid; its `id` is the identity that the protocol defines.

    Attributes:
        task: name of the task.
        data: fingerprint of the task's rows, labels and metric.
        backbone: name of the backbone; None for methods that use none.
        weights: fingerprint of the backbone's files; None with `backbone`.
        method: name of the method.
        version: the method's version; raised when a fault is mended.
        config: the method's fully resolved configuration (JSON values only).
        n_train: number of labels that the method may look at.
        draw: kind of draw of the training rows.
        budget: limits of the fit.
        seed: seed of the draw, the initialisation and the order of batches.
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
        """Return JSON values, in the order of the protocol's example."""
        return {**fields_of(self), "budget": self.budget.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Cell:
        """Return what `to_json` was made from."""
        cell = made(cls, value)
        cell.__dict__["budget"] = shared_budget(tuple(value["budget"].items()))
        if type(cell.config) is dict:
            cell.__dict__["config"] = shared(cell.config)
        return cell

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
        """Return a short text for progress lines: `sst2 · lora · 256 · seed 0`."""
        return f"{self.task} · {self.method} · {self.n_train} · seed {self.seed}"


@dataclass(frozen=True)
class Score:
    """The main metric on the test rows, with its interval over test rows (95 %), and any further metrics.

    Attributes:
        metric: name of the metric.
        value: score in the metric's own range (accuracy: 0 to 1).
        low, high: ends of the interval; None if the metric has none yet.
        higher_is_better: direction of the metric.
        n_test: number of scored test rows; 0 if an imported result does not state it.
        n_test_available: number of test rows before the cap.
        others: further metrics by name.
        highest: upper end of the metric's range; None without one.
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
    """Cost of a cell. Seconds are wall-clock seconds of one phase each and never overlap; None is "not known".

    Work from a cache is charged at its cost when it was computed, so a warm cell never looks cheaper than a cold one.

    Attributes:
        load_seconds: reading the backbone.
        warmup_seconds: one-time work: importing the method's libraries, choosing kernels, growing the allocator,
            compiling. 0 if an earlier cell of the process has done it.
        encode_seconds: tokenising and encoding the training rows.
        tune_seconds: choosing settings (regularisation, say) on labels out of n_train.
        fit_seconds: training.
        predict_seconds: tokenising, encoding and predicting the test rows.
        measure_seconds: the measuring itself: counting operations, scoring, calibrating.
        device_fit_seconds: `fit_seconds` by the accelerator's own clock, to check the host's; None on a CPU.
        train_flops: floating-point operations of encoding training rows, tuning and fitting.
        train_tokens: real (not padding) tokens that went through the backbone meanwhile.
        peak_device_bytes: peak memory of the accelerator above the baseline; None on a CPU.
        peak_reserved_bytes: peak memory that torch's allocator held there, in use or not.
        peak_driver_bytes: peak memory of the accelerator used by all processes, from its driver; None without
            nvidia-ml-py.
        peak_rss_bytes: peak resident memory of the process.
        peak_rss_above_baseline_bytes: the same, less the resident memory before the cell.
        fit_peak_bytes, predict_peak_bytes: `peak_bytes` of training and of predicting alone.
        weights_bytes: all weights of the cell's model as stored, wherever they lie; 0 without a backbone.
        shared_weights_bytes: the part of `weights_bytes` that no peak contains: it lay in memory before the cell, for
            all cells of the backbone. None in records of version 0.2 and before.
        n_parameters: number of parameters of the fitted model (backbone and head).
        n_trainable: number of parameters that the method trains.
        artifact_bytes: size of the saved result.
        energy_joules: energy of training by the device's own counter (NVML, RAPL), for the whole device. None if the
            cell shared the device or reused cached work.
        stopped_by: the cap that ended training (`epochs`, `steps`, `train_seconds`, ...); None without iterations.
        reused: work that came from a cache.
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
    weights_bytes: int | None = None
    shared_weights_bytes: int | None = None

    @property
    def train_seconds(self) -> float | None:
        """Seconds that a `train_seconds` budget counts: encoding training rows, tuning and fitting."""
        encode, tune, fit = self.encode_seconds, self.tune_seconds, self.fit_seconds
        if encode is None and tune is None and fit is None:
            return None
        return (encode or 0.0) + (tune or 0.0) + (fit or 0.0)

    @property
    def peak_bytes(self) -> int | None:
        """Peak above the baseline: the accelerator's if there is one, else the host's. It lacks shared weights."""
        return self.peak_device_bytes if self.peak_device_bytes is not None else self.peak_rss_above_baseline_bytes

    @property
    def memory_bytes(self) -> int | None:
        """Memory that the cell needs, which a limit applies to: the peak and the shared weights.

        Unknown shared weights count as none here; `Record.memory_bytes` adds those of older records.
        """
        peak = self.peak_bytes
        return None if peak is None else peak + (self.shared_weights_bytes or 0)

    @property
    def train_tokens_per_second(self) -> float | None:
        """Real tokens that went through the backbone per second of training; None without any."""
        seconds = self.train_seconds
        return self.train_tokens / seconds if self.train_tokens and seconds else None

    @property
    def total_seconds(self) -> float | None:
        """Seconds of loading, training and predicting, spent for each cell. Warming up happens once per process."""
        trained = self.train_seconds
        if trained is None:
            return None
        return trained + (self.load_seconds or 0.0) + (self.predict_seconds or 0.0)


@dataclass(frozen=True)
class CurvePoint:
    """State of a fit after some optimiser steps.

    Attributes:
        step: number of optimiser steps.
        seconds: counted seconds of training.
        flops: floating-point operations of training.
        train_loss: mean loss since the point before.
        validation: score on the validation rows; None if they were not scored here.
    """

    step: int
    seconds: float
    flops: float | None = None
    train_loss: float | None = None
    validation: float | None = None


@dataclass(frozen=True)
class Provenance:
    """Origin of a record: versions, commit, machine settings, and what is known of backbone and data.

    Attributes:
        harness: version of the harness.
        commit: commit of the harness's repository; None outside one.
        dirty: whether files differed from the commit.
        packages: versions of the libraries.
        threads: number of threads.
        precision: precision of the backbone's arithmetic.
        python: version of Python.
        platform: operating system and processor architecture.
        started_at: time at which the cell began, UTC.
        wall_seconds: time from the cell's start to its record, with caches as warm as they were, without that of
            measuring inference. Plans use it; methods are compared by `Cost`.
        cells_at_a_time: number of cells that shared the device; above 1, the record's seconds are not its method's.
        backbone: facts about the backbone.
        dataset: facts about the data: revision, rows, classes, remarks.
        matrix_flops_per_second: measured peak rate of matrix multiplication in the cell's precision.
        price_per_hour: price of the device as the user stated it, in their currency.
        numerics: how torch computed: whether only deterministic kernels ran, instructions of the processor; on a GPU
            also TF32, versions of CUDA, cuDNN and the driver. Empty where it is not known.
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
    numerics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """Everything known about one attempt to run a cell, whatever its outcome.

    Attributes:
        suite: label of the run; not part of the identity.
        device: name of the device, with its threads.
        kind: kind of the task.
        family: family of the method.
        cell: the cell.
        status: outcome of the attempt.
        provenance: origin of the record.
        score: main metric on the test rows; None unless the status is `ok`.
        train_score: the same metric on the first training rows; None if it was not computed.
        cost: cost of the cell.
        curve: loss and validation score during the fit.
        error: why the status is not `ok`, in one or more lines of which tables show the first. An error longer than
            `MAX_ERROR` characters loses its middle.
        attempt: number of the attempt, from 1.
        predictions: prediction of each test row; None if they were not stored, or not read.
        facts: facts about the cell that later layers read.
        schema: version of the record's JSON.
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
        """Description of what disturbed the machine while the cell was measured; None if unknown."""
        return self.facts.unsteady

    @property
    def memory_bytes(self) -> int | None:
        """Memory that the cell needed: its peak, and the weights that lay in memory before it began.

        Records of version 0.2 and before do not state these weights. Methods with the roles `frozen features` and
        `prompting` read a backbone then that all cells shared, in float32: 4 bytes for each parameter that they did
        not train are added. Cells that loaded a language model of their own have it in their peak already, which is
        then at least as large. Other roles copied the backbone within the peak; nothing is added to theirs.
        """
        cost, role = self.cost, self.facts.role
        peak = cost.peak_bytes
        if cost.shared_weights_bytes is not None or peak is None or cost.n_parameters is None:
            return cost.memory_bytes
        frozen = _FLOAT32_BYTES * max(0, cost.n_parameters - (cost.n_trainable or 0))
        if self.cell.backbone is None or not (role == "frozen features" or (role == "prompting" and peak < frozen)):
            return peak
        return peak + frozen

    @property
    def utilisation(self) -> float | None:
        """Share of the device's measured matrix rate that training reached: counted operations, over seconds."""
        rate, seconds, flops = self.provenance.matrix_flops_per_second, self.cost.train_seconds, self.cost.train_flops
        return flops / seconds / rate if rate and seconds and flops and self.provenance.cells_at_a_time == 1 else None

    @property
    def price(self) -> float | None:
        """Price of loading, training and predicting, at the stated price of an hour."""
        rate, seconds = self.provenance.price_per_hour, self.cost.total_seconds
        return None if rate is None or seconds is None or self.provenance.cells_at_a_time > 1 else rate * seconds / 3600

    @property
    def id(self) -> str:
        """The cell's identity; the store's key is (id, device, attempt)."""
        known: str | None = self.__dict__.get(_ID)
        return self.cell.id if known is None else known

    def to_json(self) -> dict[str, Any]:
        """Return JSON values (dict, list, str, int, float, bool, None); never NaN."""
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
        """Return the record from JSON in this schema or an older one.

        Raises:
            UsageError: the schema is newer, or the cell's identity differs from the record's.
        """
        from harness.records.upgrade import upgraded  # which makes records itself

        value = upgraded(value)
        if value.get("schema") != SCHEMA:
            raise UsageError(f"A record of schema {value.get('schema')!r} was given; this version reads {SCHEMA}.")
        score, curve, predictions = value["score"], value["curve"], value.get("predictions")
        cost = made(Cost, value["cost"])
        cost.__dict__["reused"] = tuple(cost.reused)
        record = object.__new__(cls)  # several times as fast as a call
        found = record.__dict__
        found.update({name: value[name] for name in _PLAIN})
        found["cell"] = Cell.from_json(value["cell"])
        found["provenance"] = made(Provenance, value["provenance"])
        found["score"] = None if score is None else made(Score, score)
        found["cost"] = cost
        found["facts"] = Facts.from_json(value["facts"])
        if isinstance(curve, CurveText):
            found[_CURVE] = curve
        else:
            found["curve"] = tuple(made(CurvePoint, point) for point in curve)
        if predictions is not None:
            found["predictions"] = Predictions.from_json(predictions)
        record.__post_init__()
        if value.get("id") not in (None, record.id):
            raise UsageError(f"Record {value['id']} has been edited: its cell's identity is {record.id}.")
        return record

    @classmethod
    def unread(cls, text: str, id: str, known: Mapping[str, Any], row: KeptRow) -> Record:
        """Return a record that parses its JSON when somebody asks for more than is known.

        Args:
            text: JSON of the record, which was read and found valid before.
            id: its identity.
            known: other fields by name, among them `attempt`.
            row: the record's row in a table of columns.
        """
        record = object.__new__(cls)
        found = record.__dict__
        found.update(known)
        found.update({_UNREAD: text, _ID: id, _ROW: row})
        return record

    @property
    def row(self) -> KeptRow | None:
        """The record's row in a table of columns that were read from the same JSON; None where there is none."""
        found: KeptRow | None = self.__dict__.get(_ROW)
        return found

    def keep_row(self, row: KeptRow) -> None:
        """Note the record's row in a table of columns that were made of this record."""
        self.__dict__[_ROW] = row

    def replaced(self, **changes: Any) -> Record:
        """Return a copy with other values of some fields; unlike `dataclasses.replace`, it reads nothing."""
        record = object.__new__(type(self))
        found = record.__dict__
        found.update(self.__dict__)
        found.update(changes)
        if changes.keys() - {"predictions"}:
            found.pop(_ROW, None)
            if "cell" in changes:
                found.pop(_ID, None)
        return record

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != _ROW}

    if not TYPE_CHECKING:  # or every misspelt attribute would have a type

        def __getattr__(self, name: str) -> Any:
            """Return a field that is not read yet."""
            found = self.__dict__
            if name == "curve" and _CURVE in found:
                found[name] = _read_curve(found[_CURVE], self)
            elif name in _FROM_ROW and _UNREAD in found and _ROW in found:
                table, row = found[_ROW]
                found[name] = getattr(table, name)(row)
            elif name in _FIELDS and (text := found.get(_UNREAD)) is not None:
                read = Record.from_json({**parse_record(text), "predictions": None})
                for field_name, value in read.__dict__.items():
                    found.setdefault(field_name, value)
                found.pop(_UNREAD, None)
                return getattr(self, name)
            if name in found:  # another thread has read it meanwhile
                return found[name]
            raise AttributeError(f"A record has no attribute '{name}'.")


KeptRow: TypeAlias = tuple[Any, int]
"""A table of columns, and the number of a record's row in it."""

_PLAIN = ("suite", "device", "kind", "family", "attempt", "status", "train_score", "error")
_UNREAD, _CURVE, _ROW, _ID = "_text", "_curve_text", "_row", "_id"
_FROM_ROW = frozenset({"cell", "score"})
"""Fields that a table of columns can make, without parsing the record's JSON."""

_FIELDS = frozenset(item.name for item in fields(Record))

for _name in ("score", "train_score", "curve", "error"):  # their defaults would hide that they are not read yet
    delattr(Record, _name)


def _read_curve(text: str, record: Record) -> tuple[CurvePoint, ...]:
    try:
        return tuple(made(CurvePoint, point) for point in parse_json(text))
    except (TypeError, ValueError) as error:
        raise StoreError(f"The curve of record {record.id} cannot be read: {error}.") from error
