"""Makes records as a run would, without running anything: shared by the tests of store, frame, stats and report."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.records.record import Budget, Cell, Cost, CurvePoint, Predictions, Provenance, Record, Score
from harness.records.upgrade import facts_of

DEVICE = "AMD EPYC, 2 threads"
BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"

# name: family, needs a backbone, score at 32 labels, gain per doubling, seconds at 32, trainable, peak bytes
METHODS: dict[str, tuple[str, bool, float, float, float, int, float]] = {
    "majority": ("baseline", False, 0.17, 0.0, 0.0004, 0, 2e6),
    "tfidf": ("baseline", False, 0.40, 0.045, 0.02, 14_000, 3e7),
    "linear-probe": ("frozen features", True, 0.62, 0.028, 0.6, 4_620, 1.2e8),
    "head": ("frozen features", True, 0.55, 0.035, 1.1, 4_620, 1.3e8),
    "lora": ("parameter-efficient", True, 0.50, 0.052, 6.0, 78_348, 6.1e8),
    "full": ("full fine-tuning", True, 0.45, 0.065, 9.0, 22_717_836, 9.4e8),
}


def make_record(
    method: str = "lora",
    n_train: int = 32,
    seed: int = 0,
    *,
    task: str = "docstrings",
    backbone: str | None = BACKBONE,
    device: str = DEVICE,
    config: dict[str, Any] | None = None,
    budget: Budget | None = None,
    accuracy: float = 0.7,
    seconds: float = 1.0,
    n_test: int = 200,
    status: str = "ok",
    error: str | None = None,
    **changes: Any,
) -> Record:
    """One record; `changes` replace further fields of the record, or of its cell, by name."""
    cell_fields = {field.name for field in dataclasses.fields(Cell)}
    cell_changes = {name: changes.pop(name) for name in list(changes) if name in cell_fields}
    family, _, _, _, _, n_trainable, peak = METHODS.get(method, ("other", True, 0, 0, 0, 1000, 1e8))
    cell = Cell(
        **{
            "task": task,
            "data": "d" * 32,
            "backbone": backbone,
            "weights": None if backbone is None else "53aa5117",
            "method": method,
            "version": 1,
            "config": {"batch_size": 16, "rank": 8} if config is None else config,
            "n_train": n_train,
            "budget": budget or Budget(),
            "seed": seed,
            **cell_changes,
        }
    )
    provenance = Provenance(
        harness="0.1.0",
        commit="0123456789abcdef",
        dirty=False,
        packages={"torch": "2.13.0", "transformers": "5.17.0"},
        threads=2,
        precision="bf16",
        python="3.11.7",
        platform="Linux-x86_64",
        started_at="2025-01-01T00:00:00+00:00",
        dataset={"name": task, "revision": None},
    )
    record = Record(
        suite="quickstart",
        device=device,
        kind="classification",
        family=family,
        cell=cell,
        status=status,
        provenance=provenance,
        error=error if status == "ok" or error else "ValueError: it broke",
    )
    if status == "ok":
        predictions = make_predictions(accuracy, n_test, key=(method, n_train, seed), task=task)
        right = float((predictions.predicted == predictions.target).mean())
        record = dataclasses.replace(
            record,
            score=Score("accuracy", right, max(0.0, right - 0.05), min(1.0, right + 0.05), True, n_test, 1800),
            train_score=min(1.0, right + 0.1),
            cost=Cost(
                load_seconds=0.4,
                encode_seconds=seconds * 0.25,
                tune_seconds=seconds * 0.25,
                fit_seconds=seconds * 0.5,
                predict_seconds=0.9,
                train_flops=1.5e12,
                train_tokens=n_train * 40,
                peak_rss_bytes=int(4e8 + peak),
                peak_rss_above_baseline_bytes=int(peak),
                n_parameters=22_717_836,
                n_trainable=n_trainable,
                artifact_bytes=n_trainable * 4,
                stopped_by="epochs",
                reused=("features",),
            ),
            curve=(CurvePoint(8, 1.2, None, 0.6, 0.71),),
            predictions=predictions,
        )
    if "facts" not in changes:  # those that version 0.1 implies
        value = {**record.to_json(), "cell": cell.to_json()}
        notes = {"peak_rss": "high-water mark reset through /proc/self/clear_refs"}
        record = dataclasses.replace(record, facts=facts_of(value, notes, provenance.dataset))
    return dataclasses.replace(record, **changes)


def with_facts(record: Record, **facts: Any) -> Record:
    """A copy with other facts."""
    return dataclasses.replace(record, facts=dataclasses.replace(record.facts, **facts))


def make_predictions(accuracy: float, n_test: int, *, key: Sequence[object], task: str = "docstrings") -> Predictions:
    """Predictions whose rows share one difficulty per task, so that methods and seeds correlate as real ones do."""
    difficulty = np.random.default_rng(sum(map(ord, task))).normal(size=n_test)
    noise = np.random.default_rng([ord(letter) for letter in str(key)]).normal(size=n_test)
    ease = 0.8 * difficulty + 0.6 * noise
    right = ease <= np.quantile(ease, accuracy)
    target = np.random.default_rng(7).integers(0, 12, size=n_test)
    return Predictions(
        rows=f"{task}-{n_test}",
        predicted=np.where(right, target, (target + 1) % 12),
        target=target,
        confidence=np.full(n_test, 0.5, dtype=np.float16),
    )


def make_grid(
    methods: Sequence[str] = tuple(METHODS),
    sizes: Sequence[int] = (32, 128, 512, 2048),
    seeds: Sequence[int] = (0, 1, 2),
    **fields: Any,
) -> list[Record]:
    """Methods x sizes x seeds with plausible learning curves and costs; `fields` go to every record."""
    records = []
    for method in methods:
        _, needs_backbone, at_32, gain, seconds, _, _ = METHODS[method]
        for size in sizes:
            for seed in seeds:
                doublings = np.log2(max(size, 1) / 32)
                accuracy = min(0.97, at_32 + gain * doublings + 0.02 * (seed - 1))
                made = {
                    "accuracy": float(max(0.02, accuracy)),
                    "seconds": float(seconds * (size / 32) ** 0.9 * (1 + 0.1 * seed)),
                    **({} if needs_backbone else {"backbone": None, "config": {"c": 1.0}}),
                    **fields,
                }
                records.append(make_record(method, size, seed, **made))
    return records


def make_backbones(n: int = 3, sizes: Sequence[int] = (32, 128), **fields: Any) -> list[Record]:
    """Baselines once, and five configurations on each of `n` backbones; larger backbones score more and cost more."""
    names = ("sentence-transformers/paraphrase-MiniLM-L3-v2", BACKBONE, "sentence-transformers/all-mpnet-base-v2")
    configurations = [(name, None) for name in ("linear-probe", "full", "gradual-unfreezing")]
    records = make_grid(("majority", "tfidf"), sizes, **fields)
    for i, backbone in enumerate(names[:n]):
        for j, (method, rank) in enumerate([*configurations, ("lora", 4), ("lora", 8)]):
            config = {} if rank is None else {"config": {"batch_size": 16, "rank": rank}}
            for size in sizes:
                for seed in (0, 1, 2):
                    accuracy = 0.5 + 0.07 * i + 0.03 * j * np.log2(size / 16) / 3 + 0.01 * seed
                    made = {"backbone": backbone, "weights": f"{i}" * 8, "seconds": (1 + j) * 4.0**i * size / 32}
                    records.append(make_record(method, size, seed, accuracy=accuracy, **{**made, **config, **fields}))
    return records


def essence(record: Record) -> dict[str, Any]:
    """A record, but for what the clock, memory and caches have to do with; a checkout may be edited meanwhile."""
    left_out = {"reused", "energy_joules", "matrix_flops_per_second", "started_at", "commit", "dirty"}
    pattern = re.compile(r"peak_.*bytes|.*_peak_bytes|(.*_)?seconds")

    def kept(part: dict[str, Any]) -> dict[str, Any]:
        return {name: item for name, item in part.items() if name not in left_out and not pattern.fullmatch(name)}

    value = record.to_json()
    parts = {name: kept(value[name]) for name in ("cost", "provenance")}
    return {**value, **parts, "curve": [kept(point) for point in value["curve"]]}


def noted(record: Record, **notes: str) -> Record:
    """The record as it is read where version 0.1 wrote it with these notes."""
    return dataclasses.replace(record, facts=facts_of(record.to_json(), dict(notes), record.provenance.dataset))
