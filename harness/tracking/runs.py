"""Records as runs of a tracker: names, parameters, metrics and tags."""

from __future__ import annotations

import hashlib
import math
import re
from datetime import datetime
from typing import Any

from harness.records import (
    Record,
    configuration_in_full,
    configuration_label,
    fields_of,
    short_backbones,
)
from harness.support import UsageError, first_line, mask_text, plain
from harness.tracking.tracker import Step, TrackedRun

_LONGEST = 500
"""Maximum length of a parameter or a tag; the shortest limit of the trackers is about 500 characters."""

_UNFIT = re.compile(r"[^\w./ -]", re.ASCII)
"""Characters that MLflow refuses in names."""

_NOT_MEASURED = frozenset({"concurrency"})
"""Numbers among the facts about requests that are settings."""


def tracked_run(record: Record) -> TrackedRun:
    """Return a record as a run of a tracker. Predictions, texts and paths are no part of it."""
    cell, began_ms = record.cell, _milliseconds(record.provenance.started_at)
    return TrackedRun(
        key=_key(record),
        name=_name(record),
        group=plain(record.suite) or "harness",
        is_ok=record.status == "ok",
        began_ms=began_ms,
        ended_ms=began_ms + round(1000 * (record.provenance.wall_seconds or record.cost.total_seconds or 0.0)),
        parameters={
            "task": _short(cell.task),
            "backbone": _short(cell.backbone or "none"),
            "method": cell.method,
            "configuration": _short(_configuration(record, in_full=True)),
            "n_train": cell.n_train,
            "draw": cell.draw,
            "seed": cell.seed,
            "budget": _short(cell.budget.label()),
            "device": _short(record.device),
            **({} if record.score is None else {"metric": record.score.metric}),
            **{f"config.{_fit(name)}": _setting(value) for name, value in cell.config.items()},
        },
        metrics=_metrics(record),
        curve=tuple(_curve(record, began_ms)),
        tags={name: _short(value) for name, value in _tags(record).items()},
    )


def _key(record: Record) -> str:
    device = hashlib.sha256(record.device.encode(errors="replace")).hexdigest()[:8]
    return f"{record.id}-{record.attempt}-{device}"


def _name(record: Record) -> str:
    """Return the name of a run, which does not depend on the other runs: `sst2 · MiniLM · lora[rank=4] · 32 · seed 0`.

    Tables leave out what all of their rows share. A tracker's list has no such table, and grows.
    """
    cell = record.cell
    key = (cell.backbone, cell.weights) if cell.backbone is not None else None
    backbone = [] if key is None else [short_backbones([key])[key]]
    size = f"{cell.n_train} (balanced)" if cell.draw == "balanced" else str(cell.n_train)
    again = [f"attempt {record.attempt}"] if record.attempt > 1 else []
    parts = [cell.task, *backbone, _configuration(record), size, f"seed {cell.seed}", *again]
    return _short(" · ".join(parts))


def _configuration(record: Record, *, in_full: bool = False) -> str:
    """Return the method with the settings that are not its defaults, as progress lines name it: `lora[rank=4]`."""
    cell = record.cell
    if record.facts.at_defaults:  # methods import torch, which an export can do without
        return cell.method
    named = configuration_in_full if in_full else configuration_label
    from harness.methods import methods
    from harness.planning import label_of

    try:
        method = methods.get(cell.method)
    except UsageError:  # an imported record, or one of a plug-in that is not installed
        return named(cell.method, cell.config, record.facts.defaults)
    return named(cell.method, cell.config, method().config()) if in_full else label_of(method, cell.config)


def _metrics(record: Record) -> dict[str, float]:
    """Return all figures of a record by name; unknown ones are left out."""
    found: dict[str, Any] = {"train_score": record.train_score}
    score, cost, facts = record.score, record.cost, record.facts
    if score is not None:
        found |= {"score": score.value, "score_low": score.low, "score_high": score.high, "n_test": score.n_test}
        found |= {f"metric/{name}": value for name, value in {score.metric: score.value, **score.others}.items()}
    derived = ("train_seconds", "total_seconds", "peak_bytes", "train_tokens_per_second")
    costs = {**fields_of(cost), **{name: getattr(cost, name) for name in derived}}
    costs |= {"memory_bytes": record.memory_bytes, "price": record.price}
    costs["wall_seconds"] = record.provenance.wall_seconds
    parts = {
        "use": facts.inference,
        "use_merged": facts.merged_inference,
        "requests": facts.served,
        "forgetting": facts.forgetting,
    }
    found |= {f"cost/{name}": value for name, value in costs.items()}
    for part, known in parts.items():
        values = {} if known is None else fields_of(known)
        found |= {f"{part}/{name}": value for name, value in values.items() if name not in _NOT_MEASURED}
    return {_fit(name): float(value) for name, value in found.items() if _is_figure(value)}


def _curve(record: Record, began_ms: int) -> list[Step]:
    found = []
    for point in record.curve:
        values = {"curve/train_loss": point.train_loss, "curve/validation": point.validation}
        known = {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        if known:
            found.append(Step(point.step, began_ms + round(1000 * point.seconds), known))
    return found


def _tags(record: Record) -> dict[str, str]:
    said = {
        "status": record.status,
        "kind": record.kind,
        "family": record.family,
        "suite": record.suite,
        "error": None if record.error is None else mask_text(first_line(record.error)),
        "unsteady": record.unsteady,
        "stopped_by": record.cost.stopped_by,
        "reused": ", ".join(record.cost.reused) or None,
        "harness.version": record.provenance.harness,
        "harness.record": _key(record),
        "harness.cell": record.id,
        "harness.attempt": str(record.attempt),
    }
    return {name: text for name, text in said.items() if text}


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _setting(value: Any) -> str | int | float:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return value if isinstance(value, int | float) else _short(str(value))


def _short(text: str) -> str:
    text = plain(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _fit(name: str) -> str:
    return _UNFIT.sub("_", name)


def _milliseconds(time: str) -> int:
    """Return a time of a record in milliseconds since 1970; 0 where it states none."""
    try:
        return round(1000 * datetime.fromisoformat(time).timestamp())
    except ValueError:
        return 0
